"""Splits q, k and v, heads, groups and concatenated parts, so that each piece of a base tensor meets its own."""

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor

from motivation.pairing.dim_map import DimMap


def split(dims: Sequence[DimMap], base: Tensor, motivated: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views of a base and a motivated tensor that hold the same values, pair by pair.

    The rows of a fused ``qkv.weight`` are a product ``3 x heads x width``: they become three dimensions, and the base
    takes the first heads and the first of each head's width. A concatenation is a sum: one pair of views for each part.

    Args:
        dims: by dimension, which indices of the motivated tensor the base's map to.
        base: shape ``[dim.base for dim in dims]``.
        motivated: shape ``[dim.motivated for dim in dims]``.
    """
    products = [dim.parts if dim.kind == "product" and not dim.whole else (dim,) for dim in dims]
    base = _divide(base, [[part.base for part in parts] for parts in products])
    motivated = _divide(motivated, [[part.motivated for part in parts] for parts in products])
    dims = [part for parts in products for part in parts]
    number = next((number for number, dim in enumerate(dims) if dim.kind == "sum" and not dim.whole), None)
    if number is None:
        return [(base, motivated[tuple(slice(dim.base) for dim in dims)])]
    parts = dims[number].parts
    ours = base.split([part.base for part in parts], number)
    theirs = motivated.split([part.motivated for part in parts], number)
    return [piece for part, small, large in zip(parts, ours, theirs, strict=True) if part.base
            for piece in split([*dims[:number], part, *dims[number + 1:]], small, large)]


def _divide(tensor: Tensor, sizes: list[list[int]]) -> Tensor:
    """A view with each dimension divided into several: ``(qkv heads width) columns -> qkv heads width columns``."""
    if all(len(parts) == 1 for parts in sizes):
        return tensor
    lengths = {f"d{dim}_{part}": size for dim, parts in enumerate(sizes) for part, size in enumerate(parts)}
    divided = [" ".join(f"d{dim}_{part}" for part in range(len(parts))) for dim, parts in enumerate(sizes)]
    return rearrange(tensor, f"{' '.join(f'({names})' for names in divided)} -> {' '.join(divided)}", **lengths)
