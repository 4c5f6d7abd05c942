"""Data sets that processes share: read once, the same arrays and fingerprint, and never in the way of training."""

import errno
import logging
import threading

import numpy as np
import pytest
import torch
from conftest import write_folder

import motivation.data.shared
from motivation.data import Arrays, Digits, Files, ImageFolder
from motivation.data.shared import load, shared_in


@pytest.fixture
def reads(monkeypatch):
    """Counts how often digits are read; nothing is mapped yet."""
    monkeypatch.setattr(motivation.data.shared, "_mapped", {})
    counted, read = [], Digits.load
    monkeypatch.setattr(Digits, "load", lambda self: counted.append(self) or read(self))
    return counted


def test_a_data_set_is_read_once_and_mapped(tmp_path, reads):
    alone = Digits(heldout=0.1).load()
    reads.clear()
    with shared_in(tmp_path):
        first = load(Digits(heldout=0.1))
        assert load(Digits(heldout=0.1)) is first
        motivation.data.shared._mapped.clear()
        again = load(Digits(heldout=0.1))
        assert reads == [Digits(heldout=0.1)]
        # Other splits are another data set.
        assert load(Digits()).heldout is None
    assert len(reads) == 2
    assert first.fingerprint == again.fingerprint == alone.fingerprint
    assert (again.num_classes, again.classes) == (10, tuple("0123456789"))
    for name in ("train", "test", "validation", "heldout"):
        for one, other in zip(getattr(again, name).fingerprinted, getattr(alone, name).fingerprinted, strict=True):
            assert np.array_equal(one, other)
            assert one.dtype == other.dtype
    assert isinstance(again.train.images.base, np.memmap)
    # torch warns of arrays that it may not write to, and a warning is an error here.
    torch.from_numpy(again.train.images)
    assert load(Digits()).train.images.base is None


def test_a_change_stays_in_its_process(tmp_path, reads):
    with shared_in(tmp_path):
        load(Digits()).train.images[:] = 0
        motivation.data.shared._mapped.clear()
        assert load(Digits()).train.images.any()


def test_whoever_asks_meanwhile_waits_and_maps(tmp_path, reads):
    """Threads stand for processes here: each opens the lock by itself."""
    read = Digits.load
    asking = [threading.Thread(target=lambda: load(Digits())) for _ in range(2)]

    def slow(self):
        for thread in asking:
            thread.start()
        return read(self)

    with shared_in(tmp_path), pytest.MonkeyPatch.context() as patched:
        patched.setattr(Digits, "load", slow)
        data = load(Digits())
        for thread in asking:
            thread.join()
    assert len(reads) == 1
    assert data.train.images.any()


def test_an_error_is_each_readers_own(tmp_path):
    path = tmp_path / "images.npz"
    path.write_bytes(b"no archive")
    with shared_in(tmp_path):
        for _ in range(2):
            with pytest.raises(ValueError, match=r"no \.npz"):
                load(Arrays(str(path)))


def test_a_full_disk_shares_nothing(tmp_path, reads, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with shared_in(tmp_path), caplog.at_level(logging.WARNING, "motivation"):
        assert load(Digits()).train.images.base is None
    assert "No space left" in caplog.text
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    # And a folder of another machine is none.
    with shared_in(tmp_path / "elsewhere"):
        assert load(Digits()).num_classes == 10


def test_images_in_files_stay_there(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    with shared_in(folder):
        assert isinstance(load(ImageFolder(root=str(write_folder(tmp_path / "images")))).train, Files)
    assert not [path for path in folder.iterdir() if path.is_dir()]
