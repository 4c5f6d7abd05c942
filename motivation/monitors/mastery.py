"""Mastery: whether all of several skills are learned, by the least lower bound of their held-out accuracies."""

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from motivation.monitors.signal import Monitor, Signal, check_length
from motivation.validation import Count, Positive, check_arguments

# Of an answer of two tokens: below it the right one is likelier than all others together.
LOSS = math.log(2) / 2


@check_arguments
class Mastery(Monitor):
    """Least lower confidence bound, over the skills, of the share of held-out problems that are mastered.

    Signal: per-image held-out losses of the network just trained, in evaluation mode. An image or a problem is mastered
    where its loss is below ``loss``: below ln 2 over its number of tokens the right answer is likelier than all others
    together. Formula: the least of the skills' one-sided lower bounds (Wilson 1927). Unit: a share. Extra FLOPs: one
    forward of the held-out batch every ``every`` steps. Memory: none. Under no progress: no null is defined, since the
    score is a level and no progress.

    Args:
        parts: number of skills; the held-out batch is divided into so many parts, in its order.
        confidence: of each bound.
        loss: below which a problem is mastered; the default is for answers of at most two tokens.
        every: steps between probes.
        total_steps: length of training; longer steps between probes are refused.
    """

    needs = frozenset({"heldout"})
    null = "none"
    level = 0.9
    levels = (0.0, 1.0)

    def __init__(self, parts: Count = 1, confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95,
                 loss: Positive = LOSS, every: Count = 20, *, total_steps: int | None = None):
        check_length("every", every, total_steps)
        self.parts, self.confidence, self.loss, self.every = parts, confidence, loss, every
        self.reads = tuple(f"bound_{number}" for number in range(1, parts + 1))

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The bound of every skill, in a probed step.

        Raises:
            ValueError: fewer held-out problems than parts.
        """
        if signal.heldout is None:
            return None
        if len(signal.heldout) < self.parts:
            raise ValueError(f"parts={self.parts}: must be at most the {len(signal.heldout)} held-out problems")
        mastered = np.array([float(loss) < self.loss for loss in signal.heldout])
        return tuple(lower_bound(int(part.sum()), len(part), self.confidence)
                     for part in np.array_split(mastered, self.parts))

    def score(self, *bounds: float) -> float:
        """The least bound."""
        return min(bounds)


def lower_bound(successes: int, trials: int, confidence: float) -> float:
    """One-sided lower confidence bound of a share (Wilson 1927, "Probable inference").

    Args:
        successes: how many.
        trials: of how many.
        confidence: that the share is above the bound.
    """
    from scipy.stats import binomtest  # A monitor of the paper starts without it.

    return float(binomtest(successes, trials, alternative="greater").proportion_ci(confidence, method="wilson").low)
