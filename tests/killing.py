"""A run killed at random moments and resumed."""

import random
import signal
import time

from conftest import QUICK, compose_config
from processes import start
from stopping import left

from motivation.run.run import run


def lines_of(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def command(folder, *overrides):
    return ["train", "resume=auto", f"hydra.run.dir={folder}", *QUICK, *overrides]


def kill_and_resume(tmp_path, kills):
    """Kill a run with SIGKILL at random moments; each, resumed, is the run that was never killed."""
    overrides = ("checkpoint.every_steps=1",)
    config = compose_config(*QUICK, *overrides)
    whole = left(run(config, tmp_path / "whole"))
    moments = random.Random(0)
    died = 0
    for kill in range(kills):
        folder, output = tmp_path / f"run{kill}", tmp_path / f"output{kill}.txt"
        process = start(command(folder, *overrides), output)
        lines = moments.randint(0, 17)
        while process.is_alive() and lines_of(folder / "steps.csv") < lines:
            time.sleep(0.002)
        process.join(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        died += process.exitcode == -signal.SIGKILL
        run(config, folder, resume=(folder / "config.yaml").exists())
        assert left(folder) == whole
    assert died >= kills / 2
