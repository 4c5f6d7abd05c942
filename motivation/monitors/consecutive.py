"""The paper's four conditions: straight changes of a training signal, counted."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from motivation.monitors.signal import Monitor, Signal, check_length
from motivation.validation import Count, NotNegative, check_arguments


class Consecutive(Monitor):
    """Number of straight decreases of the mini-batch training loss (paper, Algorithm 1).

    Signal: raw batch loss of whichever network trained. Formula: ``run = run + 1 if loss < previous else 0``, with
    ``previous = inf`` at first; neither a switch nor an epoch edge resets it. Unit: steps. Extra FLOPs: none. Memory:
    two numbers. Under no progress (exchangeable losses) the score reaches k with probability 1 / (k + 1)!.
    """

    null = "analytic"
    level = 2.0
    levels = (1.0, math.inf)
    window = 4
    state = ("previous", "run")

    def __init__(self):
        self.previous = math.inf
        self.run = 0

    def score(self, loss: float) -> float:
        """Straight decreases up to and with this reading."""
        self.run = self.run + 1 if loss < self.previous else 0
        self.previous = loss
        return float(self.run)

    def exceedance(self, level: float) -> float:
        """``1 / (k + 1)!`` for k straight decreases of exchangeable losses."""
        return 1 / math.factorial(max(0, math.ceil(level)) + 1)


@check_arguments
class Ema(Monitor):
    """Number of straight decreases of the loss's moving average, each of at least a relative size (paper, table 7).

    Signal: raw batch loss. Formula: ``mean = mean + alpha * (loss - mean)``; a decrease counts when it is at least
    ``tolerance * mean``. Unit: steps. Extra FLOPs: none. Memory: two numbers. Under no progress: a step counts when the
    loss is ``tolerance / alpha`` (10 %) below its mean, so the rate depends on the relative spread of the losses.

    Args:
        alpha: weight of the newest loss (paper: 0.02).
        tolerance: smallest relative decrease that counts (paper: 0.002).

    Raises:
        ValueError: alpha outside (0, 1], or tolerance outside [0, alpha), which no loss above 0 could meet.
    """

    level = 2.0
    levels = (1.0, math.inf)
    state = ("mean", "run")

    def __init__(self, alpha: Annotated[float, Field(gt=0, le=1)] = 0.02, tolerance: NotNegative = 0.002):
        if tolerance >= alpha:
            raise ValueError(f"tolerance={tolerance}: must be below alpha={alpha}, since one step moves the "
                             "mean by at most alpha of itself")
        self.alpha = alpha
        self.tolerance = tolerance
        self.window = math.ceil(2 / alpha)
        self.mean = math.nan
        self.run = 0

    def score(self, loss: float) -> float:
        """Straight decreases of the mean up to and with this reading."""
        if math.isnan(self.mean):
            self.mean = loss
            return 0.0
        decrease = self.alpha * (self.mean - loss)
        self.run = self.run + 1 if decrease > 0 and decrease >= self.tolerance * self.mean else 0
        self.mean -= decrease
        return float(self.run)


@check_arguments
class Heldout(Consecutive):
    """Number of straight decreases of the loss of one fixed held-out training batch (paper, "valloss").

    Signal: mean held-out loss of the network just trained, in evaluation mode, after the update. Formula: ``run = run +
    1 if heldout < previous else 0`` a probe, with ``previous = inf`` at first. Unit: probes. Extra FLOPs: one forward
    of the held-out batch every ``every`` steps. Memory: two numbers. Under no progress: successive losses of one batch
    move together, so the rate is above 1 / (k + 1)! and is measured on the run's own residuals.

    Args:
        every: steps between probes.
        total_steps: length of training; longer steps between probes are refused.
    """

    needs = frozenset({"heldout"})
    reads = ("heldout",)
    null = "permute"

    def __init__(self, every: Count = 1, *, total_steps: int | None = None):
        check_length("every", every, total_steps)
        super().__init__()
        self.every = every

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """Mean held-out loss of a probed step."""
        if signal.heldout is None:
            return None
        return (math.fsum(map(float, signal.heldout)) / len(signal.heldout),)

    def exceedance(self, level: float) -> float:
        """Unknown: successive held-out losses are not exchangeable."""
        return math.nan


class GradientNorm(Consecutive):
    """Number of straight increases of the gradient's norm (paper, "slope").

    Signal: Euclidean norm of the mapped weights' gradient. Formula: ``run = run + 1 if norm > previous else 0``, with
    ``previous = -inf`` at first. Unit: steps. Extra FLOPs: none counted (one pass over the gradient). Memory: two
    numbers. Under no progress (exchangeable norms) the score reaches k with probability 1 / (k + 1)!.
    """

    needs = frozenset({"gradient"})
    reads = ("gradient_norm",)
    numbers = 1

    def measure(self, gradient: Sequence[Tensor]) -> Tensor:
        """The norm ``(1,)``, on the gradient's device."""
        return torch.stack(torch._foreach_norm(list(gradient))).norm().reshape(1)

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The norm of a probed step."""
        if signal.measured is not None:
            return tuple(signal.measured)
        return None if signal.gradient is None else (self.measure(signal.gradient).item(),)

    def score(self, gradient_norm: float) -> float:
        """Straight increases up to and with this reading."""
        return super().score(-gradient_norm)
