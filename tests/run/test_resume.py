"""Exact resume: a run stopped anywhere and resumed is, but for seconds, the run that was never stopped."""

import json
import os
import shutil
import signal
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import QUICK, compose_config
from stopping import left, stop_after, stopped

import motivation.run.hardware
import motivation.run.session
import motivation.training.engine
import motivation.training.probes
import motivation.training.trainer
from motivation.analysis.compare import comparison_table
from motivation.analysis.runs import group_runs
from motivation.run.resume import find_run
from motivation.run.run import run
from motivation.run.signals import Interrupted, StopRequest
from motivation.run_folder.checkpoints import Checkpoints, load_checkpoint
from motivation.run_folder.config import read_config
from motivation.run_folder.read import read_run

# All that a recipe can draw, at once.
AUGMENTED = ("recipe.image_size=10", "recipe.scale=[0.5,1.0]", "recipe.crop_padding=0", "recipe.flip=true",
             "recipe.auto_augment=rand-m9-mstd0.5-inc1", "recipe.random_erasing=0.5", "recipe.mixup=0.8",
             "recipe.cutmix=1.0", "recipe.repeats=3", "recipe.loss=bce")


@pytest.mark.parametrize("step", [0, 7, 8, 15])
def test_stop_at_any_step_is_exact(finished, tmp_path, monkeypatch, step):
    config = compose_config(*QUICK)
    folder = stopped(config, tmp_path / "run", monkeypatch, step)
    run(config, folder, resume=True)
    assert left(folder) == left(finished())


def test_stop_inside_an_interval_is_exact(tmp_path, monkeypatch, finished):
    phases = [line.split(",")[2] for line in (finished() / "steps.csv").read_text().splitlines()[1:]]
    inside = phases.index("motivated")
    folder = stopped(compose_config(*QUICK), tmp_path / "run", monkeypatch, inside - 1)
    newest = Checkpoints(folder / "checkpoints").found()[0]
    assert load_checkpoint(newest.path)["trainer"]["phase"] == "motivated"
    run(compose_config(*QUICK), folder, resume=True)
    assert left(folder) == left(finished())


def test_a_run_says_every_cpu_that_trained_it(tmp_path, monkeypatch):
    """Also where the first one's steps are not repeated: its bits are no longer those of one machine."""
    monkeypatch.setattr(motivation.run.hardware, "cpu_name", lambda: "one CPU")
    folder = stopped(compose_config(*QUICK), tmp_path / "run", monkeypatch, 3)
    monkeypatch.setattr(motivation.run.hardware, "cpu_name", lambda: "another")
    run(compose_config(*QUICK), folder, resume=True)
    instructions = torch.backends.cpu.get_cpu_capability()
    assert json.loads((folder / "summary.json").read_text())["hardware"] == (
        f"{instructions} on one CPU, then {instructions} on another")


@pytest.mark.parametrize("overrides", [
    ("recipe.optimizer.name=adamw", "recipe.optimizer.lr=0.001", "recipe.optimizer.momentum=null"),
    ("recipe.optimizer.name=rmsprop", "recipe.optimizer.lr=0.001"),
    ("recipe.optimizer.name=lamb", "recipe.optimizer.lr=0.005", "recipe.optimizer.momentum=null"),
    ("model=resnet8",),
    ("engine.channels_last=false",),
    ("engine.precision=bfloat16",),
    ("engine.accumulation=2",),
    ("schedule=always",),
    ("model.init=native", "schedule=threshold", "schedule.k=1"),
    (*AUGMENTED, "schedule=threshold", "schedule.k=1"),
    (*AUGMENTED, "monitor=prediction_gain", "schedule=quota", "engine.accumulation=2"),
], ids=" ".join)
def test_every_optimizer_and_engine_is_exact(tmp_path, monkeypatch, overrides):
    config = compose_config(*QUICK, "recipe.epochs=1", *overrides)
    whole = run(config, tmp_path / "whole")
    folder = stopped(config, tmp_path / "run", monkeypatch, 4)
    run(config, folder, resume=True)
    assert left(folder) == left(whole)


