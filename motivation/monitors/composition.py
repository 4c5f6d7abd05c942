"""Monitors made of monitors: smoothed, inverted, combined."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from motivation.monitors.signal import Monitor, Signal, check_length, check_level
from motivation.validation import Positive, check_arguments

Pairs = Annotated[list[tuple[Monitor, Annotated[float, Field(allow_inf_nan=False)]]], Field(min_length=1)]


class Wrapped(Monitor):
    """A monitor that changes another's score; it reads, costs and has the null of the one inside."""

    def __init__(self, monitor: Monitor):
        self.monitor = monitor
        for name in ("needs", "every", "reads", "numbers", "window", "null", "level"):
            setattr(self, name, getattr(monitor, name))

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """What the inner monitor reads."""
        return self.monitor.read(signal)

    def inner(self, reading: tuple[float, ...]) -> float:
        """The inner monitor's score, kept there as if it ran alone."""
        self.monitor.last = score = self.monitor.score(*reading)
        return score

    def measure(self, gradient: Sequence[Tensor]) -> Tensor:
        """What the inner monitor measures."""
        return self.monitor.measure(gradient)

    def state_dict(self) -> dict:
        """Its own and the inner monitor's."""
        return {**super().state_dict(), "monitor": self.monitor.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore both."""
        super().load_state_dict(state)
        self.monitor.load_state_dict(state["monitor"])


@check_arguments
class Smooth(Wrapped):
    """Exponential moving average of another monitor's score (exponential smoothing, Brown 1959).

    Signal: the inner monitor's score, where it is finite. Formula: ``mean = mean + (1 - 2 ** (-1 / half_life)) * (score
    - mean)``. Unit: the inner score's. Extra FLOPs: the inner monitor's. Memory: one number more than its. Under no
    progress: the null is made as the inner monitor declares; the smoothed score reaches a level less often on noise.

    Args:
        monitor: the inner one.
        half_life: of the average, in readings.
        total_steps: length of training; a longer half-life is refused.

    Raises:
        ValueError: a half-life that is not above 0 and finite, or longer than training.
    """

    state = ("mean",)

    def __init__(self, monitor: Monitor, half_life: Positive, *, total_steps: int | None = None):
        check_length("half_life", half_life, total_steps)
        super().__init__(monitor)
        self.levels = (-math.inf, monitor.levels[1])
        self.weight = 1 - 0.5 ** (1 / half_life)
        self.window = monitor.window + math.ceil(2 / self.weight)
        self.mean = math.nan

    def score(self, *reading: float) -> float:
        """The average; NaN until the inner monitor has a score."""
        score = self.inner(reading)
        if math.isfinite(score):
            self.mean = score if math.isnan(self.mean) else self.mean + self.weight * (score - self.mean)
        return self.mean


@check_arguments
class Invert(Wrapped):
    """Minus another monitor's score: expand on plateaus (our own).

    Signal: the inner monitor's score. Formula: ``-score``. With level ``-x`` a step is motivated where the inner score
    is at most x; its own level is just above minus the inner one's: a step is motivated exactly where the inner
    monitor's level is not reached. Unit: the inner score's. Extra FLOPs: the inner monitor's. Memory: the inner
    monitor's. Under no progress: the null is made as the inner monitor declares; that one finds a plateau nearly
    always, so the rate is high by design.

    Args:
        monitor: the inner one.
    """

    def __init__(self, monitor: Monitor):
        super().__init__(monitor)
        self.level = math.nextafter(-monitor.level, math.inf)
        lowest, highest = monitor.levels
        self.levels = (math.nextafter(-highest, math.inf) if math.isfinite(highest) else -math.inf,
                       0.0 if lowest > 0 else -lowest)

    def score(self, *reading: float) -> float:
        """Minus the inner score."""
        return -self.inner(reading)


@check_arguments
class Combined(Monitor):
    """Several monitors, each with the level that counts for it, since their scores have different units."""

    level = 1.0
    levels = (math.ulp(0.0), 1.0)

    def __init__(self, pairs: Pairs):
        self.monitors = [monitor for monitor, _ in pairs]
        self.at = [float(level) for _, level in pairs]
        for number, (monitor, level) in enumerate(pairs):
            check_level(f"pairs[{number}]: level {level:g}", level, monitor)
        probing = {monitor.every for monitor in self.monitors if monitor.needs}
        if len(probing) > 1:
            raise ValueError(f"pairs: their probes are due every {' and every '.join(map(str, sorted(probing)))} "
                             "steps; give all the same `every`")
        self.every = probing.pop() if probing else 1
        self.needs = frozenset().union(*(monitor.needs for monitor in self.monitors))
        self.numbers = sum(monitor.numbers for monitor in self.monitors)
        self.window = max(monitor.window for monitor in self.monitors)
        self.same = all(monitor.reads == ("loss",) for monitor in self.monitors)
        self.reads = ("loss",) if self.same else tuple(
            f"{number}_{name}" for number, monitor in enumerate(self.monitors) for name in monitor.reads)
        kinds = {monitor.null for monitor in self.monitors}
        self.null = "none" if not self.same or "none" in kinds else "analytic" if kinds == {"analytic"} else "permute"

    def measure(self, gradient: Sequence[Tensor]) -> Tensor:
        """All parts' numbers, in order."""
        return torch.cat([monitor.measure(gradient) for monitor in self.monitors if monitor.numbers])

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The loss, or all parts' readings in order, NaN where a part has nothing new."""
        if self.same:
            return super().read(signal)
        values: list[float] = []
        measured = list(signal.measured or ())
        for monitor in self.monitors:
            mine = signal
            if signal.measured is not None:
                mine = signal._replace(measured=measured[:monitor.numbers] or None)
                measured = measured[monitor.numbers:]
            reading = monitor.read(mine)
            values.extend([math.nan] * len(monitor.reads) if reading is None else reading)
        return tuple(values)

    def reached(self, reading: tuple[float, ...]) -> list[bool]:
        """Whether each part's score is at or above its level."""
        found, start = [], 0
        for monitor, level in zip(self.monitors, self.at, strict=True):
            mine = reading if self.same else reading[start:start + len(monitor.reads)]
            start += len(monitor.reads)
            if not math.isnan(mine[0]):
                monitor.last = monitor.score(*mine)
            found.append(monitor.last >= level)
        return found

    def state_dict(self) -> dict:
        """Its own and every part's."""
        return {**super().state_dict(), "monitors": [monitor.state_dict() for monitor in self.monitors]}

    def load_state_dict(self, state: dict) -> None:
        """Restore all."""
        super().load_state_dict(state)
        for monitor, saved in zip(self.monitors, state["monitors"], strict=True):
            monitor.load_state_dict(saved)


