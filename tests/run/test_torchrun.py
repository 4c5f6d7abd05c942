"""`torchrun -m motivation train`: one run in two processes is the run of one, ends as one, and resumes as one.

Most processes are forked from a warm server with torchrun's own environment (`processes.launch`), which takes
milliseconds; torchrun itself starts where the claim is about it.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK, compose_config
from processes import finish, launch
from stopping import left

from motivation.cli.main import main
from motivation.run.run import run
from motivation.run_folder.checkpoints import Checkpoints, load_checkpoint
from motivation.run_folder.write import RunFolder

SMALL = "img_size: 8, patch_size: 4, depth: 2"
VIT = ("model=vit_tiny_small", f"+model.base_options={{{SMALL}, embed_dim: 24, num_heads: 3}}",
       f"+model.motivated_options={{{SMALL}, embed_dim: 48, num_heads: 6}}", "~model.options")
DROPOUT = tuple(part.replace("depth: 2", "depth: 2, drop_rate: 0.2") for part in VIT)


def said(folder, count=2):
    return [(folder / f"{rank}.txt").read_text() for rank in range(count)]


def ended(processes):
    return [finish(process, 100) for process in processes]


def errors(folder, count=2):
    return re.findall(r"^motivation: error: .*", "".join(said(folder, count)), re.MULTILINE)


def command(folder, *overrides):
    return ["train", "resume=auto", f"hydra.run.dir={folder}", *QUICK, *overrides]


def rows(folder):
    return [line.split(",") for line in (folder / "steps.csv").read_text().splitlines()[1:]]


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("monitor", [
    (), ("monitor=paired_heldout", "monitor.every=5", "schedule.k=0", "data.heldout=0.1"),
])
def test_two_processes_are_one(tmp_path, monitor):
    """50 steps of a pair without BatchNorm: the same phases and costs, losses within 1e-5, one folder, named once."""
    options = (*VIT, *monitor, "recipe.epochs=null", "recipe.steps=50", "recipe.optimizer.lr=0.02",
               "recipe.crop_padding=1", "recipe.flip=true")
    alone = run(compose_config(*QUICK, *options), tmp_path / "alone")
    assert ended(launch(command(tmp_path / "two", *options), tmp_path)) == [0, 0]
    two, one = rows(tmp_path / "two"), rows(alone)
    assert len(one) == 50
    assert max(abs(float(a[3]) - float(b[3])) for a, b in zip(two, one, strict=True)) < 1e-5
    same = [0, 1, 2, 5, 6]
    assert [[row[i] for i in same] for row in two] == [[row[i] for i in same] for row in one]
    assert {row[2] for row in one} == {"base", "motivated"}
    first, second = said(tmp_path)
    assert first.splitlines()[-1] == str(tmp_path / "two")
    assert (first + second).count(f"{tmp_path / 'two'}\n") == 1
    assert second == ""
    files = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "step-" not in path.name)
             for folder in (alone, tmp_path / "two")]
    assert files[0] == files[1]
    read = [[json.loads(line) for line in [*(folder / "epochs.jsonl").read_text().splitlines(),
                                            (folder / "summary.json").read_text()]]
            for folder in (alone, tmp_path / "two")]
    for before, after in zip(*read, strict=True):
        assert before.keys() == after.keys()
        exact = [key for key in before if key.startswith(("budget", "steps", "intervals", "epoch", "null"))]
        assert {key: before[key] for key in exact if key != "budget/seconds"} == {
            key: after[key] for key in exact if key != "budget/seconds"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """`uninterrupted(*overrides)`: what a run in two processes that nothing stops leaves."""
    made = {}

    def train(*overrides):
        if overrides not in made:
            folder = tmp_path_factory.mktemp("uninterrupted")
            assert ended(launch(command(folder / "run", *overrides), folder)) == [0, 0], said(folder)
            made[overrides] = left(folder / "run")
        return made[overrides]

    return train


def stopped(folder, number=signal.SIGUSR1, rank=1, *overrides):
    """A run in two processes, one of which is sent a signal in its second epoch."""
    processes = launch(command(folder / "run", *overrides), folder)
    while all(process.is_alive() for process in processes) and lines_of(folder / "run/steps.csv") < 11:
        time.sleep(0.005)
    os.kill(processes[rank].pid, number)
    return ended(processes)


def test_a_signal_to_one_stops_all_and_resume_is_exact(tmp_path, uninterrupted):
    """With BatchNorm, whose statistics each process takes from its own share."""
    assert stopped(tmp_path) == [128 + signal.SIGUSR1] * 2
    [error] = errors(tmp_path)
    step = int(re.search(r"stopped by SIGUSR1 at step (\d+) of 16; resume it with: .* resume=", error)[1])
    assert len(rows(tmp_path / "run")) == step < 16
    assert Checkpoints(tmp_path / "run/checkpoints").found()[0].step == step
    with pytest.raises(ValueError, match=r"processes: 2 -> 1, .* resume it with torchrun and 2 processes"):
        run(compose_config(*QUICK), tmp_path / "run", resume=True)
    assert ended(launch(["train", f"resume={tmp_path / 'run'}"], tmp_path)) == [0, 0]
    assert left(tmp_path / "run") == uninterrupted()


FAULTS = {
    "a bad config": (["recipe.optimizer.lr=-1"], {}, r"recipe.optimizer.lr=-1: must be above 0", False),
    "an unknown key": (["recipe.epoch=1"], {}, r"recipe.epoch: unknown key", False),
    "a batch that does not divide": (["recipe.batch_size=63"], {}, r"recipe.batch_size=63: .* divisible by 2", False),
    "a sweep": (["-m"], {}, r"-m trains many runs, torchrun one", False),
    "data that is missing": (["data=arrays", "data.path=gone.npz"], {}, r"data.path=gone.npz: no such file", False),
    "memory of one process, before step 0": ([], {1: {"out_of_memory": True}}, r"out of memory", False),
    "memory of one process, in training": ([], {1: {"out_of_memory": True, "at_step": 3}}, r"out of memory", True),
    "divergence": (["recipe.optimizer.lr=1e30", "recipe.rollbacks=1"], {}, r"the last good checkpoint is", True),
    "a full disk": ([], {0: {"at_step": 3, "file_limit": 250}}, r"File too large|no space left", True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_ends_all_in_one_line(tmp_path, fault):
    overrides, faults, message, made = FAULTS[fault]
    assert ended(launch(command(tmp_path / "run", *overrides), tmp_path, faults)) == [1, 1]
    [error] = errors(tmp_path)
    assert re.search(message, error), error
    assert "Traceback" not in "".join(said(tmp_path))
    assert (tmp_path / "run").exists() == made


def test_a_folder_in_use_ends_all_in_one_line(tmp_path):
    other = RunFolder(tmp_path / "run", compose_config(*QUICK))
    assert ended(launch(command(tmp_path / "run"), tmp_path)) == [1, 1]
    other.close()
    [error] = errors(tmp_path)
    assert "is being written by another process" in error


def test_batches_in_parts_are_as_many_everywhere(tmp_path):
    """`engine.accumulation=auto`: what one process needs, all do."""
    overrides = ["engine.accumulation=auto", "recipe.epochs=1"]
    assert ended(launch(command(tmp_path / "run", *overrides), tmp_path, {1: {"fits": 32}})) == [0, 0]
    [saved, *_] = Checkpoints(tmp_path / "run/checkpoints").found()
    assert load_checkpoint(saved.path)["accumulation"] == 2


@pytest.mark.parametrize(("rank", "lines"), [(0, 1), (1, 0)])
def test_torchrun_starts_train_only(monkeypatch, capsys, rank, lines):
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["compare", "runs"]) == 1
    assert capsys.readouterr().err.count("torchrun starts `motivation train` only") == lines


def torchrun(folder, *options, overrides=()):
    """torchrun itself; the output of all goes to ``0.txt``."""
    with open(folder / "0.txt", "a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options, "-m", "motivation",
             *command(folder / "run", *overrides)], stdout=output, stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"})


def workers(launcher):
    """Process numbers of torchrun's processes, by rank."""
    found = {}
    for child in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(value[5:]): int(child) for value in variables if value.startswith(b"RANK=")}
    return found


