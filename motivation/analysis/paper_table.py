"""A paper's table: reported beside measured, every difference with its n and its test, in Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motivation.analysis.runs import Run
from motivation.analysis.statistics import Difference, difference, holm

NONE = "-"
# The paper counts CIFAR ResNets as 2 FLOPs a multiply-add and all others as 1; ours are always 2.
PER_MULTIPLY_ADD = {"2mac": 1, "mac": 2}
COLUMNS = ("row", "reported acc %", "measured acc %", "n", "difference", "test", "Holm p", "reported F", "measured F",
           "reported acc/GF", "measured acc/GF", "motivated", "null")


@dataclass(frozen=True)
class Measured:
    """What the finished runs of a row say.

    Args:
        accuracy: test accuracy in percent, by seed.
        forward: mean forward FLOPs an image over training, 2 per multiply-add (the paper's F), mean over seeds.
        share: of motivated steps, mean over seeds; None for classical training.
        null_rate: what noise would give; None where undefined.
        flops: training FLOPs, mean over seeds.
    """

    accuracy: Mapping[int, float]
    forward: float | None = None
    share: float | None = None
    null_rate: float | None = None
    flops: float | None = None

    @classmethod
    def of(cls, runs: Sequence[Run], key: str) -> "Measured":
        """Read off finished runs.

        Args:
            runs: one a seed, or one a fold.
            key: of the summary: ``base/top1``, ``motivated/top1``, ``base/val_top1``.
        """
        if not runs:
            return cls({})
        shares = [run.motivated_share for run in runs if run.motivated_share is not None]
        nulls = [run.summary["null_rate"] for run in runs if run.summary["null_rate"] is not None]
        folds = [run.config["data"].get("fold") for run in runs]
        return cls({run.summary["seed"] if fold is None else fold: run.summary[key]
                    for run, fold in zip(runs, folds, strict=True)},
                   float(np.mean([run.summary["budget/forward_per_image"] for run in runs])),
                   float(np.mean(shares)) if shares else None, float(np.mean(nulls)) if nulls else None,
                   float(np.mean([run.summary["budget/flops"] for run in runs])))


@dataclass(frozen=True)
class TableRow:
    """A row on one data set.

    Args:
        label: its name.
        dataset: the paper's data set.
        phase: the network it shows.
        reported: the paper's figures: ``acc`` (mean, std), ``flops`` in ``unit``; empty for a control of ours.
        against: label of the classical row it is compared with.
        method: for a control, the row that it controls.
        measured: what its runs say.
        planned: runs planned.
        tested: its difference to ``against``; for a control, the method's difference to it.
        adjusted: p-value after Holm's correction over the table.
    """

    label: str
    dataset: str
    phase: str
    reported: Mapping[str, Any]
    against: str | None
    method: str | None
    measured: Measured
    planned: int
    tested: Difference | None = None
    adjusted: float | None = None


def with_tests(rows: Sequence[TableRow]) -> list[TableRow]:
    """Test every row against its classical row, and every method against its controls; Holm-corrected together."""
    by_label = {(row.label, row.dataset): row for row in rows}
    tested = []
    for row in rows:
        if row.method is not None:
            first, second = by_label[row.method, row.dataset], row
        else:
            first, second = row, by_label.get((row.against, row.dataset))
        if second is None or not first.measured.accuracy or not second.measured.accuracy:
            tested.append(row)
        else:
            tested.append(replace(row, tested=difference(first.measured.accuracy, second.measured.accuracy)))
    known = [row.tested.p for row in tested if row.tested and row.tested.p is not None]
    adjusted = iter(holm(known))
    return [replace(row, adjusted=next(adjusted)) if row.tested and row.tested.p is not None else row
            for row in tested]


def reported_forward(row: TableRow) -> float | None:
    """The paper's F in our unit, 2 FLOPs a multiply-add."""
    flops = row.reported.get("flops")
    return None if flops is None else flops * PER_MULTIPLY_ADD[row.reported.get("unit", "mac")]


def efficiency(accuracy: float | None, forward: float | None, of_control: tuple[float | None, float | None],
               ) -> float | None:
    """The paper's ACC/FLOPs: points of accuracy gained per extra GFLOP an image, against the classical base."""
    values = (accuracy, forward, *of_control)
    if any(value is None for value in values) or forward == of_control[1]:
        return None
    return (accuracy - of_control[0]) / (forward - of_control[1]) * 1e9


def cells_of(rows: Sequence[TableRow]) -> list[list[str]]:
    """Every row as text, in the order of `COLUMNS`."""
    by_label = {(row.label, row.dataset): row for row in rows}
    made = []
    for row in rows:
        control = by_label.get((row.against, row.dataset))
        acc = row.reported.get("acc") or (None, None)
        reported, measured = NONE, NONE
        if control is not None:
            theirs = control.reported.get("acc") or (None,)
            reported = _number(efficiency(acc[0], reported_forward(row), (theirs[0], reported_forward(control))), ".3g")
            measured = _number(efficiency(_mean(row.measured), row.measured.forward,
                                          (_mean(control.measured), control.measured.forward)), ".3g")
        made.append([("  vs " + row.label.split(": ")[1]) if row.method else row.label, _mean_std(*acc),
                     _accuracy(row), f"{len(row.measured.accuracy)}/{row.planned}", _difference(row), _test(row),
                     _number(row.adjusted, ".3g"), _number(reported_forward(row), ".4g"),
                     _number(row.measured.forward, ".4g"), reported, measured,
                     _number(row.measured.share, ".1%"), _number(row.measured.null_rate, ".1%")])
    return made


def to_markdown(title: str, note: str, rows: Sequence[TableRow]) -> str:
    """The table as Markdown, a section a data set."""
    parts = [f"## {title}", "", note, ""]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        lines = [list(COLUMNS), *cells_of([row for row in rows if row.dataset == dataset])]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
                  for line in lines]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        parts += [f"### {dataset}", "", padded[0], rule, *padded[1:], ""]
    return "\n".join([*parts, LEGEND])


