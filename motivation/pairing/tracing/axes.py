"""Axes of tensors as the network itself divides them: products (``view``), sums (``cat``, ``split``), equalities.

The rows of a fused qkv projection are ``3 x heads x width``, a grouped convolution's channels are ``groups x width``,
the channels after a concatenation are a sum. Each tensor dimension is a list of axes, outermost first, whose sizes
multiply to its size; axes that an operation brings together become one. What a network does to an axis beyond that
(softmax, pooling, convolving over it) *fixes* it: it must have one size in both networks of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

# Fixed uses that are a matter of scale, like a norm's mean over more channels: softmax(q k / sqrt(width)), and the
# softmax of attention between channels. They are noted where the sizes differ, not refused.
HEAD_WIDTH = "is the width of an attention head, which sets the attention's temperature"
SOFTMAX = "goes through a softmax, whose shares depend on how many there are"
CONTRADICTION = "is divided in two ways that do not agree"
SCALES = (HEAD_WIDTH, SOFTMAX)  # the later says more: attention between channels is both


class Axis:
    """A range of indices, and how it is divided.

    Args:
        size: number of indices.
        kind: ``product`` or ``sum`` of its parts; None while nothing divides it.
        parts: the axes it is divided into, outermost (first) first.
    """

    __slots__ = ("counts_groups", "fixed", "kind", "parent", "parts", "size")

    def __init__(self, size: int, kind: str | None = None, parts: list[Axis] = ()):
        self.size = size
        self.kind = kind
        self.parts = list(parts)
        self.fixed: str | None = None
        self.counts_groups = False  # groups of one channel, which no view divides
        self.parent: Axis | None = None

    def root(self) -> Axis:
        """The axis this one has become, after all equalities so far."""
        axis = self
        while axis.parent is not None:
            if axis.parent.parent is not None:
                axis.parent = axis.parent.parent
            axis = axis.parent
        return axis

    def fix(self, why: str) -> None:
        """Demand one size in both networks, for all parts."""
        axis = self.root()
        if axis.kind is None and axis.fixed in (None, *SCALES) and not (axis.fixed == SOFTMAX and why == HEAD_WIDTH):
            axis.fixed = why
        for part in axis.parts:
            part.fix(why)

    def divide(self, kind: str, parts: list[Axis]) -> None:
        """Divide an undivided axis."""
        self.kind, self.parts = kind, parts
        if self.fixed:
            for part in parts:
                part.fix(self.fixed)


def fresh(size: int) -> list[Axis]:
    """A dimension that nothing else is equal to yet; size 1 needs no axis."""
    return [] if size == 1 else [Axis(size)]


def as_one(axes: list[Axis]) -> Axis:
    """A dimension's axes as a single one."""
    if len(axes) == 1:
        return axes[0].root()
    return Axis(size_of(axes), "product", list(axes)) if axes else Axis(1)


def size_of(axes: list[Axis]) -> int:
    """Size of a dimension."""
    return prod(axis.size for axis in axes)


def fix(axes: list[Axis], why: str) -> None:
    """Demand one size in both networks for all of a dimension's axes."""
    for axis in axes:
        axis.fix(why)


