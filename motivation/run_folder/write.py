"""Writes the files of a run folder, row by row, so that a killed run's steps are on disk."""

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from motivation.phase import Phase
from motivation.run_folder import mount
from motivation.run_folder.config import read_config
from motivation.run_folder.identity import has_rungs

STEP_COLUMNS = ("step", "epoch", "phase", "loss", "score", "lr", "flops")
# One more, where the config's lever has rungs.
RUNG = "rung"
RUN_FILES = ("config.yaml", "data.json", "steps.csv", "signals.csv", "epochs.jsonl", "summary.json")


class UnusableFolder(ValueError):
    """A run cannot be written to this folder."""


class HoldsRun(UnusableFolder):
    """A new run's folder that holds a run already."""


@dataclass
class History:
    """Columns of steps.csv and signals.csv so far, a value a row."""

    loss: list[float] = field(default_factory=list)
    phase: list[Phase] = field(default_factory=list)
    signal_steps: list[int] = field(default_factory=list)
    signals: list[Sequence[float]] = field(default_factory=list)

    @property
    def motivated(self) -> np.ndarray:
        """Bool ``(steps,)``: which steps trained the motivated network."""
        return np.array(self.phase) == "motivated"

    @property
    def readings(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps ``(n,)`` and what the monitor read in them, ``(n, numbers)``: its signals, or else the losses."""
        if self.signals:
            return np.array(self.signal_steps), np.array(self.signals, dtype=float)
        return np.arange(len(self.loss)), np.array(self.loss)[:, None]


class RunFolder:
    """Writes one training run's folder. Only one process may: a lock file says so while the folder is open.

    Attributes:
        path: the folder.
        history: what its steps.csv and signals.csv hold.
        epochs: rows of its epochs.jsonl.

    Args:
        path: the folder; made, with its parents, where it does not exist.
        config: the resolved config, plain mappings; None opens a run that is there already, to resume it.

    Raises:
        UnusableFolder: the folder already holds a run, or another process writes it, or it cannot be written. Nothing
            is touched.
        ValueError: there is no run to resume.
    """

    def __init__(self, path: Path | str, config: Mapping | None):
        self.path = Path(path)
        self._columns: tuple[str, ...] = STEP_COLUMNS
        if config is not None:
            check_run_folder(self.path)
        elif not (self.path / "config.yaml").is_file():
            raise ValueError(f"{self.path} holds no run: it has no config.yaml")
        self.history, self.epochs = History(), []
        try:
            if config is not None:
                self.path.mkdir(parents=True, exist_ok=True)
            # A forked child, such as a worker that reads images, does not keep the lock when this process is killed.
            self._lock, unlocked = _locked(self.path / ".lock")
            self._steps = Rows(self.path / "steps.csv")
            self._epochs = Rows(self.path / "epochs.jsonl")
            self._signals = Rows(self.path / "signals.csv") if (self.path / "signals.csv").is_file() else None
            if has_rungs(read_config(self.path) if config is None else config):
                self._columns = (*STEP_COLUMNS, RUNG)
            if config is not None:
                self.config(config)
                self.rewind(0, 0, 0)
            if unlocked is not None:
                # A folder that cannot be written at all is an error, and of more than the lock.
                mount.say(mount.LOCK, self.path, unlocked)
        except Timeout:
            raise UnusableFolder(f"run folder {self.path} is being written by another process") from None
        except OSError as error:
            raise UnusableFolder(f"run folder {self.path} cannot be written: {error.strerror}") from error

    @property
    def finished(self) -> bool:
        """Whether the run has its summary."""
        return (self.path / "summary.json").is_file()

    def config(self, config: Mapping) -> None:
        """Write config.yaml."""
        _replace(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write history.jsonl: what resumes changed, and rollbacks; a run without any has none."""
        if rows or (self.path / "history.jsonl").exists():
            _replace(self.path / "history.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))

    def data(self, values: Mapping[str, Any]) -> None:
        """Write data.json: what the networks were fed."""
        _replace(self.path / "data.json", as_json(values, indent=2) + "\n")

    def step(self, step: int, epoch: int, phase: Phase, loss: float, score: float, lr: float, flops: int,
             rung: int | None = None) -> None:
        """Append a row to steps.csv."""
        climbed = "" if rung is None else f",{rung}"
        self._steps.append(f"{step},{epoch},{phase},{loss!r},{score!r},{lr!r},{flops}{climbed}")
        self.history.loss.append(loss)
        self.history.phase.append(phase)

    def signals(self, step: int, names: Sequence[str], reading: Sequence[float]) -> None:
        """Append to signals.csv what a monitor read in a step; the first row makes the file."""
        if self._signals is None:
            self._signals = Rows(self.path / "signals.csv")
        if not self._signals.path.stat().st_size:
            self._signals.append(",".join(("step", *names)))
        self._signals.append(",".join((str(step), *map(repr, reading))))
        self.history.signal_steps.append(step)
        self.history.signals.append(reading)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Append a row to epochs.jsonl."""
        self._epochs.append(as_json(row))
        self.epochs.append(dict(row))

    def valid_rows(self) -> dict[str, tuple[int, str]]:
        """By file, how many rows come before the first that is damaged or cut short, and that in words."""
        commas = len(self._columns) - 1
        found = {"steps.csv": self._steps.good(lambda number, row: _is_step(number, row, commas), header=True),
                 "epochs.jsonl": self._epochs.good(_is_epoch),
                 "signals.csv": (0, "signals.csv is missing")}
        if self._signals is not None:
            columns = b"".join(self._signals.lines()[:1]).count(b",")
            found["signals.csv"] = self._signals.good(lambda _, row: row.count(b",") == columns, header=True)
        return found

    def rewind(self, steps: int, epochs: int, signals: int) -> None:
        """Drop every row after the first so many of each file, and the summary: training continues there."""
        self._steps.keep(steps + 1)
        self._epochs.keep(epochs)
        if self._signals is not None:
            self._signals.keep(signals + 1 if signals else 0)
        if not self._steps.lines():
            self._steps.append(",".join(self._columns))
        (self.path / "summary.json").unlink(missing_ok=True)
        rows = [line.decode().split(",") for line in self._steps.lines()[1:]]
        read = [line.decode().split(",") for line in self._signals.lines()[1:]] if self._signals else []
        self.history = History([float(row[3]) for row in rows], [row[2] for row in rows], [int(row[0]) for row in read],
                               [tuple(map(float, row[1:])) for row in read])
        self.epochs = [json.loads(line) for line in self._epochs.lines()]

    def flush(self) -> None:
        """Bring the growing files to the disk, so that they are never behind a checkpoint."""
        self._steps.flush()
        if self._signals is not None:
            self._signals.flush()
        self._epochs.flush()

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, whole or not at all: its presence says that the run finished."""
        _replace(self.path / "summary.json", as_json(values, indent=2) + "\n")

    def weights_map(self, text: str) -> None:
        """Write weights_map.json: where each base tensor is in the motivated network."""
        _replace(self.path / "weights_map.json", text)

    def predictions(self, **arrays: np.ndarray) -> None:
        """Write predictions.npz: ``labels (N,)`` and probabilities ``base``, ``motivated`` ``(N, classes)``;
        of tokens ``(N, T)`` and ``(N, classes, T)``.
        """
        with _replaced(self.path / "predictions.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def abandon(self) -> None:
        """Remove what the start of a refused run wrote."""
        for name in (*RUN_FILES, ".lock"):
            mount.remove(self.path / name)
        # OSError: a network mount keeps the names of open files.
        with suppress(OSError):
            for folder in (self.path / "checkpoints", self.path):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def close(self) -> None:
        """Close the growing files."""
        self._steps.file.close()
        if self._signals is not None:
            self._signals.file.close()
        self._epochs.file.close()
        # Its next holder makes it again.
        mount.remove(self.path / ".lock")
        self._lock.release()


class Rows:
    """A text file that grows a row a time; every row goes to the operating system at once, so that it survives a kill.

    Args:
        path: the file; made where it does not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file = self._opened()

    def _opened(self) -> FileIO:
        # Unbuffered: no row waits in memory, and none is written again when a full disk made it fail.
        return open(self.path, "a+b", buffering=0)

    def append(self, row: str) -> None:
        """Add a row.

        Raises:
            OSError: the row could not be written whole.
        """
        data = row.encode() + b"\n"
        if self.file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "no space left for a row", str(self.path))

    def lines(self) -> list[bytes]:
        """Every whole line, without its end."""
        return self.path.read_bytes().split(b"\n")[:-1]

    def good(self, is_row: Callable[[int, bytes], bool], header: bool = False) -> tuple[int, str]:
        """How many rows come before the first that is none or is cut short, and that in words.

        Args:
            is_row: whether a line is the row of this number, from 0.
            header: the first line is no row.
        """
        rows = self.lines()[header:]
        for number, row in enumerate(rows):
            if not is_row(number, row):
                return number, f"{self.path.name} is damaged in line {number + header + 1}"
        return len(rows), f"{self.path.name} holds only {len(rows)} whole row{'s' if len(rows) != 1 else ''}"

    def keep(self, lines: int) -> None:
        """Cut the file after its first lines."""
        kept = b"".join(line + b"\n" for line in self.lines()[:lines])
        if len(kept) == self.path.stat().st_size:
            return
        try:
            self.file.truncate(len(kept))
        except OSError as error:
            if error.errno not in mount.REFUSALS:
                raise
            self.file.close()
            with _replaced(self.path) as temporary:
                temporary.write_bytes(kept)
            self.file = self._opened()

    def flush(self) -> None:
        """Wait until the rows are on the disk."""
        mount.flush(self.file.fileno(), self.path)


def _locked(path: Path) -> tuple[FileLock, BaseException | None]:
    """A lock, held; and why it is not, where the file system has none.

    Raises:
        Timeout: another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        return lock, error
    return lock, None


def _is_step(number: int, row: bytes, commas: int) -> bool:
    return row.startswith(b"%d," % number) and row.count(b",") == commas


def _is_epoch(number: int, row: bytes) -> bool:
    try:
        return json.loads(row)["epoch"] == number
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` when it is whole and on the disk; otherwise it is removed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            mount.flush(file.fileno(), temporary)
        mount.move(temporary, path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        mount.remove(temporary)


def _replace(path: Path, text: str) -> None:
    with _replaced(path) as temporary:
        temporary.write_text(text)


def check_run_folder(path: Path) -> None:
    """Raise UnusableFolder where a run folder cannot be made, HoldsRun where it holds a run; changes nothing."""
    parent = path
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise UnusableFolder(f"run folder {path} cannot be made: {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UnusableFolder(f"run folder {path} cannot be made: no permission to write in {parent}")
    # An empty file is what a kill in the very first moment leaves.
    if parent == path and (held := [name for name in RUN_FILES if (path / name).exists() and
                                    (path / name).stat().st_size]):
        raise HoldsRun(f"run folder {path} already holds a run ({held[0]})")


def new_folder(path: Path) -> Path:
    """Make a folder of this name, or with the first suffix _2, _3, ... that is free: jobs that start in the same
    second and name their folders by the time get one each.

    Raises:
        ValueError: it cannot be made.
    """
    names = (path if number == 1 else path.with_name(f"{path.name}_{number}") for number in count(1))
    try:
        for name in names:
            with suppress(FileExistsError):
                name.mkdir(parents=True)
                return name
    except OSError as error:
        raise ValueError(f"folder {path} cannot be made: {error.strerror}") from error
    raise AssertionError


def as_json(values: Mapping[str, Any], indent: int | None = None) -> str:
    """Strict JSON: a NaN or infinity is null."""
    return json.dumps({key: None if isinstance(value, float) and not math.isfinite(value) else value
                       for key, value in values.items()}, indent=indent, allow_nan=False)