LEGEND = (
    "F: mean forward FLOPs an image over training, 2 per multiply-add, convolutions and matrix products only (the "
    "paper also counts normalisation and activations: 82.82 against 81.10 MFLOP for ResNet-20). difference: a row "
    "minus its classical base in points (a motivated network: minus the classical large network); in a `vs` row the "
    "method above minus that control. test: paired t where seeds match, Welch elsewhere, none below n = 2; Holm p: "
    "corrected over this table. acc/GF: points gained per extra GFLOP of F, recomputed from the printed and from the "
    "measured figures. null: share of motivated steps that noise alone would give."
)


def to_csv(rows: Sequence[TableRow]) -> str:
    """The table as CSV, with its data set as first column."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["dataset", *COLUMNS])
    for dataset in dict.fromkeys(row.dataset for row in rows):
        writer.writerows([dataset, *cells] for cells in cells_of([row for row in rows if row.dataset == dataset]))
    return file.getvalue()


def to_latex(title: str, note: str, rows: Sequence[TableRow]) -> str:
    """The table as LaTeX (booktabs)."""
    lines = [r"\begin{table}", rf"\caption{{{_tex(title)}. {_tex(note)}}}",
             rf"\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 1)}}}", r"\toprule", " & ".join(map(_tex, COLUMNS)) + r" \\"]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        lines += [r"\midrule", rf"\multicolumn{{{len(COLUMNS)}}}{{l}}{{{_tex(dataset)}}} \\"]
        lines += [" & ".join(map(_tex, cells)) + r" \\"
                  for cells in cells_of([row for row in rows if row.dataset == dataset])]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("#", r"\#"),
                           ("±", r"$\pm$"), ("->", r"$\to$")):
        text = text.replace(plain, escaped)
    return text


def _mean(measured: Measured) -> float | None:
    return float(np.mean(list(measured.accuracy.values()))) if measured.accuracy else None


def _mean_std(mean: float | None, std: float | None = None) -> str:
    if mean is None:
        return NONE
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _accuracy(row: TableRow) -> str:
    values = list(row.measured.accuracy.values())
    if not values:
        return "unfinished"
    return _mean_std(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def _difference(row: TableRow) -> str:
    return NONE if row.tested is None else f"{row.tested.mean:+.2f}"


def _test(row: TableRow) -> str:
    if row.tested is None:
        return NONE
    return row.tested.test if row.tested.p is None else f"p = {row.tested.p:.3g}, {row.tested.test}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)
