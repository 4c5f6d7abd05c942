"""Figures of a study: its comparisons with their intervals, and its curves of accuracy over training FLOPs."""

from collections.abc import Sequence

import numpy as np

from motivation.analysis.figures import LINES, PALETTE
from motivation.phase import PHASES
from motivation.tables.cells import Archive
from motivation.tables.comparisons import LEVEL, Comparison, Curve
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
    panels = len(datasets) + bool(plan.study.curves)
    labels = list(dict.fromkeys(map(_label, comparisons)))
    figure = Figure(figsize=(8 * panels, max(4, 1.6 + 0.28 * len(labels))), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel, dataset in zip(axes, datasets, strict=False):
        _draw_comparisons(panel, [one for one in comparisons if one.dataset == dataset], labels)
        panel.set_title(f"{dataset}, n = {_counts(comparisons)}", fontsize="medium")
    if plan.study.curves:
        _draw_curves(axes[-1], plan, rows)
    return figure


def _label(one: Comparison) -> str:
    return f"{one.network.row} vs {one.control.row.removeprefix(f'{one.network.row}: ')}"


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


def _draw_curves(axes, plan: Plan, rows: Sequence[StudyRow]) -> None:
    """Mean accuracy of every curve over mean training FLOPs; bars are a standard deviation over seeds."""
    assert plan.study
    found = {(one.row.label, one.row.dataset): one for one in rows}
    curves: dict[tuple[str, str], Curve] = {(dataset, curve.name): curve for dataset, *pair in plan.study.curves
                                            for curve in pair}
    for (color, ((dataset, name), curve)) in zip(PALETTE, curves.items(), strict=False):
        points = [(np.mean(list(one.flops.values())), list(one.accuracies[network.phase].values()), network.phase)
                  for network in curve.networks
                  if (one := found.get((network.row, dataset))) and one.accuracies.get(network.phase)]
        if points:
            axes.errorbar([flops for flops, _, _ in points], [np.mean(values) for _, values, _ in points],
                          [np.std(values, ddof=1) if len(values) > 1 else 0 for _, values, _ in points], color=color,
                          linestyle=LINES[points[0][2]], marker=MARKERS[points[0][2]], capsize=3, label=name)
    axes.set(xscale="log", xlabel="training FLOPs", ylabel="test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