def split_outer(axis: Axis, outer: int) -> tuple[list[Axis], list[Axis]] | None:
    """Divide an axis into its outer ``outer`` and the rest, each a list of axes; None where its parts forbid that."""
    axis = axis.root()
    if outer == 1:
        return [], [axis]
    if axis.size == outer:
        return [axis], []
    if axis.size % outer:
        return None
    if axis.kind is None:
        axis.divide("product", [Axis(outer), Axis(axis.size // outer)])
        return axis.parts[:1], axis.parts[1:]
    if axis.kind == "sum" and not _sum_to_product(axis):
        return None
    taken: list[Axis] = []
    for number, part in enumerate(axis.parts):
        if outer % part.size:
            halves = split_outer(part, outer)
            return halves and (taken + halves[0], halves[1] + axis.parts[number + 1:])
        taken.append(part)
        outer //= part.size
        if outer == 1:
            return taken, axis.parts[number + 1:]
    raise AssertionError("an axis' parts multiply to its size")


def _sum_to_product(axis: Axis) -> bool:
    """Equal parts of a sum, all divided alike, as a product: ``s + s + s`` -> ``3 x s``."""
    first = axis.parts[0]
    if any(part.size != first.size for part in axis.parts):
        return False
    outer = Axis(len(axis.parts))
    outer.fix("counts the parts of a concatenation")
    for part in axis.parts[1:]:
        equate([first], [part])
    axis.kind, axis.parts = "product", [outer, first]
    return True


def equate(left: list[Axis], right: list[Axis]) -> None:
    """Make two dimensions one: every later division of the one divides the other.

    Where their divisions contradict each other, both are fixed: sound, since equal sizes then map whole.
    """
    left, right = list(left), list(right)
    while left and right:
        a, b = left[0].root(), right[0].root()
        if a.size == b.size:
            _merge(a, b)
            left, right = left[1:], right[1:]
            continue
        swapped = a.size < b.size
        if swapped:
            left, right, a, b = right, left, b, a
        halves = split_outer(a, b.size)
        if halves is None:
            fix(left + right, CONTRADICTION)
            return
        left = halves[0] + halves[1] + left[1:]
        if swapped:
            left, right = right, left


def _merge(a: Axis, b: Axis) -> None:
    if a is b:
        return
    if b.kind is None:
        a, b = b, a
    if a.kind is None:
        a.parent = b
        b.counts_groups |= a.counts_groups
        if a.fixed:
            b.fix(a.fixed)
        return
    if a.kind == b.kind == "sum":
        sizes = [part.size for part in b.parts]
        pieces = split_sum([a], sizes)
        if pieces is None and (pieces := split_sum([b], [part.size for part in a.parts])) is not None:
            a, b = b, a
        if pieces is None:
            fix([a, b], CONTRADICTION)
            return
        for piece, part in zip(pieces, b.parts, strict=True):
            if part.size > 1:
                equate(piece, [part])
        a.parent = b
        return
    if a.kind == "sum":
        a, b = b, a
    if b.kind == "sum" and not _sum_to_product(b):
        fix([a, b], CONTRADICTION)
        return
    equate(a.parts, b.parts)
    a.parent = b


def split_sum(axes: list[Axis], sizes: list[int]) -> list[list[Axis]] | None:
    """Divide a dimension into consecutive pieces of these sizes; None where its parts forbid that."""
    if len(sizes) == 1:
        return [list(axes)]
    axis = as_one(axes)
    if axis.kind is None:
        axis.divide("sum", [Axis(size) for size in sizes])
        return [_without_ones([part]) for part in axis.parts]
    if axis.kind == "product":
        if len(set(sizes)) == 1 and (halves := split_outer(axis, len(sizes))) is not None:
            fix(halves[0], "is split")
            return [list(halves[1]) for _ in sizes]
        inner = prod(part.size for part in axis.parts[1:])
        if any(size % inner for size in sizes):
            return None
        outer = split_sum(axis.parts[:1], [size // inner for size in sizes])
        return outer and [piece + axis.parts[1:] for piece in outer]
    pieces, parts = [], list(axis.parts)
    for size in sizes:
        piece, missing = [], size
        while missing:
            part = parts.pop(0).root()
            if part.size > missing:
                halves = split_sum([part], [missing, part.size - missing])
                if halves is None:
                    return None
                parts.insert(0, as_one(halves[1]))
                part = as_one(halves[0])
            piece.append(part)
            missing -= part.size
        pieces.append(_without_ones(piece) if len(piece) == 1 else [Axis(size, "sum", piece)])
    return pieces


def _without_ones(axes: list[Axis]) -> list[Axis]:
    return [axis for axis in axes if axis.size > 1]


def regroup(dims: list[list[Axis]], shape: tuple[int, ...]) -> list[list[Axis]]:
    """The axes of ``tensor.view(shape)``; divides axes where the view does."""
    grouped: list[list[Axis]] = []
    dims, sizes = list(dims), list(shape)
    # The smallest runs of dimensions with one product: a run that cannot be divided leaves the others alone.
    while sizes:
        run, into = [], [sizes.pop(0)]
        ours, theirs = 1, into[0]
        while ours != theirs:
            if ours < theirs:
                run.append(dims.pop(0))
                ours *= size_of(run[-1])
            else:
                into.append(sizes.pop(0))
                theirs *= into[-1]
        grouped += _regroup(run, into)
    return grouped


def _regroup(dims: list[list[Axis]], shape: list[int]) -> list[list[Axis]]:
    axes = [axis for dim in dims for axis in dim]
    grouped: list[list[Axis]] = []
    for size in shape:
        dim: list[Axis] = []
        while size > 1:
            axis = axes.pop(0).root()
            if size % axis.size == 0:
                dim.append(axis)
                size //= axis.size
                continue
            halves = split_outer(axis, size)
            if halves is None:
                fix([axis for old in dims for axis in old], "is viewed across its parts")
                return [fresh(size) for size in shape]
            dim += halves[0]
            axes = halves[1] + axes
            size = 1
        grouped.append(dim)
    return grouped


@dataclass(frozen=True)
class Layout:
    """How a tensor dimension is divided, once all of a network is known.

    Args:
        size: number of indices.
        kind: ``product``, ``sum`` or None.
        parts: its parts, none for kind None.
        fixed: why it must have one size in both networks, or None.
        axis: identity of the axis within its network.
        counts_groups: whether each index is a group of one channel (a depthwise convolution's).
    """

    size: int
    kind: str | None = None
    parts: tuple[Layout, ...] = ()
    fixed: str | None = None
    axis: int | None = None
    counts_groups: bool = False

    def __str__(self):
        if self.kind is None:
            return str(self.size)
        sign = " x " if self.kind == "product" else " + "
        return sign.join(f"({part})" if part.kind == "sum" and self.kind == "product" else str(part)
                         for part in self.parts)


def layout(axes: list[Axis]) -> Layout:
    """A dimension's axes as divided so far."""
    axis = as_one(axes).root()
    parts: list[Layout] = []
    for part in (layout([part]) for part in axis.parts):
        parts += part.parts if part.kind == axis.kind else [part]
    return Layout(axis.size, axis.kind, tuple(parts), axis.fixed, id(axis), axis.counts_groups)