def at_step(launcher, folder, step):
    while launcher.poll() is None and lines_of(folder / "run/steps.csv") <= step:
        time.sleep(0.002)
    assert launcher.poll() is None, (folder / "0.txt").read_text()


@pytest.mark.soak
def test_torchrun_hands_on_a_signal_and_restarts_what_died(tmp_path, uninterrupted):
    """A process killed at a random step, restarted, stopped by SIGTERM to torchrun, resumed: the run that nothing
    stopped.

    With dropout, for which every process has random numbers of its own.
    """
    overrides = (*DROPOUT, "recipe.epochs=12", "checkpoint.every_steps=3")
    launcher = torchrun(tmp_path, "--max-restarts", "1", overrides=overrides)
    at_step(launcher, tmp_path, random.Random(0).randint(20, 40))
    os.kill(workers(launcher)[1], signal.SIGKILL)
    at_step(launcher, tmp_path, 50)
    launcher.terminate()
    assert launcher.wait(60) != 0
    [died, stop] = errors(tmp_path, 1)
    assert "another process of this run has ended" in died
    assert "stopped by SIGTERM at step" in stop
    assert ended(launch(command(tmp_path / "run", *overrides), tmp_path)) == [0, 0]
    assert left(tmp_path / "run") == uninterrupted(*overrides)
