"""Faults: what each does to a run, and that the run can go on from it. The table is docs/reliability.md."""

import os
import random
import re
import shutil
import signal
import time

import pytest
import torch
from conftest import QUICK, compose_config
from killing import command, kill_and_resume, lines_of
from processes import finish, start
from served import serve
from stopping import left, stop_after, stopped

import motivation.run.recovery
import motivation.run.run
from motivation.cli.main import main
from motivation.run.preflight import check_disk, needed_micro_batches
from motivation.run.prepare import prepare
from motivation.run.run import run
from motivation.run.signals import Interrupted
from motivation.run_folder.checkpoints import CheckpointError, Checkpoints, load_checkpoint, save_checkpoint, snapshot
from motivation.run_folder.read import read_steps
from motivation.run_folder.write import RunFolder
from motivation.training.engine import Engine, OutOfMemory


def test_sigkill_at_random_moments(tmp_path):
    """`make soak` kills 50 times; here a few. Every moment comes: start, steps, evaluation, last writes."""
    kill_and_resume(tmp_path, kills=4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_signals_save_and_give_a_shells_status(tmp_path, number, monkeypatch, capsys):
    stop_after(monkeypatch, 1, number)
    assert main(command(tmp_path / "run")) == 128 + number
    assert f"stopped by {number.name} at step 2 of 16" in capsys.readouterr().err.splitlines()[-1]
    assert Checkpoints(tmp_path / "run/checkpoints").found()[0].step == 2


def test_a_signal_to_a_process_saves_and_stops(tmp_path, finished):
    number = signal.SIGTERM
    output = tmp_path / "output.txt"
    process = start(command(tmp_path / "run"), output)
    while process.is_alive() and lines_of(tmp_path / "run/steps.csv") < 4:
        time.sleep(0.01)
    os.kill(process.pid, number)
    assert finish(process) == 128 + number
    assert f"stopped by {number.name} at step" in output.read_text().splitlines()[-1]
    assert Checkpoints(tmp_path / "run/checkpoints").found()[0].step == lines_of(tmp_path / "run/steps.csv") - 1
    assert finish(start(command(tmp_path / "run"), output)) == 0
    assert left(tmp_path / "run") == left(finished())


@pytest.mark.parametrize(("fault", "status", "said"), [
    # Checkpoints and final.pt fail, rows do not; then the rows themselves.
    ({"at_step": 0, "file_limit": 200_000}, 1, r"(?s)no checkpoint of step 8.*error: .*checkpoints/final\.pt"),
    ({"at_step": 3, "file_limit": 250}, 1, "File too large|no space left"),
    ({"before_summary": True, "file_limit": 100}, 1, r"File too large: '.*/run/summary\.json'"),
], ids=["checkpoints", "rows", "summary"])
def test_full_disk(tmp_path, finished, fault, status, said):
    """The limit on file sizes fails every write beyond it, as a full disk does."""
    output = tmp_path / "output.txt"
    assert finish(start(command(tmp_path / "run"), output, **fault)) == status
    text = output.read_text()
    assert re.search(said, text), text
    assert "Traceback" not in text
    assert not (tmp_path / "run/summary.json").exists()
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert finish(start(command(tmp_path / "run"), output)) == 0
    assert left(tmp_path / "run") == left(finished())


def test_disk_that_takes_no_checkpoint_is_known_before_training(tmp_path, monkeypatch):
    def full(state, file):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match="takes no checkpoint; free some space"):
        run(compose_config(*QUICK), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_little_space_for_checkpoints(tmp_path):
    with pytest.raises(ValueError, match=r"MB free, 4 checkpoints need .* MB; free some"):
        check_disk(tmp_path / "a/b", 1 << 60, 4)


def damage(path, how):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped bit":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1:])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        path.write_bytes(b"PK\x03\x04 something else")


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """The folder of a run that was stopped after 12 of its 16 steps; do not change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        return stopped(compose_config(*QUICK), tmp_path_factory.mktemp("stopped") / "run", patch, 11)


@pytest.mark.parametrize("how", ["truncated", "flipped bit", "empty", "foreign"])
def test_damaged_checkpoint_is_named_and_passed_over(tmp_path, caplog, stopped_once, how):
    folder = shutil.copytree(stopped_once, tmp_path / "run")
    newest, previous, *_ = Checkpoints(folder / "checkpoints").found()
    damage(newest.path, how)
    assert next(Checkpoints(folder / "checkpoints").readable())[0] == previous
    assert f"{newest.path} is damaged: its SHA-256" in caplog.text


def test_resume_behind_a_damaged_checkpoint_is_exact(tmp_path, caplog, finished, stopped_once):
    folder = shutil.copytree(stopped_once, tmp_path / "run")
    newest, previous, *_ = Checkpoints(folder / "checkpoints").found()
    damage(newest.path, "flipped bit")
    run(compose_config(*QUICK), folder, resume=True)
    assert f"{newest.path} is damaged: its SHA-256" in caplog.text
    assert previous.step == 8
    assert left(folder) == left(finished())


def test_all_checkpoints_damaged_is_an_error_and_nothing_is_lost(tmp_path, stopped_once):
    config = compose_config(*QUICK)
    folder = shutil.copytree(stopped_once, tmp_path / "run")
    for saved in Checkpoints(folder / "checkpoints").found():
        damage(saved.path, "empty")
    rows = (folder / "steps.csv").read_bytes()
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be used"):
        run(config, folder, resume=True)
    assert (folder / "steps.csv").read_bytes() == rows


def test_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, stopped_once):
    folder = shutil.copytree(stopped_once, tmp_path / "run")
    other = stopped(compose_config(*QUICK, "seed=1"), tmp_path / "other", monkeypatch, 1)
    for saved in Checkpoints(folder / "checkpoints").found():
        saved.path.unlink()
    foreign = Checkpoints(other / "checkpoints").found()[0].path
    foreign.rename(folder / "checkpoints" / foreign.name)
    with pytest.raises(ValueError, match=r"cannot be resumed: .*seed: 1 -> 0"):
        run(compose_config(*QUICK), folder, resume=True)


def test_second_process_is_refused(tmp_path, stopped_once):
    config = compose_config(*QUICK)
    folder = shutil.copytree(stopped_once, tmp_path / "run")
    first = RunFolder(folder, None)
    output = tmp_path / "output.txt"
    assert finish(start(["train", f"resume={folder}"], output)) == 1
    assert "is being written by another process" in output.read_text()
    first.close()
    run(config, folder, resume=True)


def nan_at(monkeypatch, steps, values):
    """Make the engine report these (loss, 0 or inf of the gradient) in some of its steps, counted from 0."""
    real, seen = Engine.step, iter(range(10_000))

    def reported(self, *arguments):
        result = real(self, *arguments)
        return torch.tensor(values) if next(seen) in steps else result

    monkeypatch.setattr(Engine, "step", reported)


@pytest.mark.parametrize(("values", "said"), [
    ((float("nan"), 0.0), "network's loss is nan at step 10"),
    ((0.5, float("inf")), "gradient is not finite at step 10"),
])
def test_nan_stops_with_the_batch_and_the_last_good_checkpoint(tmp_path, monkeypatch, values, said):
    nan_at(monkeypatch, {10}, values)
    with pytest.raises(ValueError, match=rf"{said}.* \(epoch 1, batch 2\); the last good checkpoint is .*step-0+8-"):
        run(compose_config(*QUICK), tmp_path / "run")
    assert len((tmp_path / "run/steps.csv").read_text().splitlines()) == 11


def test_nan_rolls_back_with_a_smaller_learning_rate(tmp_path, monkeypatch, caplog):
    nan_at(monkeypatch, {10}, (float("nan"), 0.0))
    folder = run(compose_config(*QUICK, "recipe.rollbacks=1", "recipe.schedule.name=constant"), tmp_path / "run")
    assert "back to step 8, learning rate x 0.5" in caplog.text
    rows = [line.split(",") for line in (folder / "steps.csv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(16))
    assert [float(row[5]) for row in rows] == [0.1] * 8 + [0.05] * 8


ROLLING = ("recipe.rollbacks=3", "recipe.schedule.name=constant")


def test_a_step_that_fails_again_goes_one_checkpoint_further_back(tmp_path, monkeypatch, caplog):
    """Weights may be spoiled before a loss shows it. A run stopped after its rollbacks resumes with them."""
    config = compose_config(*QUICK, *ROLLING)
    # Step 10, and after three steps from checkpoint 8 once more.
    for name in ("whole", "run"):
        with monkeypatch.context() as patch:
            nan_at(patch, {10, 13}, (float("nan"), 0.0))
            if name == "whole":
                run(config, tmp_path / name)
            else:
                # The third step from checkpoint 0.
                stop_after(patch, 16)
                with pytest.raises(Interrupted):
                    run(config, tmp_path / name)
        assert [int(step) for step in re.findall(r"back to step (\d+)", caplog.text)] == [8, 0]
        caplog.clear()
    rows = [line.split(",") for line in (tmp_path / "whole/steps.csv").read_text().splitlines()[1:]]
    assert [(int(row[0]), float(row[5])) for row in rows] == [(step, 0.025) for step in range(16)]
    run(config, tmp_path / "run", resume=True)
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_killed_right_after_a_rollback_knows_of_it(tmp_path, monkeypatch):
    config = compose_config(*QUICK, *ROLLING)
    with monkeypatch.context() as patch:
        nan_at(patch, {10, 13}, (float("nan"), 0.0))
        run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        nan_at(patch, {10}, (float("nan"), 0.0))
        patch.setattr(motivation.run.recovery.logger, "warning", lambda line, *values: "back to" in line and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, tmp_path / "run")
    # Its step 10 fails again.
    nan_at(monkeypatch, {2}, (float("nan"), 0.0))
    run(config, tmp_path / "run", resume=True)
    assert left(tmp_path / "run") == left(tmp_path / "whole")


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path, monkeypatch, caplog):
    """The last step of an epoch may spoil what no loss has shown yet."""
    real, seen = motivation.training.trainer.Trainer.step, iter(range(100))

    def spoiling(self, *batch, **options):
        result = real(self, *batch, **options)
        if next(seen) == 7:
            with torch.no_grad():
                self.model.motivated.layer3[1].conv2.weight[0, 0, 0, 0] = float("inf")
                self.model.base.conv1.weight[0, 0, 0, 0] = float("nan")
        return result

    monkeypatch.setattr(motivation.training.trainer.Trainer, "step", spoiling)
    with pytest.raises(ValueError, match=r"loss is nan at step 8; .* the last good checkpoint is .*step-0{9}-"):
        run(compose_config(*QUICK, "evaluate_every=2"), tmp_path / "run")
    assert "no checkpoint of step 8: the weights are not finite" in caplog.text
    assert [saved.step for saved in Checkpoints(tmp_path / "run/checkpoints").found()] == [0]


def test_with_a_lag_the_batch_named_is_the_losss(tmp_path, monkeypatch):
    nan_at(monkeypatch, {9}, (float("nan"), 0.0))
    with pytest.raises(ValueError, match=r"loss is nan at step 9; .* \(epoch 1, batch 1\)"):
        run(compose_config(*QUICK, "monitor.lag=3"), tmp_path / "run")


def test_real_divergence_ends_in_one_line(tmp_path, capsys, caplog):
    folder = tmp_path / "run"
    assert main(["train", *QUICK, "recipe.optimizer.lr=1e30", "recipe.rollbacks=2", f"hydra.run.dir={folder}"]) == 1
    assert "the last good checkpoint is" in capsys.readouterr().err.splitlines()[-1]
    assert caplog.text.count("back to step 0") == 2


def too_large(monkeypatch, images):
    """The motivated network runs out of memory with more than so many images at once."""
    real = motivation.models.CifarResNet.forward

    def forward(self, x):
        if len(x) > images and len(self.layer1) == 2 and self.training and x.device.type != "meta":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, x)

    monkeypatch.setattr(motivation.models.CifarResNet, "forward", forward)


def test_out_of_memory_is_known_before_step_0(tmp_path, monkeypatch):
    too_large(monkeypatch, 40)
    said = (r"the motivated network does not fit with a batch of 128 images in 1 micro-batch; lower recipe.batch_size "
            r"or set engine.accumulation=2 \(or auto\)")
    with pytest.raises(OutOfMemory, match=said):
        run(compose_config(*QUICK), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_accumulation_grows_until_both_networks_fit(tmp_path, monkeypatch):
    too_large(monkeypatch, 40)
    session = prepare(compose_config(*QUICK, "engine.accumulation=auto"))
    assert needed_micro_batches(session.trainer, *next(session.loader.epoch(0))) == 4
    folder = run(compose_config(*QUICK, "engine.accumulation=auto"), tmp_path / "run")
    assert (folder / "summary.json").exists()


def bits(state):
    """A state as plain values, tensors by their bytes and strides."""
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [bits(value) for value in state]
    if isinstance(state, torch.Tensor):
        return str(state.dtype), state.stride(), state.contiguous().numpy().tobytes()
    return repr(state)


SGD = ("recipe.optimizer.name=sgd",)
ADAMW, LAMB = ((f"recipe.optimizer.name={name}", "recipe.optimizer.momentum=null", "recipe.optimizer.lr=0.01")
               for name in ("adamw", "lamb"))


@pytest.mark.parametrize("overrides", [
    (*SGD, "schedule=periodic", "schedule.period=3", "schedule.length=1"), (*ADAMW, "schedule=always"),
    (*LAMB, "schedule=always"), (*SGD, "model=resnet20"), (*ADAMW, "model=resnet20"),
    (*ADAMW, "schedule.k=0.1", "monitor=gradient_agreement"), (*SGD, "monitor=prediction_gain"),
    (*SGD, "monitor=heldout", "data.heldout=0.1"),
], ids=lambda overrides: " ".join((overrides[0].split("=")[1], *overrides[-1:])))
def test_preflight_leaves_no_trace(overrides):
    """Training after it is that without it, bit for bit: weights, optimizers, monitor, random numbers, losses."""
    runs = []
    for tried in (True, False):
        session = prepare(compose_config(*QUICK, "recipe.batch_size=16", *overrides))
        before = bits(session.state_dict())
        if tried:
            assert needed_micro_batches(session.trainer, *next(session.loader.epoch(0))) == 1
            assert bits(session.state_dict()) == before
            assert all(parameter.grad is None for parameter in session.trainer.model.parameters())
            assert not any("step" in state for optimizer in session.trainer.optimizers
                           for state in optimizer.state.values())
        for _, (images, targets) in zip(range(5), session.batches(), strict=False):
            session.step(images, targets)
        state = bits(session.state_dict())
        del state["trainer"]["ledger"]["seconds"]
        runs.append((before, [result.loss for _, result in session.pending], state))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("moment", ["update", "held-out batch"])
def test_memory_of_a_whole_step_is_known_before_step_0(monkeypatch, moment):
    """What the optimizer's state and the held-out batch take is tried too, not only forward and backward."""
    def full(*arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    session = prepare(compose_config(*QUICK, *ADAMW, "monitor=heldout", "data.heldout=0.1"))
    before = bits(session.state_dict())
    monkeypatch.setattr(*((torch.optim.AdamW, "step") if moment == "update" else
                          (motivation.training.probes.Probes, "heldout_losses")), full)
    with pytest.raises(OutOfMemory, match="the base network does not fit with a batch of 128 images"):
        needed_micro_batches(session.trainer, *next(session.loader.epoch(0)))
    assert bits(session.state_dict()) == before


@pytest.mark.parametrize("moment", ["init", "log", "finish"])
def test_wandb_crash_costs_the_mirror_only(tmp_path, monkeypatch, caplog, finished, moment):
    import wandb

    def crash(*arguments, **keywords):
        raise wandb.errors.CommError("server unreachable")

    if moment == "init":
        monkeypatch.setattr(wandb, "init", crash)
    else:
        monkeypatch.setattr(wandb.Run, moment, crash)
    config = compose_config(*QUICK, "tracker=wandb")
    folder = run(config, tmp_path / "run")
    monkeypatch.undo()
    wandb.finish()
    assert caplog.text.count("tracking stopped: Wandb: server unreachable; training continues") == 1
    expected, found = left(finished()), left(folder)
    del expected["config.yaml"], found["config.yaml"]
    assert found == expected


def test_data_file_that_vanishes(tmp_path, monkeypatch, capsys):
    from conftest import write_arrays
    path = write_arrays(tmp_path / "a.npz", count=300)
    config = compose_config(*QUICK, "data=arrays", f"data.path={path}")
    folder = stopped(config, tmp_path / "run", monkeypatch, 1)
    path.unlink()
    assert main(["train", f"resume={folder}"]) == 1
    assert f"data.path={path}: no such file" in capsys.readouterr().err


def test_checkpoint_never_runs_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"position": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_a_signal_while_data_and_networks_are_built(tmp_path, monkeypatch):
    real = prepare

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(*arguments)

    monkeypatch.setattr(motivation.run.run, "prepare", interrupted)
    with pytest.raises(Interrupted, match="stopped by SIGUSR1 before training; nothing was written"):
        run(compose_config(*QUICK), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_equal_runs_have_equal_checkpoints(tmp_path, monkeypatch):
    states = []
    for name in "ab":
        random.seed(name)
        folder = stopped(compose_config(*QUICK), tmp_path / name, monkeypatch, 1)
        states.append(load_checkpoint(Checkpoints(folder / "checkpoints").found()[0].path))
    assert states[0]["random"][0]["python"] == states[1]["random"][0]["python"]
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(
        states[0]["random"][0]["numpy"][1:], states[1]["random"][0]["numpy"][1:], strict=True))


def test_after_a_rollback_a_row_is_mirrored_once(tmp_path, monkeypatch):
    """Back to step 0 from step 10, inside the third row of the second epoch: all before it are known already."""
    nan_at(monkeypatch, {13}, (float("nan"), 0.0))
    logged = serve(monkeypatch).rows
    run(compose_config(*QUICK, "tracker=wandb", "tracker.every=3", "recipe.rollbacks=1",
                       "checkpoint.every_epochs=null"), tmp_path / "run")
    assert [row.get("trainer/step", "epoch") for row in logged] == [3, 6, 8, "epoch", 11, 14, 16, "epoch"]
    assert len((tmp_path / "run/history.jsonl").read_text().splitlines()) == 1
    # The row that the failure left open is of the repeated steps alone.
    steps = read_steps(tmp_path / "run")
    assert logged[5]["trainer/loss"] == pytest.approx(steps["loss"][11:14].mean())


def test_checkpoints_wait_little(tmp_path):
    """Training waits for the copy in memory, not for the disk."""
    session = prepare(compose_config(*QUICK))
    state = session.state_dict()
    release = []

    def slow():
        while not release:
            time.sleep(0.01)

    checkpoints = Checkpoints(tmp_path, before=slow)
    begin = time.perf_counter()
    checkpoints.save(state, 1)
    assert checkpoints.busy
    waited = time.perf_counter() - begin
    release.append(True)
    checkpoints.close()
    assert waited < 5
    assert [saved.step for saved in checkpoints.found()] == [1]


def test_snapshot_shares_what_the_state_shares():
    whole = torch.arange(12.0).reshape(3, 4)
    copied = snapshot({"a": whole, "b": [whole.t(), (whole[1:], 7)], "c": torch.zeros(2)})
    assert copied["a"].untyped_storage().data_ptr() == copied["b"][0].untyped_storage().data_ptr()
    assert copied["b"][0].stride() == (1, 4)
    assert torch.equal(copied["b"][1][0], whole[1:])
    whole.zero_()
    assert copied["a"].sum() == 66


def test_save_is_whole_or_not_at_all(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pt", {"x": torch.ones(2)})
    before = (tmp_path / "a.pt").read_bytes()

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(tmp_path / "a.pt", {"x": torch.zeros(2)})
    assert (tmp_path / "a.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
