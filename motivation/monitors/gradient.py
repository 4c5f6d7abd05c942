"""Do gradients of independent batches agree? Progress that generalises, read off the mapped weights."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from motivation.monitors.signal import Monitor, Signal, check_length
from motivation.validation import Count, Positive, check_arguments


class GradientMonitor(Monitor):
    """What monitors of the gradient share: a reference gradient on the device, and numbers read with the loss."""

    needs = frozenset({"gradient"})
    null = "signflip"
    state = ("reference",)

    def __init__(self, every: int = 1, total_steps: int | None = None):
        check_length("every", every, total_steps)
        self.every = every
        self.reference: Tensor | None = None

    def measure(self, gradient: Sequence[Tensor]) -> Tensor:
        """``(3,)``: product with the reference, and squared norms of gradient and reference; NaN without one."""
        # Flattened in logical order, so that networks of another memory layout agree.
        flat = _flatten_dense_tensors(list(gradient))
        reference = self.reference
        if reference is None:
            reference = torch.full_like(flat, math.nan)
        reference = reference.to(flat.device)
        numbers = torch.stack([flat @ reference, flat @ flat, reference @ reference])
        self.reference = self.refer(reference, flat)
        return numbers

    def refer(self, reference: Tensor, flat: Tensor) -> Tensor:
        """The next reference, from this one (all NaN at first) and the newest gradient."""
        return flat

    def numbers_of(self, signal: Signal) -> Sequence[float] | None:
        """What `measure` gives of a probed step, from the device or read already; None without a reference."""
        numbers = signal.measured
        if numbers is None and signal.gradient is not None:
            numbers = self.measure(signal.gradient).tolist()
        return None if numbers is None or math.isnan(numbers[0]) else numbers

    numbers = 3


@check_arguments
class GradientAgreement(GradientMonitor):
    """Cosine of this step's gradient with the last one, or with the running mean of those before it.

    Signal: gradient g of the mapped weights, in base order and shape, so that both networks' gradients compare.
    Formula: ``g . r / (|g| |r|)``, where r is the last gradient, or the mean ``r = r + (1 - 2 ** (-1 / half_life)) * (g
    - r)`` before this one. Unit: cosine, -1 to 1. Extra FLOPs: none counted (one pass over the gradient). Memory: one
    gradient of the base. Under no progress (independent batches whose mean gradient is zero) its sign is random: the
    null flips signs. The cosine's size depends on the network; 0.1 is a start, a quota needs no level.

    Args:
        reference: ``last`` gradient, or running ``mean``.
        half_life: of the running mean, in probes.
        every: steps between probes.
        total_steps: length of training; a longer half-life or longer steps between probes are refused.

    Raises:
        ValueError: another reference, or a half-life that is not above 0 and finite, or longer than training.
    """

    reads = ("cosine",)
    level = 0.1
    levels = (math.nextafter(-1.0, 0.0), 1.0)

    def __init__(self, reference: Literal["last", "mean"] = "last", half_life: Positive = 20.0, every: Count = 1, *,
                 total_steps: int | None = None):
        check_length("half_life", half_life, total_steps if reference == "mean" else None)
        super().__init__(every, total_steps)
        self.weight = 1.0 if reference == "last" else 1 - 0.5 ** (1 / half_life)

    def refer(self, reference: Tensor, flat: Tensor) -> Tensor:
        """This gradient, or the running mean with it."""
        if self.weight == 1:
            return flat
        return torch.where(reference.isnan(), flat, torch.lerp(reference, flat, self.weight))

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The cosine of a probed step; 0 where a gradient is zero."""
        numbers = self.numbers_of(signal)
        if numbers is None:
            return None
        product, ours, theirs = numbers
        norms = math.sqrt(ours * theirs)
        return (product / norms if norms else 0.0,)

    def score(self, cosine: float) -> float:
        """The cosine."""
        return cosine


@check_arguments
class NoiseScale(GradientMonitor):
    """Gradient signal-to-noise ratio, estimated across steps: the inverse of the simple noise scale in batches.

    Signal: products of successive gradients of the mapped weights, whose mean is ``|G|^2``, and squared norms, whose
    mean is ``|G|^2 + tr(S)``, G the true gradient and S the batch gradient's covariance (McCandlish et al. 2018,
    appendix A). Formula: ``mean product / (mean squared norm - mean product)``, both running means. The batch is never
    split, which would change BatchNorm. Unit: ratio. Extra FLOPs: none counted (one pass over the gradient). Memory:
    one gradient of the base. Under no progress the products' signs are random: the null flips them.

    Args:
        half_life: of the running means, in probes.
        every: steps between probes.
        total_steps: length of training; a longer half-life or longer steps between probes are refused.

    Raises:
        ValueError: a half-life that is not above 0 and finite, or longer than training.
    """

    reads = ("product", "squared_norm")
    level = 0.05
    state = ("reference", "product", "squared_norm")

    def __init__(self, half_life: Positive = 20.0, every: Count = 1, *, total_steps: int | None = None):
        check_length("half_life", half_life, total_steps)
        super().__init__(every, total_steps)
        self.weight = 1 - 0.5 ** (1 / half_life)
        self.window = math.ceil(2 / self.weight)
        self.product = self.squared_norm = math.nan

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """Product with the last gradient, and the two squared norms' mean, of a probed step."""
        numbers = self.numbers_of(signal)
        return None if numbers is None else (numbers[0], (numbers[1] + numbers[2]) / 2)

    def score(self, product: float, squared_norm: float) -> float:
        """The ratio; 0 where gradients are zero."""
        if math.isnan(self.product):
            self.product, self.squared_norm = product, squared_norm
        self.product += self.weight * (product - self.product)
        self.squared_norm += self.weight * (squared_norm - self.squared_norm)
        noise = self.squared_norm - self.product
        return self.product / noise if noise > 0 else math.copysign(math.inf, self.product) if self.product else 0.0
