"""Trackers: mirrors of a run folder elsewhere."""

import json
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from motivation.run.mirror import STEP_KEYS
from motivation.validation import Count

logger = logging.getLogger(__name__)
# Characters that W&B takes; a longer tag stops the tracking of the whole run.
TAG_LENGTH = 64
NAME_LENGTH = 128


class Tracker(Protocol):
    """Mirrors a run folder elsewhere.

    Attributes:
        every: steps of a row of steps, see `motivation.run.mirror`; None for rows of epochs only. Valid once started.
    """

    every: int | None

    def start(self, folder: Path, config: Mapping) -> None:
        """Open the mirror for one run."""

    def log(self, number: int, row: Mapping[str, Any]) -> None:
        """Mirror the row of this number, from 0; one that the mirror has already is passed over."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Close the mirror; without a summary the run failed."""


class NoTracker:
    """Mirrors nothing; the run folder is the record."""

    every = None

    def start(self, folder: Path, config: Mapping) -> None:
        """Open nothing."""

    def log(self, number: int, row: Mapping[str, Any]) -> None:
        """Mirror nothing."""

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Close nothing."""


class Expendable:
    """A tracker that may fail: the first error is one logged line, and training continues without it.

    Args:
        tracker: the tracker.
    """

    def __init__(self, tracker: Tracker):
        self.tracker = tracker

    @property
    def every(self) -> int | None:
        """As the tracker's."""
        return self.tracker.every

    def start(self, folder: Path, config: Mapping) -> None:
        """As the tracker's."""
        self._try("start", folder, config)

    def log(self, number: int, row: Mapping[str, Any]) -> None:
        """As the tracker's."""
        self._try("log", number, row)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """As the tracker's."""
        self._try("finish", summary)

    def _try(self, call: str, *arguments) -> None:
        try:
            getattr(self.tracker, call)(*arguments)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            logger.warning("tracking stopped: %s: %s; training continues, the run folder is the record",
                           type(self.tracker).__name__, reason)
            self.tracker = NoTracker()


@dataclass
class Wandb:
    """Mirrors steps, epochs and summary in W&B, one W&B run a training run.

    Args:
        project: W&B project.
        entity: W&B team or user; null for the login's default.
        group: groups runs; null for the sweep folder's name under ``-m``, elsewhere the model's name.
        job_type: the method; null for ``MONITOR-SCHEDULE``, or ``classical``.
        name: of the run; null for the run folder's name.
        tags: further tags beside model, data, monitor and schedule.
        mode: ``auto`` is online where there is a login and offline elsewhere; ``WANDB_MODE`` wins over it.
        every: steps of a row of steps; null for rows of epochs only.

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
    every: Count | None = 50

    def __post_init__(self):
        if not self.project:
            raise ValueError("project='': name a W&B project, or switch tracking off with tracker=none")
        self._run = None
        # Rows that the W&B run has: one row is one W&B step.
        self._held = 0

    def start(self, folder: Path, config: Mapping) -> None:
        """Open the W&B run; its files go to the run folder.

        A resumed run keeps its id: offline one new file takes all rows, online the server has the first ones already.
        """
        import wandb

        labels = {part: _label(config[part]) for part in ("model", "data", "monitor", "schedule") if config.get(part)}
        if "schedule" not in labels or config["model"]["name"] == "classical":
            method = "classical"
        else:
            method = f"{labels['monitor']}-{labels['schedule']}"
        mode = os.environ.get("WANDB_MODE") or self.mode
        if mode == "auto":
            mode = "online" if logged_in() else "offline"
        # A run that is still open would be returned again by init: close it first.
        wandb.finish()
        online = mode == "online"
        self._run = wandb.init(
            project=self.project, entity=self.entity,
            group=_cut(self.group or _sweep_name(folder) or labels["model"], NAME_LENGTH),
            job_type=_cut(self.job_type or method, TAG_LENGTH), name=_cut(self.name or folder.name, NAME_LENGTH),
            tags=sorted({_cut(tag, TAG_LENGTH) for tag in (*labels.values(), *self.tags) if tag}),
            config=dict(config), dir=folder, mode=mode,
            id=_remembered_id(folder), resume="allow" if online else None,
            settings=wandb.Settings(console="off", silent=True))
        if mode != "disabled":
            # `wandb agent` chooses the id itself; a resumed run needs the one that was used.
            _id_file(folder).write_text(self._run.id)
        self._held = self._run.step if online else 0
        if mode != "disabled":
            self._keep_every(folder / "wandb" / "every")
        for axis in ("epoch", "trainer/step", "budget/flops"):
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="epoch")
        # Each by its name: which of two globs wins is not defined.
        for key in set(STEP_KEYS) - {"trainer/step", "budget/flops"}:
            self._run.define_metric(key, step_metric="trainer/step")
        for network in ("base", "motivated"):
            for split in ("top1", "val_top1"):
                self._run.define_metric(f"{network}/{split}", step_metric="budget/flops", summary="last")

    def log(self, number: int, row: Mapping[str, Any]) -> None:
        """Log a row, unless the W&B run has it already."""
        if number >= self._held:
            self._run.log(dict(row))
            self._held = number + 1

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Write the summary and close the W&B run, also after an error."""
        if self._run is None:
            return
        if summary is not None:
            self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary is not None else 1)
        self._run = None

    def _keep_every(self, path: Path) -> None:
        """Rows go on as they began: with another ``every`` their numbers would mean other rows than the server has."""
        if not self._held:
            path.write_text(json.dumps(self.every))
            return
        # A W&B run of an earlier version has rows of epochs only.
        kept = json.loads(path.read_text() or "null") if path.is_file() else None
        if kept != self.every:
            logger.warning("tracker.every=%s: stays %s, with which the history of this W&B run began",
                           json.dumps(self.every), json.dumps(kept))
            self.every = kept


def logged_in() -> bool:
    """Whether W&B knows a login here; asks nobody."""
    import wandb

    return bool(wandb.login(prompt=False))


def _sweep_name(folder: Path) -> str | None:
    """Name of the sweep that a run folder is a job of; None outside a sweep."""
    sweep = next((parent for parent in folder.resolve().parents if (parent / "multirun.yaml").is_file()), None)
    return sweep.name if sweep else None


def _cut(text: str, length: int) -> str:
    """A text within W&B's limit; its end shows where it was cut."""
    return text if len(text) <= length else f"{text[:length - 3]}..."


def _id_file(folder: Path) -> Path:
    return folder / "wandb" / "id"


def _remembered_id(folder: Path) -> str:
    """The W&B id of a run, made at its first start and kept in its folder."""
    path = _id_file(folder)
    path.parent.mkdir(exist_ok=True)
    # An empty file is what a kill in between leaves.
    if not (path.is_file() and path.read_text()):
        path.write_text(secrets.token_hex(8))
    return path.read_text()


def _label(part: Mapping) -> str:
    """A short name of a config group's choice."""
    if part["name"] == "pair":
        return f"{part['base']}-{part['motivated']}"
    return part["network"] if part["name"] == "classical" else part["name"]


BY_NAME = {"none": NoTracker, "wandb": Wandb}
