"""Hours in minutes: `make soak`. Many kills, and memory and file handles over 100,000 steps."""

import gc
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import batches, mlp
from killing import kill_and_resume

from motivation.monitors import Consecutive
from motivation.pairing.pair import Pair
from motivation.run_folder.checkpoints import Checkpoints
from motivation.run_folder.write import RunFolder
from motivation.schedules import Threshold
from motivation.training.trainer import Trainer

soak = pytest.mark.skipif("MOTIVATION_SOAK" not in os.environ, reason="minutes long; make soak")


@soak
@pytest.mark.timeout(3600)
def test_fifty_kills(tmp_path):
    kill_and_resume(tmp_path, kills=50)


@soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_steps_stay_flat(tmp_path):
    stays_flat(tmp_path, steps=100_000, growth=8)


def test_two_thousand_steps_stay_flat(tmp_path):
    stays_flat(tmp_path, steps=2000, growth=8)


def stays_flat(tmp_path, steps: int, growth: float):
    """Resident memory grows by less than so many MiB from the first tenth to the end, and no file stays open."""
    torch.set_num_threads(1)
    trainer = Trainer(Pair(mlp(8), mlp(12, seed=1), weights_map="literal", init="native"),
                      lambda params: torch.optim.AdamW(params, lr=1e-4, fused=True),
                      F.cross_entropy, Consecutive(), Threshold(2))
    folder = RunFolder(tmp_path / "run", {"seed": 0})
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", before=folder.flush)
    data = list(batches(50))
    begin = None
    for step in range(steps):
        result = trainer.step(*data[step % len(data)])
        folder.step(step, step // 50, result.phase, result.loss, result.score, result.lr, result.flops)
        if step % 50 == 49:
            trainer.end_epoch()
        if step % (steps // 20) == 0:
            checkpoints.save(trainer.state_dict(), step)
        if step == steps // 10:
            checkpoints.wait()
            begin = resident(), handles()
    checkpoints.wait()
    end = resident(), handles()
    checkpoints.close()
    folder.close()
    assert trainer.ledger.intervals > steps / 50
    assert end[0] - begin[0] < growth, f"{begin[0]:.1f} -> {end[0]:.1f} MiB"
    assert end[1] <= begin[1]


def resident() -> float:
    """Resident memory of this process in MiB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))
