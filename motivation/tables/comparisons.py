"""Comparisons of a study: networks of rows against networks of control rows, paired by seed, and where curves cross."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from motivation.analysis.statistics import Difference, difference, holm, minimum_effect
from motivation.phase import PHASES, Phase

LEVEL, POWER = 0.05, 0.8
# In a row's ``versus``: the other network of the same pair.
OWN_BASE = "its base"


class Network(NamedTuple):
    """A network of a row.

    Attributes:
        row: label of the row.
        phase: which of a pair's networks; ``base`` for the one of classical training.
    """

    row: str
    phase: Phase


@dataclass(frozen=True)
class Comparison:
    """A network of a row against one of a control row.

    Args:
        dataset: of both.
        network: whose accuracy is compared.
        control: with what.
        n: seeds that both have.
        tested: the difference over those seeds; None below one.
        adjusted: its p-value after Holm's correction over all comparisons of the table.
        detectable: the least difference, in points, that so many pairs with this deviation show with probability 0.8
            at the level 0.05 divided by the number of tests, the strictest step of Holm's correction; None without a
            test.
        uncorrected: the same at 0.05.
    """

    dataset: str
    network: Network
    control: Network
    n: int = 0
    tested: Difference | None = None
    adjusted: float | None = None
    detectable: float | None = None
    uncorrected: float | None = None

    @property
    def against(self) -> str:
        """Label of what it is compared with: a row, or the base of its own pair."""
        return OWN_BASE if self.control.row == self.network.row else self.control.row

    def verdict(self, delta: float) -> str | None:
        """What the test shows: ``differs`` after Holm's correction, ``equal`` up to +-delta points, or ``open``;
        None without a test.
        """
        if self.tested is None or self.tested.interval is None or self.adjusted is None:
            return None
        if self.adjusted < LEVEL:
            return "differs"
        return "equal" if self.tested.is_within(delta) else "open"


def planned_comparisons(name: str, dataset: str, row: Mapping[str, Any], pairs: Mapping[str, bool]) -> list[Comparison]:
    """The comparisons that a row's ``versus`` asks for.

    Args:
        name: of the table, for error messages.
        dataset: of the row.
        row: of the table's file; ``versus`` lists labels for all its networks, or maps ``base`` and ``motivated`` to
            labels; ``its base`` is that of the row's own pair, for ``motivated``.
        pairs: label of every planned row -> whether it is of a pair.

    Raises:
        ValueError: there is no such row or network.
    """
    own: tuple[Phase, ...] = PHASES if pairs[row["row"]] else ("base",)
    versus = row.get("versus", ())
    asked = versus if isinstance(versus, Mapping) else dict.fromkeys(own, versus)
    made = []
    for phase, labels in asked.items():
        if phase not in own:
            raise ValueError(f"{name}, row {row['row']}: versus: it has no network {phase!r}, only {', '.join(own)}")
        for label in labels:
            if label == OWN_BASE and phase == "motivated":
                made.append(Comparison(dataset, Network(row["row"], phase), Network(row["row"], "base")))
                continue
            if label not in pairs:
                raise ValueError(f"{name}, row {row['row']}: versus: there is no row {label!r}")
            control: Phase = phase if pairs[label] else "base"
            made.append(Comparison(dataset, Network(row["row"], phase), Network(label, control)))
    return made


def with_tests(comparisons: Sequence[Comparison],
               accuracies: Mapping[tuple[str, Network], Mapping[int, float]]) -> list[Comparison]:
    """Every comparison with its paired test over the seeds that both rows have finished, Holm's correction over all.

    Args:
        comparisons: of a table.
        accuracies: data set and network -> test accuracy in percent by seed.
    """
    tested, deviations = [], []
    for one in comparisons:
        values, reference = (accuracies[one.dataset, network] for network in (one.network, one.control))
        seeds = sorted(values.keys() & reference.keys())
        found = difference({seed: values[seed] for seed in seeds},
                           {seed: reference[seed] for seed in seeds}) if seeds else None
        tested.append(replace(one, n=len(seeds), tested=found))
        deviations.append([values[seed] - reference[seed] for seed in seeds])
    family = [index for index, one in enumerate(tested) if one.tested and one.tested.p is not None]
    for index, adjusted in zip(family, holm([tested[index].tested.p for index in family]), strict=True):
        sd, n = float(np.std(deviations[index], ddof=1)), tested[index].n
        tested[index] = replace(tested[index], adjusted=adjusted,
                                detectable=minimum_effect(sd, n, LEVEL / len(family), POWER),
                                uncorrected=minimum_effect(sd, n, LEVEL, POWER))
    return tested


def power_note(comparisons: Sequence[Comparison]) -> str:
    """What the table's n could have shown, in one sentence; empty without a test."""
    shown = [one for one in comparisons if one.detectable is not None and one.uncorrected is not None]
    if not shown:
        return ""
    few, many = min(one.n for one in shown), max(one.n for one in shown)
    strict, plain = ([getattr(one, name) for one in shown] for name in ("detectable", "uncorrected"))
    n = few if few == many else f"{few} to {many}"
    return (f"With n = {n} pairs of equal seeds a test of this table would have shown (p < {LEVEL:g}, with probability "
            f"{POWER:g}) a difference of {_spread(plain)} points by itself, and of {_spread(strict)} after the "
            f"correction for {len(shown)} tests; smaller ones it cannot exclude.")


