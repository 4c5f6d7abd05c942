"""A paper's table as text: Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from motivation.analysis.compare import NONE
from motivation.tables.rows import (
    TableRow,
    efficiencies,
    labelled,
    mean_accuracy,
    misprint,
    reported_forward,
    unit_of,
)

ACCURACY_COLUMNS = ("reported acc %", "measured acc %", "n", "difference", "test", "Holm p")
COST_COLUMNS = ("reported F", "measured F", "reported acc/F", "measured acc/F", "reported ratio", "measured ratio",
                "motivated", "null")
COLUMNS = ("row", *ACCURACY_COLUMNS, *COST_COLUMNS)
LEGEND = (
    "F: mean forward FLOPs an image over training, 2 per multiply-add, convolutions and matrix products only (the "
    "paper also counts normalisation and activations: 82.82 against 81.10 MFLOP for ResNet-20). difference: a row "
    "minus its classical base in points (a motivated network: minus the classical large network), with its 95 % "
    "confidence interval; in a `vs` row the method above minus that control. test: paired t where seeds match, Welch "
    "elsewhere, none below n = 2; Holm p: corrected over this table, differences between classical networks apart. "
    "acc/F: the paper's ACC/FLOPs, points gained per extra F of the classical base; ratio: that of a base after dual "
    "training over that of the classical large network. Reported ones are the printed; where the printed accuracies "
    "and F give another figure it stands beside as a misprint, and where none is printed it stands alone. null: share "
    "of motivated steps that noise alone would give."
)


def cells_of(rows: Sequence[TableRow]) -> list[list[str]]:
    """Every row as text, in the order of `COLUMNS`; one that cannot be shown says why, and leaves the others."""
    by_label = labelled(rows)
    made = []
    for row in rows:
        try:
            made.append(_cells(row, by_label))
        except Exception as error:
            # Whatever it is, hours of training stand in the other rows.
            reason = f"cannot be shown: {type(error).__name__}: {' '.join(str(error).split())}"
            made.append([row.label, reason, *[NONE] * (len(COLUMNS) - 2)])
    return made


def _cells(row: TableRow, by_label: Mapping[tuple[str | None, str], TableRow]) -> list[str]:
    reported, measured = efficiencies(row, by_label)
    return [("  vs " + row.label.split(": ")[1]) if row.method else row.label,
            _mean_std(*(row.reported.get("acc") or (None, None))), _accuracy(row), _count(row), _difference(row),
            _test(row, by_label), _number(row.adjusted, ".3g"), _number(reported_forward(row), ".4g"),
            _number(row.measured.forward, ".4g"),
            _printed(row.reported.get("acc_per_flops"), reported.gain), _number(measured.gain, ".4g"),
            _printed(row.reported.get("ratio"), reported.ratio, reported.rounded_ratio),
            _number(measured.ratio, ".4g"),
            _number(row.measured.share, ".1%"), _number(row.measured.null_rate, ".1%")]


def to_markdown(title: str, note: str, rows: Sequence[TableRow]) -> str:
    """The table as Markdown, a section a data set."""
    parts = [f"## {title}", "", note, ""]
    for dataset, section in _sections(rows):
        lines = [list(COLUMNS), *section]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
                  for line in lines]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        parts += [f"### {dataset}", "", padded[0], rule, *padded[1:], ""]
    return "\n".join([*parts, legend(rows)])


def legend(rows: Sequence[TableRow]) -> str:
    """What the columns are, and the units of this table's rows."""
    units: dict[tuple[str, float], list[str]] = {}
    for row in rows:
        if not row.method and row.label not in units.setdefault(unit_of(row), []):
            units[unit_of(row)].append(row.label)
    said = [f"points per {per:.0e} {'FLOP (2 a multiply-add)' if unit == '2mac' else 'multiply-adds'}"
            + (f" for {labels[0]} to {labels[-1]}" if len(units) > 1 else "")
            for (unit, per), labels in units.items()]
    return f"{LEGEND} Unit of acc/F, the paper's: {', '.join(said)}."


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
    header = part(COLUMNS)
    lines = [r"\begin{table}", rf"\caption{{{_tex(caption)}}}", r"\resizebox{\textwidth}{!}{%",
             rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _tex_line(header)]
    for dataset, section in _sections(rows):
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{{_tex(dataset)}}} \\",
                  *(_tex_line(part(cells)) for cells in section)]
    return [*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}"]


def _tex_line(cells: Sequence[str]) -> str:
    # A line that opens with a bracket would be read as the argument of the line break before it.
    return " & ".join("{}" * cell.startswith("[") + _tex(cell) for cell in cells) + r" \\"


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "->": r"$\to$",
       "<": "$<$", ">": "$>$", "|": r"\textbar{}", **{plain: f"\\{plain}" for plain in "&%$#_{}"}}


def _tex(text: str) -> str:
    return re.sub("|".join(map(re.escape, TEX)), lambda match: TEX[match[0]], text)


def _sections(rows: Sequence[TableRow]) -> list[tuple[str, list[list[str]]]]:
    """Data sets and their rows as text."""
    return [(dataset, cells_of([row for row in rows if row.dataset == dataset]))
            for dataset in dict.fromkeys(row.dataset for row in rows)]


def _mean_std(mean: float | None, std: float | None = None) -> str:
    if mean is None:
        return NONE
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _accuracy(row: TableRow) -> str:
    values = list(row.measured.accuracy.values())
    if not values:
        return row.troubled[0] if row.troubled else "unfinished"
    return _mean_std(mean_accuracy(row.measured), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _count(row: TableRow) -> str:
    troubles = [f"{row.troubled.count(kind)} {kind}" for kind in dict.fromkeys(row.troubled)]
    return f"{len(row.measured.accuracy)}/{row.planned}" + (f" ({', '.join(troubles)})" if troubles else "")


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
        return _number(recomputed[0], ".4g")
    return f"{printed:g}" + (f" (misprint: {recomputed[0]:.2f})" if misprint(printed, *recomputed) else "")


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)
