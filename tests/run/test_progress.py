"""What a user sees while a run trains."""

import sys

import pytest
from conftest import QUICK, compose_config

from motivation.run.progress import LiveProgress, clock, open_progress
from motivation.run.run import run


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    run(compose_config(*QUICK), tmp_path / "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    for part in ("epoch 2/2", "step 16/16", "loss ", "base ", "motivated ", "motivated steps ", " FLOPs", " images/s",
                 "ETA 0:00:00"):
        assert part in lines[1]


def test_live_view_in_a_terminal(tmp_path, capsys, monkeypatch):
    """The bar shows epoch, step, loss, phase, share, speed, FLOPs and time left, and ends on the last step."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(open_progress(4, 2, 8), LiveProgress)
    run(compose_config(*QUICK), tmp_path / "run")
    shown = capsys.readouterr().err
    for part in ("epoch 2/2", "16/16", "images/s", "FLOPs", "ETA 0:00:00", "motivated"):
        assert part in shown


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text
