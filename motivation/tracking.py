"""What a run leaves behind: the run folder, our own record, and its mirror in W&B."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import yaml

STEP_COLUMNS = ("step", "epoch", "phase", "loss", "score", "lr", "flops")
RUN_FILES = ("config.yaml", "steps.csv", "epochs.jsonl", "summary.json")


class RunFolder:
    """Writes one training run's folder, as training goes: what a killed run did is on disk.

    Args:
        path: the folder; made, with its parents, where it does not exist.
        config: the resolved config, plain mappings.

    Raises:
        ValueError: the folder already holds a run (nothing is touched), or cannot be written.
    """

    def __init__(self, path: Path | str, config: Mapping):
        self.path = Path(path)
        check_run_folder(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            # Line buffering: a row is the operating system's as soon as it is written, and survives a kill.
            self._steps = open(self.path / "steps.csv", "w", buffering=1)  # noqa: SIM115 - open as long as the run
            self._epochs = open(self.path / "epochs.jsonl", "w", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"run folder {self.path} cannot be written: {error.strerror}; "
                             "choose another with hydra.run.dir=PATH") from error
        self._steps.write(",".join(STEP_COLUMNS) + "\n")

    def step(self, step: int, epoch: int, phase: str, loss: float, score: float, lr: float, flops: int) -> None:
        """Append a row to steps.csv."""
        self._steps.write(f"{step},{epoch},{phase},{loss!r},{score!r},{lr!r},{flops}\n")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Append a row to epochs.jsonl."""
        self._epochs.write(as_json(row) + "\n")

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, whole or not at all: its presence says that the run finished."""
        temporary = self.path / "summary.json.tmp"
        temporary.write_text(as_json(values, indent=2) + "\n")
        os.replace(temporary, self.path / "summary.json")

    def predictions(self, **arrays: np.ndarray) -> None:
        """Write predictions.npz: ``labels (N,)`` and probabilities ``base``, ``motivated`` ``(N, classes)``."""
        np.savez_compressed(self.path / "predictions.npz", **arrays)

    def close(self) -> None:
        """Close the growing files."""
        self._steps.close()
        self._epochs.close()


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
    if parent == path and (held := [name for name in RUN_FILES if (path / name).exists()]):
        raise ValueError(f"run folder {path} already holds a run ({held[0]}); choose another with hydra.run.dir=PATH")


def as_json(values: Mapping[str, Any], indent: int | None = None) -> str:
    """Strict JSON: a NaN or infinity is null."""
    return json.dumps({key: None if isinstance(value, float) and not math.isfinite(value) else value
                       for key, value in values.items()}, indent=indent, allow_nan=False)


class Tracker(Protocol):
    """Mirrors a run folder elsewhere."""

    def start(self, folder: Path, config: Mapping) -> None:
        """Open the mirror for one run."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Mirror a row of epochs.jsonl."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Close the mirror; without a summary the run failed."""


class NoTracker:
    """Mirrors nothing; the run folder is the record."""

    def start(self, folder: Path, config: Mapping) -> None:
        """Nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Nothing."""


@dataclass
class Wandb:
    """Mirrors epochs and summary in W&B, one W&B run a training run.

    Args:
        project: W&B project.
        entity: W&B team or user; null for the login's default.
        group: groups runs; null for the model's name.
        job_type: the method; null for the schedule's name, or ``classical``.
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

    def start(self, folder: Path, config: Mapping) -> None:
        """Open the W&B run; its files lie in the run folder."""
        import wandb

        labels = {part: _label(config[part]) for part in ("model", "data", "monitor", "schedule") if config.get(part)}
        if "schedule" not in labels or config["model"]["name"] == "classical":
            method = "classical"
        else:
            method = labels["schedule"]
        mode = os.environ.get("WANDB_MODE") or self.mode
        if mode == "auto":
            mode = "online" if wandb.login(prompt=False) else "offline"
        # A run that is still open would be returned again by init: close it first.
        wandb.finish()
        self._run = wandb.init(
            project=self.project, entity=self.entity, group=self.group or labels["model"],
            job_type=self.job_type or method, name=self.name or folder.name,
            tags=sorted({*labels.values(), *self.tags}), config=dict(config), dir=folder, mode=mode,
            settings=wandb.Settings(console="off", silent=True))
        self._run.define_metric("epoch")
        self._run.define_metric("budget/flops")
        self._run.define_metric("*", step_metric="epoch")
        for network in ("base", "motivated"):
            for split in ("top1", "val_top1"):
                self._run.define_metric(f"{network}/{split}", step_metric="budget/flops", summary="last")

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


def _label(part: Mapping) -> str:
    """A short name of a config group's choice."""
    if part["name"] == "pair":
        return f"{part['base']}-{part['motivated']}"
    return part["network"] if part["name"] == "classical" else part["name"]


BY_NAME = {"none": NoTracker, "wandb": Wandb}
