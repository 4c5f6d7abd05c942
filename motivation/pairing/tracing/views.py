"""What views and other rearrangements do to the axes of tensors: where a trace sees q, k, v and heads divided.

A rule gets the operation's result and its arguments, and sets the result's ``axes``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from motivation.pairing.tracing.axes import Axis, as_one, fix, fresh, regroup, split_sum

Axes = list[list[Axis]]


def axes_of(tensor: Tensor) -> Axes:
    """A traced tensor's axes, one list a dimension; new ones for a tensor the trace has not seen."""
    axes = getattr(tensor, "axes", None)
    if axes is None or len(axes) != tensor.dim():
        axes = tensor.axes = [fresh(size) for size in tensor.shape]
    return axes


def _view(out, tensor, *_, **__):
    out.axes = regroup(axes_of(tensor), tuple(out.shape))


def _as_strided(out, tensor, *_, **__):
    if out.shape == tensor.shape:
        out.axes = axes_of(tensor)
    else:
        for axes in axes_of(tensor):
            fix(axes, "goes through as_strided")


def _permute(out, tensor, dims):
    axes = axes_of(tensor)
    out.axes = [axes[dim] for dim in dims]


def _transpose(out, tensor, first=0, second=-1):
    axes = list(axes_of(tensor))
    if axes:
        axes[first], axes[second] = axes[second], axes[first]
    out.axes = axes


def _expand(out, tensor, *_, **__):
    axes = axes_of(tensor)
    axes = [[]] * (out.dim() - len(axes)) + axes
    out.axes = [ours or fresh(size) for ours, size in zip(axes, out.shape, strict=True)]


def _unsqueeze(out, tensor, dim):
    axes = list(axes_of(tensor))
    axes.insert(dim % out.dim(), [])
    out.axes = axes


def _select(out, tensor, dim, index):
    axes = list(axes_of(tensor))
    taken = axes.pop(dim)
    if index < 0:
        fix(taken, "has its last indices taken out of it")
    out.axes = axes


def _unbind(out, tensor, dim=0):
    fix(axes_of(tensor)[dim], "is split")
    for piece in out:
        _select(piece, tensor, dim, 0)


def _pieces(tensor: Tensor, dim: int, sizes: list[int]) -> list[list[Axis]]:
    """Axes of consecutive pieces of a dimension; fixed where its divisions forbid the cut."""
    axes = axes_of(tensor)[dim]
    pieces = split_sum(axes, [size for size in sizes if size])
    if pieces is None:
        fix(axes, "is cut across its parts")
        pieces = [fresh(size) for size in sizes if size]
    pieces = iter(pieces)
    return [next(pieces) if size else [] for size in sizes]


def _split(out, tensor, _, dim=0):
    pieces = _pieces(tensor, dim, [piece.shape[dim] for piece in out])
    for piece, axes in zip(out, pieces, strict=True):
        piece.axes = list(axes_of(tensor))
        piece.axes[dim] = axes


def _slice(out, tensor, dim=0, start=None, end=None, step=1):
    axes = list(axes_of(tensor))
    size = tensor.shape[dim]
    if out.shape[dim] != size:
        start = min(max((start or 0) + (size if (start or 0) < 0 else 0), 0), size)
        length = out.shape[dim]
        if step == 1:
            axes[dim] = _pieces(tensor, dim, [start, length, size - start - length])[1]
        else:
            fix(axes[dim], "is subsampled")
            axes[dim] = fresh(length)
    out.axes = axes


def _pad(out, tensor, pad, *_):
    axes = list(axes_of(tensor))
    for number in range(len(pad) // 2):
        dim = tensor.dim() - 1 - number
        low, high = pad[2 * number:2 * number + 2]
        if min(low, high) < 0:
            fix(axes[dim], "is cropped")
            axes[dim] = fresh(out.shape[dim])
        elif low or high:
            parts = [Axis(low)] * bool(low) + [as_one(axes[dim])] + [Axis(high)] * bool(high)
            axes[dim] = [Axis(out.shape[dim], "sum", parts)]
    out.axes = axes


def _flip(out, tensor, dims):
    for dim in dims or range(tensor.dim()):
        fix(axes_of(tensor)[dim], "is flipped or rolled")
    out.axes = axes_of(tensor)


def _roll(out, tensor, shifts, dims=()):
    _flip(out, tensor, dims)


def _repeat(out, tensor, repeats):
    axes = [[]] * (len(repeats) - tensor.dim()) + axes_of(tensor)
    out.axes = [(fresh(count) + ours) if count > 1 else ours for ours, count in zip(axes, repeats, strict=True)]


def _index(out, tensor, indices):
    axes = axes_of(tensor)
    places = [number for number, index in enumerate(indices) if index is not None]
    for number in places:
        fix(axes[number], "is a table that indices point into")
    adjacent = places == list(range(places[0], places[-1] + 1))
    kept = [dim for number, dim in enumerate(axes) if number not in places]
    new = [fresh(size) for size in torch.broadcast_shapes(*(indices[number].shape for number in places))]
    first = places[0] if adjacent else 0
    out.axes = kept[:first] + new + kept[first:]


def _index_select(out, tensor, dim, _):
    axes = list(axes_of(tensor))
    fix(axes[dim], "is a table that indices point into")
    axes[dim] = fresh(out.shape[dim])
    out.axes = axes


VIEWS: dict[str, Callable] = {
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "reshape", "squeeze"), _view), "permute": _permute,
    "transpose": _transpose, "t": _transpose, "expand": _expand, "unsqueeze": _unsqueeze, "select": _select,
    "unbind": _unbind, "split": _split, "split_with_sizes": _split, "slice": _slice, "roll": _roll, "repeat": _repeat,
    "flip": _flip, "constant_pad_nd": _pad, "index": _index, "index_select": _index_select, "as_strided": _as_strided}
