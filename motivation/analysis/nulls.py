"""The null rate of a row of runs in a table: which null it is, and the closed form in a footnote."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import motivation.monitors
import motivation.schedules
from motivation.analysis.markdown import number
from motivation.run_folder.read import Run

# Marks a rate in closed form, which does not judge.
MARK = "*"


class RowNull(NamedTuple):
    """Null rate of a row of runs.

    Attributes:
        rate: mean share of motivated steps on noise; None where no null is defined.
        judged: whether it is the null that `motivation.null.rate.null_rate` judges a long run by. If not, it is the
            closed form for independent readings: the runs have few readings, or an earlier version wrote them.
        independent: mean of the closed form; None where there is none.
    """

    rate: float | None = None
    judged: bool = True
    independent: float | None = None

    def __str__(self) -> str:
        """The rate in percent, marked where it is the closed form."""
        return number(self.rate, ".1%") + ("" if self.judged or self.rate is None else MARK)


NO_NULL = RowNull()


def row_null(runs: Sequence[Run]) -> RowNull:
    """The null rate of a row, from its runs' summaries."""
    rates, closed = [run.summary["null_rate"] for run in runs], [_is_closed_form(run) for run in runs]
    independent = [run.summary["null_rate"] if one and "null_kind" not in run.summary
                   else run.summary.get("null_rate_independent") for run, one in zip(runs, closed, strict=True)]
    return RowNull(_mean(rates), not any(closed), _mean(independent))


def footnotes(nulls: Mapping[str, RowNull]) -> list[str]:
    """What the rates of a table's rows are, and their closed forms; empty where no row has either.

    Args:
        nulls: by label of the row.
    """
    notes, rows = [], {}
    for label, null in nulls.items():
        if null.independent is not None:
            rows.setdefault(f"{null.independent:.1%}", []).append(label)
    if rows:
        notes.append("On independent readings (closed form, a reference alone: a run's readings depend on one another, "
                     "and differ between the networks): "
                     + "; ".join(f"{rate} for {', '.join(labels)}" for rate, labels in rows.items()) + ".")
    if any(not null.judged for null in nulls.values()):
        notes.append(f"{MARK} this closed form, where the null that `motivation diagnose` judges by is not known: the "
                     "run has too few readings, or an earlier version wrote its summary. More than it is no evidence "
                     "of progress.")
    return notes


def _is_closed_form(run: Run) -> bool:
    """Whether a summary's null rate is of independent readings, which before ``null_kind`` was as the monitor declares.
    """
    if "null_kind" in run.summary or len(run.networks) == 1:
        return run.summary.get("null_kind") == "analytic"
    schedule = run.config["schedule"]
    while "schedule" in schedule:
        schedule = schedule["schedule"]
    sets = getattr(motivation.schedules.BY_NAME.get(schedule["name"]), "set_share", False)
    return not sets and all(getattr(motivation.monitors.BY_NAME.get(name), "null", None) == "analytic"
                            for name in _names(run.config["monitor"]))


def _names(monitor: Mapping[str, Any]) -> list[str]:
    """Names of the monitors that read a signal: a composition's parts."""
    parts = [monitor["monitor"]] if "monitor" in monitor else [part for part, _ in monitor.get("pairs", ())]
    return [name for part in parts for name in _names(part)] or [monitor["name"]]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
