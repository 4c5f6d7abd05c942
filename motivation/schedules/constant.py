"""Schedules that ignore the score: one network throughout."""

from motivation.phase import Phase
from motivation.schedules.schedule import Schedule


class Never(Schedule):
    """The base network alone: what classical training of the base must equal."""

    set_share = True

    def decide(self, score: float) -> Phase:
        """Always ``base``."""
        return "base"


class Always(Schedule):
    """The motivated network from the first step to the last; the base is read off it."""

    set_share = True

    def start(self) -> Phase:
        """``motivated``."""
        return "motivated"

    def decide(self, score: float) -> Phase:
        """Always ``motivated``."""
        return "motivated"
