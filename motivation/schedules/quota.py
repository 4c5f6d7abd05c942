"""A chosen share of steps is motivated, whatever the monitor: the fair way to compare two monitors."""

import bisect
from typing import Annotated

from pydantic import Field

from motivation.phase import Phase
from motivation.randomness import SCHEDULE, uniform
from motivation.schedules.schedule import Schedule, Share
from motivation.validation import check_arguments

FEEDBACK_STEPS = 20     # steps within which a deficit is made good
BAND, BAND_SHARE = 2, 0.005
UNKNOWN_BAND = 10       # steps, where the run's length is unknown


@check_arguments
class Quota(Schedule):
    """Motivated at the steps whose score ranks highest among the last ``window`` scores (as many as there are).

    The rank's cut is the online quantile ``1 - share``, moved by feedback on the realised share of all steps from the
    first one on, so that what is missing is made good within about 20 steps. The number of motivated steps so far never
    differs from ``share`` times all steps by more than 0.5 % of training, at least two steps (ten where the length is
    unknown): a decision that would go beyond is the other one, whatever the score. Ties, as integer scores have, are
    broken at random. Steps without a score (NaN) are base steps that count: their share is owed, and the next steps
    with a score make good for it. An interval continues across epochs. Inside a gate the share is that of its own
    decisions: what the gate forbids is not made good.
    O(log window) a step, memory one window.

    Args:
        share: of all steps, in (0, 1).
        window: most scores ranked against; a shorter training ranks all it has.
        seed: of the ties.
        total_steps: length of training.

    Raises:
        ValueError: a share outside (0, 1), or a window below 8 scores.
    """

    set_share = True
    needs_monitor = True
    state = ("scores", "oldest", "steps", "motivated")

    def __init__(self, share: Share, window: Annotated[int, Field(ge=8)] = 200, *, seed: int = 0,
                 total_steps: int | None = None):
        self.share = share
        self.window = window
        self.seed = seed
        self.band = UNKNOWN_BAND if total_steps is None else max(BAND, BAND_SHARE * total_steps)
        self.scores: list[float] = []
        self.oldest = 0
        self.steps = self.motivated = 0
        self._ranked: list[float] = []

    def decide(self, score: float) -> Phase:
        """``motivated`` where the score ranks above the cut, or the share would be missed."""
        self.steps += 1
        # Of the steps up to the one that is decided on; the first was a base step.
        owed = self.share * (self.steps + 1) - self.motivated
        if score != score:
            return "base"
        below = bisect.bisect_left(self._ranked, score)
        ties = bisect.bisect_right(self._ranked, score) - below
        rank = (below + uniform(self.seed, SCHEDULE, self.steps) * (ties + 1)) / (len(self._ranked) + 1)
        self._remember(score)
        chosen = rank >= 1 - self.share - owed / FEEDBACK_STEPS
        if owed - 1 < -self.band or (not chosen and owed <= self.band):
            return "base"
        self.motivated += 1
        return "motivated"

    def _remember(self, score: float) -> None:
        if len(self.scores) < self.window:
            self.scores.append(score)
        else:
            del self._ranked[bisect.bisect_left(self._ranked, self.scores[self.oldest])]
            self.scores[self.oldest] = score
            self.oldest = (self.oldest + 1) % self.window
        bisect.insort(self._ranked, score)

    def load_state_dict(self, state: dict) -> None:
        """Restore a state saved by `state_dict`."""
        super().load_state_dict(state)
        self._ranked = sorted(self.scores)
