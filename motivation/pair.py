"""A pair: a base and a motivated network in one storage."""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from motivation.weights_map import MapName, WeightsMap, map_weights, owner_of, tensor_of

Phase = Literal["base", "motivated"]
Init = Literal["identity", "native"]


class Pair(nn.Module):
    """Base and motivated network that share weights (paper, section "Weights maps").

    Tensors that map whole are one storage: the motivated network's parameter *is* the base's. Sliced tensors are
    copied by `expand` and `contract`. The base's values win. The motivated network is edited in place: its mapped
    tensors are replaced or overwritten, and with ``init="identity"`` the last normalisation of every block that only
    it has is set to zero.

    Args:
        base: the smaller network.
        motivated: the larger network of the same family.
        weights_map: ``structural`` or ``literal``, see `motivation.weights_map.map_weights`; or a ready `WeightsMap`.
        init: values of the differential blocks: ``identity`` (each starts as the identity, so that the first expansion
            changes no logit; exact where the activation after the addition is idempotent) or ``native`` (untouched, as
            the paper presumably did).

    Raises:
        NestingError: the base does not nest in the motivated network.
        ValueError: a differential block that cannot start as the identity. The networks are then unchanged.
    """

    def __init__(self, base: nn.Module, motivated: nn.Module, *, weights_map: MapName | WeightsMap = "structural",
                 init: Init = "identity"):
        super().__init__()
        if init not in get_args(Init):
            raise ValueError(f"unknown init {init!r}; choose one of {', '.join(get_args(Init))}")
        if base is motivated:
            raise ValueError("base and motivated are one and the same network; a pair needs two")
        if not isinstance(weights_map, WeightsMap):
            weights_map = map_weights(base, motivated, weights_map)
        blocks = [(name, motivated.get_submodule(name)) for name in weights_map.differential_blocks]
        if init == "identity":
            for name, block in blocks:
                if not hasattr(block, "zero_init_last"):
                    raise ValueError(f"{name}: {type(block).__name__} cannot start as the identity; use init='native'")
        self.base = base
        self.motivated = motivated
        self.weights_map = weights_map
        if init == "identity":
            for _, block in blocks:
                block.zero_init_last()
        self.tie()
        self.expand()

    def network(self, phase: Phase) -> nn.Module:
        """The network that trains in a phase."""
        return self.base if phase == "base" else self.motivated

    def tie(self) -> None:
        """Make every aliased tensor of the motivated network the base's own tensor (again)."""
        for entry in self.weights_map.aliased:
            module, name = owner_of(self.motivated, entry.motivated)
            tensor = tensor_of(self.base, entry.base)
            (module._parameters if name in module._parameters else module._buffers)[name] = tensor
        self._views: tuple[list[Tensor], list[Tensor]] | None = None

    def assert_tied(self) -> None:
        """Raise ValueError where an aliased tensor has been replaced in one network only (``.to()`` does that)."""
        for entry in self.weights_map.aliased:
            if tensor_of(self.base, entry.base) is not tensor_of(self.motivated, entry.motivated):
                raise ValueError(f"{entry.base} is no longer shared by the pair: move or convert the pair itself "
                                 "(pair.to(...)), not one of its networks, or call pair.tie()")

    def expand(self) -> int:
        """Copy the sliced tensors base -> motivated; returns the bytes copied (0 where every tensor is aliased)."""
        base, motivated = self._sliced_views()
        return copy_tensors(motivated, base)

    def contract(self) -> int:
        """Copy the sliced tensors motivated -> base; returns the bytes copied."""
        base, motivated = self._sliced_views()
        return copy_tensors(base, motivated)

    def synchronize(self, phase: Phase) -> int:
        """Bring the network that is not training up to date, before both are evaluated; returns the bytes copied."""
        return self.expand() if phase == "base" else self.contract()

    def _sliced_views(self) -> tuple[list[Tensor], list[Tensor]]:
        if self._views is None:
            sliced = self.weights_map.sliced
            self._views = ([tensor_of(self.base, entry.base).detach() for entry in sliced],
                           [entry.slice_of(tensor_of(self.motivated, entry.motivated).detach()) for entry in sliced])
        return self._views

    def _apply(self, fn, recurse=True):
        # Conversions replace buffers (and, by future flags, parameters) network by network; sharing is restored here.
        super()._apply(fn, recurse)
        self.tie()
        return self

    def __getstate__(self):
        return {**self.__dict__, "_views": None}


def copy_tensors(destinations: list[Tensor], sources: list[Tensor]) -> int:
    """Copy tensor by tensor, one fused call a direction; returns the bytes copied."""
    if not destinations:
        return 0
    with torch.no_grad():
        torch._foreach_copy_(destinations, sources)
    return sum_bytes(destinations)


def sum_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that the elements of these tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
