"""What a user sees while a run trains."""

import sys

import pytest
from conftest import QUICK, compose_config

from motivation.run.progress import LiveProgress, clock, open_progress
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


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text
