"""Has the loss dropped? A one-sided CUSUM against its own recent level."""

import math
from typing import Annotated

from pydantic import Field

from motivation.monitors.signal import Monitor, check_length
from motivation.validation import NotNegative, Positive, check_arguments


@check_arguments
class Change(Monitor):
    """Evidence that the loss has dropped below its recent level (CUSUM, Page 1954).

    Signal: raw batch loss. Formula: ``g = min(cap, max(0, g + (mean - loss) / deviation - drift))``, where mean and
    deviation forget with time constant ``window``; the cap, which is finite, bounds how long an alarm outlasts its
    cause. Unit: standard
    deviations of the loss. Extra FLOPs: none. Memory: four numbers. Under no progress: the score stays near 0 and
    reaches the level after about 1,000 steps of independent noise on average.

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

    def __init__(self, window: Annotated[int, Field(ge=8)] = 100, drift: NotNegative = 0.5, cap: Positive = 10.0, *,
                 total_steps: int | None = None):
        check_length("window", window, total_steps)
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
