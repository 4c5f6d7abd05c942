"""The weights map: which slice of which motivated tensor each base tensor is (paper, section "Weights maps").

Tensors of one shape are *aliased* (one storage); a smaller base tensor is a *slice* of the motivated one and is copied
when capacity switches. `motivation.pairing.map_weights` makes the map.
"""

import json
from dataclasses import dataclass

from torch import Tensor, nn

from motivation.pairing.dim_map import DimMap
from motivation.pairing.split_qkv import split
from motivation.pairing.walk import NestingError, join, mapped_tensors, refuse_other_kind, refuse_unmappable


@dataclass(frozen=True)
class Entry:
    """One base tensor and its place in the motivated network.

    Args:
        base: qualified name of the base parameter or buffer.
        motivated: qualified name of the motivated parameter or buffer.
        dims: by dimension, which indices of the motivated tensor the base tensor's map to.
    """

    base: str
    motivated: str
    dims: tuple[DimMap, ...]

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
        """Views of both tensors that hold the same values, pair by pair, see `motivation.pairing.split_qkv.split`."""
        return split(self.dims, base, motivated)

    def slice_of(self, motivated: Tensor) -> Tensor:
        """The base tensor's values in a motivated tensor, shape ``self.shape``; a view where possible."""
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
        notes: why expanding changes logits although no weight differs, such as norms over more channels.
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
            ValueError: the text is not a map.
        """
        try:
            values = json.loads(text)
            entries = tuple(Entry(e["base"], e["motivated"], tuple(map(DimMap.from_list, e["dims"])))
                            for e in values.pop("entries"))
            return cls(entries, **{key: tuple(value) for key, value in values.items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a weights map as WeightsMap.to_json writes it: {error!r}") from error

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
        """A differential block has new weights: no base tensor may map into it."""
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


def owner_of(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor, and the tensor's name in it."""
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def tensor_of(network: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its qualified name."""
    module, leaf = owner_of(network, name)
    return getattr(module, leaf)
