"""A chosen share of steps is motivated, whatever the monitor: the fair way to compare two monitors."""

import bisect

from motivation.randomness import SCHEDULE, uniform
from motivation.schedules.schedule import Phase, Schedule, check_share, check_steps

FEEDBACK_STEPS = 20  # steps within which a deficit is made good: a share is met within about this many steps


class Quota(Schedule):
    """Motivated at the steps whose score ranks highest among the last ``window`` scores (as many as there are).

    The rank's cut is the online quantile ``1 - share``, moved by feedback on the realised share of all steps from the
    first one on: what is missing is made good within 20 steps, whatever the scores do. Ties, as integer scores have,
    are broken at random. Steps without a score (NaN) are base steps that count: their share is owed, and steps with a
    score make good for it, over an eighth of what is left of training, at least 20 of them. So the share is met
    wherever enough steps have a score, and not only long before the end. An interval goes on across epochs. Inside a
    gate the share is that of its own decisions: what the gate forbids is not made good.
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
    state = ("scores", "oldest", "steps", "debt", "due", "motivated")

    def __init__(self, share: float, window: int = 200, *, seed: int = 0, total_steps: int | None = None):
        check_share("share", share)
        check_steps("window", window, None, 8)
        self.share = share
        self.window = window
        self.seed = seed
        self.total_steps = total_steps
        self.scores: list[float] = []
        self.oldest = 0
        self.steps = self.motivated = 0
        self.debt = self.due = 0.0
        self._ranked: list[float] = []

    def decide(self, score: float) -> Phase:
        """``motivated`` where the score ranks above the cut."""
        self.steps += 1
        if score != score:
            self.debt += self.share
            return "base"
        below = bisect.bisect_left(self._ranked, score)
        ties = bisect.bisect_right(self._ranked, score) - below
        rank = (below + uniform(self.seed, SCHEDULE, self.steps) * (ties + 1)) / (len(self._ranked) + 1)
        self._remember(score)
        left = 0 if self.total_steps is None else self.total_steps - self.steps
        repaid = self.debt / max(FEEDBACK_STEPS, left / 8)
        self.debt -= repaid
        share = self.share + repaid
        owed = self.due - self.motivated
        self.due += share
        if rank < 1 - share - owed / FEEDBACK_STEPS:
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