@pytest.mark.parametrize("overrides", [(), ("model=resnet8",)], ids=["monitor", "no monitor"])
def test_batches_and_losses_of_a_gpu_are_exact(tmp_path, monkeypatch, overrides):
    """Made ahead and read late, as on a GPU: a run, and one stopped in it, are those that do neither."""
    config = compose_config(*QUICK, *overrides)
    whole = run(config, tmp_path / "whole")
    monkeypatch.setattr(torch.cuda, "Event", Mock)
    monkeypatch.setattr(torch.cuda, "current_stream", Mock())
    for module in (motivation.training.probes, motivation.training.trainer, motivation.run.session):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)
    assert left(run(config, tmp_path / "ahead")) == left(whole)
    folder = stopped(config, tmp_path / "run", monkeypatch, 4)
    run(config, folder, resume=True)
    assert left(folder) == left(whole)


def test_two_stops_and_a_stop_during_evaluation(tmp_path, monkeypatch, finished):
    config = compose_config(*QUICK)
    folder = stopped(config, tmp_path / "run", monkeypatch, 2)
    predict = motivation.training.engine.Engine.predict

    calls = iter(range(100))

    def interrupted(self, network, batches):
        # The first two calls try the evaluation's memory before training.
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return predict(self, network, batches)

    with monkeypatch.context() as patch:
        patch.setattr(motivation.training.engine.Engine, "predict", interrupted)
        with pytest.raises(Interrupted, match="SIGUSR1 at step 8"):
            run(config, folder, resume=True)
    assert not (folder / "epochs.jsonl").read_text()
    run(config, folder, resume=True)
    assert left(folder) == left(finished())


def test_rows_after_the_checkpoint_are_dropped_and_trained_again(tmp_path, monkeypatch, finished):
    config = compose_config(*QUICK)
    folder = stopped(config, tmp_path / "run", monkeypatch, 9)
    with open(folder / "steps.csv", "a") as file:
        file.write("10,1,base,1.0,0.0,0.1,5\n11,1,ba")
    with open(folder / "epochs.jsonl", "a") as file:
        file.write('{"epoch": 1, "tr')
    run(config, folder, resume=True)
    assert left(folder) == left(finished())


READING = ("monitor=gradient_norm",)


@pytest.mark.parametrize(("name", "change", "said", "recovers"), [
    ("epochs.jsonl", lambda lines: lines[:1], "epochs.jsonl holds only 1 whole row", True),
    ("epochs.jsonl", lambda lines: ["{oops", *lines[1:]], "epochs.jsonl is damaged in line 1", False),
    ("epochs.jsonl", lambda lines: [lines[0], "[" * 10_000], "epochs.jsonl is damaged in line 2", True),
    ("epochs.jsonl", lambda lines: lines[:1] * 2, "epochs.jsonl is damaged in line 2", True),
    ("steps.csv", lambda lines: [*lines[:12], *lines[13:]], "steps.csv is damaged in line 13", True),
    ("signals.csv", lambda lines: lines[:10], "signals.csv holds only 9 whole rows", True),
    ("signals.csv", lambda lines: [*lines[:11], "?", *lines[12:]], "signals.csv is damaged in line 12", True),
    ("signals.csv", None, "signals.csv is missing", False),
    ("signals.csv", lambda lines: [], "signals.csv holds only 0 whole rows", False),
])
def test_a_file_that_a_checkpoint_outruns_costs_the_checkpoint(tmp_path, caplog, finished, name, change, said,
                                                                recovers):
    """Rows that others took away are trained again from a checkpoint that all files reach; without one, by name."""
    folder = shutil.copytree(finished(*READING), tmp_path / "run")
    (folder / "summary.json").unlink()
    if change is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text("".join(f"{line}\n" for line in change((folder / name).read_text().splitlines())))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if recovers:
        run(compose_config(*QUICK, *READING), folder, resume=True)
        assert f"step 16, but {said}; an older one is tried" in caplog.text
        assert left(folder) == left(finished(*READING))
    else:
        with pytest.raises(ValueError, match=f"no checkpoint in .* can be used, since {said}"):
            run(compose_config(*QUICK, *READING), folder, resume=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("text", ["seed: " + "[" * 20_000, "seed: [", "3", "!!python/name:os.system"])
def test_a_damaged_config_is_named(tmp_path, finished, text):
    folder = shutil.copytree(finished(), tmp_path / "run")
    (folder / "config.yaml").write_text(text)
    for read in (read_config, read_run):
        with pytest.raises(ValueError, match=r"damaged|read as a run folder"):
            read(folder)
    assert find_run(tmp_path, compose_config(*QUICK)) is None


def test_killed_in_its_first_moment_starts_again(tmp_path, finished):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "steps.csv").touch()
    config = compose_config(*QUICK)
    run(config, folder)
    assert left(folder) == left(finished())


