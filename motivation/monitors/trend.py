"""Is the loss falling? A one-sided regression test over a sliding window."""

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from motivation.monitors.signal import Monitor, check_length
from motivation.validation import check_arguments


@check_arguments
class Trend(Monitor):
    """One-sided t of a falling loss: minus the slope of a regression on time, over its standard error.

    Signal: raw batch loss, the last ``window`` steps. Formula: ``t = -slope / (residual deviation / sqrt(Sxx))``. Where
    the residuals' lag-1 autocorrelation r is significant (above ``2 / sqrt(window)``), t shrinks by
    ``sqrt((1 - r) / (1 + r))``, the effective sample size of an AR(1) process. Unit: standard errors. Extra FLOPs:
    none. Memory: one window. O(1) a step: sliding sums, computed afresh once a window against rounding. Under no
    progress (independent losses of one distribution): Student's t with ``window - 2`` degrees of freedom, so 1.645 is
    reached by 5 % of steps; weak autocorrelation, below the significance bound, is not corrected.

    Args:
        window: steps looked back on.
        total_steps: length of training; a longer window is refused.

    Raises:
        ValueError: a window below 8 steps or longer than training.
    """

    null = "permute"
    level = 1.645
    state = ("losses", "oldest", "sum", "sum_squares", "sum_time", "sum_jumps")

    def __init__(self, window: Annotated[int, Field(ge=8)] = 100, *, total_steps: int | None = None):
        check_length("window", window, total_steps)
        self.window = window
        self.losses: list[float] = []
        self.oldest = 0
        self.sum = self.sum_squares = self.sum_time = self.sum_jumps = 0.0
        self._mean_time = (window - 1) / 2
        self._spread_time = window * (window * window - 1) / 12
        self._significant = 2 / math.sqrt(window)

    def score(self, loss: float) -> float:
        """The t statistic; NaN until a window is full."""
        losses, n = self.losses, self.window
        if len(losses) < n:
            losses.append(loss)
            if len(losses) < n:
                return math.nan
            self._sum_afresh()
            return self._statistic()
        oldest = self.oldest
        gone, second, newest = losses[oldest], losses[(oldest + 1) % n], losses[oldest - 1]
        losses[oldest] = loss
        self.oldest = (oldest + 1) % n
        if self.oldest == 0:
            self._sum_afresh()
        else:
            # Every loss that stays moves one place towards the window's start.
            self.sum_time += (n - 1) * loss - self.sum + gone
            self.sum += loss - gone
            self.sum_squares += loss * loss - gone * gone
            self.sum_jumps += (loss - newest) ** 2 - (second - gone) ** 2
        return self._statistic()

    def _sum_afresh(self) -> None:
        losses = self.losses[self.oldest:] + self.losses[:self.oldest]
        self.sum = math.fsum(losses)
        self.sum_squares = math.fsum(loss * loss for loss in losses)
        self.sum_time = math.fsum(time * loss for time, loss in enumerate(losses))
        self.sum_jumps = math.fsum((b - a) ** 2 for a, b in pairwise(losses))

    def _statistic(self) -> float:
        n = self.window
        mean = self.sum / n
        spread = self.sum_squares - mean * self.sum
        slope = (self.sum_time - self._mean_time * self.sum) / self._spread_time
        residual = spread - slope * slope * self._spread_time
        if residual <= 1e-12 * self.sum_squares:
            # A straight line to rounding: no noise to measure the slope by.
            return 0.0 if slope * slope * self._spread_time <= 1e-12 * self.sum_squares else -math.copysign(
                math.inf, slope)
        t = -slope / math.sqrt(residual / ((n - 2) * self._spread_time))
        across = self.losses[self.oldest - 1] - self.losses[self.oldest]
        jumps = self.sum_jumps - 2 * slope * across + (n - 1) * slope * slope
        autocorrelation = 1 - jumps / (2 * residual)
        if autocorrelation > self._significant:
            t *= math.sqrt((1 - autocorrelation) / (1 + autocorrelation))
        return t

    def exceedance(self, level: float) -> float:
        """Upper tail of Student's t with ``window - 2`` degrees of freedom."""
        from scipy.special import stdtr

        return float(stdtr(self.window - 2, -level))
