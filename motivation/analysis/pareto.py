"""Accuracy against training and inference FLOPs: every network of every run, and the Pareto front."""

from typing import NamedTuple

import numpy as np

from motivation.analysis.figures import PALETTE
from motivation.analysis.runs import group_runs
from motivation.run_folder.read import Run

MARKERS = {"alone": "D", "base": "o", "motivated": "s"}
COSTS = {"training": "training FLOPs of the whole run", "inference": "inference FLOPs an image"}


class Point(NamedTuple):
    """One network of one run.

    Attributes:
        label: its group of repetitions.
        network: its name.
        role: ``base`` or ``motivated`` of a pair, or ``alone``.
        training: training FLOPs of the run, which a pair's two networks share.
        inference: forward FLOPs of one image; NaN where the run did not record them.
        accuracy: final test accuracy in percent.
    """

    label: str
    network: str
    role: str
    training: float
    inference: float
    accuracy: float

    @property
    def name(self) -> str:
        """Of the network and its group."""
        return self.label if self.role == "alone" else f"{self.network} of {self.label}"


def network_points(runs: list[Run]) -> list[Point]:
    """Every network of every run."""
    return [Point(label, network, phase if len(run.networks) == 2 else "alone", float(run.summary["budget/flops"]),
                  float(run.summary.get(f"{phase}/forward_flops") or np.nan), run.summary[f"{phase}/top1"])
            for label, group in group_runs(runs).items() for run in group for phase, network in run.networks.items()]


def mean_points(points: list[Point]) -> list[Point]:
    """The mean over seeds of every network of every group, in order of appearance."""
    seeds: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        seeds.setdefault(point[:3], []).append(point)
    return [Point(*key, *(float(np.mean([getattr(point, name) for point in group])) for name in Point._fields[3:]))
            for key, group in seeds.items()]


def front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Indices of the points that no other dominates, by rising cost.

    A point is dominated where another costs no more and is worth no less; of equal points the first is kept.

    Args:
        costs: ``(N,)``, less is better; a NaN is on no front.
        values: ``(N,)``, more is better.

    Returns:
        int ``(M,)``.
    """
    order = np.lexsort((-values, costs))
    order = order[~np.isnan(costs[order])]
    best = np.maximum.accumulate(values[order])
    return order[np.append(True, best[1:] > best[:-1])[:len(order)]]


def draw_pareto(runs: list[Run]):
    """Test accuracy against training FLOPs, and against inference FLOPs, with the non-dominated front of the means.

    Small marks are single runs, large ones the mean over seeds of a network of a group; the front goes through means,
    because the best of many seeds is luck. A network's marker says whether it is a pair's base, its motivated network,
    or was trained alone.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    points = network_points(runs)
    means = mean_points(points)
    labels = list(group_runs(runs))
    figure = Figure(figsize=(11, 5 + 0.2 * len(means)), layout="constrained")
    for axes, (cost, title) in zip(figure.subplots(1, 2, sharey=True), COSTS.items(), strict=True):
        for point in points:
            axes.plot(getattr(point, cost), point.accuracy, MARKERS[point.role], color=_colour(labels, point),
                      markersize=4, alpha=0.5, markeredgewidth=0)
        for point in means:
            axes.plot(getattr(point, cost), point.accuracy, MARKERS[point.role], color=_colour(labels, point),
                      markersize=9, markeredgecolor="black", label=point.name)
        draw_front(axes, front_of(means, cost), cost)
        axes.set(xlabel=title, ylabel="test accuracy (%)" if cost == "training" else "")
        axes.grid(alpha=0.3)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", fontsize="small", frameon=False)
    return figure


def front_of(means: list[Point], cost: str) -> list[Point]:
    """The points on the front, by rising cost.

    Args:
        means: from `mean_points`.
        cost: ``training`` or ``inference``.
    """
    return [means[index] for index in front(np.array([getattr(point, cost) for point in means]),
                                            np.array([point.accuracy for point in means]))]


def draw_front(axes, best: list[Point], cost: str) -> None:
    """Draw the front as steps, or say that its cost was not recorded.

    Args:
        axes: of matplotlib.
        best: from `front_of`.
        cost: ``training`` or ``inference``.
    """
    axes.plot([getattr(point, cost) for point in best], [point.accuracy for point in best], color="0.35",
              linestyle=":", drawstyle="steps-post", zorder=0, label="front of the means")
    if not best:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center")


def _colour(labels: list[str], point: Point) -> str:
    return PALETTE[labels.index(point.label) % len(PALETTE)]
