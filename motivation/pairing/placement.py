"""Which part of a motivated dimension each base dimension maps to, from how both networks divide them."""

from itertools import combinations

from motivation.pairing.dim_map import DimMap, join_parts
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

    def place(self, base: Layout, motivated: Layout) -> DimMap:
        """Map one dimension into another that is divided alike.

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
        # A part of size 1 (one head) is not traced: try each position it may have in the base, the innermost first, as
        # a single group or head is as wide as its dimension. Groups of one channel are not.
        order = [*combinations(range(len(theirs)), len(ours))]
        for chosen in order if base.counts_groups and base.kind is None else reversed(order):
            rest = dict(zip(chosen, ours, strict=True))
            try:
                return join_parts("product", [self.place(rest.get(number, Layout(1)), part)
                                           for number, part in enumerate(theirs)])
            except Mismatch as error:
                refusal = refusal or error
                self._partners = dict(before)
        raise refusal

    def _leaf(self, base: Layout, motivated: Layout) -> DimMap:
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
        return DimMap(base.size, motivated.size)

    def _sum(self, base: Layout, motivated: Layout) -> DimMap:
        """Parts in order; where the motivated network has more, the parts that earlier tensors have paired."""
        if len(base.parts) == len(motivated.parts):
            return join_parts("sum", [self.place(*parts) for parts in zip(base.parts, motivated.parts, strict=True)])
        candidates = list(motivated.parts)
        parts: list[DimMap] = []
        for ours in base.parts:
            wanted = [self._partners.get(axis) for axis in _axes_of(ours)]
            while candidates and _axes_of(candidates[0]) != wanted:
                parts.append(DimMap(0, candidates.pop(0).size))
            if not candidates:
                raise Mismatch(f"{base} in the base and {motivated} in the motivated network are divided differently")
            parts.append(self.place(ours, candidates.pop(0)))
        return join_parts("sum", parts + [DimMap(0, part.size) for part in candidates])


def has_unequal_sum(base: Layout, motivated: Layout) -> bool:
    """Whether a sum has other numbers of parts in the two: to be placed after all dimensions that show partners."""
    if base.kind == motivated.kind == "sum" and len(base.parts) != len(motivated.parts):
        return True
    return base.kind == motivated.kind and any(map(has_unequal_sum, base.parts, motivated.parts))


def _axes_of(part: Layout) -> list[int | None]:
    """Identities of a part's undivided axes."""
    return [axis for inner in part.parts for axis in _axes_of(inner)] if part.kind else [part.axis]
