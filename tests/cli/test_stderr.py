"""Standard error that cannot be written costs the line, not the run."""

import os
import subprocess
import sys

import pytest
from conftest import QUICK

import motivation.run.progress
from motivation.cli.main import main


@pytest.fixture(params=["full", "closed"])
def unwritable(request, monkeypatch):
    """A full disk, or a pipe that nobody reads."""
    if request.param == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        read, descriptor = os.pipe()
        os.close(read)
    stream = open(descriptor, "w", buffering=1)  # noqa: SIM115 - the test's own
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield stream
    stream.close()


@pytest.mark.parametrize("live", [False, True])
def test_training_goes_on(tmp_path, capsys, monkeypatch, unwritable, live):
    if live:
        monkeypatch.setattr(motivation.run.progress, "PlainProgress", motivation.run.progress.LiveProgress)
    assert main(["train", *QUICK, "model=resnet20", "recipe.rollbacks=1", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run'}\n"
    assert (tmp_path / "run/summary.json").exists()


def test_an_error_keeps_its_status(unwritable):
    assert main(["train", "recipe.epochs=-1"]) == 1


def test_the_process_ends_with_its_status():
    """What waits in the stream's buffer would be written once more at the very end, and fail there: status 120."""
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-m", "motivation", "train", "recipe.epochs=-1"], stderr=full,
                              timeout=120).returncode == 1
