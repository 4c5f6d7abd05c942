"""Schedules that ignore the score: one network throughout."""

from motivation.monitors.signal import Monitor
from motivation.schedules.schedule import Phase, Schedule


class Never(Schedule):
    """The base network alone: what classical training of the base must equal."""

    def decide(self, score: float) -> Phase:
        """Always ``base``."""
        return "base"

    def null_rate(self, monitor: Monitor, steps_per_epoch: int) -> float:
        """0: no step is motivated, whatever the signal."""
        return 0.0


class Always(Schedule):
    """The motivated network from the first step to the last; the base is read off it."""

    def start(self) -> Phase:
        """``motivated``."""
        return "motivated"

    def decide(self, score: float) -> Phase:
        """Always ``motivated``."""
        return "motivated"

    def null_rate(self, monitor: Monitor, steps_per_epoch: int) -> float:
        """1: every step is motivated, whatever the signal."""
        return 1.0
