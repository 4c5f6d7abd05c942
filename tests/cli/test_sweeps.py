"""Sweeps on other launchers: joblib's processes, submitit's local executor, and what a SLURM cluster would be sent."""

import json
import os
import shlex
import signal

import pytest
import submitit
from commands import FAST, command, refused
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf
from stopping import stop_after

from motivation.analysis.runs import read_runs
from motivation.cli.compose import compose
from motivation.cli.interruption import stop_on_signals
from motivation.cli.main import main
from motivation.run.signals import Interrupted, StopRequest
from motivation.run_folder.checkpoints import Checkpoints


def summary(folder):
    values = json.loads((folder / "summary.json").read_text())
    del values["budget/seconds"]
    return values


def failures(result):
    return [line for line in result.stderr.splitlines() if line.startswith("motivation: error")]


@pytest.mark.soak
def test_joblib_trains_a_grid_and_names_the_failed(tmp_path):
    """Monitor x schedule x seed in two processes; the seed that is refused there does not end the others."""
    sweep, short = tmp_path / "sweep", ("recipe.steps=2", "recipe.epochs=null")
    result = command("train", "-m", *FAST, *short, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
                     "monitor=consecutive,ema", "schedule=quota,never", "seed=-1,1", f"hydra.sweep.dir={sweep}",
                     cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout.splitlines() == [str(sweep / job) for job in "1357"]
    assert [line.endswith("seed=-1: must be from 0 to 2^32 - 1") for line in failures(result)] == [True] * 4
    assert "monitor=ema schedule=quota seed=-1" in failures(result)[2]
    assert not (sweep / "0").exists()
    # The very figures of a run in one process.
    assert main(["train", *FAST, *short, "monitor=ema", "schedule=quota", "seed=1",
                 f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert summary(sweep / "5") == summary(tmp_path / "run")


@pytest.mark.soak
def test_submitits_local_executor_trains_and_names_the_failed(tmp_path):
    sweep = tmp_path / "sweep"
    result = command("train", "-m", *FAST, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=3",
                     "schedule.k=0,2", "recipe.steps=2", "recipe.epochs=null", f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout.splitlines() == [str(sweep / "1")]
    [error] = failures(result)
    assert "schedule.k=0 " in error
    assert "must be at least 1" in error
    # submitit leaves a folder of its own in the sweep; compare passes it by.
    assert (sweep / ".submitit").is_dir()
    assert [run.path for run in read_runs([sweep])] == [sweep / "1"]


@pytest.mark.parametrize(("group", "key", "value"), [("monitor=trend,change", "monitor.window", 10),
                                                     ("schedule=quota,random", "schedule.share", 0.1)])
def test_a_value_may_belong_to_the_swept_choices_alone(tmp_path, capsys, group, key, value):
    """The default monitor has no window and the default schedule no share: it is the swept ones that take them."""
    sweep = tmp_path / "sweep"
    assert main(["train", "-m", *FAST, group, f"{key}={value}", "recipe.steps=10", "recipe.epochs=null",
                 f"hydra.sweep.dir={sweep}"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(sweep / job) for job in "01"]
    room, _, names = group.partition("=")
    made = [OmegaConf.load(sweep / job / "config.yaml")[room] for job in "01"]
    assert [config.name for config in made] == names.split(",")
    assert [config[key.partition(".")[2]] for config in made] == [value, value]
    line = refused(capsys, "train", "-m", *FAST, group, f"{room}.nosuch=1", f"hydra.sweep.dir={tmp_path / 'no'}")
    assert f"{room}.nosuch: unknown key" in line


def test_an_error_that_cannot_travel_is_put_in_words(tmp_path, capsys, monkeypatch):
    """An exception that does not pickle would break the pool that brings it back."""
    class Local(Exception):
        pass

    def fail(*_):
        raise Local("what happened")

    monkeypatch.setattr("motivation.cli.train.where_to_train", fail)
    assert main(["train", "-m", *FAST, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("motivation: error")]
    assert [line.rpartition("seed=")[2] for line in lines] == ["0: Local: what happened", "1: Local: what happened"]


def test_a_launcher_that_dies_says_how_to_continue(tmp_path, capsys, monkeypatch):
    """A worker killed by the system takes the whole pool with it: what was trained is not lost."""
    def die(*_, **__):
        raise RuntimeError("a worker process was killed")

    [basic] = [kind for kind in Plugins.instance().discover(Launcher) if kind.__name__ == "BasicLauncher"]
    monkeypatch.setattr(basic, "launch", die)
    line = refused(capsys, "train", "-m", *FAST, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert "RuntimeError: a worker process was killed" in line
    assert f"hydra.sweep.dir={tmp_path / 'sweep'} resume=auto" in line


def test_a_signal_ends_a_sweep_and_its_line_resumes_it(tmp_path, monkeypatch, capsys):
    """In one process: the job saves, the next one does not begin."""
    sweep, short = tmp_path / "a sweep", (*FAST, "recipe.steps=4", "recipe.epochs=null")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        assert main(["train", "-m", *short, "seed=0,1", f"hydra.sweep.dir={sweep}"]) == 128 + signal.SIGTERM
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("motivation: error")]
    assert [saved.step for saved in Checkpoints(sweep / "0/checkpoints").found()] == [2, 0]
    assert not (sweep / "1").exists()
    what, _, command = line.partition("; resume it with: ")
    assert what.endswith("stopped by SIGTERM")
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.splitlines() == [str(sweep / job) for job in "01"]
    assert [len((sweep / job / "steps.csv").read_text().splitlines()) for job in "01"] == [5, 5]


def test_a_launcher_gives_out_no_job_after_a_signal(tmp_path):
    """It is asked job by job; where it waits for none of its processes, the signal ends it at once."""
    given = []

    class Asking:
        def launch(self, job_overrides, initial_job_idx):
            # A run in this process would save, and say so by raising; here it does not even begin.
            for overrides in job_overrides:
                given.append((overrides, initial_job_idx))
                with StopRequest():
                    os.kill(os.getpid(), signal.SIGTERM)
            return []

    launcher = Asking()
    stop_on_signals(launcher)
    with pytest.raises(Interrupted) as error:
        launcher.launch([["a=1"], ["a=2"]], initial_job_idx=3)
    assert error.value.number == signal.SIGTERM
    assert given == [(["a=1"], 3)]
    launcher = Asking()
    launcher.launch = lambda job_overrides, initial_job_idx: os.kill(os.getpid(), signal.SIGINT)
    stop_on_signals(launcher)
    with pytest.raises(Interrupted) as error:
        launcher.launch([["a=1"]], initial_job_idx=0)
    assert error.value.number == signal.SIGINT


def test_slurms_settings_are_submitits(tmp_path, monkeypatch):
    """Every setting is one that submitit's SLURM executor takes, and reaches the batch script."""
    config = compose(["hydra/launcher=slurm", "hydra.launcher.partition=gpu"])
    launcher = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    assert launcher["_target_"].endswith("SlurmLauncher")
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    executor = submitit.AutoExecutor(folder=tmp_path / "log", cluster="slurm",
                                     slurm_max_num_timeout=launcher.pop("max_num_timeout"))
    general = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name",
               "stderr_to_stdout"}
    executor.update_parameters(**{key if key in general else f"slurm_{key}": value for key, value in launcher.items()
                                  if key not in ("_target_", "submitit_folder")})
    text = executor._executor._make_submission_file_text("train", "id")
    for line in ("--partition=gpu", "--gpus-per-node=1", "--time=240", "--cpus-per-task=8", "--mem=32GB"):
        assert line in text


def test_an_unknown_launcher_names_the_known(capsys):
    line = refused(capsys, "train", "-m", *FAST, "hydra/launcher=nosuch", "seed=0,1")
    assert "choose one of basic, joblib, slurm" in line


@pytest.mark.soak
def test_a_launcher_trains_a_tables_runs(tmp_path):
    """Sources first, then their controls; the table is that of one process."""
    quick = ("table", "2", "--seeds", "1", "tracker=none", "engine.threads=1", "recipe.epochs=1",
             "recipe.batch_size=512")
    result = command(*quick, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "unfinished" not in result.stdout
    assert "run 5 of 5" in result.stderr
    names = sorted(path.name for path in (tmp_path / "runs/cells").iterdir())
    assert sum("_seed0_" in name for name in names) == len(names) == 5
    assert main([*quick, "--runs", str(tmp_path / "again"), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/table2-smoke.csv").read_text() == (tmp_path / "runs/tables/table2-smoke.csv").read_text()


@pytest.mark.parametrize(("overrides", "said"), [
    (["hydra/launcher=nosuch"], "choose one of basic, joblib, slurm"),
    (["hydra/launcher=joblib", "--jobs", "2"], "--jobs 2: leave it out"),
    (["hydra/launcher=joblib", "hydra.launcher.nosuch=1"], "hydra.launcher.nosuch: unknown key")])
def test_a_tables_launcher_is_checked(tmp_path, capsys, overrides, said):
    assert main(["table", "2", "--runs", str(tmp_path / "r"), "--seeds", "1", "tracker=none", *overrides]) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]
