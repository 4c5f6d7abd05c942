"""What a monitor reads, and what every monitor is."""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

from motivation.phase import Phase

Null = Literal["analytic", "permute", "signflip", "none"]


class Signal(NamedTuple):
    """What one training step shows. A probe that was not due is None.

    Attributes:
        loss: batch loss before the update.
        phase: the network that made it.
        flops: the step's training FLOPs, probes included.
        after: loss of the same batch and network after the update.
        heldout: per-image held-out losses ``(N,)`` of the network just trained.
        gradient: of the mapped weights, in base order and shape.
        measured: what the monitor's `Monitor.measure` made of the gradient, already read from the device.
    """

    loss: float
    phase: Phase = "base"
    flops: int = 0
    after: float | None = None
    heldout: Sequence[float] | Tensor | None = None
    gradient: Sequence[Tensor] | None = None
    measured: Sequence[float] | None = None


class Monitor:
    """Scores learning progress, one step after another.

    `observe` is all that a trainer calls. It is split in two here, so that a null rate can be had by scoring readings
    that hold no progress: `read` takes a few numbers from a step, `score` turns them into the score. Between probes
    the last score holds.

    Attributes:
        needs: extra signals it asks the trainer for, a subset of ``{"heldout", "after", "gradient"}``.
        every: steps between probes; the first step is probed.
        reads: names of the numbers that `read` takes from a step; one named ``motivated`` is 1 where that network
            trained, else 0.
        numbers: how many numbers `measure` makes of a gradient.
        window: steps (or probes) that a score looks back on, about.
        null: how readings without progress are made. ``analytic``: the rate is known for exchangeable readings.
            ``permute``: its first reading, without its trend, what is left permuted. ``signflip``: its first reading,
            with random signs. ``none``: no null is defined.
        level: the score at which it counts as progress by default; NaN where it has no such level.
        levels: lowest and highest level that a threshold can put on its score: below, every step reaches it; above,
            none does.
        state: names of the attributes that carry it from one step to the next.
    """

    needs: frozenset[str] = frozenset()
    every: int = 1
    reads: tuple[str, ...] = ("loss",)
    numbers: int = 0
    window: int = 1
    null: Null = "permute"
    level: float = math.nan
    levels: tuple[float, float] = (-math.inf, math.inf)
    state: tuple[str, ...] = ()
    last: float = math.nan
    reading: tuple[float, ...] | None = None

    def observe(self, signal: Signal | float) -> float:
        """The progress score after a step (NaN: none yet). A bare float counts as the loss, and shows no probe."""
        if not isinstance(signal, Signal):
            signal = Signal(float(signal))
        self.reading = reading = self.read(signal)
        if reading is not None:
            self.last = self.score(*reading)
        return self.last

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The numbers, named by `reads`, that a step shows; None for nothing new."""
        return (signal.loss,)

    def score(self, *reading: float) -> float:
        """The progress score after a reading."""
        raise NotImplementedError

    def measure(self, gradient: Sequence[Tensor]) -> Tensor:
        """Numbers ``(numbers,)`` made of a gradient on its device, so that they are read together with the loss."""
        raise NotImplementedError

    def exceedance(self, level: float) -> float:
        """Probability that the score reaches a level when readings are independent and alike; NaN where unknown."""
        return math.nan

    def state_dict(self) -> dict[str, Any]:
        """What it carries from one step to the next: plain values and tensors."""
        return copy.deepcopy({name: getattr(self, name) for name in (*self.state, "last")})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state saved by `state_dict`."""
        for name in (*self.state, "last"):
            setattr(self, name, copy.deepcopy(state[name]))


def check_length(name: str, value: float, total_steps: int | None, times: int = 1) -> None:
    """Raise ValueError for a number of steps that training does not hold so many times."""
    if total_steps is not None and times * value > total_steps:
        raise ValueError(f"{name}={value:.9g}: longer than training, which has {total_steps} steps"
                         + f" for {times} such windows" * (times > 1))


def check_level(where: str, level: float, monitor: Any) -> None:
    """Raise ValueError for a level that every score of a monitor reaches, or none does.

    Args:
        where: the level's name and value, which the error opens with.
        level: what scores are compared with.
        monitor: what scores.
    """
    name, (lowest, highest) = type(monitor).__name__, getattr(monitor, "levels", (-math.inf, math.inf))
    if level < lowest:
        raise ValueError(f"{where}: must be at least {lowest:g}, since every score of {name} would reach less")
    if level > highest:
        raise ValueError(f"{where}: must be at most {highest:g}, since no score of {name} reaches more; its own level "
                         f"is {getattr(monitor, 'level', math.nan):g}")