def test_no_checkpoint_starts_at_step_0(tmp_path, monkeypatch, finished, caplog):
    config = compose_config(*QUICK)
    folder = stopped(config, tmp_path / "run", monkeypatch, 3)
    for saved in Checkpoints(folder / "checkpoints").found():
        saved.path.unlink()
    run(config, folder, resume=True)
    assert "has no checkpoint; training starts at step 0" in caplog.text
    assert left(folder) == left(finished())


def test_finished_run_is_left_alone(finished, caplog):
    before = {path: path.stat().st_mtime_ns for path in finished().rglob("*")}
    caplog.set_level("INFO")
    assert run(compose_config(*QUICK), finished(), resume=True) == finished()
    assert "finished" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in finished().rglob("*")} == before


def test_more_epochs_go_on_from_the_last_checkpoint(tmp_path):
    folder = run(compose_config(*QUICK, "recipe.epochs=1"), tmp_path / "run")
    run(compose_config(*QUICK, "recipe.epochs=2", "engine.threads=2"), folder, resume=True)
    assert len((folder / "steps.csv").read_text().splitlines()) == 17
    assert json.loads((folder / "summary.json").read_text())["epoch"] == 1


def test_training_that_ended_inside_an_epoch_continues_it(tmp_path, monkeypatch):
    """At a constant learning rate as if it had never ended, but for the epoch edge there; also after a second stop."""
    length = ("recipe.epochs=null", "recipe.schedule.name=constant", "schedule=never")
    short, long = (compose_config(*QUICK, *length, f"recipe.steps={steps}") for steps in (10, 20))
    whole = run(long, tmp_path / "whole")
    folder = run(short, tmp_path / "run")
    assert [json.loads(line)["epoch"] for line in (folder / "epochs.jsonl").read_text().splitlines()] == [0, 1]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted, match="at step 13 of 20"):
            run(long, folder, resume=True)
    run(long, folder, resume=True)
    ours, theirs = left(folder), left(whole)
    assert ours["steps.csv"] == theirs["steps.csv"]
    assert ours["rows"] == theirs["rows"]
    assert ours["weights"] == theirs["weights"]


