"""What every schedule is."""

import copy
import math
from typing import Annotated, Any

from pydantic import Field

from motivation.monitors.signal import Monitor
from motivation.phase import Phase

# Of the steps of a run.
Share = Annotated[float, Field(gt=0, lt=1, description="a share above 0 and below 1; for all or none of the steps "
                               "there are the schedules always and never")]


class Schedule:
    """Decides which network trains next.

    Attributes:
        set_share: whether the share of motivated steps is chosen, not measured: then the run's rate says nothing on
            whether its expansions measured progress.
        needs_monitor: whether it decides by scores, so that without a monitor it would never expand.
        state: names of the attributes that carry it from one step to the next.
    """

    set_share: bool = False
    needs_monitor: bool = False
    state: tuple[str, ...] = ()

    def bind(self, monitor: Monitor) -> None:
        """Take what depends on the monitor, before the first step.

        Raises:
            ValueError: it cannot act on this monitor's scores.
        """

    def start(self) -> Phase:
        """Phase of the first step."""
        return "base"

    def decide(self, score: float) -> Phase:
        """Phase of the next step, from the score after this one (NaN: no score yet)."""
        raise NotImplementedError

    def end_epoch(self, phase: Phase) -> Phase:
        """Phase that the next epoch starts in."""
        return phase

    def overrule(self, phase: Phase) -> None:
        """Be told that the next step runs in another phase than the one just decided."""

    def null_rate(self, monitor: Monitor, steps_per_epoch: float) -> float:
        """Share of motivated steps on exchangeable readings, in closed form; NaN where there is none."""
        return math.nan

    def state_dict(self) -> dict[str, Any]:
        """What it carries from one step to the next, as plain values."""
        return copy.deepcopy({name: getattr(self, name) for name in self.state})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state saved by `state_dict`."""
        for name in self.state:
            setattr(self, name, copy.deepcopy(state[name]))


class Completed(Schedule):
    """A schedule of another class that has `decide`, with what it lacks: base at first, and intervals that go on."""

    def __init__(self, schedule: Any):
        self.schedule = schedule
        self.decide = schedule.decide
        for name in ("bind", "start", "end_epoch", "overrule", "null_rate", "state_dict", "load_state_dict",
                     "set_share"):
            if hasattr(schedule, name):
                setattr(self, name, getattr(schedule, name))

    def state_dict(self) -> dict[str, Any]:
        """Refused: the other class has none."""
        check_saves(self.schedule)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refused: the other class has none."""
        check_saves(self.schedule)


def completed(schedule: Any) -> Schedule:
    """A schedule as it is, or one of another class with what it lacks."""
    return schedule if isinstance(schedule, Schedule) else Completed(schedule)


def check_saves(part: Any) -> None:
    """Raise ValueError for a monitor or schedule whose state cannot be saved and restored."""
    for name in ("state_dict", "load_state_dict"):
        if part is not None and not hasattr(part, name):
            raise ValueError(f"{type(part).__name__} has no {name}, and a checkpoint holds its state: define "
                             "state_dict() and load_state_dict(state)")
