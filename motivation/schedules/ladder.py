"""A ladder: another schedule's motivated decisions climb the rungs of something else than a pair."""

from typing import Annotated

from pydantic import Field

from motivation.monitors.signal import Monitor
from motivation.phase import Phase
from motivation.schedules.constant import Never
from motivation.schedules.controls import Periodic, Progressive
from motivation.schedules.gates import Gate, Inner
from motivation.validation import check_arguments


@check_arguments
class Ladder(Gate):
    """Each motivated decision climbs one rung, and none is motivated on the last; never down.

    A motivated step is the first on its rung, so that phases say when each rung was reached, and a control of the same
    phases climbs at the same steps.

    Args:
        schedule: the inner one; its other decisions are overruled.
        rungs: how many there are.
        total_steps: length of training; None where it is unknown.

    Attributes:
        rung: of the next step, from 0.

    Raises:
        ValueError: the inner schedule decides by the step alone, and never reaches the last rung.
    """

    state = (*Gate.state, "climbed")

    def __init__(self, schedule: Inner, rungs: Annotated[int, Field(ge=2)], *, total_steps: int | None = None):
        super().__init__(schedule)
        self.rungs = rungs
        self.climbed = 0
        if total_steps is not None and isinstance(schedule, Never | Periodic | Progressive):
            climbs = 0 if isinstance(schedule, Never) else sum(map(schedule.motivated_at, range(total_steps)))
            if climbs < rungs - 1:
                raise ValueError(f"{type(schedule).__name__} is motivated in {climbs} of {total_steps} steps, "
                                 f"so that the last of {rungs} rungs is never reached; it takes {rungs - 1}")

    @property
    def rung(self) -> int:
        """Of the next step: motivated steps so far, it included."""
        return self.climbed + (self.phase == "motivated")

    def bind(self, monitor: Monitor) -> None:
        """Bind the inner schedule, which is the one that was asked for."""
        self.schedule.bind(monitor)

    def decide(self, score: float) -> Phase:
        """The inner schedule's, until the last rung is reached."""
        self.climbed += self.phase == "motivated"
        return super().decide(score)

    def allow(self, wanted: Phase) -> Phase:
        """``base`` on the last rung."""
        return wanted if self.climbed < self.rungs - 1 else "base"
