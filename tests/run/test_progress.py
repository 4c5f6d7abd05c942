"""What a user sees while a run trains."""

import sys

import pytest
from conftest import QUICK, compose_config

from motivation.run.progress import LiveProgress, PlainProgress, clock, open_progress
from motivation.run.run import run


def test_stages_and_epochs_are_logged_and_nothing_is_printed(tmp_path, capsys, caplog):
    """What is about to be trained, before the first epoch; then one line an epoch."""
    caplog.set_level("INFO")
    run(compose_config(*QUICK), tmp_path / "run")
    assert capsys.readouterr() == ("", "")
    data, pair, monitor, engine, training, _, last = caplog.messages
    assert data.startswith("data: 1,")
    assert "of 10 classes, 1 x 8 x 8" in data
    assert pair.startswith("pair: resnet8 in resnet14, 0.08 + 0.10 M parameters")
    assert monitor.startswith("monitor: consecutive; schedule: ")
    assert engine.startswith("engine: cpu, float32")
    assert training == "training: 16 steps in 2 epochs"
    for part in ("epoch 2/2", "step 16/16", "loss ", "base ", "motivated ", "motivated steps ", " FLOPs", " images/s",
                 "ETA 0:00:00"):
        assert part in last


def test_live_view_in_a_terminal(tmp_path, capsys, monkeypatch):
    """The bar shows epoch, step, loss, phase, share, speed, FLOPs and time left, and ends on the last step."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(open_progress(4, 2), LiveProgress)
    run(compose_config(*QUICK), tmp_path / "run")
    shown = capsys.readouterr().err
    for part in ("epoch 2/2", "16/16", "images/s", "FLOPs", "ETA 0:00:00", "motivated"):
        assert part in shown


def test_time_left_after_a_resume_or_rollback_is_at_this_processs_rate(monkeypatch):
    """900 of 1000 steps were trained before: ten steps in a hundred seconds leave a quarter of an hour for ninety."""
    now = [0.0]
    monkeypatch.setattr("motivation.run.progress.perf_counter", lambda: now[0])
    progress = PlainProgress(1000, 100)
    now[0] = 50.0  # Loading, before it is opened.
    with progress:
        assert progress.eta(900) == "unknown"
        assert progress.eta(1000) == "0:00:00"
        for step in range(900, 910):
            progress.step(step, 9, None, None)
        now[0] = 150.0
        assert progress.eta(910) == "0:15:00"
        assert progress.eta(800) == "0:33:20"
        row = {"epoch": 9, "steps/base": 910, "steps/motivated": 0, "base/top1": None, "motivated/top1": None,
               "train/loss": 1.0, "budget/flops": 1, "budget/images": 1, "budget/seconds": 1.0}
        assert "ETA 0:15:00" in progress.line(row)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text
