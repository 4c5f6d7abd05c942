"""A table as text: Markdown, LaTeX and CSV, and the files of it; for tables of ours see `studies`."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from motivation.analysis.markdown import NONE, markdown_table, mean_std, number
from motivation.analysis.nulls import footnotes
from motivation.tables.cells import Archive, Cell
from motivation.tables.latex import latex_table
from motivation.tables.plan import Plan
from motivation.tables.rows import (
    TableRow,
    efficiencies,
    labelled,
    mean_accuracy,
    misprint,
    reported_forward,
    unit_of,
    with_tests,
)
from motivation.tables.studies import study_texts

ACCURACY_COLUMNS = ("reported acc %", "measured acc %", "n", "difference", "test", "Holm p")
COST_COLUMNS = ("reported F", "measured F", "reported acc/F", "measured acc/F", "reported ratio", "measured ratio",
                "motivated", "null")
COLUMNS = ("row", *ACCURACY_COLUMNS, *COST_COLUMNS)
LEGEND = (
    "F: mean forward FLOPs an image over training, 2 per multiply-add, convolutions and matrix products only (the "
    "paper also counts normalisation and activations: 82.82 against 81.10 MFLOP for ResNet-20). difference: a row "
    "minus its classical base in points (a motivated network: minus the classical large network), with its 95 % "
    "confidence interval; in a `vs` row the method above minus that control. test: paired t where seeds match, Welch "
    "elsewhere, none below n = 2; Holm p: corrected over this table, without differences between classical networks. "
    "acc/F: the paper's ACC/FLOPs, points gained per extra F of the classical base; ratio: that of a base after dual "
    "training over that of the classical large network. Reported ones are as printed; where the printed accuracies and "
    "F give another figure, it is added as a misprint, and where none is printed, it is shown alone. null: share of "
    "motivated steps that noise like the run's own readings would give, by which `motivation diagnose` judges."
)


def write_table(plan: Plan, archive: Archive, out: Path) -> tuple[str, list[Path]]:
    """The table of the finished runs: its Markdown, and the files it was written to (.md, .tex, .csv)."""
    texts = table_texts(plan, archive)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, text in texts.items():
        paths.append(out / f"{plan.name}-{plan.scale}{suffix}")
        paths[-1].write_text(text)
    return texts[".md"].rstrip("\n"), paths


def table_texts(plan: Plan, archive: Archive) -> dict[str, str]:
    """The table of the finished runs in every format, by the end of its file's name: ``.md``, ``.tex``, ``.csv``."""
    if plan.study:
        return study_texts(plan, archive)
    measured = plan.measured(archive)
    rows = with_tests(measured)
    note = f"Scale {plan.scale}: {plan.note} {_cost_note(plan, archive)}{_search_note(plan, measured)}"
    return {".md": to_markdown(plan.title, note, rows) + "\n", ".tex": to_latex(plan.title, note, rows),
            ".csv": to_csv(rows)}


def _cost_note(plan: Plan, archive: Archive) -> str:
    """Training FLOPs of all runs, each counted once, and of the controls that the paper lacks."""
    def flops(cells: Sequence[Cell]) -> float:
        runs = [archive.state(cell).run for cell in cells]
        return sum(run.summary["budget/flops"] for run in runs if run)

    papers = {one.identity for row in plan.rows if not row.method for cell in row.cells for one in (cell, cell.source)
              if one}
    controls = flops([cell for cell in plan.cells if cell.identity not in papers])
    return (f"Training took {flops(plan.cells):.3g} FLOPs, {controls:.3g} of them in the controls that the paper "
            "lacks.")


def _search_note(plan: Plan, rows: Sequence[TableRow]) -> str:
    """Which row cross-validation chooses, once all of its folds are finished."""
    folds = [row for row in plan.rows if row.measure == "val_top1"]
    if not folds:
        return ""
    finished = [row for row in rows if row.measured.accuracy]
    if len(finished) < len(folds) or any(len(row.measured.accuracy) < row.planned for row in finished):
        return " The search is not finished: no row is chosen yet."
    best = max(finished, key=lambda row: mean_accuracy(row.measured))
    return f" Chosen by mean validation accuracy: {best.label}; the search cost all of these FLOPs."


def cells_of(rows: Sequence[TableRow]) -> list[list[str]]:
    """Every row as text, in the order of `COLUMNS`; a row that cannot be shown says why, and the others are shown."""
    by_label = labelled(rows)
    made = []
    for row in rows:
        try:
            made.append(_cells(row, by_label))
        except Exception as error:
            # Whatever the error is: the other rows hold hours of training.
            reason = f"cannot be shown: {type(error).__name__}: {' '.join(str(error).split())}"
            made.append([row.label, reason, *[NONE] * (len(COLUMNS) - 2)])
    return made


