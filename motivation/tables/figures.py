"""Figures of a study: its comparisons with their intervals, and its curves of accuracy over training FLOPs."""

from collections.abc import Sequence

import numpy as np

from motivation.analysis.figures import LINES, PALETTE, Line, draw_line
from motivation.phase import PHASES
from motivation.tables.cells import Archive
from motivation.tables.comparisons import LEVEL, Comparison
from motivation.tables.plan import Plan
from motivation.tables.studies import StudyRow, compare, measure

MARKERS = {"base": "o", "motivated": "s"}


def draw_study(plan: Plan, archive: Archive):
    """Every tested comparison with its 95 % interval, a panel a data set; and the curves, if the study has any.

    Args:
        plan: of a study.
        archive: of its runs.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: the table is none of ours, or has no comparison with an interval yet.
    """
    from matplotlib.figure import Figure

    if not plan.study:
        raise ValueError(f"--figure: {plan.name} is a table of the paper; figures are of our own tables")
    rows = measure(plan, archive)
    comparisons = [one for one in compare(plan, rows) if one.tested and one.tested.interval]
    if not comparisons:
        raise ValueError(f"--figure: {plan.name} at scale {plan.scale} has no comparison of two seeds or more yet")
    datasets = list(dict.fromkeys(one.dataset for one in comparisons))
    courses = curves(plan, rows)
    panels = len(datasets) + len(courses)
    labels = list(dict.fromkeys(map(_label, comparisons)))
    figure = Figure(figsize=(8 * panels, max(4, 1.6 + 0.28 * len(labels))), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel, dataset in zip(axes[:len(datasets)], datasets, strict=True):
        _draw_comparisons(panel, [one for one in comparisons if one.dataset == dataset], labels)
        panel.set_title(f"{dataset}, n = {_counts(comparisons)}", fontsize="medium")
    for panel, (dataset, lines) in zip(axes[len(datasets):], courses.items(), strict=True):
        for line in lines:
            draw_line(panel, line, line.name)
        panel.set(title=dataset, xscale="log", xlabel="training FLOPs", ylabel="test accuracy (%)")
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small")
    return figure


def _label(one: Comparison) -> str:
    return f"{one.network.row} vs {one.against.removeprefix(f'{one.network.row}: ')}"


def _counts(comparisons: Sequence[Comparison]) -> str:
    few, many = min(one.n for one in comparisons), max(one.n for one in comparisons)
    return str(few) if few == many else f"{few} to {many}"


def _draw_comparisons(axes, comparisons: Sequence[Comparison], labels: Sequence[str]) -> None:
    """A line a comparison; filled where Holm's p is below 0.05."""
    for phase, color, shift in zip(PHASES, PALETTE, (-0.16, 0.16), strict=False):
        ours = [one for one in comparisons if one.network.phase == phase]
        for one in ours:
            assert one.tested
            assert one.tested.interval
            place = labels.index(_label(one)) + shift
            axes.plot(one.tested.interval, (place, place), color=color)
            axes.plot(one.tested.mean, place, MARKERS[phase], color=color,
                      fillstyle="full" if one.adjusted is not None and one.adjusted < LEVEL else "none")
        if ours:
            axes.plot([], [], MARKERS[phase], color=color, fillstyle="none", label=f"{phase} network")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=range(len(labels)), ylim=(len(labels) - 0.5, -0.5),
             xlabel=f"difference in test accuracy (points), 95 % interval; filled: Holm p < {LEVEL:g}")
    axes.set_yticklabels(labels, fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize="small")


def curves(plan: Plan, rows: Sequence[StudyRow]) -> dict[str, list[Line]]:
    """The curves that a study compares: a point a row, over the seeds that all rows of a curve have.

    Returns:
        Data set -> its curves that have such seeds; none without one.
    """
    lines: dict[str, list[Line]] = {}
    for dataset in dict.fromkeys(one for one, _, _ in plan.study.curves) if plan.study else ():
        named = {curve.name: curve for one, *both in plan.study.curves for curve in both if one == dataset}
        for colour, curve in zip(PALETTE, named.values(), strict=False):
            found = [(one, one.accuracies[network.phase]) for network in curve.networks for one in rows
                     if (one.row.label, one.row.dataset) == (network.row, dataset) and one.flops]
            found.sort(key=lambda pair: np.mean(list(pair[0].flops.values())))
            if seeds := sorted(set.intersection(*(set(values) for _, values in found))) if found else []:
                lines.setdefault(dataset, []).append(Line(
                    curve.name, colour, LINES["motivated" if "motivated" in curve.name else "base"],
                    np.array([np.mean([one.flops[seed] for seed in seeds]) for one, _ in found]),
                    np.array([[values[seed] for _, values in found] for seed in seeds])))
    return lines
