"""The weights map: which slice of which motivated tensor each base tensor is (paper, section "Weights maps").

Two networks of one family are walked together. Children pair by name; stages (``Sequential`` or ``ModuleList``) of
different length pair by a depth rule. Tensors of one shape are *aliased* (one storage); a smaller base tensor is a
leading *slice* of the motivated one and is copied when capacity switches.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

DepthRule = Literal["last-to-last", "first", "spread"]
MapName = Literal["structural", "literal"]


class NestingError(ValueError):
    """The base network does not nest in the motivated network; the message names the first place that does not."""


@dataclass(frozen=True)
class Entry:
    """One base tensor and its place in the motivated network.

    Args:
        base: qualified name of the base parameter or buffer.
        motivated: qualified name of the motivated parameter or buffer.
        shape: shape of the base tensor.
        motivated_shape: shape of the motivated tensor; where it equals ``shape`` the two are one storage.
    """

    base: str
    motivated: str
    shape: tuple[int, ...]
    motivated_shape: tuple[int, ...]

    @property
    def aliased(self) -> bool:
        """Whether the two tensors are one storage; otherwise the base is a slice, copied at a switch."""
        return self.shape == self.motivated_shape

    def slice_of(self, motivated: Tensor) -> Tensor:
        """View of the motivated tensor that holds the base tensor, shape ``self.shape``."""
        return motivated[tuple(slice(0, size) for size in self.shape)]


@dataclass(frozen=True)
class WeightsMap:
    """All entries of a pair, and the blocks that only the motivated network has.

    Args:
        entries: one a base parameter or mapped buffer, in the base's order.
        differential_blocks: qualified names of the motivated network's blocks that no base block maps to.
    """

    entries: tuple[Entry, ...]
    differential_blocks: tuple[str, ...]

    @property
    def aliased(self) -> list[Entry]:
        """Entries whose two tensors are one storage."""
        return [entry for entry in self.entries if entry.aliased]

    @property
    def sliced(self) -> list[Entry]:
        """Entries copied at every switch."""
        return [entry for entry in self.entries if not entry.aliased]


def paired_blocks(base: int, motivated: int, rule: DepthRule) -> list[int]:
    """Which motivated block each of a stage's base blocks maps to.

    Args:
        base: number of blocks of the base stage, l.
        motivated: number of blocks of the motivated stage, l' >= l.
        rule: ``last-to-last`` maps the last block to the last and the first l - 1 to the first l - 1 (paper, ResNet; a
            one-block stage falls back to ``first``); ``first`` maps the first l to the first l (paper, EfficientNet);
            ``spread`` spaces them evenly.

    Returns:
        Increasing indices into the motivated stage, one a base block.
    """
    if rule not in get_args(DepthRule):
        raise ValueError(f"unknown depth rule {rule!r}; choose one of {', '.join(get_args(DepthRule))}")
    if rule == "last-to-last" and base > 1:
        return [*range(base - 1), motivated - 1]
    if rule == "spread" and base > 1:
        return [round(i * (motivated - 1) / (base - 1)) for i in range(base)]
    return list(range(base))


def map_weights(base: nn.Module, motivated: nn.Module, name: MapName = "structural",
                depth_rule: DepthRule = "last-to-last") -> WeightsMap:
    """Lay the base network into the motivated one.

    Args:
        base: the smaller network.
        motivated: the larger network of the same family.
        name: ``structural`` maps tensors that mean the same thing in both networks (today: depth only, every mapped
            tensor has one shape in both); ``literal`` takes leading slices wherever shapes differ, as the paper does.
        depth_rule: how the blocks of stages of different length pair, see `paired_blocks`.

    Raises:
        NestingError: the base does not nest; the message names the first place and why.
    """
    if name not in get_args(MapName):
        raise ValueError(f"unknown weights map {name!r}; choose one of {', '.join(get_args(MapName))}")
    _refuse_tied(base, "base")
    _refuse_tied(motivated, "motivated")
    entries: list[Entry] = []
    differential: list[str] = []
    for base_path, base_module, path, module in _paired_modules(base, motivated, depth_rule, differential):
        entries += _entries(base_path, base_module, path, module, name)
    return WeightsMap(tuple(entries), tuple(differential))


def _paired_modules(base: nn.Module, motivated: nn.Module, rule: DepthRule, differential: list[str],
                    base_path: str = "", path: str = "") -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
    """Walk both trees together; collects the blocks no base block maps to in ``differential``."""
    where = base_path or "the network itself"
    if type(base) is not type(motivated):
        raise NestingError(f"{where}: {type(base).__name__} in the base, {type(motivated).__name__} in the motivated "
                           "network; both must be of one family")
    yield base_path, base, path, motivated
    theirs = dict(motivated.named_children())
    ours = dict(base.named_children())
    if isinstance(base, nn.Sequential | nn.ModuleList) and len(ours) != len(theirs):
        if len(ours) > len(theirs):
            raise NestingError(f"{where}: {len(ours)} blocks in the base, only {len(theirs)} in the motivated network")
        names = list(theirs)
        chosen = [names[i] for i in paired_blocks(len(ours), len(theirs), rule)]
        differential.extend(f"{path}.{name}" for name in names if name not in chosen)
    else:
        if missing := sorted(ours.keys() ^ theirs.keys()):
            only = "base" if missing[0] in ours else "motivated network"
            raise NestingError(f"{where}: child {missing[0]!r} exists only in the {only}")
        chosen = list(ours)
    for (base_name, child), name in zip(ours.items(), chosen, strict=True):
        yield from _paired_modules(child, theirs[name], rule, differential,
                                   _join(base_path, base_name), _join(path, name))


def _entries(base_path: str, base: nn.Module, path: str, motivated: nn.Module, map_name: MapName) -> Iterator[Entry]:
    """Entries of the tensors that two paired modules hold themselves."""
    theirs = _own_tensors(motivated)
    for name, tensor in _own_tensors(base).items():
        where = _join(base_path, name)
        if name not in theirs:
            raise NestingError(f"{where}: the motivated network has no such tensor")
        small, large = tuple(tensor.shape), tuple(theirs[name].shape)
        if len(small) != len(large) or any(a > b for a, b in zip(small, large, strict=True)):
            raise NestingError(f"{where}: shape {small} of the base does not fit in shape {large} of the motivated "
                               "network")
        if map_name == "structural" and small != large:
            raise NestingError(f"{where}: shape {small} in the base, {large} in the motivated network; the structural "
                               "map pairs networks that differ in depth, weights_map='literal' takes leading slices")
        yield Entry(where, _join(path, name), small, large)


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, and the buffers that training changes, that a module holds itself.

    Those are persistent floating-point buffers (running statistics) and scalar counters; index tables and masks are
    constants that each network keeps for itself.
    """
    tensors: dict[str, Tensor] = {name: p for name, p in module._parameters.items() if p is not None}
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set \
                and (buffer.is_floating_point() or buffer.dim() == 0):
            tensors[name] = buffer
    return tensors


def _refuse_tied(network: nn.Module, role: str) -> None:
    seen: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise NestingError(f"{name} of the {role} network is not initialised yet; run one forward pass first")
        if id(parameter) in seen:
            raise NestingError(f"{name} and {seen[id(parameter)]} of the {role} network are one tied parameter; "
                               "a pair needs every parameter once")
        seen[id(parameter)] = name


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def owner_of(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor, and the tensor's name in it."""
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def tensor_of(network: nn.Module, name: str) -> torch.Tensor:
    """A parameter or buffer by its qualified name."""
    module, leaf = owner_of(network, name)
    return getattr(module, leaf)
