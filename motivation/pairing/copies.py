"""Copies between many tensors at once: one fused call a dtype, listed once and run at every switch."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Copies:
    """Source -> destination pairs of equal shapes, grouped for ``torch._foreach_copy_``.

    Args:
        pairs: destination and source tensors; their storages must outlive the list.
    """

    def __init__(self, pairs: Iterable[tuple[Tensor, Tensor]]):
        groups: dict[tuple, tuple[list[Tensor], list[Tensor]]] = {}
        self.bytes = 0
        for destination, source in pairs:
            key = destination.device, destination.dtype, source.dtype
            destinations, sources = groups.setdefault(key, ([], []))
            destinations.append(destination)
            sources.append(source)
            self.bytes += destination.numel() * destination.element_size()
        self._groups = list(groups.values())

    @torch.no_grad()
    def run(self) -> int:
        """Copy everything; returns the bytes copied."""
        for destinations, sources in self._groups:
            torch._foreach_copy_(destinations, sources)
        return self.bytes
