"""A pair: a base and a motivated network in one storage."""

from collections.abc import Iterable
from typing import get_args

import torch
from torch import Tensor, nn

from motivation.pairing.batch_norm import BatchNormPolicy, recalibrate, separate_statistics
from motivation.pairing.copies import Copies
from motivation.pairing.depth_rules import DepthRule
from motivation.pairing.initialization import Init, Initialization, logit_change
from motivation.pairing.map_weights import MapName, map_weights
from motivation.pairing.walk import NestingError, find_overlap, mapped_tensors
from motivation.pairing.weights_map import WeightsMap, owner_of, tensor_of
from motivation.phase import Phase


class Pair(nn.Module):
    """Base and motivated network that share weights (paper, section "Weights maps").

    Tensors that map whole are one storage: the motivated network's parameter *is* the base's. Sliced tensors are
    copied by `expand` and `contract`. The base's values win. The motivated network is edited in place: its mapped
    tensors are replaced or overwritten, and its differential blocks initialised. A parameter that is frozen
    (``requires_grad=False``) in one network is frozen in both, the whole tensor where the base's is a slice.

    Args:
        base: the smaller network.
        motivated: the larger network of the same family.
        weights_map: ``structural`` or ``literal``, see `motivation.pairing.map_weights.map_weights`; or a ready
            `WeightsMap`.
        init: values of the differential blocks: ``identity`` (their residual branches start at zero, so that the first
            expansion of a pair that differs in depth alone changes no logit; `notes` says where it does), ``native``
            (untouched, as the paper presumably did) or ``copy`` (of the nearest mapped block).
        depth_rule: how the blocks of stages of different length pair, see
            `motivation.pairing.depth_rules.paired_blocks`; default the family's.
        batch_norm: running statistics are ``shared`` through the map (paper), kept ``separate`` by each network, or
            kept separate and recomputed before the network that is not training is evaluated (``recalibrate``).
        image_shape: ``(C, H, W)`` that both networks take, for tracing them; default found automatically.

    Attributes:
        notes: why the first expansion changes logits, one line a reason; empty where it changes none in evaluation
            mode (dropout and drop path draw separately in each network).

    Raises:
        NestingError: the base does not nest in the motivated network.
        ValueError: differential blocks that cannot start as asked. The networks are then unchanged.
    """

    def __init__(self, base: nn.Module, motivated: nn.Module, *, weights_map: MapName | WeightsMap = "structural",
                 init: Init = "identity", depth_rule: DepthRule | None = None,
                 batch_norm: BatchNormPolicy = "shared", image_shape: tuple[int, ...] | None = None):
        super().__init__()
        if batch_norm not in get_args(BatchNormPolicy):
            raise ValueError(f"unknown batch_norm {batch_norm!r}; choose one of {', '.join(get_args(BatchNormPolicy))}")
        for role, network in (("base", base), ("motivated", motivated)):
            if not isinstance(network, nn.Module):
                raise ValueError(f"{role}={network!r}: must be a network, a torch.nn.Module")
        if base is motivated:
            raise ValueError("base and motivated are one and the same network; a pair needs two")
        if isinstance(weights_map, WeightsMap):
            weights_map.check(base, motivated)
        else:
            weights_map = map_weights(base, motivated, weights_map, depth_rule, image_shape)
        _refuse_shared(base, motivated)
        initialization = Initialization(motivated, weights_map, init, image_shape)
        self.base = base
        self.motivated = motivated
        self.batch_norm = batch_norm
        self.weights_map = weights_map if batch_norm == "shared" else separate_statistics(base, motivated, weights_map)
        # load_state_dict(assign=True) gives the networks separate tensors.
        self.register_load_state_dict_post_hook(_tie)
        _freeze_both(base, motivated, self.weights_map)
        self.tie()
        self.expand()
        self.notes = initialization.apply()
        if len(self.weights_map.entries) < len(weights_map.entries):
            self.notes += ("BatchNorm statistics are each network's own",)
        self.notes = self.notes or logit_change(base, motivated, self.weights_map.entries, image_shape)

    def network(self, phase: Phase) -> nn.Module:
        """The network that trains in a phase."""
        return self.base if phase == "base" else self.motivated

    def tie(self) -> None:
        """Make every aliased tensor of the motivated network the base's own tensor (again)."""
        for entry in self.weights_map.aliased:
            module, name = owner_of(self.motivated, entry.motivated)
            tensor = tensor_of(self.base, entry.base)
            (module._parameters if name in module._parameters else module._buffers)[name] = tensor
        self._copies: tuple[Copies, Copies] | None = None  # contract, expand

    def assert_tied(self) -> None:
        """Raise ValueError where an aliased tensor has been replaced in one network only (``.to()`` does that)."""
        for entry in self.weights_map.aliased:
            if tensor_of(self.base, entry.base) is not tensor_of(self.motivated, entry.motivated):
                raise ValueError(f"{entry.base} is no longer shared by the pair: move or convert the pair itself "
                                 "(pair.to(...)), not one of its networks, or call pair.tie()")

    def expand(self) -> int:
        """Copy the sliced tensors base -> motivated; returns the bytes copied (0 where every tensor is aliased).

        Raises:
            ValueError: one network was moved or converted without the other.
        """
        return self._copy(expand=True)

    def contract(self) -> int:
        """Copy the sliced tensors motivated -> base; returns the bytes copied; raises as `expand`."""
        return self._copy(expand=False)

    def synchronize(self, phase: Phase) -> int:
        """Bring the network that is not training up to date, before both are evaluated; returns the bytes copied."""
        return self.expand() if phase == "base" else self.contract()

    @torch.no_grad()
    def is_synchronized(self) -> bool:
        """Whether every base tensor is bit-identical to its slice of the motivated network's."""
        pairs = ((entry, tensor_of(self.base, entry.base), tensor_of(self.motivated, entry.motivated))
                 for entry in self.weights_map.entries)
        return all(ours is theirs if entry.aliased else ours.equal(entry.slice_of(theirs))
                   for entry, ours, theirs in pairs)

    def recalibrate(self, phase: Phase, batches: Iterable[Tensor]) -> None:
        """`motivation.pairing.batch_norm.recalibrate` the network of a phase."""
        recalibrate(self.network(phase), batches)

    def _copy(self, expand: bool) -> int:
        if self._copies is None:
            pairs = [(entry, tensor_of(self.base, entry.base), tensor_of(self.motivated, entry.motivated))
                     for entry in self.weights_map.sliced]
            pieces = [piece for entry, ours, theirs in pairs for piece in entry.pieces(ours.detach(), theirs.detach())]
            self._copies = Copies(pieces), Copies((theirs, ours) for ours, theirs in pieces)
            self._addresses = [(tensor, tensor.data_ptr()) for _, *tensors in pairs for tensor in tensors]
        if any(tensor.data_ptr() != address for tensor, address in self._addresses):
            raise ValueError("a tensor of the pair was moved or converted since the last switch: move or convert the "
                             "pair itself (pair.to(...)), not one of its networks, or call pair.tie()")
        return self._copies[expand].run()

    def _apply(self, fn, recurse=True):
        # Conversions replace buffers (and, by future flags, parameters) network by network; sharing is restored here.
        super()._apply(fn, recurse)
        self.tie()
        return self

    def __getstate__(self):
        return {**self.__dict__, "_copies": None, "_addresses": []}


