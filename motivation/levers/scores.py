"""Scores: what a rule ranks the units of a batch by, samples or tokens; the higher, the sooner a unit is trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motivation.accuracy import IGNORED
from motivation.randomness import SELECTION, derived_generator
from motivation.training.engine import Engine


def random_scores(shape: tuple[int, ...], seed: int, step: int) -> Tensor:
    """Uniform from 0 to below 1, derived from seed and step: on the CPU."""
    return torch.rand(shape, generator=derived_generator(seed, SELECTION, step))


@torch.no_grad()
def logits(network: nn.Module, inputs: Tensor, engine: Engine) -> Tensor:
    """Logits of a network in evaluation mode, eager; nothing changes.

    Args:
        network: that is asked.
        inputs: images ``(N, C, H, W)`` or tokens ``(N, T)``.
        engine: its precision holds here too.

    Returns:
        float32 ``(N, classes)`` or ``(N, classes, T)``.
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with engine.autocast():
            return network(inputs).float()
    finally:
        for module in training:
            module.training = True


def losses(network: nn.Module, inputs: Tensor, targets: Tensor, engine: Engine) -> Tensor:
    """Cross-entropy of each target by the `logits` of a network.

    Args:
        network: that is asked.
        inputs: images ``(N, C, H, W)`` or tokens ``(N, T)``.
        targets: ``(N,)``, ``(N, T)`` with `motivation.accuracy.IGNORED` where there is none, or shares
            ``(N, classes)``.
        engine: its precision holds here too.

    Returns:
        ``(N,)`` or ``(N, T)``, 0 where there is no target.
    """
    return F.cross_entropy(logits(network, inputs, engine), targets, reduction="none", ignore_index=IGNORED)


def of_samples(scores: Tensor, units: Tensor) -> Tensor:
    """Each sample's score, the mean of its tokens': ``(N,)``.

    Args:
        scores: ``(N,)``, or of tokens ``(N, T)``.
        units: bool of that shape, where there is a token to be learned.
    """
    if scores.ndim == 1:
        return scores
    return (scores * units).sum(1) / units.sum(1).clamp(min=1)
