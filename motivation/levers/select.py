"""Rules: from the scores of units to their weights. Pure functions of tensors."""

import torch
from torch import Tensor


def select(scores: Tensor, share: float, units: Tensor | None = None) -> Tensor:
    """Keep the share of units with the highest scores.

    Args:
        scores: of any shape.
        share: above 0, at most 1; rounded to whole units, at least one.
        units: bool of that shape, False where there is nothing to select; None for units everywhere.

    Returns:
        Weights of that shape, float32: 1 for what is kept and 0 for everything else.
    """
    weights = torch.zeros(scores.shape, device=scores.device)
    places = torch.arange(scores.numel(), device=scores.device) if units is None else units.flatten().nonzero()[:, 0]
    if len(places):
        best = scores.flatten()[places].topk(kept(len(places), share)).indices
        weights.view(-1)[places[best]] = 1
    return weights


def kept(count: int, share: float) -> int:
    """How many of so many units a share keeps."""
    return max(1, round(share * count))


def forget(weights: Tensor, units: Tensor, strength: float) -> Tensor:
    """Weights that raise the loss of what was not kept, in place of leaving it out.

    Args:
        weights: 1 for what is kept, else 0.
        units: bool of that shape, where there is a unit.
        strength: what a unit that is not kept weighs, with a minus before it; 0 leaves it out.
    """
    return torch.where(units, weights - strength * (1 - weights), weights)
