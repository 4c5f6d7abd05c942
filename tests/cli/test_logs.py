"""Lines on standard error: their form, tracebacks, and a stream that cannot be written."""

import logging
import os
import shlex
import subprocess
import sys

import pytest
from conftest import QUICK, compose_config

import motivation.run.progress
from motivation.cli.logs import on_stderr
from motivation.cli.main import main
from motivation.run.run import run


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
def test_training_continues(tmp_path, capsys, monkeypatch, unwritable, live):
    if live:
        monkeypatch.setattr(motivation.run.progress, "PlainProgress", motivation.run.progress.LiveProgress)
    assert main(["train", *QUICK, "model=resnet20", "recipe.rollbacks=1", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run'}\n"
    assert (tmp_path / "run/summary.json").exists()


def test_an_error_keeps_its_status(unwritable):
    assert main(["train", "recipe.epochs=-1"]) == 1


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_standard_error_at_all(tmp_path, monkeypatch, stream):
    if stream:
        stream = open(tmp_path / "file", "w")  # noqa: SIM115 - closed at once
        stream.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert main(["train", "recipe.epochs=-1"]) == 1


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_run_without_standard_error(tmp_path, monkeypatch, stream):
    """Also one that no command line started: a daemon's, or a GUI program's."""
    if stream:
        stream = open(tmp_path / "file", "w")  # noqa: SIM115 - closed at once
        stream.close()
    config = compose_config(*QUICK, "model=resnet20", "recipe.epochs=null", "recipe.steps=2")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        run(config, tmp_path / "run")
    assert (tmp_path / "run/summary.json").is_file()


def test_closed_streams_take_no_file_of_the_run(tmp_path):
    """What is opened first would get their descriptors, and whatever a library writes to them; the status stays 0."""
    code = ("import os, sys\nfrom motivation.cli import commands\nfrom motivation.cli.main import main\n"
            "def compare(options):\n"
            "    print('lost', flush=True)\n    os.write(2, b'lost')\n"
            "    with open('file', 'w') as file:\n        file.write(str(file.fileno()))\n    return 0\n"
            "commands.compare = compare\nsys.exit(main(['compare', 'x']))\n")
    shell = f"exec {shlex.join([sys.executable, '-c', code])} <&- >&- 2>&-"
    assert subprocess.run(shell, shell=True, cwd=tmp_path, timeout=120).returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


def test_only_the_command_line_writes(capsys):
    """A library user who configures nothing sees no narration; a second context adds no second line."""
    logger = logging.getLogger("motivation.some.room")
    logger.info("silent")
    with on_stderr():
        logger.info("one")
        with on_stderr():
            logger.warning("two")
            logger.error("three")
    logger.info("silent again")
    assert capsys.readouterr().err.splitlines() == ["motivation: one", "motivation: two", "motivation: error: three"]


def test_one_process_of_several_narrates(capsys, monkeypatch):
    """Which of them reports an error is decided where it is caught: it may not be the first."""
    for name, value in (("MASTER_ADDR", "localhost"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    with on_stderr():
        logging.getLogger("motivation").info("not mine")
        logging.getLogger("motivation").error("mine")
    assert capsys.readouterr().err == "motivation: error: mine\n"


@pytest.mark.parametrize("place", ["before", "after", "variable", "sweep"])
def test_tracebacks_of_every_error(tmp_path, capsys, monkeypatch, place):
    """A ValueError's too; the line that names the key comes last."""
    arguments = ["train", "tracker=none", "recipe.epochs=-1"]
    if place == "variable":
        monkeypatch.setenv("MOTIVATION_TRACEBACK", "1")
    elif place == "sweep":
        arguments = ["--traceback", *arguments, "-m", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    else:
        arguments.insert(0 if place == "before" else len(arguments), "--traceback")
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert "recipe.epochs=-1" in lines[-1]
    monkeypatch.delenv("MOTIVATION_TRACEBACK", raising=False)
    assert main(["train", "recipe.epochs=-1"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_process_ends_with_its_status():
    """What waits in the stream's buffer would be written once more at the very end, and fail there: status 120."""
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-m", "motivation", "train", "recipe.epochs=-1"], stderr=full,
                              timeout=120).returncode == 1