@pytest.mark.parametrize(("override", "message"), [
    ("recipe.optimizer.lr=0.2", r"recipe.optimizer.lr: 0.1 -> 0.2; only engine, tracker, checkpoint, "
     r"data.workers, data.download, data.root, data.path may change"),
    ("recipe.epochs=1", "recipe.epochs: 2 -> 1"),
    ("seed=1", "seed: 0 -> 1"),
    ("model=resnet8", "model.name: 'pair' -> 'classical'"),
])
def test_changed_config_is_refused_with_the_difference(finished, override, message):
    folder = finished()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        run(compose_config(*QUICK, override), folder, resume=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_changed_data_is_refused(tmp_path, monkeypatch):
    from conftest import write_arrays
    config = compose_config(*QUICK, "data=arrays", f"data.path={write_arrays(tmp_path / 'a.npz', count=300)}")
    folder = stopped(config, tmp_path / "run", monkeypatch, 1)
    rows = (folder / "steps.csv").read_bytes()
    images = np.zeros((300, 8, 8, 3), dtype=np.uint8)
    write_arrays(tmp_path / "a.npz", count=300, x_train=images)
    with pytest.raises(ValueError, match="the data set has changed"):
        run(config, folder, resume=True)
    assert (folder / "steps.csv").read_bytes() == rows


def test_best_checkpoint_is_of_validation_and_the_newest_two_stay(tmp_path):
    folder = run(compose_config(*QUICK, "recipe.epochs=6"), tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    validation = {8 * (row["epoch"] + 1): row["base/val_top1"] for row in rows}
    best = max(validation, key=lambda step: (validation[step], step))
    found = Checkpoints(folder / "checkpoints").found()
    assert {saved.step for saved in found} == {best, 40, 48}
    assert {saved.step: saved.validation for saved in found} == {
        step: pytest.approx(validation[step], abs=1e-4) for step in {best, 40, 48}}


def test_checkpoint_keeps_storages_once_and_strides(tmp_path, monkeypatch):
    folder = stopped(compose_config(*QUICK), tmp_path / "run", monkeypatch, 2)
    state = load_checkpoint(Checkpoints(folder / "checkpoints").found()[0].path)
    model = state["trainer"]["model"]
    assert model["base.conv1.weight"].data_ptr() == model["motivated.conv1.weight"].data_ptr()
    convolution = model["base.layer1.0.conv1.weight"]
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert not convolution.is_contiguous()
    momentum = [entry["momentum_buffer"] for entry in state["trainer"]["optimizers"][0]["state"].values()]
    assert any(m.dim() == 4 and not m.is_contiguous() for m in momentum)


def test_a_second_signal_stops_at_once_but_an_echo_does_not(monkeypatch):
    """SLURM and torchrun may both hand on one signal; a user who presses Ctrl-C again means it."""
    clock = iter([10.0, 10.2, 12.0])
    monkeypatch.setattr("motivation.run.signals.monotonic", lambda: next(clock))
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            stop.check()


def test_auto_finds_a_run_by_what_sets_its_result(tmp_path, finished):
    """Its data may be elsewhere, another precision is another run."""
    from conftest import write_arrays
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "d.npz", count=300)
    of = {name: compose_config(*QUICK, "recipe.epochs=1", "data=arrays", f"data.path={tmp_path / name / 'd.npz'}")
          for name in ("a", "b")}
    folder = run(of["a"], tmp_path / "runs" / "r")
    assert find_run(tmp_path, of["b"]) == folder
    assert find_run(tmp_path, of["b"] | {"engine": of["b"]["engine"] | {"precision": "bfloat16"}}) is None
    assert find_run(tmp_path, of["b"] | {"engine": of["b"]["engine"] | {"threads": 2}}) == folder
    write_arrays(tmp_path / "b" / "d.npz", count=300, x_train=np.zeros((300, 8, 8, 3), np.uint8))
    assert find_run(tmp_path, of["b"]) is None


def test_a_resume_with_another_config_is_in_the_history(tmp_path, caplog):
    folder = run(compose_config(*QUICK, "recipe.epochs=1"), tmp_path / "run")
    assert not (folder / "history.jsonl").exists()
    run(compose_config(*QUICK, "recipe.epochs=2", "engine.precision=bfloat16"), folder, resume=True)
    [row] = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    assert row == {"step": 8, "changed": {"recipe.epochs": [1, 2], "engine.precision": ["float32", "bfloat16"]}}
    straight = run(compose_config(*QUICK, "recipe.epochs=2", "engine.precision=bfloat16"), tmp_path / "straight")
    runs = [read_run(folder), read_run(straight)]
    assert len(group_runs(runs)) == 2
    assert "from step 8 on with recipe.epochs 1 -> 2, engine.precision float32 -> bfloat16" in caplog.text
    assert "Resumed with another config:" in comparison_table(runs)


def test_a_transfer_run_needs_its_source_no_more(tmp_path, monkeypatch, finished):
    source = shutil.copytree(finished("model=resnet8"), tmp_path / "source")
    config = compose_config(*QUICK, "model=transfer", "model.network=resnet8", f"model.run={source}")
    folder = stopped(config, tmp_path / "run", monkeypatch, 4)
    shutil.rmtree(source)
    run(config, folder, resume=True)
    assert (folder / "summary.json").is_file()


def test_moved_data_is_named_without_its_data_set(tmp_path, monkeypatch):
    """`resume=RUN data.path=NEW`, where the default data set has no path."""
    from conftest import write_arrays

    from motivation.cli.train import ask
    config = compose_config(*QUICK, "data=arrays", f"data.path={write_arrays(tmp_path / 'a.npz', count=300)}")
    folder = stopped(config, tmp_path / "run", monkeypatch, 1)
    moved = (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    asked, path, resumed, _ = ask([f"resume={folder}", f"data.path={moved}", "seed=0"])
    assert (asked, path, resumed) == (config | {"data": config["data"] | {"path": str(moved)}}, folder, True)
    with pytest.raises(ValueError, match=r"data\.pat: unknown key"):
        ask([f"resume={folder}", "data.pat=x"])