def _cells(row: TableRow, by_label: Mapping[tuple[str | None, str], TableRow]) -> list[str]:
    reported, measured = efficiencies(row, by_label)
    return [("  vs " + row.label.split(": ")[1]) if row.method else row.label,
            _reported(*(row.reported.get("acc") or (None, None))), _accuracy(row), row.count, _difference(row),
            _test(row, by_label), number(row.adjusted, ".3g"), number(reported_forward(row), ".4g"),
            number(row.measured.forward, ".4g"),
            _printed(row.reported.get("acc_per_flops"), reported.gain), number(measured.gain, ".4g"),
            _printed(row.reported.get("ratio"), reported.ratio, reported.rounded_ratio),
            number(measured.ratio, ".4g"),
            number(row.measured.share, ".1%"), str(row.measured.null)]


def to_markdown(title: str, note: str, rows: Sequence[TableRow]) -> str:
    """The table as Markdown, a section a data set."""
    parts = [f"## {title}", "", note, ""]
    for dataset, section in _sections(rows):
        parts += [f"### {dataset}", "", *markdown_table([COLUMNS, *section], text_columns=len(COLUMNS)), ""]
    return "\n".join([*parts, legend(rows)])


def legend(rows: Sequence[TableRow]) -> str:
    """What the columns are, and the units of this table's rows."""
    units: dict[tuple[str, float], list[str]] = {}
    for row in rows:
        if not row.method and row.label not in units.setdefault(unit_of(row), []):
            units[unit_of(row)].append(row.label)
    units_in_words = [f"points per {per:.0e} {'FLOP (2 a multiply-add)' if unit == '2mac' else 'multiply-adds'}"
                      + (f" for {labels[0]} to {labels[-1]}" if len(units) > 1 else "")
                      for (unit, per), labels in units.items()]
    nulls = {f"{row.label} ({row.dataset})": row.measured.null for row in rows if not row.method}
    return " ".join([f"{LEGEND} Unit of acc/F, the paper's: {', '.join(units_in_words)}.", *footnotes(nulls)])


def to_csv(rows: Sequence[TableRow]) -> str:
    """The table as CSV, with its data set as first column."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dataset", *COLUMNS])
    for dataset, section in _sections(rows):
        writer.writerows([dataset, *cells] for cells in section)
    return file.getvalue()


def to_latex(title: str, note: str, rows: Sequence[TableRow]) -> str:
    """The table as LaTeX, in two parts that fit a page's width: accuracies, and costs."""
    last = 1 + len(ACCURACY_COLUMNS)
    return "\n".join(["% needs \\usepackage{booktabs, graphicx}",
                      *_latex_part(f"{title}. {note}", rows, lambda cells: cells[:last]),
                      *_latex_part(f"{title}: costs. {legend(rows)}", rows, lambda cells: [cells[0], *cells[last:]])]
                     ) + "\n"


def _latex_part(caption: str, rows: Sequence[TableRow], part: Callable[[Sequence[str]], Sequence[str]]) -> list[str]:
    return latex_table(caption, part(COLUMNS), [(dataset, [part(cells) for cells in section])
                                                for dataset, section in _sections(rows)])


def _sections(rows: Sequence[TableRow]) -> list[tuple[str, list[list[str]]]]:
    """Data sets and their rows as text."""
    return [(dataset, cells_of([row for row in rows if row.dataset == dataset]))
            for dataset in dict.fromkeys(row.dataset for row in rows)]


def _reported(mean: float | None, std: float | None) -> str:
    return number(mean, ".2f") + ("" if std is None else f" ± {std:.2f}")


def _accuracy(row: TableRow) -> str:
    values = list(row.measured.accuracy.values())
    if not values:
        return row.troubled[0] if row.troubled else "unfinished"
    return mean_std(values)


def _difference(row: TableRow) -> str:
    if row.tested is None:
        return NONE
    interval = "" if row.tested.interval is None else " [{:+.2f}, {:+.2f}]".format(*row.tested.interval)
    return f"{row.tested.mean:+.2f}{interval}"


def _test(row: TableRow, by_label: Mapping[tuple[str | None, str], TableRow]) -> str:
    if row.method and by_label[row.method, row.dataset].measured.share == 0:
        return "its source had no motivated step"
    if row.tested is None:
        return NONE
    return row.tested.test if row.tested.p is None else f"p = {row.tested.p:.3g}, {row.tested.test}"


def _printed(printed: float | None, *recomputed: float | None) -> str:
    """A printed figure, with the recomputed one where it is a misprint; the recomputed alone where none is printed."""
    if printed is None:
        return number(recomputed[0], ".4g")
    return f"{printed:g}" + (f" (misprint: {recomputed[0]:.2f})" if misprint(printed, *recomputed) else "")
