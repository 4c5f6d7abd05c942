"""The files of a run folder: rows that survive a kill, the lock, strict JSON."""

import math
import os

import numpy as np
import pytest

from motivation.run_folder.write import STEP_COLUMNS, RunFolder, as_json, check_run_folder


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path):
    """Before the folder is closed, and in repr, so that every float reads back exactly."""
    folder = RunFolder(tmp_path / "a" / "run", {"seed": 0})
    folder.step(0, 0, "base", 0.1 + 0.2, math.nan, 1e-3, 7)
    folder.epoch({"epoch": 0, "train/loss": math.nan, "base/top1": 12.5})
    assert (tmp_path / "a/run/steps.csv").read_text() == ",".join(STEP_COLUMNS) + (
        "\n0,0,base,0.30000000000000004,nan,0.001,7\n")
    assert (tmp_path / "a/run/epochs.jsonl").read_text() == (
        '{"epoch": 0, "train/loss": null, "base/top1": 12.5}\n')
    folder.predictions(labels=np.arange(3))
    folder.close()


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path):
    (tmp_path / "steps.csv").write_text("mine")
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["steps.csv"]
    assert (tmp_path / "steps.csv").read_text() == "mine"


def test_a_forked_process_holds_no_lock(tmp_path):
    """A worker that outlives the kill of its run does not keep the next one out."""
    folder = RunFolder(tmp_path / "run", {})
    read, write = os.pipe()
    started, starts = os.pipe()
    child = os.fork()
    if not child:
        os.write(starts, b"x")
        os.read(read, 1)
        os._exit(0)
    try:
        os.read(started, 1)
        with pytest.raises(ValueError, match="being written by another process"):
            RunFolder(tmp_path / "run", None)
        folder.close()
        RunFolder(tmp_path / "run", None).close()
    finally:
        os.write(write, b"x")
        os.waitpid(child, 0)
        for end in (read, write, started, starts):
            os.close(end)


def test_a_folder_under_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file"):
        check_run_folder(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match="is a file"):
        check_run_folder(tmp_path / "file")


def test_json_is_strict():
    assert as_json({"a": math.inf, "b": 1, "c": None}) == '{"a": null, "b": 1, "c": null}'


def test_a_resumed_folder_has_the_history_of_its_files(tmp_path):
    """What the summary is made of, in memory and as the files hold it."""
    folder = RunFolder(tmp_path / "run", {"seed": 0})
    for step, phase in enumerate(("base", "motivated", "base")):
        folder.step(step, 0, phase, 0.1 * step, math.nan, 1e-3, 7)
        folder.signals(step, ("ratio", "share"), (0.3 / (step + 1), 1.0))
    folder.epoch({"epoch": 0, "train/loss": 0.1})
    written, rows = folder.history, folder.epochs
    folder.close()
    again = RunFolder(tmp_path / "run", None)
    again.rewind(3, 1, 3)
    assert (again.history, again.epochs) == (written, rows)
    assert again.history.motivated.tolist() == [False, True, False]
    assert again.history.readings[1].shape == (3, 2)
    again.rewind(2, 0, 0)
    assert again.history.loss == [0.0, 0.1]
    assert again.history.readings[1].tolist() == [[0.0], [0.1]]
    assert again.epochs == []
    again.close()
    assert not (tmp_path / "run/.lock").exists()
