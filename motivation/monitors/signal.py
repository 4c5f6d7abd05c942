"""What a monitor reads, and what every monitor is."""

import math
from typing import Literal, NamedTuple


class Signal(NamedTuple):
    """What one training step shows.

    Attributes:
        loss: batch loss before the update.
        phase: the network that made it.
        flops: the step's training FLOPs.
    """

    loss: float
    phase: Literal["base", "motivated"] = "base"
    flops: int = 0


class Monitor:
    """Scores learning progress, one step after another.

    Attributes:
        needs: extra signals it asks the trainer for, a subset of ``{"heldout", "after", "gradient"}``.
        every: steps between such probes.
        state: names of the attributes that carry it from one step to the next.
    """

    needs: frozenset[str] = frozenset()
    every: int = 1
    state: tuple[str, ...] = ()

    def observe(self, signal: Signal | float) -> float:
        """The progress score after a step (NaN: none yet). A bare float counts as the loss."""
        raise NotImplementedError

    def exceedance(self, level: float) -> float:
        """Probability that the score reaches a level when nothing is learned; NaN where no null is defined."""
        return math.nan

    def state_dict(self) -> dict:
        """What it carries from one step to the next."""
        return {name: getattr(self, name) for name in self.state}

    def load_state_dict(self, state: dict) -> None:
        """Restore a state saved by `state_dict`."""
        for name in self.state:
            setattr(self, name, state[name])


def loss_of(signal: Signal | float) -> float:
    """The batch loss of a signal, or the float itself."""
    return signal.loss if isinstance(signal, Signal) else float(signal)
