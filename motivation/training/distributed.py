"""Several processes that train as one (torchrun): gradients and signals are averaged, so that all decide alike.

Each process gets its share of every batch; only the first one writes, and only one reports how the run ended. In a
single process everything here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

Value = TypeVar("Value")
# A process that dies is noticed at once; this bounds one that hangs, and what the others wait for: the first process
# alone downloads data and opens the tracker.
TIMEOUT = timedelta(minutes=10)
ENDED = "another process of this run has ended, or does not answer; resume the run"

_store: Any = None


class PeerLost(ConnectionError):
    """Another process has failed, died or hangs."""


@contextmanager
def joined() -> Iterator[None]:
    """Train with the other processes that torchrun started: gloo between CPUs, NCCL between GPUs.

    After an error the group is left as it is: the others may wait in it, and learn of the error when this process ends.
    """
    global _store
    backend = "gloo"
    if torch.cuda.is_available() and distributed.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    with _peer_errors():
        store, rank, count = next(distributed.rendezvous("env://", timeout=TIMEOUT))
        # torchrun keeps its store when it restarts the processes: the addresses of the dead are still in it.
        _store = distributed.PrefixStore(f"motivation/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        distributed.init_process_group(backend, store=_store, rank=rank, world_size=count, timeout=TIMEOUT)
    yield
    _store = None
    distributed.destroy_process_group()


def processes() -> int:
    """Number of processes that train together; 1 without a process group."""
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    """Which of the processes this is, from 0."""
    return distributed.get_rank() if _grouped() else 0


def local_rank() -> int:
    """Which of the processes on this machine this is, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _grouped() else 0


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def share(count: int) -> slice:
    """This process's contiguous share of ``count`` items, as equal as whole numbers can be."""
    each = -(-count // processes())
    return slice(min(rank() * each, count), min((rank() + 1) * each, count))


def all_reduce_max(value: int) -> int:
    """The maximum of all processes' values, in every process."""
    if processes() == 1:
        return value
    found = torch.tensor(value)
    with _peer_errors():
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def all_gather(value: Value) -> list[Value]:
    """All processes' values, plain ones or arrays, in every process."""
    if processes() == 1:
        return [value]
    values: list = [None] * processes()
    with _peer_errors():
        distributed.all_gather_object(values, value)
    return values


def broadcast_from_main(function: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function in the first process and return its result in every process; an error there ends all."""
    if processes() == 1:
        return function(*arguments)
    box: list = [None]
    if is_main():
        try:
            box = [function(*arguments)]
        except BaseException:
            speaks()
            raise
    with _peer_errors():
        distributed.broadcast_object_list(box)
    return box[0]


@contextmanager
def together() -> Iterator[None]:
    """Context that every process leaves without an error, or none does: no process continues where another failed.

    Inside it no process may wait for another, except by `main_first`.

    Raises:
        PeerLost: another process has failed.
    """
    try:
        yield
    except PeerLost:
        raise
    except Exception:
        speaks()
        all_reduce_max(True)
        raise
    _all_well()


def main_first(load: Callable[[], Value]) -> Value:
    """Call in the first process, then in the first of every other machine, then in the rest; within `together`.

    The others find what the first one downloads.
    """
    wave = 0 if is_main() else 1 if local_rank() == 0 else 2
    for turn in range(3):
        if turn == wave:
            value = load()
        _all_well()
    return value


def _all_well() -> None:
    if all_reduce_max(False):
        raise PeerLost(ENDED)


def speaks() -> bool:
    """Whether this process reports how the run ended: the first one that asks does."""
    if _store is None:
        return True
    mine = str(rank())
    try:
        return _store.compare_set("ended", "", mine).decode() == mine
    except RuntimeError:
        # The store has gone with the process that held it.
        return True


def all_reduce_mean(tensors: list[Tensor]) -> None:
    """Replace tensors by their mean over all processes, in place, in one message a dtype; the same bits everywhere."""
    count = processes()
    if count == 1:
        return
    for group in _by_dtype(tensors):
        flat = _flatten_dense_tensors(group)
        with _peer_errors():
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
            with _peer_errors():
                distributed.broadcast(flat, 0)
            torch._foreach_copy_(group, list(_unflatten_dense_tensors(flat, group)))


def running_statistics(network: nn.Module) -> list[Tensor]:
    """The buffers in which BatchNorm keeps what it has seen: each process has seen its own share."""
    return [buffer for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)
            for buffer in (module.running_mean, module.running_var) if buffer is not None]


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn a failed message into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(ENDED) from error


def _by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor.detach())
    return list(groups.values())
