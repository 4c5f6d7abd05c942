"""Hours in minutes: `make soak`. Many kills, and memory and file handles over 100,000 steps."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import batches, mlp
from killing import kill_and_resume, lines_of

from motivation.monitors import Consecutive
from motivation.pairing.pair import Pair
from motivation.run_folder.checkpoints import Checkpoints
from motivation.run_folder.write import RunFolder
from motivation.schedules import Threshold
from motivation.training.trainer import Trainer

soak = pytest.mark.soak


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


LONG = ("tracker=none", "model=resnet20", "recipe.epochs=100", "recipe.batch_size=16", "engine.threads=1")
SWEEP = ("train", "-m", *LONG, "seed=0,1,2,3", "hydra.sweep.dir=runs")


@soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("command", "group"), [
    ((*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), "[01]"),
    ((*SWEEP, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"), "[01]"),
    (("table", "1", "--seeds", "2", "--jobs", "2", "--runs", "runs", *LONG[:1], *LONG[2:]), "*"),
], ids=["joblib", "submitit", "table"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_saves_every_job_and_leaves_no_process(tmp_path, command, group, number):
    """SIGINT comes to the whole group, as from a terminal; the others to the first process alone."""
    if "submitit" in str(command) and number == signal.SIGKILL:
        pytest.skip("submitit's jobs outlive what queued them")
    process = subprocess.Popen([sys.executable, "-m", "motivation", *command], start_new_session=True, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while len(jobs := [file.parent for file in (tmp_path / "runs").glob(f"{group}/steps.csv")
                           if lines_of(file) > 20]) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        words = process.communicate(timeout=120)[1]
        while members(process.pid):
            time.sleep(0.1)
    finally:
        for member in members(process.pid):
            os.kill(member, signal.SIGKILL)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert f"stopped by {number.name}; resume it with: motivation " in words.splitlines()[-1]
    for job in jobs:
        assert Checkpoints(job / "checkpoints").found()[0].step == lines_of(job / "steps.csv") - 1


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(path.parent.name))
    return found