def verdict_note(comparisons: Sequence[Comparison], delta: float) -> str:
    """How many comparisons differ, are equal or stay open, in one sentence; empty without a test."""
    verdicts = [verdict for one in comparisons if (verdict := one.verdict(delta))]
    if not verdicts:
        return ""
    return (f"Of {len(verdicts)} comparisons {verdicts.count('differs')} differ (Holm p < {LEVEL:g}), "
            f"{verdicts.count('equal')} are equal (the 95 % interval lies within ±{delta:g} points), and "
            f"{verdicts.count('open')} are open: neither is shown.")


def _spread(values: Sequence[float]) -> str:
    low, middle, high = min(values), float(np.median(values)), max(values)
    return f"{middle:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{middle:.2f} (median; {low:.2f} to {high:.2f})"


class Crossing(NamedTuple):
    """How one curve of accuracy over training FLOPs runs against another, where both are known.

    Attributes:
        low: least FLOPs that both curves reach.
        high: most FLOPs.
        first: difference there, in points, at ``low``.
        last: at ``high``.
        at: FLOPs at which they cross.
    """

    low: float
    high: float
    first: float
    last: float
    at: tuple[float, ...]


def crossing(curve: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> Crossing | None:
    """Where two curves cross, straight lines over the logarithm of FLOPs between their points; None without overlap.

    Args:
        curve: (training FLOPs, accuracy in percent) of two or more budgets, in any order.
        other: of the curve that is subtracted.
    """
    if min(len(curve), len(other)) < 2:
        return None
    lines = [np.array(sorted((np.log(flops), accuracy) for flops, accuracy in one)).T for one in (curve, other)]
    low, high = (float(pick([line[0][end] for line in lines])) for pick, end in ((max, 0), (min, -1)))
    if low >= high:
        return None
    knots = np.unique([low, high, *(knot for line in lines for knot in line[0] if low < knot < high)])
    gaps = np.interp(knots, *lines[0]) - np.interp(knots, *lines[1])
    at = [float(np.exp(knots[i] + (knots[i + 1] - knots[i]) * gaps[i] / (gaps[i] - gaps[i + 1])))
          for i in range(len(knots) - 1) if gaps[i] * gaps[i + 1] < 0]
    at += [float(np.exp(knot)) for knot, gap in zip(knots[1:-1], gaps[1:-1], strict=True) if gap == 0]
    return Crossing(float(np.exp(low)), float(np.exp(high)), float(gaps[0]), float(gaps[-1]), tuple(sorted(at)))


class Curve(NamedTuple):
    """One network at several budgets.

    Attributes:
        name: such as ``pair/motivated``.
        networks: a row each.
    """

    name: str
    networks: tuple[Network, ...]


@dataclass(frozen=True)
class Study:
    """What a table of ours asks: no printed figures to reproduce, but differences to named controls.

    Args:
        comparisons: in the order of the rows.
        curves: data set, and two curves whose crossing is sought.
        reference: label of the row whose training FLOPs count as 1.
        delta: points up to which two accuracies count as equal.
        figures: further columns of its rows: title -> key of the summary, such as what a lever counted.
    """

    comparisons: tuple[Comparison, ...]
    curves: tuple[tuple[str, Curve, Curve], ...] = ()
    reference: str | None = None
    delta: float = 1.0
    figures: Mapping[str, str] = field(default_factory=dict)


def planned_curves(name: str, dataset: str, table: Mapping[str, Any]) -> list[tuple[str, Curve, Curve]]:
    """The pairs of curves that a table asks for: rows of one ``curve``, and ``/base`` or ``/motivated`` of a pair.

    Raises:
        ValueError: no row is of such a curve.
    """
    def curve(asked: str) -> Curve:
        label, _, phase = asked.partition("/")
        networks = tuple(Network(row["row"], "motivated" if phase == "motivated" else "base") for row in table["rows"]
                         if row.get("curve") == label and dataset in row)
        if not networks:
            raise ValueError(f"{name}: curves: no row has curve: {label}")
        return Curve(asked, networks)

    return [(dataset, curve(first), curve(second)) for first, second in table.get("curves", ())]
