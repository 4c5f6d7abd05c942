"""Schedules around a schedule: when, how long and how much it may expand."""

import math
from typing import Annotated, Literal

from pydantic import SkipValidation

from motivation.monitors.signal import Monitor, check_length
from motivation.phase import Phase
from motivation.schedules.schedule import Schedule, Share, completed
from motivation.validation import Count, check_arguments

# What has `decide` is a schedule, of whatever class.
Inner = Annotated[Schedule, SkipValidation]


class Gate(Schedule):
    """Another schedule's decisions, some of them overruled by `allow`.

    The inner schedule sees every score, and is told when it was overruled.

    Attributes:
        phase: of the next step.
        ran: phase of the last step.
        length: steps that ran in that phase without a break.
        steps: steps that ran.
        opens: first step that may be motivated, as far as this gate and those inside know.
        closes: first step from which on none may.
    """

    state = ("phase", "ran", "length", "steps")

    def __init__(self, schedule: Schedule):
        self.schedule = completed(schedule)
        self.set_share = self.schedule.set_share
        self.needs_monitor = self.schedule.needs_monitor
        self.opens: int = getattr(schedule, "opens", 0)
        self.closes: float = getattr(schedule, "closes", math.inf)
        self.phase: Phase = "base"
        self.ran: Phase | None = None
        self.length = 0
        self.steps = 0

    def limit(self, name: str, opens: int, closes: float | None) -> None:
        """Expand only from one step to before another (None: no end).

        Raises:
            ValueError: no step is left, opening with the name and value of what limits.
        """
        self.opens = max(self.opens, opens)
        self.closes = min(self.closes, math.inf if closes is None else closes)
        if self.opens >= self.closes:
            raise ValueError(f"{name}: no step can be motivated: none before step {self.opens}, and none from step "
                             f"{self.closes} on")

    def allow(self, wanted: Phase) -> Phase:
        """Phase of the next step, given what the inner schedule wants."""
        raise NotImplementedError

    def bind(self, monitor: Monitor) -> None:
        """Bind the inner schedule."""
        try:
            self.schedule.bind(monitor)
        except ValueError as error:
            raise ValueError(f"schedule.{error}") from error

    def start(self) -> Phase:
        """The inner schedule's, if allowed."""
        return self._ask(self.schedule.start())

    def decide(self, score: float) -> Phase:
        """The inner schedule's, if allowed."""
        self.steps += 1
        self.length = self.length + 1 if self.ran == self.phase else 1
        self.ran = self.phase
        return self._ask(self.schedule.decide(score))

    def end_epoch(self, phase: Phase) -> Phase:
        """The inner schedule's, if allowed."""
        return self._ask(self.schedule.end_epoch(phase))

    def overrule(self, phase: Phase) -> None:
        """Be told, and tell the inner schedule."""
        self.phase = phase
        self.schedule.overrule(phase)

    def _ask(self, wanted: Phase) -> Phase:
        self.phase = self.allow(wanted)
        if self.phase != wanted:
            self.schedule.overrule(self.phase)
        return self.phase

    def state_dict(self) -> dict:
        """Its own and the inner schedule's."""
        return {**super().state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore both."""
        super().load_state_dict(state)
        self.schedule.load_state_dict(state["schedule"])


@check_arguments
class MinInterval(Gate):
    """An interval, once it has begun, lasts at least some steps, across an epoch edge too.

    Args:
        schedule: the inner one.
        steps: shortest interval.
        total_steps: length of training; a longer interval is refused.
    """

    def __init__(self, schedule: Inner, steps: Count, *, total_steps: int | None = None):
        check_length("steps", steps, total_steps)
        super().__init__(schedule)
        self.shortest = steps

    def allow(self, wanted: Phase) -> Phase:
        """``motivated`` until the interval is long enough."""
        return "motivated" if self.ran == "motivated" and self.length < self.shortest else wanted


@check_arguments
class MaxInterval(Gate):
    """An interval lasts at most some steps; the step after it trains the base.

    Args:
        schedule: the inner one.
        steps: longest interval.
        total_steps: length of training; a longer interval is refused.
    """

    def __init__(self, schedule: Inner, steps: Count, *, total_steps: int | None = None):
        check_length("steps", steps, total_steps)
        super().__init__(schedule)
        self.longest = steps

    def allow(self, wanted: Phase) -> Phase:
        """``base`` once the interval is long enough."""
        return "base" if self.ran == "motivated" and self.length >= self.longest else wanted


@check_arguments
class CoolDown(Gate):
    """At least some base steps between two intervals.

    Args:
        schedule: the inner one.
        steps: fewest base steps.
        total_steps: length of training; a longer cool-down is refused.
    """

    state = (*Gate.state, "expanded")

    def __init__(self, schedule: Inner, steps: Count, *, total_steps: int | None = None):
        check_length("steps", steps, total_steps)
        super().__init__(schedule)
        self.fewest = steps
        self.expanded = False

    def allow(self, wanted: Phase) -> Phase:
        """``base`` until enough base steps have followed an interval."""
        self.expanded = self.expanded or self.ran == "motivated"
        return "base" if self.expanded and self.ran == "base" and self.length < self.fewest else wanted


@check_arguments
class WarmUp(Gate):
    """No expansion in the first steps.

    Args:
        schedule: the inner one.
        steps: first steps, all base.
        total_steps: length of training; a warm-up that leaves no step to expand in is refused.
    """

    def __init__(self, schedule: Inner, steps: Count, *, total_steps: int | None = None):
        check_length("steps", steps, total_steps)
        super().__init__(schedule)
        self.limit(f"steps={steps}", steps, total_steps)

    def allow(self, wanted: Phase) -> Phase:
        """``base`` in the first steps."""
        return "base" if self.steps < self.opens else wanted


@check_arguments
class Window(Gate):
    """Expansion only between two fractions of training.

    Args:
        schedule: the inner one.
        start: fraction of training before which every step is a base step.
        stop: fraction from which on every step is a base step.
        total_steps: length of training.

    Raises:
        ValueError: no total_steps, fractions that are not 0 <= start < stop <= 1, or no step that could expand.
    """

    def __init__(self, schedule: Inner, start: float = 0.0, stop: float = 1.0, *, total_steps: int | None = None):
        if not 0 <= start < stop <= 1:
            raise ValueError(f"start={start}: must be from 0 to below stop={stop}, which is at most 1")
        check_known("total_steps", total_steps)
        super().__init__(schedule)
        self.limit(f"start={start}", round(start * total_steps), round(stop * total_steps))

    def allow(self, wanted: Phase) -> Phase:
        """``base`` outside the window."""
        return wanted if self.opens <= self.steps < self.closes else "base"


@check_arguments
class Budget(Gate):
    """Stop expanding when motivated steps have used up their share of the run's training FLOPs.

    Args:
        schedule: the inner one.
        fraction: motivated FLOPs over all training FLOPs of the run, probes left out, at most.
        pace: ``spread`` releases the budget evenly over training, ``greedy`` at once.
        total_steps: length of training.
        base_flops: forward FLOPs of one image in the base network.
        motivated_flops: forward FLOPs of one image in the motivated network.

    Raises:
        ValueError: a fraction outside (0, 1) or too small for one motivated step, or a fact of the run that is missing.
    """

    state = (*Gate.state, "motivated")

    def __init__(self, schedule: Inner, fraction: Share, pace: Literal["spread", "greedy"] = "spread", *,
                 total_steps: int | None = None, base_flops: int | None = None, motivated_flops: int | None = None):
        for name, value in (("total_steps", total_steps), ("base_flops", base_flops),
                            ("motivated_flops", motivated_flops)):
            check_known(name, value)
        super().__init__(schedule)
        self.pace = pace
        self.total_steps = total_steps
        # m motivated and total - m base steps have the fraction m c / (m c + total - m), c the ratio of their costs.
        ratio = motivated_flops / base_flops
        self.affordable = math.floor(fraction * total_steps / (fraction + ratio * (1 - fraction)))
        if not self.affordable:
            raise ValueError(f"fraction={fraction}: too small for one motivated step in {total_steps} steps")
        self.motivated = 0

    def decide(self, score: float) -> Phase:
        """The inner schedule's, while the budget lasts."""
        self.motivated += self.phase == "motivated"
        return super().decide(score)

    def allow(self, wanted: Phase) -> Phase:
        """``base`` where the next motivated step would overdraw the budget."""
        released = self.affordable
        if self.pace == "spread":
            released = self.affordable * min(self.steps + 1, self.total_steps) / self.total_steps
        return wanted if self.motivated + 1 <= released else "base"


def check_known(name: str, value: int | None) -> None:
    """Raise ValueError for a fact of the run that the caller must give."""
    if not value:
        raise ValueError(f"{name} is missing; it is a fact of the run that this schedule needs")
