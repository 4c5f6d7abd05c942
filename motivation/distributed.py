"""Several processes that train as one: averaged gradients, averaged signals, and so the same decisions everywhere.

Each process gets its share of every batch. Without a process group, or alone in it, everything here does nothing.
"""

import torch
from torch import Tensor, distributed
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors


def processes() -> int:
    """Number of processes that train together; 1 without a process group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def average(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over all processes, in place, in one message a dtype; the same bits everywhere."""
    count = processes()
    if count == 1:
        return
    for group in _by_dtype(tensors):
        flat = _flatten_dense_tensors(group)
        distributed.all_reduce(flat)
        flat /= count
        torch._foreach_copy_(group, list(_unflatten_dense_tensors(flat, group)))


def broadcast(tensors: list[Tensor]) -> None:
    """Replace tensors by those of the first process, in place."""
    if processes() == 1:
        return
    with torch.no_grad():
        for group in _by_dtype(tensors):
            flat = _flatten_dense_tensors(group)
            distributed.broadcast(flat, 0)
            torch._foreach_copy_(group, list(_unflatten_dense_tensors(flat, group)))


def _by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor.detach())
    return list(groups.values())
