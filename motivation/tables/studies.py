"""A study, a table of ours, as text: both networks' accuracies a row, the comparisons with their tests, the curves."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motivation.analysis.markdown import NONE, markdown_table, mean_std, number
from motivation.phase import PHASES, Phase
from motivation.tables.cells import OF_FLOPS, Archive
from motivation.tables.comparisons import (
    LEVEL,
    POWER,
    Comparison,
    Crossing,
    Curve,
    Network,
    crossing,
    power_note,
    verdict_note,
    with_tests,
)
from motivation.tables.latex import latex_table
from motivation.tables.plan import Plan, PlannedRow
from motivation.tables.rows import TableRow

ROW_COLUMNS = ("row", "base acc %", "motivated acc %", "n", "training FLOPs", "cost", "motivated")
COMPARISON_COLUMNS = ("row", "network", "against", "difference", "n", "test", "Holm p", "verdict", "could show")
AGAINST_COLUMNS = ("row", "base acc %", "difference", "Holm p", "motivated acc %", "difference", "Holm p", "n")
LEGEND = (
    "acc: test accuracy of the base and of the motivated network in percent, mean and standard deviation over seeds; "
    "a network trained alone is in its own column. training FLOPs: mean of all that training took, probes included, 2 "
    "per multiply-add; cost: that of a row over that of `{reference}`. motivated: share of motivated steps. Further "
    "columns: means over seeds. "
    "Comparisons: difference of a row's network minus that of the row it is compared with, in points, over the seeds "
    "that both have, with its 95 % confidence interval, which is of this comparison alone; test: paired t; Holm p: "
    "corrected over all comparisons of this table; verdict: `differs` where it is below {level:g}, `equal` where the "
    "interval lies within ±{delta:g} points, else `open`. could show: the least difference that the test of so many "
    "pairs with this deviation shows with probability {power:g} at {level:g} divided by the number of tests."
)


@dataclass(frozen=True)
class StudyRow:
    """A row and what its finished runs measured.

    Args:
        row: as every table has it.
        accuracies: test accuracy in percent by seed, by network; ``base`` for classical training.
        flops: training FLOPs by seed.
        column: of the accuracy of classical training: whether it trains the small or the large network.
        figures: of every further column of the table, what its finished runs that have it measured.
    """

    row: TableRow
    accuracies: Mapping[Phase, Mapping[int, float]]
    flops: Mapping[int, float]
    column: Phase
    figures: Sequence[Sequence[float]] = ()


def study_texts(plan: Plan, archive: Archive) -> dict[str, str]:
    """A study in every format, by the end of its file's name; a .csv of the rows and one of the comparisons."""
    assert plan.study
    rows = measure(plan, archive)
    comparisons = compare(plan, rows)
    runs = {cell.identity: archive.state(cell).run for cell in plan.cells}
    flops = sum(run.summary["budget/flops"] for run in runs.values() if run)
    note = " ".join(filter(None, [f"Scale {plan.scale}: {plan.note} Training took {flops:.3g} FLOPs.",
                                  verdict_note(comparisons, plan.study.delta), power_note(comparisons),
                                  *curve_notes(plan, rows)]))
    shown = [(dataset, [row_cells(one, rows, plan.study.reference) for one in rows if one.row.dataset == dataset],
              [comparison_cells(one, plan.study.delta) for one in comparisons if one.dataset == dataset])
             for dataset in dict.fromkeys(one.row.dataset for one in rows)]
    legend = LEGEND.format(reference=plan.study.reference, power=POWER, level=LEVEL, delta=plan.study.delta)
    columns = (*ROW_COLUMNS, *plan.study.figures)
    parts = [f"## {plan.title}", "", note, ""]
    for dataset, first, second in shown:
        parts += [f"### {dataset}", "", *markdown_table([columns, *first], text_columns=1), "",
                  *markdown_table([COMPARISON_COLUMNS, *second], text_columns=3), ""]
    markdown = "\n".join([*parts, legend])
    latex = "\n".join([
        "% needs \\usepackage{booktabs, graphicx}",
        *latex_table(f"{plan.title}. {note}", columns, [(dataset, first) for dataset, first, _ in shown]),
        *latex_table(f"{plan.title}: comparisons. {legend}", COMPARISON_COLUMNS,
                     [(dataset, second) for dataset, _, second in shown])]) + "\n"
    return {".md": markdown + "\n", ".tex": latex,
            ".csv": _csv(columns, [(dataset, first) for dataset, first, _ in shown]),
            "-comparisons.csv": _csv(COMPARISON_COLUMNS, [(dataset, second) for dataset, _, second in shown])}


def against_table(plan: Plan, archive: Archive, control: str) -> str:
    """Every row that is compared with one control, a line each, both networks side by side, as Markdown.

    Args:
        plan: of a study.
        archive: of its runs.
        control: label of the row that the others are compared with.

    Raises:
        ValueError: the table has no comparison with it, or is one of the paper's.
    """
    if not plan.study:
        raise ValueError(f"--against {control}: of a table of ours; {plan.name} is one of the paper's")
    rows = measure(plan, archive)
    against = [one for one in compare(plan, rows) if one.against == control]
    if not against:
        labels = dict.fromkeys(one.against for one in plan.study.comparisons)
        raise ValueError(f"--against {control}: {plan.name} compares with {', '.join(labels)}")
    lines = [AGAINST_COLUMNS]
    for one in rows:
        ours = {other.network.phase: other for other in against if other.network.row == one.row.label}
        if ours or one.row.label == control:
            lines.append((one.row.label, *(cell for phase in PHASES for cell in (
                mean_std(list(one.accuracies.get(phase, {}).values())), *_difference_cells(ours.get(phase)))),
                str(max((other.n for other in ours.values()), default=len(one.flops)))))
    return "\n".join(markdown_table(lines))


