"""Two processes that train as one: the same decisions everywhere, and those of one process on the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD

import motivation.training.distributed
import motivation.training.engine
from motivation import Engine, Pair, Trainer
from motivation.monitors import Consecutive, GradientAgreement, PairedHeldout
from motivation.schedules import Threshold
from motivation.training.distributed import main_first, share

STEPS, PER_EPOCH, BATCH = 50, 20, 16
MONITORS = {"consecutive": (Consecutive, 1), "gradient_agreement": (GradientAgreement, 0.3),
            "paired_heldout": (lambda: PairedHeldout(2), 0.5)}


def network(width, seed, norm):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(64, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU(),
              nn.Linear(width, 5)]
    return nn.Sequential(*layers)


def data(step):
    generator = torch.Generator().manual_seed(step)
    targets = torch.randint(0, 5, (BATCH,), generator=generator)
    images = torch.randn(BATCH, 1, 8, 8, generator=generator)
    images[:, 0, 0, :5] += 2 * F.one_hot(targets, 5)
    return images, targets


def train(name, part=slice(None), seed=0, norm=False):
    """Losses and phases of every step, and the base's weights, of one process's share of the batches."""
    torch.set_num_threads(1)
    make, level = MONITORS[name]
    pair = Pair(network(6, seed, norm), network(10, seed + 1, norm), weights_map="literal", init="native")
    trainer = Trainer(pair, lambda params: SGD(params, lr=0.05, momentum=0.9), F.cross_entropy, make(),
                      Threshold(level), heldout=data(999))
    losses, phases = [], []
    for step in range(STEPS):
        images, targets = data(step)
        result = trainer.step(images[part], targets[part])
        losses.append(result.loss)
        phases.append(result.phase)
        if (step + 1) % PER_EPOCH == 0:
            trainer.end_epoch()
    return {"losses": losses, "phases": phases, "images": sum(trainer.ledger.images.values()),
            "flops": sum(trainer.ledger.flops.values()),
            "weights": [tensor.clone() for network in (pair.base, pair.motivated)
                        for tensor in network.state_dict().values()]}


def worker(folder, name, norm):
    """One of two processes: its own half of the batch; its own seed, since the first process's weights win."""
    import os

    from torch import distributed

    rank = int(os.environ["RANK"])
    # They meet in a file: a free port may be taken by another before it is bound.
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    torch.save(train(name, half, seed=10 * rank, norm=norm == "norm"), Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def in_two_processes(folder, name, norm):
    code = f"from test_distributed import worker; worker({str(folder)!r}, {name!r}, {norm!r})"
    script = folder / "run.py"
    script.write_text(code)
    import os

    path = os.pathsep.join(map(str, Path(__file__).parents[:2]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, script], env=environment | {"RANK": str(rank)}, text=True,
                                  stderr=subprocess.PIPE) for rank in range(2)]
    # Both end before either is judged: one left running is a ResourceWarning in whichever test runs later.
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", ["consecutive", *(pytest.param(name, marks=pytest.mark.soak)
                                                   for name in ("gradient_agreement", "paired_heldout"))])
def test_two_processes_are_one(name, tmp_path):
    """Bit-equal on both ranks; without BatchNorm the phases of one process, and its losses within 1e-5."""
    first, second = in_two_processes(tmp_path, name, "plain")
    alone = train(name)
    assert first["losses"] == second["losses"]
    assert first["phases"] == second["phases"] == alone["phases"]
    assert (first["images"], first["flops"]) == (alone["images"], alone["flops"])
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
    assert max(abs(a - b) for a, b in zip(first["losses"], alone["losses"], strict=True)) < 1e-5
    assert set(alone["phases"]) == {"base", "motivated"}


def test_running_statistics_stay_together(tmp_path):
    """With BatchNorm each process normalises by its own share, but all keep the same statistics."""
    first, second = in_two_processes(tmp_path, "paired_heldout", "norm")
    assert first["losses"] == second["losses"]
    assert first["phases"] == second["phases"]
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))


@pytest.mark.parametrize(("count", "rank", "expected"), [(7, 0, [0, 1, 2, 3]), (7, 1, [4, 5, 6]), (1, 1, [])])
def test_shares_are_in_order_and_whole(monkeypatch, count, rank, expected):
    monkeypatch.setattr(motivation.training.distributed, "processes", lambda: 2)
    monkeypatch.setattr(motivation.training.distributed, "rank", lambda: rank)
    assert list(range(count)[share(count)]) == expected


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Engine().torch_device == torch.device("cuda")
    monkeypatch.setattr(motivation.training.engine, "processes", lambda: 2)
    monkeypatch.setattr(motivation.training.engine, "local_rank", lambda: 1)
    assert Engine().torch_device == Engine(device="cuda").torch_device == torch.device("cuda", 1)
    assert Engine(device="cpu").torch_device == torch.device("cpu")
    with pytest.raises(ValueError, match="device='cuda:0': each of several processes has a GPU of its own; use device"):
        Engine(device="cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="device='auto': 1 GPUs are visible, process 1 of this machine needs one of "):
        Engine()


def test_the_rest_waits_for_the_first(monkeypatch):
    """Whatever is downloaded lies there before another process looks for it, also on another machine."""
    turns = []
    for rank, local in [(0, 0), (1, 1), (2, 0), (3, 1)]:
        monkeypatch.setattr(motivation.training.distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(motivation.training.distributed, "local_rank", lambda local=local: local)
        waited = []
        monkeypatch.setattr(motivation.training.distributed, "all_reduce_max",
                            lambda value, waited=waited: waited.append(value))
        turns.append(main_first(lambda waited=waited: len(waited)))
        assert len(waited) == 3
    assert turns == [0, 2, 1, 2]
