"""Which indices of a motivated tensor's dimension the base tensor's dimension maps to: `DimMap`."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class DimMap:
    """One dimension of a base tensor in the same dimension of its motivated tensor.

    Undivided, the base's indices are the first of the motivated's. A ``product`` (heads x width) or ``sum`` (parts of
    a concatenation) maps each of its parts.

    Args:
        base: size of the base dimension.
        motivated: size of the motivated dimension.
        kind: ``product``, ``sum`` or None.
        parts: maps of the parts, outermost (first) first.
    """

    base: int
    motivated: int
    kind: str | None = None
    parts: tuple[DimMap, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether both dimensions have the same indices."""
        return self.base == self.motivated

    def __str__(self):
        if self.kind is None:
            return str(self.base) if self.whole else f"{self.base} of {self.motivated}"
        sign = " x " if self.kind == "product" else " + "
        return sign.join(f"({part})" if part.kind else str(part) for part in self.parts)

    def as_list(self) -> list:
        """Plain lists, for JSON: ``[base, motivated]`` or ``[kind, part, part, ...]``."""
        if self.kind is None:
            return [self.base, self.motivated]
        return [self.kind, *(part.as_list() for part in self.parts)]

    @classmethod
    def from_list(cls, values: list) -> DimMap:
        """Read what `as_list` gave.

        Raises:
            ValueError: anything else.
        """
        if len(values) == 2 and all(isinstance(value, int) for value in values) and 0 <= values[0] <= values[1]:
            return cls(*values)
        if len(values) > 2 and values[0] in ("product", "sum"):
            return join_parts(values[0], [cls.from_list(part) for part in values[1:]])
        raise ValueError(f'{values!r} is no dimension of a map: write [base, motivated], or ["product" or "sum", part, '
                         "part, ...]")


def join_parts(kind: str, parts: list[DimMap]) -> DimMap:
    """Parts as one `DimMap`, undivided where the base's indices are the first of the motivated's anyway."""
    simple: list[DimMap] = []
    for part in parts:
        if simple and simple[-1].kind is None and part.kind is None:
            last = simple[-1]
            if kind == "product" and part.whole:
                simple[-1] = DimMap(last.base * part.base, last.motivated * part.motivated)
                continue
            if kind == "sum" and (last.whole or not part.base):
                simple[-1] = DimMap(last.base + part.base, last.motivated + part.motivated)
                continue
        simple.append(part)
    if kind == "product":
        simple = [part for part in simple if part.motivated > 1] or [DimMap(1, 1)]
    if len(simple) == 1:
        return simple[0]
    size = prod if kind == "product" else sum
    return DimMap(size(part.base for part in simple), size(part.motivated for part in simple), kind, tuple(simple))
