"""What a run leaves behind: the run folder, our own record, and its mirror in W&B."""

import errno
import fcntl
import json
import math
import os
import secrets
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
import yaml

from motivation.stderr import say

STEP_COLUMNS = ("step", "epoch", "phase", "loss", "score", "lr", "flops")
RUN_FILES = ("config.yaml", "data.json", "steps.csv", "signals.csv", "epochs.jsonl", "summary.json")


class RunFolder:
    """Writes one training run's folder, as training goes: what a killed run did is on disk.

    One process at a time: the open steps.csv is locked.

    Args:
        path: the folder; made, with its parents, where it does not exist.
        config: the resolved config, plain mappings; None opens a run that is there already, to go on with it.

    Raises:
        ValueError: the folder already holds a run, or none to go on with, or another process writes it, or it cannot
            be written. Nothing is touched.
    """

    def __init__(self, path: Path | str, config: Mapping | None):
        self.path = Path(path)
        if config is not None:
            check_run_folder(self.path)
        elif not (self.path / "config.yaml").is_file():
            raise ValueError(f"{self.path} holds no run to go on with: it has no config.yaml")
        try:
            if config is not None:
                self.path.mkdir(parents=True, exist_ok=True)
            self._steps = Rows(self.path / "steps.csv")
            self._epochs = Rows(self.path / "epochs.jsonl")
            self._signals = Rows(self.path / "signals.csv") if (self.path / "signals.csv").is_file() else None
            try:
                _lock(self._steps.file, self.path)
            except ValueError:
                self.close()
                raise
            if config is not None:
                self.config(config)
                self.rewind(0, 0, 0)
        except OSError as error:
            raise ValueError(f"run folder {self.path} cannot be written: {error.strerror}; "
                             "choose another with hydra.run.dir=PATH") from error

    @property
    def finished(self) -> bool:
        """Whether the run has its summary."""
        return (self.path / "summary.json").is_file()

    def config(self, config: Mapping) -> None:
        """Write config.yaml."""
        _replace(self.path / "config.yaml", yaml.dump(dict(config), Dumper=_Plain, sort_keys=False))

    def data(self, values: Mapping[str, Any]) -> None:
        """Write data.json: what the networks were fed."""
        _replace(self.path / "data.json", as_json(values, indent=2) + "\n")

    def step(self, step: int, epoch: int, phase: str, loss: float, score: float, lr: float, flops: int) -> None:
        """Append a row to steps.csv."""
        self._steps.append(f"{step},{epoch},{phase},{loss!r},{score!r},{lr!r},{flops}")

    def signals(self, step: int, names: Sequence[str], reading: Sequence[float]) -> None:
        """Append to signals.csv what a monitor read in a step; the first row makes the file."""
        if self._signals is None:
            self._signals = Rows(self.path / "signals.csv")
        if not self._signals.path.stat().st_size:
            self._signals.append(",".join(("step", *names)))
        self._signals.append(",".join((str(step), *map(repr, reading))))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Append a row to epochs.jsonl."""
        self._epochs.append(as_json(row))

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of epochs.jsonl; a line that a kill or a full disk cut short is left out."""
        return [json.loads(line) for line in self._epochs.lines()]

    def recorded(self) -> dict[str, tuple[int, str]]:
        """By file, how many rows stand before the first that is damaged or cut short, and that in words."""
        found = {"steps.csv": self._steps.good(_is_step, header=True), "epochs.jsonl": self._epochs.good(_is_epoch),
                 "signals.csv": (0, "signals.csv is missing")}
        if self._signals is not None:
            columns = b"".join(self._signals.lines()[:1]).count(b",")
            found["signals.csv"] = self._signals.good(lambda _, row: row.count(b",") == columns, header=True)
        return found

    def rewind(self, steps: int, epochs: int, signals: int) -> None:
        """Drop every row after the first so many of each file, and the summary: training goes on from there."""
        self._steps.keep(steps + 1)
        self._epochs.keep(epochs)
        if self._signals is not None:
            self._signals.keep(signals + 1 if signals else 0)
        if not self._steps.lines():
            self._steps.append(",".join(STEP_COLUMNS))
        (self.path / "summary.json").unlink(missing_ok=True)

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
        """Write weights_map.json: where each base tensor lies in the motivated network."""
        _replace(self.path / "weights_map.json", text)

    def predictions(self, **arrays: np.ndarray) -> None:
        """Write predictions.npz: ``labels (N,)`` and probabilities ``base``, ``motivated`` ``(N, classes)``."""
        with _replaced(self.path / "predictions.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def abandon(self) -> None:
        """Remove what the start of a refused run wrote."""
        for name in RUN_FILES:
            (self.path / name).unlink(missing_ok=True)
        for folder in (self.path / "checkpoints", self.path):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def close(self) -> None:
        """Close the growing files."""
        self._steps.file.close()
        if self._signals is not None:
            self._signals.file.close()
        self._epochs.file.close()


class Rows:
    """A text file that grows a row a time; every row is the operating system's at once, so that it survives a kill.

    Args:
        path: the file; made where it does not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        # Unbuffered: no row waits in memory, and none is written again when a full disk made it fail.
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - open as long as the run

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
        """How many rows stand before the first that is none or is cut short, and that in words.

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
        self.file.truncate(sum(len(line) + 1 for line in self.lines()[:lines]))

    def flush(self) -> None:
        """Wait until the rows are on the disk."""
        os.fsync(self.file.fileno())


class _Plain(yaml.SafeDumper):
    """YAML that writes a value out wherever it stands: what has aliases is not read again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _is_step(number: int, row: bytes) -> bool:
    return row.startswith(b"%d," % number) and row.count(b",") == len(STEP_COLUMNS) - 1


def _is_epoch(number: int, row: bytes) -> bool:
    try:
        return json.loads(row)["epoch"] == number
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


# Files whose locks this process holds.
_held: weakref.WeakSet[IO] = weakref.WeakSet()


def _let_go() -> None:
    """A forked process, such as a worker that reads images, may outlive a kill of this one: not with its locks."""
    for file in _held:
        file.close()


os.register_at_fork(after_in_child=_let_go)


def _lock(file: IO, path: Path) -> None:
    """Hold a run folder until its file is closed, also by a kill."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"run folder {path} is being written by another process; wait for it, or choose another "
                         "with hydra.run.dir=PATH") from None
    _held.add(file)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` when it is whole and on the disk; otherwise it is removed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _replace(path: Path, text: str) -> None:
    with _replaced(path) as temporary:
        temporary.write_text(text)


def check_run_folder(path: Path) -> None:
    """Raise ValueError where a run folder cannot be made, or holds a run already; changes nothing."""
    parent = path
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise ValueError(f"run folder {path} cannot be made: {parent} is a file; "
                         "choose another with hydra.run.dir=PATH")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"run folder {path} cannot be made: no permission to write in {parent}; "
                         "choose another with hydra.run.dir=PATH")
    # An empty file is what a kill in the very first moment leaves.
    if parent == path and (held := [name for name in RUN_FILES if (path / name).exists() and
                                    (path / name).stat().st_size]):
        raise ValueError(f"run folder {path} already holds a run ({held[0]}); choose another with hydra.run.dir=PATH, "
                         f"or go on with it: motivation train resume={path}")


def as_json(values: Mapping[str, Any], indent: int | None = None) -> str:
    """Strict JSON: a NaN or infinity is null."""
    return json.dumps({key: None if isinstance(value, float) and not math.isfinite(value) else value
                       for key, value in values.items()}, indent=indent, allow_nan=False)


class Tracker(Protocol):
    """Mirrors a run folder elsewhere."""

    def start(self, folder: Path, config: Mapping, history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Open the mirror for one run; a resumed run has a history of epochs."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Mirror a row of epochs.jsonl."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Close the mirror; without a summary the run failed."""


class NoTracker:
    """Mirrors nothing; the run folder is the record."""

    def start(self, folder: Path, config: Mapping, history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Nothing."""


class Expendable:
    """A tracker that may fail: the first error is one line on stderr, and training goes on without it.

    Args:
        tracker: the tracker.
    """

    def __init__(self, tracker: Tracker):
        self.tracker = tracker

    def start(self, folder: Path, config: Mapping, history: Sequence[Mapping[str, Any]] = ()) -> None:
        """As the tracker's."""
        self._try("start", folder, config, history)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """As the tracker's."""
        self._try("epoch", row)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """As the tracker's."""
        self._try("finish", summary)

    def _try(self, call: str, *arguments) -> None:
        try:
            getattr(self.tracker, call)(*arguments)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            say(f"motivation: tracking stopped: {type(self.tracker).__name__}: {reason}; training goes on, the run "
                "folder is the record")
            self.tracker = NoTracker()


@dataclass
class Wandb:
    """Mirrors epochs and summary in W&B, one W&B run a training run.

    Args:
        project: W&B project.
        entity: W&B team or user; null for the login's default.
        group: groups runs; null for the sweep folder's name under ``-m``, elsewhere the model's name.
        job_type: the method; null for ``MONITOR-SCHEDULE``, or ``classical``.
        name: of the run; null for the run folder's name.
        tags: further tags beside model, data, monitor and schedule.
        mode: ``auto`` is online where there is a login and offline elsewhere; ``WANDB_MODE`` wins over it.

    Raises:
        ValueError: an empty project.
    """

    project: str = "motivation"
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["auto", "online", "offline"] = "auto"

    def __post_init__(self):
        if not self.project:
            raise ValueError("project='': name a W&B project, or switch tracking off with tracker=none")
        self._run = None

    def start(self, folder: Path, config: Mapping, history: Sequence[Mapping[str, Any]] = ()) -> None:
        """Open the W&B run; its files lie in the run folder.

        A resumed run keeps its id and is filled from its history: offline one new file holds all of it, online only
        what the server does not have yet.
        """
        import wandb

        labels = {part: _label(config[part]) for part in ("model", "data", "monitor", "schedule") if config.get(part)}
        if "schedule" not in labels or config["model"]["name"] == "classical":
            method = "classical"
        else:
            method = f"{labels['monitor']}-{labels['schedule']}"
        mode = os.environ.get("WANDB_MODE") or self.mode
        if mode == "auto":
            mode = "online" if wandb.login(prompt=False) else "offline"
        # A run that is still open would be returned again by init: close it first.
        wandb.finish()
        online = mode == "online"
        self._run = wandb.init(
            project=self.project, entity=self.entity, group=self.group or _sweep_name(folder) or labels["model"],
            job_type=self.job_type or method, name=self.name or folder.name,
            tags=sorted({*labels.values(), *self.tags}), config=dict(config), dir=folder, mode=mode,
            id=_remembered_id(folder), resume="allow" if online else None,
            settings=wandb.Settings(console="off", silent=True))
        self._run.define_metric("epoch")
        self._run.define_metric("budget/flops")
        self._run.define_metric("*", step_metric="epoch")
        for network in ("base", "motivated"):
            for split in ("top1", "val_top1"):
                self._run.define_metric(f"{network}/{split}", step_metric="budget/flops", summary="last")
        # One row is one W&B step: the server has the first `step` of them.
        for row in history[self._run.step if online else 0:]:
            self.epoch(row)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Log a row of epochs.jsonl."""
        self._run.log(dict(row))

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Write the summary and close the W&B run, also after an error."""
        if self._run is None:
            return
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary is not None else 1)
        self._run = None


def _sweep_name(folder: Path) -> str | None:
    """Name of the sweep that a run folder is a job of; None for a run of its own."""
    sweep = next((parent for parent in folder.resolve().parents if (parent / "multirun.yaml").is_file()), None)
    return sweep.name if sweep else None


def _remembered_id(folder: Path) -> str:
    """The W&B id of a run, made at its first start and kept in its folder."""
    path = folder / "wandb" / "id"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        _replace(path, secrets.token_hex(8))
    return path.read_text()


def _label(part: Mapping) -> str:
    """A short name of a config group's choice."""
    if part["name"] == "pair":
        return f"{part['base']}-{part['motivated']}"
    return part["network"] if part["name"] == "classical" else part["name"]


BY_NAME = {"none": NoTracker, "wandb": Wandb}
