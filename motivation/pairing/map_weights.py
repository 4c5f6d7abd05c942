"""Maps the weights of a base network into a motivated one (paper, section "Weights maps").

Two networks of one family are walked together. Children pair by name; stages (``Sequential`` or ``ModuleList``) of
different length pair by a depth rule. Where shapes or heads differ, traces of both show how each dimension is divided.
"""

from typing import Literal, get_args

from torch import Tensor, nn

from motivation.pairing.depth_rules import DepthRule, depth_rule_of
from motivation.pairing.placement import Correspondence, Mismatch, has_unequal_sum
from motivation.pairing.tracing.axes import HEAD_WIDTH, Layout
from motivation.pairing.tracing.shapes import trace_all
from motivation.pairing.tracing.trace import Trace, mixes_channels
from motivation.pairing.walk import NestingError, Walk, paired_tensors, refuse_unmappable
from motivation.pairing.weights_map import Entry, WeightsMap

MapName = Literal["structural", "literal"]


def map_weights(base: nn.Module, motivated: nn.Module, name: MapName = "structural",
                depth_rule: DepthRule | None = None, image_shape: tuple[int, ...] | None = None) -> WeightsMap:
    """Map every weight of the base network to a slice of a weight of the motivated one.

    Args:
        base: the smaller network.
        motivated: the larger network of the same family.
        name: ``structural`` maps slices that mean the same in both networks (whole heads, groups, parts of
            concatenations); ``literal`` takes leading slices wherever shapes differ, as the paper does.
        depth_rule: how the blocks of stages of different length pair, see `paired_blocks`; default the family's.
        image_shape: ``(C, H, W)`` of the images both networks take, for tracing them; default found automatically.

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
            paired: list[tuple[str, Tensor, str, Tensor]]) -> list[Trace]:
    try:
        return trace_all((base, motivated), image_shape)
    except ValueError as error:
        other = [(name, small, large) for name, small, _, large in paired if small.shape != large.shape]
        try:
            taken = [" x ".join(map(str, trace_all([network], None)[0].image_shape)) for network in (base, motivated)]
        except ValueError:
            taken = []
        if not other or len({*taken}) < 2:
            raise NestingError(f"{error}; weights_map='literal' with init='native' needs no trace") from error
        # They take images of different sizes: most likely their position grids differ.
        name, small, large = next((tensors for tensors in other if "pos" in tensors[0]), other[0])
        raise NestingError(_refusal(name, small, large, "no image runs through both networks: the base takes "
                                    f"{taken[0]}, the motivated network {taken[1]}; create both for one size (timm: "
                                    "img_size=...)"), "fixed") from error


def _entries(paired: list[tuple[str, Tensor, str, Tensor]], traces: list[Trace] | None
             ) -> tuple[tuple[Entry, ...], list[str]]:
    """The map's entries, leading slices where there are no traces; and notes on what is not exact."""
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
    """A slice of the last layer's outputs would be another task: they are the classes."""
    ours, theirs = (getattr(network, "num_classes", None) for network in (base, motivated))
    last = next((entry for entry in reversed(entries) if len(entry.dims) > 1), None)
    if ours != theirs:
        raise NestingError(f"num_classes: {ours} in the base, {theirs} in the motivated network; both must have the "
                           "same classes")
    if ours is None and last and not last.dims[0].whole:
        raise NestingError(f"{last.base}: {last.shape[0]} classes in the base, {last.motivated_shape[0]} in the "
                           "motivated network; both must have the same classes")


def _scales(walk: Walk, notes: list[str]) -> list[str]:
    """One note for all attention scales that differ with the width, unless the trace has noted it."""
    for difference, with_width in walk.scales.values():
        if not with_width:
            raise NestingError(difference, "design")
    return [] if any(HEAD_WIDTH in note for note in notes) else [note for note, _ in walk.scales.values()][:1]


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