def _refuse_shared(base: nn.Module, motivated: nn.Module) -> None:
    """A tensor that both networks already hold would be mapped onto itself, or onto another tensor's memory."""
    ours = {id(tensor): name for name, tensor in mapped_tensors(base).items()}
    for name, tensor in mapped_tensors(motivated).items():
        if id(tensor) in ours:
            raise NestingError(f"{name} of the motivated network is already {ours[id(tensor)]} of the base; pair two "
                               "networks that share nothing")
    if names := find_overlap({f"{name} of the {role}": tensor for role, network in (
            ("base", base), ("motivated network", motivated)) for name, tensor in mapped_tensors(network).items()}):
        raise NestingError(f"{names[0]} and {names[1]} share memory; pair two networks that share nothing")


def _freeze_both(base: nn.Module, motivated: nn.Module, weights_map: WeightsMap) -> None:
    """Freeze a parameter whose other is frozen: training the other would change it, at once or at a contract."""
    for entry in weights_map.entries:
        tensors = tensor_of(base, entry.base), tensor_of(motivated, entry.motivated)
        if isinstance(tensors[0], nn.Parameter) and not all(tensor.requires_grad for tensor in tensors):
            for tensor in tensors:
                tensor.requires_grad_(False)


def _tie(pair: Pair, _) -> None:
    pair.tie()
