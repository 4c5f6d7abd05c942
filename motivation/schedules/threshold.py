"""Motivated while the score stands at or above a level: the paper's rule."""

import math
from typing import Literal

from motivation.monitors.signal import Monitor
from motivation.schedules.schedule import Phase, Schedule


class Threshold(Schedule):
    """Expand when the score reaches k, contract when it falls below (paper, Algorithm 1).

    With `Consecutive`, k is the number of straight decreases.

    Args:
        k: the level, at least 1.
        epoch_edge: ``contract`` starts every epoch on the base network (paper); ``carry`` lets an interval go on.

    Raises:
        ValueError: k below 1, or an unknown epoch edge.
    """

    def __init__(self, k: float = 2, epoch_edge: Literal["contract", "carry"] = "contract"):
        if not k >= 1:
            raise ValueError(f"k={k}: must be at least 1, since every step has a score of 0 or more")
        if epoch_edge not in ("contract", "carry"):
            raise ValueError(f"epoch_edge={epoch_edge!r}: choose contract or carry")
        self.k = k
        self.epoch_edge = epoch_edge

    def decide(self, score: float) -> Phase:
        """``motivated`` where score >= k; a NaN score gives ``base``."""
        return "motivated" if score >= self.k else "base"

    def end_epoch(self, phase: Phase) -> Phase:
        """``base`` with a contracting edge."""
        return "base" if self.epoch_edge == "contract" else phase

    def null_rate(self, monitor: Monitor, steps_per_epoch: int) -> float:
        """The monitor's exceedance of k; a contracting edge loses one decision of every epoch."""
        edge = 1 - 1 / steps_per_epoch if self.epoch_edge == "contract" and math.isfinite(steps_per_epoch) else 1
        return monitor.exceedance(self.k) * edge
