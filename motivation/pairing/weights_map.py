"""The weights map: which slice of which motivated tensor each base tensor is (paper, section "Weights maps").

Two networks of one family are walked together. Children pair by name; stages (``Sequential`` or ``ModuleList``) of
different length pair by a depth rule. Tensors of one shape are *aliased* (one storage); a smaller base tensor is a
*slice* of the motivated one and is copied when capacity switches.
"""

import json
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from motivation.pairing.depth_rules import DepthRule, depth_rule_of
from motivation.pairing.placement import Correspondence, Mismatch, Place, has_unequal_sum
from motivation.pairing.tracing.axes import HEAD_WIDTH, Layout
from motivation.pairing.tracing.shapes import first_trace, trace_both
from motivation.pairing.tracing.trace import Trace, mixes_channels
from motivation.pairing.walk import (
    NestingError,
    Walk,
    join,
    mapped_tensors,
    paired_tensors,
    refuse_other_kind,
    refuse_unmappable,
)

MapName = Literal["structural", "literal"]

@dataclass(frozen=True)
class Entry:
    """One base tensor and its place in the motivated network.

    Args:
        base: qualified name of the base parameter or buffer.
        motivated: qualified name of the motivated parameter or buffer.
        dims: where each dimension of the base tensor lies in the motivated tensor's.
    """

    base: str
    motivated: str
    dims: tuple[Place, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the base tensor."""
        return tuple(dim.base for dim in self.dims)

    @property
    def motivated_shape(self) -> tuple[int, ...]:
        """Shape of the motivated tensor."""
        return tuple(dim.motivated for dim in self.dims)

    @property
    def aliased(self) -> bool:
        """Whether the two tensors are one storage; otherwise the base is a slice, copied at a switch."""
        return all(dim.whole for dim in self.dims)

    def pieces(self, base: Tensor, motivated: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of both tensors that hold the same values: one pair, or one a part of each concatenation."""
        pieces = [(base, motivated, 0)]
        for number in range(len(self.dims)):
            pieces = [(small, large, used + more) for ours, theirs, used in pieces
                      for small, large, more in self.dims[number].views(ours, theirs, used)]
        return [(small, large) for small, large, _ in pieces]

    def slice_of(self, motivated: Tensor) -> Tensor:
        """The base tensor's values in a motivated tensor, shape ``self.shape``; a view where one can say it."""
        if all(dim.kind is None for dim in self.dims):
            return motivated[tuple(slice(0, dim.base) for dim in self.dims)]
        base = motivated.new_empty(self.shape)
        for small, large in self.pieces(base, motivated):
            small.copy_(large)
        return base


@dataclass(frozen=True)
class WeightsMap:
    """All entries of a pair, and the blocks that only the motivated network has.

    Args:
        entries: one a base parameter or mapped buffer, in the base's order.
        differential_blocks: qualified names of the motivated network's blocks that no base block maps to.
        nearest_blocks: by differential block, the mapped block of the same stage nearest to it.
        notes: where expanding changes logits although no weight differs: norms over more channels, for one.
    """

    entries: tuple[Entry, ...]
    differential_blocks: tuple[str, ...] = ()
    nearest_blocks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def aliased(self) -> list[Entry]:
        """Entries whose two tensors are one storage."""
        return [entry for entry in self.entries if entry.aliased]

    @property
    def sliced(self) -> list[Entry]:
        """Entries copied at every switch."""
        return [entry for entry in self.entries if not entry.aliased]

    def to_json(self) -> str:
        """The map as text, for a run folder or to edit and hand back to `Pair`."""
        entries = [{"base": e.base, "motivated": e.motivated, "dims": [dim.as_list() for dim in e.dims]}
                   for e in self.entries]
        lines = ",\n  ".join(json.dumps(entry) for entry in entries)
        rest = {"differential_blocks": self.differential_blocks, "nearest_blocks": self.nearest_blocks,
                "notes": self.notes}
        return f'{{"entries": [\n  {lines}],\n {json.dumps(rest)[1:]}\n'

    @classmethod
    def from_json(cls, text: str) -> "WeightsMap":
        """Read what `to_json` wrote.

        Raises:
            ValueError: text that is no map.
        """
        try:
            values = json.loads(text)
            entries = tuple(Entry(e["base"], e["motivated"], tuple(map(Place.from_list, e["dims"])))
                            for e in values.pop("entries"))
            return cls(entries, **{key: tuple(value) for key, value in values.items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no weights map as WeightsMap.to_json writes it: {error!r}") from error

    def check(self, base: nn.Module, motivated: nn.Module) -> None:
        """Check the map against two networks, as one made by hand must be: each parameter of the base once.

        Raises:
            NestingError: a tensor that is missing, has another shape, or is mapped twice; a differential block that
                does not exist or holds a mapped tensor; networks that cannot be mapped at all.
        """
        refuse_unmappable(base, "base")
        refuse_unmappable(motivated, "motivated")
        ours, theirs = mapped_tensors(base), mapped_tensors(motivated)
        for entry in self.entries:
            for name, tensors, shape, role in ((entry.base, ours, entry.shape, "base"),
                                               (entry.motivated, theirs, entry.motivated_shape, "motivated")):
                if name not in tensors:
                    raise NestingError(f"{name}: the map names it, but the {role} network has no such tensor, or the "
                                       "map names it twice")
                if tuple(tensors[name].shape) != shape:
                    raise NestingError(f"{name}: shape {shape} in the map, {tuple(tensors[name].shape)} in the {role} "
                                       "network")
            refuse_other_kind(entry.base, ours.pop(entry.base), theirs.pop(entry.motivated))
        for name, tensor in ours.items():
            # Buffers may stay each network's own: batch_norm="separate" leaves them out.
            if isinstance(tensor, nn.Parameter):
                raise NestingError(f"{name}: the map leaves out this parameter of the base")
        self._check_blocks({name for name, _ in motivated.named_modules()})

    def _check_blocks(self, known: set[str]) -> None:
        """A differential block is initialised anew: nothing of the base may lie in it."""
        if len(self.nearest_blocks) != len(self.differential_blocks):
            raise NestingError(f"the map has {len(self.differential_blocks)} differential_blocks and "
                               f"{len(self.nearest_blocks)} nearest_blocks; it must name one for each, or \"\"")
        for name in [*self.differential_blocks, *filter(None, self.nearest_blocks)]:
            if name not in known:
                raise NestingError(f"{name}: the map names it as a block, but the motivated network has no such module")
        for block in self.differential_blocks:
            inside = next((e.motivated for e in self.entries if e.motivated.startswith(join(block, ""))), None)
            if inside:
                raise NestingError(f"{block or 'the network itself'}: the map calls this block differential, but maps "
                                   f"{inside} in it")


def map_weights(base: nn.Module, motivated: nn.Module, name: MapName = "structural",
                depth_rule: DepthRule | None = None, image_shape: tuple[int, ...] | None = None) -> WeightsMap:
    """Lay the base network into the motivated one.

    Args:
        base: the smaller network.
        motivated: the larger network of the same family.
        name: ``structural`` maps slices that mean the same in both networks (whole heads, groups, parts of
            concatenations); ``literal`` takes leading slices wherever shapes differ, as the paper does.
        depth_rule: how the blocks of stages of different length pair, see `paired_blocks`; default the family's.
        image_shape: ``(C, H, W)`` of the images both networks take, for tracing them; default found out.

    Raises:
        NestingError: the base does not nest; the message names the first place and why.
    """
    if name not in get_args(MapName):
        raise ValueError(f"unknown weights map {name!r}; choose one of {', '.join(get_args(MapName))}")
    refuse_unmappable(base, "base")
    refuse_unmappable(motivated, "motivated")
    walk = Walk(depth_rule or depth_rule_of(base), strict=name == "structural")
    paired = [tensors for modules in walk.modules(base, motivated) for tensors in paired_tensors(*modules)]
    differ = walk.heads_differ or walk.differential or any(ours.shape != theirs.shape for _, ours, _, theirs in paired)
    traces = None
    if differ and name == "structural":
        traces = _traces(base, motivated, image_shape, paired)
    entries, notes = _entries(paired, traces)
    _refuse_other_classes(entries, base, motivated)
    return WeightsMap(entries, tuple(walk.differential), tuple(walk.nearest),
                      (*notes, *_scales(walk, notes), *_notes(entries, motivated)))


def _traces(base: nn.Module, motivated: nn.Module, image_shape: tuple[int, ...] | None,
            paired: list[tuple[str, Tensor, str, Tensor]]) -> tuple[Trace, Trace]:
    try:
        return trace_both(base, motivated, image_shape)
    except ValueError as error:
        other = [(name, small, large) for name, small, _, large in paired if small.shape != large.shape]
        try:
            taken = [" x ".join(map(str, first_trace(network, None).image_shape)) for network in (base, motivated)]
        except ValueError:
            taken = []
        if not other or len({*taken}) < 2:
            raise NestingError(f"{error}; weights_map='literal' with init='native' needs no look at it") from error
        # Each takes images of its own size: most likely their grids of positions differ.
        name, small, large = next((tensors for tensors in other if "pos" in tensors[0]), other[0])
        raise NestingError(_refusal(name, small, large, "no image runs through both networks: the base takes "
                                    f"{taken[0]}, the motivated network {taken[1]}; create both for one size (timm: "
                                    "img_size=...)"), "fixed") from error


def _entries(paired: list[tuple[str, Tensor, str, Tensor]], traces: tuple[Trace, Trace] | None
             ) -> tuple[tuple[Entry, ...], list[str]]:
    """Where each tensor lies, leading slices without traces; and what keeps that from being exact."""
    correspondence = Correspondence()
    divided: dict[str, tuple[tuple[Layout, ...], tuple[Layout, ...]]] = {}
    for ours, small, theirs, large in paired:
        if small.dim() != large.dim():
            raise NestingError(_refusal(ours, small, large, "they have different numbers of dimensions"))
        divided[ours] = (traces[0].layouts[ours], traces[1].layouts[theirs]) if traces else \
            (tuple(map(Layout, small.shape)), tuple(map(Layout, large.shape)))
    late = {name for name, layouts in divided.items() if any(map(has_unequal_sum, *layouts))}
    dims = {}
    for ours, small, _, large in sorted(paired, key=lambda tensors: tensors[0] in late):
        try:
            dims[ours] = tuple(map(correspondence.place, *divided[ours]))
        except Mismatch as error:
            raise NestingError(_refusal(ours, small, large, str(error)), error.kind) from error
    return tuple(Entry(ours, theirs, dims[ours]) for ours, _, theirs, _ in paired), list(correspondence.notes)


def _refusal(name: str, small: Tensor, large: Tensor, why: str) -> str:
    return (f"{name}: shape {tuple(small.shape)} of the base does not fit in shape {tuple(large.shape)} of the "
            f"motivated network: {why}")


def _refuse_other_classes(entries: tuple[Entry, ...], base: nn.Module, motivated: nn.Module) -> None:
    """The last layer's outputs are the classes: a slice of them would be another task."""
    ours, theirs = (getattr(network, "num_classes", None) for network in (base, motivated))
    last = next((entry for entry in reversed(entries) if len(entry.dims) > 1), None)
    if ours != theirs:
        raise NestingError(f"num_classes: {ours} in the base, {theirs} in the motivated network; both must have the "
                           "same classes")
    if ours is None and last and not last.dims[0].whole:
        raise NestingError(f"{last.base}: {last.shape[0]} classes in the base, {last.motivated_shape[0]} in the "
                           "motivated network; both must have the same classes")


def _scales(walk: Walk, notes: list[str]) -> list[str]:
    """Attention scales that differ with the width, one note for all, where the trace has not noted it."""
    for said, with_width in walk.scales.values():
        if not with_width:
            raise NestingError(said, "design")
    return [] if any(HEAD_WIDTH in note for note in notes) else [said for said, _ in walk.scales.values()][:1]


def _notes(entries: tuple[Entry, ...], motivated: nn.Module) -> tuple[str, ...]:
    """Modules whose arithmetic changes with the width, one note a kind."""
    kinds: dict[str, str] = {}
    for entry in entries:
        if not entry.aliased:
            path = entry.motivated.rpartition(".")[0]
            module = motivated.get_submodule(path)
            if mixes_channels(module):
                kinds.setdefault(type(module).__name__, path)
    return tuple(f"{kind} ({path}, ...) averages over more channels in the motivated network"
                 for kind, path in kinds.items())


def owner_of(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor, and the tensor's name in it."""
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def tensor_of(network: nn.Module, name: str) -> torch.Tensor:
    """A parameter or buffer by its qualified name."""
    module, leaf = owner_of(network, name)
    return getattr(module, leaf)
