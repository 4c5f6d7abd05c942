"""What a page says about a table: its rows, comparisons and their intervals, accuracy over FLOPs of finished runs."""

from collections.abc import Iterator, Sequence

import numpy as np

from motivation.analysis.figures import PALETTE
from motivation.analysis.page import WIDTH, Key, Picture, Section, Text, drawing
from motivation.analysis.pareto import Point
from motivation.analysis.report import cost_pictures, line_pictures
from motivation.phase import PHASES
from motivation.tables.cells import Archive
from motivation.tables.comparisons import LEVEL, Comparison
from motivation.tables.figures import curves
from motivation.tables.plan import Plan
from motivation.tables.render import table_texts
from motivation.tables.studies import StudyRow, compare, measure

CAPTIONS = {False: ("reported beside measured",), True: ("rows", "comparisons")}


def report_table(plan: Plan, archive: Archive) -> list[Section]:
    """The sections of a page about a table; its title is the page's.

    Args:
        plan: of the table.
        archive: its finished runs, of which config and summary are read.
    """
    datasets = list(dict.fromkeys(row.dataset for row in plan.rows))
    captions = [f"{dataset}: {what}" for dataset in datasets for what in CAPTIONS[plan.study is not None]]
    markdown = table_texts(plan, archive)[".md"].removeprefix(f"## {plan.title}\n")
    sections = [Section("Table", [Text(markdown, captions)])]
    rows = measure(plan, archive) if plan.study else []
    if differences := list(_differences(plan, rows)):
        sections.append(Section("Differences", differences))
    if courses := curves(plan, rows):
        sections.append(Section("Accuracy over training FLOPs", line_pictures(
            [(f"{plan.title}: {dataset}", lines) for dataset, lines in courses.items()])))
    for dataset in datasets:
        if points := list(_points(plan, archive, dataset)):
            sections.append(Section(f"Accuracy against cost, {dataset}", cost_pictures(points)))
    return sections


def _points(plan: Plan, archive: Archive, dataset: str) -> Iterator[Point]:
    """The networks that a data set's rows show, of every finished run."""
    for row in plan.rows:
        for run in (archive.state(cell).run for cell in row.cells):
            if row.dataset != dataset or run is None:
                continue
            pair = len(run.networks) > 1
            for phase in PHASES if pair and plan.study else (row.phase,):
                yield Point(row.label, run.networks[phase], phase if pair else "alone",
                            float(run.summary["budget/flops"]),
                            float(run.summary.get(f"{phase}/forward_flops") or np.nan),
                            run.summary[f"{phase}/{row.measure}"])


def _differences(plan: Plan, rows: Sequence[StudyRow]) -> Iterator[Picture]:
    """A figure for every control of a study that several rows are compared with, of either network."""
    comparisons = compare(plan, rows) if plan.study else []
    controls: dict[tuple[str, str, str], list[Comparison]] = {}
    for one in comparisons:
        if one.tested and one.tested.interval:
            controls.setdefault((one.dataset, one.network.phase, one.against), []).append(one)
    with drawing():
        for (dataset, phase, control), found in controls.items():
            if len(found) > 1:
                yield _difference_picture(f"{dataset}: accuracy of the {phase} network minus that of {control}", found)


def _difference_picture(title: str, comparisons: Sequence[Comparison]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * len(comparisons)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#8a8f96", linewidth=1, linestyle="--")
    texts = []
    for place, one in enumerate(comparisons):
        low, high = one.tested.interval
        colour = PALETTE[1] if one.adjusted < LEVEL else PALETTE[0]
        axes.hlines(place, low, high, color=colour)
        axes.plot(one.tested.mean, place, "o", color=colour, markersize=5)
        texts.append(f"{one.network.row} {one.tested.mean:+.2f} ({low:+.2f} to {high:+.2f}, n = {one.n}, Holm p = "
                     f"{one.adjusted:.3g})")
    axes.set(xlabel="points", ylim=(len(comparisons) - 0.4, -0.6), yticks=range(len(comparisons)))
    # A name is text, whatever is in it.
    axes.set_yticklabels([one.network.row for one in comparisons], fontsize=9, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(alpha=0.3, axis="x")
    keys = [Key("mean difference and its 95 % interval, which is of one comparison alone", PALETTE[0], "●")]
    if any(one.adjusted < LEVEL for one in comparisons):
        keys.append(Key(f"p below {LEVEL:g} after Holm's correction over the table", PALETTE[1], "●"))
    return Picture(figure, title, f"{title}, in points with 95 % intervals: {'; '.join(texts)}.", keys)
