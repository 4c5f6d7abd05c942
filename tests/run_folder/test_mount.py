"""File systems that refuse what a disk does: each refusal costs one line, and never the run."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import QUICK, compose_config
from filelock import FileLock
from stopping import left, stop_after

import motivation.run_folder.mount
from motivation.run.export import export_run, load_network
from motivation.run.preflight import check_disk
from motivation.run.run import run
from motivation.run.signals import Interrupted
from motivation.run_folder import mount
from motivation.run_folder.checkpoints import Checkpoints
from motivation.run_folder.write import Rows, RunFolder
from motivation.tables.cells import set_aside


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(motivation.run_folder.mount, "_said", set())


def refuse(number):
    def refusing(*arguments, **keywords):
        raise OSError(number, os.strerror(number))
    return refusing


def said(caplog) -> list[str]:
    """Which kinds of refusal were logged, one a line."""
    kinds = {name: value for name, value in vars(mount).items() if name.isupper() and isinstance(value, str)}
    return sorted(name for record in caplog.records for name, text in kinds.items()
                  if record.getMessage().endswith(text))


def test_a_run_where_everything_is_refused_is_whole(tmp_path, monkeypatch, caplog, finished):
    """Stopped, resumed and finished, with the very results of a disk; a line for each kind and process."""
    whole = left(finished())
    config = compose_config(*QUICK)
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    monkeypatch.setattr(os, "replace", refuse(errno.EBUSY))
    monkeypatch.setattr(FileLock, "acquire", refuse(errno.ENOLCK))
    with monkeypatch.context() as patch:
        stop_after(patch, 11)
        with pytest.raises(Interrupted):
            run(config, tmp_path / "run")
    run(config, tmp_path / "run", resume=True)
    assert left(tmp_path / "run") == whole
    assert said(caplog) == ["FLUSH", "FLUSH_NAMES", "LOCK", "RENAME"]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "x"), OSError(errno.EPERM, "x"), NotImplementedError("x")])
def test_a_mount_without_locks(tmp_path, monkeypatch, caplog, error):
    def unlocked(*arguments, **keywords):
        raise error

    monkeypatch.setattr(FileLock, "acquire", unlocked)
    for name in "ab":
        RunFolder(tmp_path / name, {"seed": 0}).close()
    assert said(caplog) == ["LOCK"]


def test_another_process_that_holds_the_lock_is_no_refusal(tmp_path):
    first = RunFolder(tmp_path / "run", {"seed": 0})
    with pytest.raises(ValueError, match="is being written by another process"):
        RunFolder(tmp_path / "run", None)
    first.close()


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES, errno.EXDEV, errno.ENOTSUP])
def test_files_that_cannot_be_renamed_are_copied(tmp_path, monkeypatch, caplog, number):
    monkeypatch.setattr(os, "replace", refuse(number))
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old and longer")
    mount.move(tmp_path / "a", tmp_path / "b")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b", "new")]
    assert said(caplog) == ["RENAME"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_or_failing_disk_is_an_error(tmp_path, monkeypatch, number):
    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "replace", refuse(number))
    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        mount.move(tmp_path / "a", tmp_path / "b")
    rows = Rows(tmp_path / "b")
    with pytest.raises(OSError, match=os.strerror(number)):
        rows.flush()
    rows.file.close()


def test_old_checkpoints_that_cannot_be_removed_stay(tmp_path, monkeypatch, caplog):
    checkpoints = Checkpoints(tmp_path, keep=1)
    monkeypatch.setattr(Path, "unlink", refuse(errno.EBUSY))
    for step in range(3):
        checkpoints.save({}, step)
    checkpoints.close()
    assert [saved.step for saved in checkpoints.found()] == [2, 1, 0]
    assert said(caplog) == ["REMOVE"]


def test_a_checkpoint_of_the_future_never_stays(tmp_path, monkeypatch):
    """A resume would take it for the newest: set aside by a copy, or an error."""
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(os, "replace", refuse(errno.EACCES))
    for step in (1, 2, 3):
        checkpoints.save({}, step)
    checkpoints.close()
    checkpoints.discard_after(2)
    assert [saved.step for saved in checkpoints.found()] == [2]
    monkeypatch.setattr(Path, "unlink", refuse(errno.EBUSY))
    with pytest.raises(OSError, match="cannot be moved or removed"):
        checkpoints.discard_after(1)


def test_rows_are_cut_where_a_file_cannot_be(tmp_path):
    class Whole:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return refuse(errno.ENOTSUP) if name == "truncate" else getattr(self.file, name)

    rows = Rows(tmp_path / "rows")
    rows.file = Whole(rows.file)
    for row in "abc":
        rows.append(row)
    rows.keep(3)
    rows.keep(2)
    rows.append("d")
    assert rows.lines() == [b"a", b"b", b"d"]
    rows.file.close()


def test_an_export_over_an_open_one(tmp_path, monkeypatch, caplog, finished):
    folder = shutil.copytree(finished("model=resnet20"), tmp_path / "run")
    export_run(folder)
    monkeypatch.setattr(os, "replace", refuse(errno.EBUSY))
    [out] = export_run(folder)
    assert load_network(out) is not None
    assert said(caplog) == ["RENAME"]
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]


def test_a_broken_run_that_cannot_be_renamed_is_copied_aside(tmp_path, monkeypatch):
    """An overlay renames no folder of its lower layer."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("x")
    monkeypatch.setattr(os, "rename", refuse(errno.EXDEV))
    assert set_aside(tmp_path / "run") == tmp_path / "run.broken-1"
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")] == ["run.broken-1/config.yaml"]


def test_a_mount_that_does_not_say_what_is_free(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total free")(0, 0))
    check_disk(tmp_path, 1 << 30, 4)
    monkeypatch.setattr(shutil, "disk_usage", refuse(errno.ENOSYS))
    check_disk(tmp_path, 1 << 30, 4)
    assert caplog.text.count("does not say how much is free") == 1
