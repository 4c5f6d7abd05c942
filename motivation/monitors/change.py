"""Has the loss dropped? A one-sided CUSUM against its own recent level."""

import math

from motivation.monitors.signal import Monitor, check_window


class Change(Monitor):
    """Evidence that the loss has dropped below its recent level (CUSUM, Page 1954).

    Signal: raw batch loss. Formula: ``g = min(cap, max(0, g + (mean - loss) / deviation - drift))``, where mean and
    deviation forget with time constant ``window``; the cap bounds how long an alarm outlasts its cause. Unit: standard
    deviations of the loss. Extra FLOPs: none. Memory: four numbers. Under no progress: the score stays near 0 and
    reaches the level after the average run length below.

    Measured share of steps at or above the level 5:

    ===========  =========  =========  ========
    independent  AR(1) 0.3  AR(1) 0.8  swelling
    ===========  =========  =========  ========
          0.3 %      2.6 %     18.7 %     1.5 %
    ===========  =========  =========  ========

    Measured average run length, from a fresh start to the first step at or above a level, on independent noise
    (median and mean over 400 starts):

    =====  ======  ====
    level  median  mean
    =====  ======  ====
        4     306   412
        5     672   993
        6    2170  3166
    =====  ======  ====

    Args:
        window: time constant of mean and deviation, in steps; the first window gives no score.
        drift: decrease in deviations that is tolerated a step.
        cap: largest score.
        total_steps: length of training; a longer window is refused.

    Raises:
        ValueError: a window below 8 or longer than training, a negative drift, or a cap that is not above 0.
    """

    level = 5.0
    state = ("mean", "variance", "count", "evidence")

    def __init__(self, window: int = 100, drift: float = 0.5, cap: float = 10.0, *, total_steps: int | None = None):
        check_window("window", window, 8, total_steps)
        if not drift >= 0:
            raise ValueError(f"drift={drift}: must be 0 or more")
        if not 0 < cap < math.inf:
            raise ValueError(f"cap={cap}: must be above 0 and finite, or an alarm might not stop")
        self.window = window
        self.drift = drift
        self.cap = cap
        self.levels = (math.ulp(0.0), cap)
        self.mean = self.variance = self.evidence = 0.0
        self.count = 0

    def score(self, loss: float) -> float:
        """The evidence, from 0 to the cap; NaN in the first window."""
        below = self.mean - loss
        if self.count >= self.window and self.variance > 0:
            step = below / math.sqrt(self.variance) - self.drift
            self.evidence = min(self.cap, max(0.0, self.evidence + step))
        # A plain mean at first, then an exponential one: no bias towards the first loss.
        self.count += 1
        weight = 1 / min(self.count, self.window)
        self.variance = (1 - weight) * (self.variance + weight * below * below)
        self.mean -= weight * below
        return self.evidence if self.count > self.window else math.nan
