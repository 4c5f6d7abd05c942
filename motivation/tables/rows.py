"""Rows of a table: reported beside measured figures, every difference with its test, accuracy per FLOP recomputed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from motivation.analysis.nulls import NO_NULL, RowNull, row_null
from motivation.analysis.statistics import Difference, difference, holm
from motivation.phase import Phase
from motivation.run_folder.read import Run

# The paper counts CIFAR ResNets as 2 FLOPs a multiply-add and all others as 1; ours are always 2.
PER_MULTIPLY_ADD = {"2mac": 1, "mac": 2}
# It prints points of accuracy per this many of them, where a row does not say otherwise.
PER = {"2mac": 1e8, "mac": 1e9}
# It prints two decimals, some cut instead of rounded: off by up to one unit of the last.
LAST_DECIMAL = 0.0101


@dataclass(frozen=True)
class Measured:
    """Means over the finished runs of a row.

    Args:
        accuracy: test accuracy in percent, by seed.
        forward: mean forward FLOPs an image over training, 2 per multiply-add (the paper's F), mean over seeds.
        share: of motivated steps, mean over seeds; None for classical training.
        null: share of motivated steps on noise.
    """

    accuracy: Mapping[int, float]
    forward: float | None = None
    share: float | None = None
    null: RowNull = NO_NULL

    @classmethod
    def of(cls, runs: Sequence[Run], key: str) -> "Measured":
        """Measures of finished runs.

        Args:
            runs: one a seed, or one a fold.
            key: of the summary: ``base/top1``, ``motivated/top1``, ``base/val_top1``.
        """
        folds = [run.config["data"].get("fold") for run in runs]
        return cls({run.summary["seed"] if fold is None else fold: run.summary[key]
                    for run, fold in zip(runs, folds, strict=True)},
                   _mean([run.summary["budget/forward_per_image"] for run in runs]),
                   _mean([run.motivated_share for run in runs]), row_null(runs))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table on one data set.

    Args:
        label: the paper's name of it, or a control's.
        dataset: name of the paper's data set.
        phase: the network whose accuracy it shows.
        reported: the paper's figures: ``acc`` (mean, std), ``flops`` in ``unit``, ``acc_per_flops`` and ``ratio`` in
            points per ``per`` of that unit; no figures for a control that the paper lacks.
        against: label of the classical row it is compared with.
        method: for a control, label of the row it controls.
        large: for a base after dual training, label of the classical row of the large network.
        baseline: a classical network, whose difference to a smaller one is no claim about the method.
    """

    label: str
    dataset: str
    phase: Phase = "base"
    reported: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    method: str | None = None
    large: str | None = None
    baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class TableRow(Row):
    """A row with the measures of its runs.

    Args:
        measured: by its finished runs.
        planned: runs planned.
        troubled: ``broken`` or ``foreign``, once for every such run.
        tested: its difference to ``against``; for a control, the method's difference to it.
        adjusted: p-value after Holm's correction over the table.
    """

    measured: Measured
    planned: int
    troubled: tuple[str, ...] = ()
    tested: Difference | None = None
    adjusted: float | None = None

    @property
    def count(self) -> str:
        """Finished of planned runs, and how many are in trouble."""
        troubles = [f"{self.troubled.count(kind)} {kind}" for kind in dict.fromkeys(self.troubled)]
        return f"{len(self.measured.accuracy)}/{self.planned}" + (f" ({', '.join(troubles)})" if troubles else "")


def with_tests(rows: Sequence[TableRow]) -> list[TableRow]:
    """Test every row against its classical row, and every method against its controls.

    Holm's correction is over all of them except baselines, whose differences are no claim about the method.
    """
    by_label = labelled(rows)
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
    family = [row for row in tested if row.tested and row.tested.p is not None and not row.baseline]
    adjusted = dict(zip(map(id, family), holm([row.tested.p for row in family]), strict=True))
    return [replace(row, adjusted=adjusted.get(id(row))) for row in tested]


def labelled(rows: Sequence[TableRow]) -> dict[tuple[str | None, str], TableRow]:
    """Rows by label and data set."""
    return {(row.label, row.dataset): row for row in rows}


def unit_of(row: Row) -> tuple[str, float]:
    """The paper's unit of F, ``2mac`` or ``mac``, and how many of it an ACC/FLOPs of this row is per."""
    unit = row.reported.get("unit", "mac")
    return unit, row.reported.get("per", PER[unit])


def reported_forward(row: Row) -> float | None:
    """The paper's F in our unit, 2 FLOPs a multiply-add."""
    flops = row.reported.get("flops")
    return None if flops is None else flops * PER_MULTIPLY_ADD[unit_of(row)[0]]


def mean_accuracy(measured: Measured) -> float | None:
    """In percent, over seeds; None without a finished run."""
    return _mean(list(measured.accuracy.values()))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


class Efficiency(NamedTuple):
    """Accuracy gained for the FLOPs it cost; None where that is undefined or unknown.

    Attributes:
        gain: the paper's ACC/FLOPs: points of accuracy above the classical base per extra F, in the paper's unit.
        ratio: the paper's ACC/F_Ratio: a base's gain over that of the classical large network.
        rounded_ratio: that of gains rounded to two decimals, as the paper divides them.
    """

    gain: float | None = None
    ratio: float | None = None
    rounded_ratio: float | None = None


def efficiencies(row: TableRow, by_label: Mapping[tuple[str | None, str], TableRow]) -> tuple[Efficiency, Efficiency]:
    """ACC/FLOPs and its ratio, recomputed from the printed and from the measured accuracies and F.

    Defined for a base after dual training and for a classical network, against a smaller classical one; undefined for a
    motivated network, which costs less than the one it is compared with.
    """
    control, large = (by_label.get((label, row.dataset)) for label in (row.against, row.large))
    if control is None or row.phase == "motivated":
        return Efficiency(), Efficiency()

    def reported(one: TableRow) -> tuple[float | None, float | None]:
        return (one.reported.get("acc") or (None,))[0], one.reported.get("flops")

    def measured(one: TableRow) -> tuple[float | None, float | None]:
        forward = one.measured.forward
        return mean_accuracy(one.measured), None if forward is None else forward / PER_MULTIPLY_ADD[unit_of(row)[0]]

    found = []
    for figures in (reported, measured):
        own, others = (None if one is None else _gain(figures(one), figures(control), unit_of(row)[1])
                       for one in (row, large))
        found.append(Efficiency(own, _quotient(own, others), _quotient(_rounded(own), _rounded(others))))
    return found[0], found[1]


def misprint(printed: float | None, *recomputed: float | None) -> bool:
    """Whether a printed figure differs, beyond rounding, from all that the printed accuracies and F give."""
    known = [value for value in recomputed if value is not None]
    return printed is not None and bool(known) and all(abs(printed - value) > LAST_DECIMAL for value in known)


def _gain(own: tuple[float | None, float | None], control: tuple[float | None, float | None],
          per: float) -> float | None:
    if None in (*own, *control) or own[1] == control[1]:
        return None
    return (own[0] - control[0]) / (own[1] - control[1]) * per


def _quotient(own: float | None, others: float | None) -> float | None:
    return None if own is None or not others else own / others


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
