"""Running statistics of BatchNorm in a pair: shared through the map, separate, or recalibrated before evaluation."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from motivation.pairing.weights_map import WeightsMap, tensor_of

BatchNormPolicy = Literal["shared", "separate", "recalibrate"]


@torch.no_grad()
def separate_statistics(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> WeightsMap:
    """The map without buffers, which each network keeps from now on; the motivated network's start from the base's."""
    parameters = dict(base.named_parameters())
    for entry in weights_map.entries:
        if entry.base not in parameters:
            for ours, theirs in entry.pieces(tensor_of(base, entry.base), tensor_of(motivated, entry.motivated)):
                theirs.copy_(ours)
    return replace(weights_map, entries=tuple(entry for entry in weights_map.entries if entry.base in parameters))


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute BatchNorm statistics as the mean over batches; nothing else changes, no RNG either.

    Args:
        network: left in evaluation mode.
        batches: training images ``(N, C, H, W)``; run under the caller's autocast, if any.

    Raises:
        ValueError: no batches; the statistics are then as they were, as after any error.
    """
    norms = [module for module in network.modules()
             if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats]
    network.eval()
    before = [(norm, norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    seen = False
    try:
        for images in batches if norms else ():
            network(images)
            seen = True
        if norms and not seen:
            raise ValueError("no batches to recompute the BatchNorm statistics from; give at least one")
    except BaseException:
        for norm, _, statistics in before:
            for name, buffer in statistics.items():
                getattr(norm, name).copy_(buffer)
        raise
    finally:
        for norm, momentum, _ in before:
            norm.momentum = momentum
            norm.eval()