def _difference_cells(one: Comparison | None) -> tuple[str, str]:
    """A difference with its interval, and Holm's p."""
    if not one or not one.tested:
        return NONE, NONE
    interval = "" if one.tested.interval is None else " [{:+.2f}, {:+.2f}]".format(*one.tested.interval)
    return f"{one.tested.mean:+.2f}{interval}", number(one.adjusted, ".3g")


def compare(plan: Plan, rows: Sequence[StudyRow]) -> list[Comparison]:
    """The comparisons of a study with their tests.

    Args:
        plan: of the study.
        rows: measured.
    """
    assert plan.study
    return with_tests(plan.study.comparisons,
                      {(one.row.dataset, Network(one.row.label, phase)): values for one in rows
                       for phase, values in one.accuracies.items()})


def measure(plan: Plan, archive: Archive) -> list[StudyRow]:
    """The rows of a study with the figures of their finished runs."""
    assert plan.study
    rows = []
    for planned, row in zip(plan.rows, plan.measured(archive), strict=True):
        runs = [run for run in (archive.state(cell).run for cell in planned.cells) if run]
        phases = PHASES if _is_pair(planned) else PHASES[:1]
        rows.append(StudyRow(row, {phase: {run.summary["seed"]: run.summary[f"{phase}/{planned.measure}"]
                                           for run in runs} for phase in phases},
                             {run.summary["seed"]: run.summary["budget/flops"] for run in runs},
                             _column(planned, plan.rows),
                             [[run.summary[key] for run in runs if run.summary.get(key) is not None]
                              for key in plan.study.figures.values()]))
    return rows


def _is_pair(row: PlannedRow) -> bool:
    return "network" not in row.cells[0].config["model"]


def _column(row: PlannedRow, rows: Sequence[PlannedRow]) -> Phase:
    """The column of a network trained alone: ``motivated`` for the large one of the table's pairs."""
    cell = row.cells[0]
    if cell.control in OF_FLOPS:
        return OF_FLOPS[cell.control][0]
    models = [other.cells[0].config["model"] for other in rows if _is_pair(other)]
    alone = cell.config["model"].get("network")
    is_large = any(alone == model["motivated"] and alone != model["base"] for model in models)
    return "motivated" if is_large else "base"


def row_cells(one: StudyRow, rows: Sequence[StudyRow], reference: str | None) -> list[str]:
    """A row as text, in the order of `ROW_COLUMNS`, and the means of the table's further figures."""
    row = one.row
    columns = one.accuracies if len(one.accuracies) > 1 else {one.column: one.accuracies["base"]}
    states = row.troubled[0] if row.troubled else "unfinished"
    texts = [mean_std(list(columns[phase].values())) if columns.get(phase) else states if phase in columns else NONE
             for phase in PHASES]
    others = [list(other.flops.values()) for other in rows
              if (other.row.label, other.row.dataset) == (reference, row.dataset)]
    flops = _mean(list(one.flops.values()))
    unit = _mean(others[0]) if others else None
    return [("  vs " + row.label.removeprefix(f"{row.method}: ")) if row.method else row.label, *texts, row.count,
            number(flops, ".4g"), number(flops / unit if flops and unit else None, ".3f"),
            number(row.measured.share, ".1%"), *(number(_mean(values), ".4g") for values in one.figures)]


def comparison_cells(one: Comparison, delta: float) -> list[str]:
    """A comparison as text, in the order of `COMPARISON_COLUMNS`."""
    difference, adjusted = _difference_cells(one)
    test = NONE
    if one.tested:
        test = one.tested.test if one.tested.p is None else f"p = {one.tested.p:.3g}, {one.tested.test}"
    return [one.network.row, one.network.phase, one.against.removeprefix(f"{one.network.row}: "), difference,
            str(one.n), test, adjusted, one.verdict(delta) or NONE, number(one.detectable, ".2f")]


def curve_notes(plan: Plan, rows: Sequence[StudyRow]) -> Iterator[str]:
    """A sentence for every pair of curves: where they cross, and how far they are apart at both ends."""
    assert plan.study
    for dataset, first, second in plan.study.curves:
        found = crossing(*(_points(curve, dataset, rows) for curve in (first, second)))
        if found:
            yield _in_words(first, second, found)


def _points(curve: Curve, dataset: str, rows: Sequence[StudyRow]) -> list[tuple[float, float]]:
    """Mean training FLOPs and mean accuracy of a curve's rows that have finished runs."""
    points = []
    for network in curve.networks:
        for one in rows:
            values = one.accuracies.get(network.phase) if (one.row.label, one.row.dataset) == (
                network.row, dataset) else None
            if values:
                points.append((float(np.mean(list(one.flops.values()))), float(np.mean(list(values.values())))))
    return points


def _in_words(first: Curve, second: Curve, found: Crossing) -> str:
    where = f"cross at {' and '.join(f'{flops:.3g}' for flops in found.at)} FLOPs" if found.at else "do not cross"
    return (f"The curves of {first.name} and {second.name} {where} between {found.low:.3g} and {found.high:.3g} FLOPs "
            f"(means, straight lines over the logarithm): {first.name} is {found.first:+.2f} points at the lower end "
            f"and {found.last:+.2f} at the upper.")


def _csv(header: Sequence[str], sections: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dataset", *header])
    for dataset, rows in sections:
        writer.writerows([dataset, *cells] for cells in rows)
    return file.getvalue()


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
