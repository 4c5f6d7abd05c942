"""Exact resume of runs whose monitor probes or lags: signals.csv continues without gap, duplicate or torn line."""

import pytest
from conftest import QUICK, compose_config
from stopping import left, stopped

from motivation.run.run import run

CASES = {
    "heldout losses": ("monitor=paired_heldout", "monitor.every=2", "data.heldout=0.05", "schedule=threshold"),
    "gradients": ("monitor=gradient_agreement", "monitor.reference=mean", "monitor.half_life=4", "schedule=quota",
                  "schedule.share=0.4"),
    "a lag": ("monitor=consecutive", "monitor.lag=3"),
    "gradients and a lag": ("monitor=noise_scale", "monitor.lag=2", "monitor.half_life=4", "schedule=quota",
                  "schedule.share=0.4"),
    "a bandit, gated": ("monitor=bandit", "monitor.every=1", "data.heldout=0.05", "schedule=max_interval",
                        "schedule.steps=2"),
}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_stop_and_resume_is_exact(overrides, tmp_path, monkeypatch, finished):
    """Stopped in mid-epoch and mid-window."""
    config = compose_config(*QUICK, *overrides)
    folder = tmp_path / "run"
    stopped(config, folder, monkeypatch, 5)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*overrides))
    if "monitor=consecutive" not in overrides:
        steps = [int(line.split(",")[0]) for line in (folder / "signals.csv").read_text().splitlines()[1:]]
        assert steps == sorted(set(steps))
        assert len(steps) >= 6


def test_rows_of_a_lagging_run_are_whole(finished):
    """Every step has its own loss; its score is that of the loss `lag` steps before."""
    from motivation.monitors import Consecutive
    from motivation.run_folder.read import read_steps

    folder = finished(*CASES["a lag"])
    rows = [line.split(",") for line in (folder / "steps.csv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == list(range(16))
    monitor = Consecutive()
    expected = [repr(monitor.observe(loss)) for loss in read_steps(folder)["loss"]]
    assert [row[4] for row in rows] == ["nan"] * 3 + expected[:-3]
