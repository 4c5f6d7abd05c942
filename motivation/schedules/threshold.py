"""Motivated while the score is at or above a level: the paper's rule."""

import math
from typing import Annotated, Literal

from pydantic import Field

from motivation.monitors.signal import Monitor, check_level
from motivation.phase import Phase
from motivation.schedules.schedule import Schedule
from motivation.validation import check_arguments

Level = Annotated[float, Field(allow_inf_nan=False)]


@check_arguments
class Threshold(Schedule):
    """Expand when the score reaches k, contract when it falls below (paper, Algorithm 1).

    With `Consecutive`, k is the number of straight decreases.

    Args:
        k: the level that expands; null takes the monitor's own level.
        epoch_edge: ``contract`` starts every epoch on the base network (paper); ``carry`` keeps the phase.
        k_off: the level below which an interval ends (hysteresis); null for k itself, as in the paper.

    Raises:
        ValueError: k or k_off is no number, k_off is above k, or an unknown epoch edge.
    """

    needs_monitor = True
    state = ("phase",)

    def __init__(self, k: Level | None = 2, epoch_edge: Literal["contract", "carry"] = "contract",
                 k_off: Level | None = None):
        if k_off is not None and k is not None and k_off > k:
            raise ValueError(f"k_off={k_off:g}: must be at most k={k:g}, or an interval would end as it starts")
        self.k = k
        self.k_off = k_off
        self.epoch_edge = epoch_edge
        self.phase: Phase = "base"

    def bind(self, monitor: Monitor) -> None:
        """Take the monitor's own level where k is null, and check that scores lie on both sides of k."""
        name = type(monitor).__name__
        level = getattr(monitor, "level", math.nan)
        if self.k is None:
            if math.isnan(level):
                raise ValueError(f"k is missing: {name} has no default level; set k, or use a quota")
            if self.k_off is not None and self.k_off > level:
                raise ValueError(f"k_off={self.k_off:g}: must be at most k, which is {name}'s own {level:g}")
            self.k = level
        check_level(f"k={self.k:g}", self.k, monitor)

    def decide(self, score: float) -> Phase:
        """``motivated`` where score >= k, or >= k_off inside an interval; a NaN score gives ``base``."""
        level = self.k_off if self.k_off is not None and self.phase == "motivated" else self.k
        self.phase = "motivated" if score >= level else "base"
        return self.phase

    def end_epoch(self, phase: Phase) -> Phase:
        """``base`` with a contracting edge."""
        self.phase = "base" if self.epoch_edge == "contract" else phase
        return self.phase

    def overrule(self, phase: Phase) -> None:
        """The level that counts next is that of the phase that runs."""
        self.phase = phase

    def null_rate(self, monitor: Monitor, steps_per_epoch: float) -> float:
        """The monitor's exceedance of k; a contracting edge loses one decision of every epoch."""
        if self.k_off is not None and self.k_off < self.k:
            return math.nan
        edge = 1 - 1 / steps_per_epoch if self.epoch_edge == "contract" and math.isfinite(steps_per_epoch) else 1
        return monitor.exceedance(self.k) * edge
