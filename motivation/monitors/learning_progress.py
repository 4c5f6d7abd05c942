"""Learning progress of intrinsic-motivation research: how much less loss than before."""

import math
from typing import Annotated

from pydantic import Field

from motivation.monitors.signal import Monitor, Signal, check_length
from motivation.validation import Count, check_arguments


@check_arguments
class LearningProgress(Monitor):
    """Older minus newer window mean of the loss, over its standard error (Oudeyer, Kaplan and Hafner 2007).

    Signal: raw batch loss, the last ``2 * window`` steps. Formula: ``(older mean - newer mean) / sqrt(s^2 * 2 /
    window)``, s^2 the two windows' pooled variance. Unit: standard errors. Extra FLOPs: none. Memory: two windows. O(1)
    a step: sliding sums, computed afresh once a round against rounding. Under no progress (independent losses of one
    distribution): Student's t with ``2 * window - 2`` degrees of freedom, so 1.645 is reached by 5 % of steps.
    Autocorrelation is not corrected.

    Args:
        window: steps in each of the two windows.
        total_steps: length of training; longer windows are refused.

    Raises:
        ValueError: a window below 4 steps, or two windows longer than training.
    """

    null = "permute"
    level = 1.645
    state = ("losses", "oldest", "older", "newer", "older_squares", "newer_squares")

    def __init__(self, window: Annotated[int, Field(ge=4)] = 50, *, total_steps: int | None = None):
        check_length("window", window, total_steps, times=2)
        self.half = window
        self.window = 2 * window
        self.losses: list[float] = []
        self.oldest = 0
        self.older = self.newer = self.older_squares = self.newer_squares = 0.0

    def score(self, loss: float) -> float:
        """The t statistic; NaN until both windows are full."""
        losses, half, n = self.losses, self.half, self.window
        if len(losses) < n:
            losses.append(loss)
            if len(losses) < n:
                return math.nan
            self._sum_afresh()
            return self._statistic()
        gone, passing = losses[self.oldest], losses[(self.oldest + half) % n]
        losses[self.oldest] = loss
        self.oldest = (self.oldest + 1) % n
        if self.oldest == 0:
            self._sum_afresh()
        else:
            self.older += passing - gone
            self.newer += loss - passing
            self.older_squares += passing * passing - gone * gone
            self.newer_squares += loss * loss - passing * passing
        return self._statistic()

    def _sum_afresh(self) -> None:
        losses = self.losses[self.oldest:] + self.losses[:self.oldest]
        older, newer = losses[:self.half], losses[self.half:]
        self.older, self.newer = math.fsum(older), math.fsum(newer)
        self.older_squares = math.fsum(loss * loss for loss in older)
        self.newer_squares = math.fsum(loss * loss for loss in newer)

    def _statistic(self) -> float:
        half = self.half
        squares = self.older_squares + self.newer_squares
        spread = squares - (self.older * self.older + self.newer * self.newer) / half
        difference = (self.older - self.newer) / half
        if spread <= 1e-12 * squares:
            # No noise to measure the difference by.
            return 0.0 if difference * difference * half <= 1e-12 * squares else math.copysign(math.inf, difference)
        return difference / math.sqrt(spread / (2 * half - 2) * 2 / half)

    def exceedance(self, level: float) -> float:
        """Upper tail of Student's t with ``2 * window - 2`` degrees of freedom."""
        from scipy.special import stdtr

        return float(stdtr(self.window - 2, -level))


@check_arguments
class PredictionGain(Monitor):
    """Loss of a batch before the update minus after it (Graves et al. 2017, section 3.1).

    Signal: batch loss before, and the same batch and network after the update, in training mode. Formula: ``before -
    after``. Unit: nats. Extra FLOPs: one forward of the batch every ``every`` steps. Memory: none. Under no progress:
    none is defined. A gradient step lowers the loss of its own batch on random labels too, so a positive gain is no
    sign of progress; use it to rank steps (`Quota`), not with a threshold.

    Args:
        every: steps between probes.
        total_steps: length of training; longer steps between probes are refused.
    """

    needs = frozenset({"after"})
    reads = ("loss", "after")
    null = "none"

    def __init__(self, every: Count = 1, *, total_steps: int | None = None):
        check_length("every", every, total_steps)
        self.every = every

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """Loss before and after the update of a probed step."""
        return None if signal.after is None else (signal.loss, signal.after)

    def score(self, loss: float, after: float) -> float:
        """The gain in nats."""
        return loss - after