class AllOf(Combined):
    """1 where every part's score is at or above its level, else 0 (our own).

    Signal: the parts' scores. Formula: ``min over parts of (score >= level)``. Unit: none, 0 or 1. Extra FLOPs: the
    parts' sum. Memory: the parts' sum. Under no progress: the rate is between 0 and the rarest part's; its null is
    made on the run's own losses where all parts read the loss alone, and not defined otherwise.

    Args:
        pairs: (monitor, level) each.

    Raises:
        ValueError: no pairs, a level that every score of its monitor reaches or none, or parts that probe at different
            intervals.
    """

    def score(self, *reading: float) -> float:
        """1 or 0."""
        return float(all(self.reached(reading)))


class AnyOf(Combined):
    """1 where some part's score is at or above its level, else 0 (our own).

    Signal: the parts' scores. Formula: ``max over parts of (score >= level)``. Unit: none, 0 or 1. Extra FLOPs: the
    parts' sum. Memory: the parts' sum. Under no progress: the rate is between the commonest part's and the parts'
    sum; its null is made on the run's own losses where all parts read the loss alone, and not defined otherwise.

    Args:
        pairs: (monitor, level) each.

    Raises:
        ValueError: no pairs, a level that every score of its monitor reaches or none, or parts that probe at different
            intervals.
    """

    def score(self, *reading: float) -> float:
        """1 or 0."""
        return float(any(self.reached(reading)))
