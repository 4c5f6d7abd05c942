"""Where a base tensor lies in the larger motivated tensor, dimension by dimension, and the views that say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import prod

from torch import Tensor

from motivation.pairing.tracing.axes import SCALES, Layout


class Mismatch(ValueError):
    """Two dimensions that do not nest; the message says why.

    Args:
        message: why, in words.
        kind: ``smaller`` (the motivated network's is smaller), ``fixed`` (it must have one size), ``skip`` (layers
            without a skip lie in between) or ``divided`` (the divisions differ).
    """

    def __init__(self, message: str, kind: str = "divided"):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Place:
    """Where one dimension of the base tensor lies in the motivated tensor's.

    Undivided, the base's indices are the first of the motivated's. A ``product`` (heads x width) or ``sum`` (parts of
    a concatenation) places each of its parts.

    Args:
        base: indices of the base dimension.
        motivated: indices of the motivated dimension.
        kind: ``product``, ``sum`` or None.
        parts: places of the parts, outermost (first) first.
    """

    base: int
    motivated: int
    kind: str | None = None
    parts: tuple[Place, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the two dimensions are one, index by index."""
        return self.base == self.motivated

    def __str__(self):
        if self.kind is None:
            return str(self.base) if self.whole else f"{self.base} of {self.motivated}"
        sign = " x " if self.kind == "product" else " + "
        return sign.join(f"({part})" if part.kind else str(part) for part in self.parts)

    def views(self, base: Tensor, motivated: Tensor, dim: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Pieces of both tensors that lie on each other in this dimension: base, motivated, dimensions it became."""
        if self.whole:
            yield base, motivated, 1
        elif self.kind is None:
            yield base, motivated.narrow(dim, 0, self.base), 1
        elif self.kind == "product":
            yield from self._product_views(base.unflatten(dim, [part.base for part in self.parts]),
                                           motivated.unflatten(dim, [part.motivated for part in self.parts]), dim)
        else:
            ours = base.split([part.base for part in self.parts], dim)
            theirs = motivated.split([part.motivated for part in self.parts], dim)
            for part, small, large in zip(self.parts, ours, theirs, strict=True):
                if part.base:
                    yield from part.views(small, large, dim)

    def _product_views(self, base: Tensor, motivated: Tensor, dim: int) -> Iterator[tuple[Tensor, Tensor, int]]:
        pieces = [(base, motivated, 0)]
        for part in self.parts:
            pieces = [(small, large, used + more) for ours, theirs, used in pieces
                      for small, large, more in part.views(ours, theirs, dim + used)]
        yield from pieces

    def as_list(self) -> list:
        """Plain lists, for JSON: ``[base, motivated]`` or ``[kind, part, part, ...]``."""
        if self.kind is None:
            return [self.base, self.motivated]
        return [self.kind, *(part.as_list() for part in self.parts)]

    @classmethod
    def from_list(cls, values: list) -> Place:
        """Read what `as_list` gave.

        Raises:
            ValueError: anything else.
        """
        if len(values) == 2 and all(isinstance(value, int) for value in values) and 0 <= values[0] <= values[1]:
            return cls(*values)
        if len(values) > 2 and values[0] in ("product", "sum"):
            return _joined(values[0], [cls.from_list(part) for part in values[1:]])
        raise ValueError(f'{values!r} is no place: write [base, motivated], or ["product" or "sum", part, part, ...]')


class Correspondence:
    """Which axis of the motivated network each axis of the base is, as the mapped tensors show one by one.

    An axis that would be two is refused: layers that only the motivated network has, without a skip around them, lie
    between the two, and what the base computes does not pass them.

    Attributes:
        notes: what keeps the map from being exact although it nests, each once.
    """

    def __init__(self):
        self._partners: dict[int, int] = {}
        self.notes: dict[str, None] = {}

    def place(self, base: Layout, motivated: Layout) -> Place:
        """Lay one dimension into another that is divided alike.

        Raises:
            Mismatch: the divisions differ, a part of the base is larger, a part that must have one size has two, or
                the dimension contradicts an earlier one.
        """
        if base.kind is None and motivated.kind is None:
            return self._leaf(base, motivated)
        if base.kind == motivated.kind == "sum":
            return self._sum(base, motivated)
        ours = base.parts if base.kind == "product" else (base,)
        theirs = motivated.parts if motivated.kind == "product" else (motivated,)
        if "product" not in (base.kind, motivated.kind) or len(ours) > len(theirs):
            raise Mismatch(f"{base} in the base and {motivated} in the motivated network are divided differently")
        refusal = None
        before = dict(self._partners)
        # A part of size 1 leaves no trace (one head): try where the base may have one.
        # The innermost first: a single group or head is as wide as its dimension; groups of one channel are not.
        order = [*combinations(range(len(theirs)), len(ours))]
        for chosen in order if base.counts_groups and base.kind is None else reversed(order):
            rest = dict(zip(chosen, ours, strict=True))
            try:
                return _joined("product", [self.place(rest.get(number, Layout(1)), part)
                                           for number, part in enumerate(theirs)])
            except Mismatch as error:
                refusal = refusal or error
                self._partners = dict(before)
        raise refusal

    def _leaf(self, base: Layout, motivated: Layout) -> Place:
        if base.size > motivated.size:
            raise Mismatch(f"{base.size} in the base do not fit in {motivated.size} in the motivated network",
                           "smaller")
        why = base.fixed or motivated.fixed
        if base.size < motivated.size and why in SCALES:
            self.notes.setdefault(f"{base.size} in the base, {motivated.size} in the motivated network: it {why}")
        elif base.size < motivated.size and why:
            raise Mismatch(f"{base.size} in the base, {motivated.size} in the motivated network, but it {why}", "fixed")
        if base.axis and motivated.axis and base.size > 1 and not base.fixed \
                and self._partners.setdefault(base.axis, motivated.axis) != motivated.axis:
            raise Mismatch("only in the motivated network do layers without a skip lie between the tensors that "
                           f"share these {base.size} channels", "skip")
        return Place(base.size, motivated.size)

    def _sum(self, base: Layout, motivated: Layout) -> Place:
        """Parts in order; where the motivated network has more, those that earlier tensors have shown to be partners.

        A part it alone has in between takes a part of no index from the base.
        """
        if len(base.parts) == len(motivated.parts):
            return _joined("sum", [self.place(*parts) for parts in zip(base.parts, motivated.parts, strict=True)])
        candidates = list(motivated.parts)
        parts: list[Place] = []
        for ours in base.parts:
            wanted = [self._partners.get(axis) for axis in _axes_of(ours)]
            while candidates and _axes_of(candidates[0]) != wanted:
                parts.append(Place(0, candidates.pop(0).size))
            if not candidates:
                raise Mismatch(f"{base} in the base and {motivated} in the motivated network are divided differently")
            parts.append(self.place(ours, candidates.pop(0)))
        return _joined("sum", parts + [Place(0, part.size) for part in candidates])


def has_unequal_sum(base: Layout, motivated: Layout) -> bool:
    """Whether a sum has other numbers of parts in the two: to be placed after all dimensions that show partners."""
    if base.kind == motivated.kind == "sum" and len(base.parts) != len(motivated.parts):
        return True
    return base.kind == motivated.kind and any(map(has_unequal_sum, base.parts, motivated.parts))


def _axes_of(part: Layout) -> list[int | None]:
    """Identities of a part's undivided axes."""
    return [axis for inner in part.parts for axis in _axes_of(inner)] if part.kind else [part.axis]


def _joined(kind: str, parts: list[Place]) -> Place:
    """Parts as one place, undivided where its indices are the first of the motivated's anyway."""
    simple: list[Place] = []
    for part in parts:
        if simple and simple[-1].kind is None and part.kind is None:
            last = simple[-1]
            if kind == "product" and part.whole:
                simple[-1] = Place(last.base * part.base, last.motivated * part.motivated)
                continue
            if kind == "sum" and (last.whole or not part.base):
                simple[-1] = Place(last.base + part.base, last.motivated + part.motivated)
                continue
        simple.append(part)
    if kind == "product":
        simple = [part for part in simple if part.motivated > 1] or [Place(1, 1)]
    if len(simple) == 1:
        return simple[0]
    size = prod if kind == "product" else sum
    return Place(size(part.base for part in simple), size(part.motivated for part in simple), kind, tuple(simple))
