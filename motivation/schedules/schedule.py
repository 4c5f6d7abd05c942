"""What every schedule is."""

import math
from typing import Literal

from motivation.monitors.signal import Monitor

Phase = Literal["base", "motivated"]


class Schedule:
    """Decides which network trains next.

    Attributes:
        state: names of the attributes that carry it from one step to the next.
    """

    state: tuple[str, ...] = ()

    def start(self) -> Phase:
        """Phase of the first step."""
        return "base"

    def decide(self, score: float) -> Phase:
        """Phase of the next step, from the score after this one (NaN: no score yet)."""
        raise NotImplementedError

    def end_epoch(self, phase: Phase) -> Phase:
        """Phase that the next epoch starts in."""
        return phase

    def null_rate(self, monitor: Monitor, steps_per_epoch: int) -> float:
        """Share of motivated steps that this monitor and schedule would give on noise; NaN where undefined."""
        return math.nan

    def state_dict(self) -> dict:
        """What it carries from one step to the next."""
        return {name: getattr(self, name) for name in self.state}

    def load_state_dict(self, state: dict) -> None:
        """Restore a state saved by `state_dict`."""
        for name in self.state:
            setattr(self, name, state[name])
