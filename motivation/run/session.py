"""A session: everything that one run trains with, and how far it has come."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from motivation.data import Ahead, Dataset, EpochLoader
from motivation.levers import Lever
from motivation.randomness import random_state, restore_random_state
from motivation.run.resume import check_changes
from motivation.run.trackers import Tracker
from motivation.run_folder.checkpoints import size_of
from motivation.run_folder.identity import with_changes
from motivation.training.distributed import all_gather, processes, rank
from motivation.training.probes import runs_ahead
from motivation.training.recipe import Recipe
from motivation.training.trainer import StepResult, Trainer
from motivation.validation import Count, check_arguments


@check_arguments
@dataclass(frozen=True)
class Checkpointing:
    """When a run saves its state; it does so after every signal too.

    Args:
        every_steps: steps between checkpoints; null for none inside an epoch. One that falls due while the last is
            still being written is left out, so that training never waits for the disk.
        every_epochs: epochs between checkpoints; null for none but the last.
        keep: how many of the newest stay, beside the one of the best validation accuracy of the base network.

    Raises:
        ValueError: a number below 1.
    """

    every_steps: Count | None = None
    every_epochs: Count | None = 1
    keep: Count = 2


@dataclass
class Position:
    """How far a run has come; the trainer counts the steps.

    Attributes:
        epoch: the current epoch.
        closed: all steps of this epoch and its edge are done, its evaluation is not.
        loss_sum: sum of the batch losses of this epoch so far.
        signals: rows of signals.csv so far.
        rollbacks: how often it went back to a checkpoint after a NaN.
        failed: the step of the last NaN.
        lr_scale: factor on the learning rate since then.
    """

    epoch: int = 0
    closed: bool = False
    loss_sum: float = 0.0
    signals: int = 0
    rollbacks: int = 0
    failed: int = -1
    lr_scale: float = 1.0


@dataclass
class Session:
    """Everything one run trains with, checked and built; nothing is on disk yet.

    Attributes:
        config: the resolved config.
        dataset: all its splits.
        loader: training batches.
        trainer: the dual-model loop.
        learning_rates: schedulers, one an optimizer.
        total_steps: of the whole run.
        forward_flops: of one image, by network.
        recipe: how it is trained.
        checkpointing: when its state is saved.
        tracker: the mirror that the config chose.
        lever: what else the budget is given to; None for capacity alone.
        position: how far training has come.
        pending: trained steps that are not in steps.csv yet; with a lag their losses are still on the way.
        recalibration_batches: for ``batch_norm: recalibrate``.
        history: rows of history.jsonl: what resumes changed of what sets the result, and rollbacks.
        synchronized: whether both networks held one set of mapped weights when last evaluated.
        hardware: that steps were trained on, one description each, see `motivation.run.hardware.describe`.
    """

    config: dict[str, Any]
    dataset: Dataset
    loader: EpochLoader
    trainer: Trainer
    learning_rates: list
    total_steps: int
    forward_flops: dict[str, int]
    recipe: Recipe
    checkpointing: Checkpointing
    tracker: Tracker
    lever: Lever | None = None
    position: Position = field(default_factory=Position)
    pending: deque[tuple[int, StepResult]] = field(default_factory=deque)
    recalibration_batches: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    synchronized: bool | None = None
    hardware: list[str] = field(default_factory=list)
    _meanwhile: Callable[[], None] | None = None

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, the last of which may be partial."""
        return math.ceil(self.total_steps / len(self.loader))

    @property
    def evaluation_due(self) -> bool:
        """Whether the current epoch is evaluated."""
        return (self.position.epoch + 1) % self.config["evaluate_every"] == 0 or self.position.epoch == self.epochs - 1

    @property
    def checkpoint_due(self) -> bool:
        """Whether the end of the current epoch is saved."""
        every = self.checkpointing.every_epochs
        return bool(every and (self.position.epoch + 1) % every == 0) or self.position.epoch == self.epochs - 1

    def remaining_epochs(self) -> Iterator[int]:
        """The current epoch, until the last one is evaluated; a rollback may repeat some."""
        while self.position.epoch < self.epochs:
            yield self.position.epoch

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and targets of the current epoch's remaining steps."""
        first = self.position.epoch * len(self.loader)
        batches = Ahead(self.loader.epoch(self.position.epoch, start=self.trainer.steps - first))
        if runs_ahead(self.loader.device):
            self._meanwhile = batches.prepare
        for _ in range(self.trainer.steps, min(first + len(self.loader), self.total_steps)):
            yield next(batches)

    def step(self, images: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Train one step with the learning rates that are due; its result joins ``pending``.

        Args:
            images: a batch.
            targets: its labels, or shares of them.
            weights: what its units weigh, see `Trainer.step`.
        """
        step = self.trainer.steps
        for scheduler in self.learning_rates:
            scheduler.step_update(step)
        if self.position.lr_scale != 1:
            for optimizer in self.trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] *= self.position.lr_scale
        if self.lever is not None:
            images, targets, weights = self.lever.batch(self.trainer, images, targets, weights)
        result = self.trainer.step(images, targets, weights, meanwhile=self._meanwhile)
        if self.lever is not None and self.lever.rung is not None:
            result = replace(result, rung=self.lever.rung)
        self.pending.append((step, result))

    def next_epoch(self) -> None:
        """Move on to the next epoch, once the current one is evaluated."""
        self.position = replace(self.position, epoch=self.position.epoch + 1, closed=False, loss_sum=0.0)

    def reopen_epoch(self) -> bool:
        """Continue the last epoch where training ended inside it and is longer now; returns whether it did."""
        whole = (self.position.epoch + self.position.closed) * len(self.loader)
        if not self.trainer.steps < min(whole, self.total_steps):
            return False
        self.position = replace(self.position, epoch=self.trainer.steps // len(self.loader), closed=False, loss_sum=0.0)
        return True

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint, with room for two optimizer states a weight."""
        return 3 * size_of(self.trainer.model.state_dict())

    @property
    def input_spec(self) -> dict[str, Any]:
        """What the networks are fed, for data.json: classes and their names, ``(C, H, W)`` in training and in
        evaluation, the share of a side that evaluation sees and how it is resized, mean and standard deviation by
        channel of images from 0 to 1 (as timm states them), and the fingerprint of the data. Of tokens the vocabulary,
        ``(T,)`` and the fingerprint.
        """
        normalization, augmentation = self.loader.normalization, self.loader.augmentation
        if normalization is None:
            shape = list(self.dataset.image_shape)
            return {"num_classes": self.dataset.num_classes, "classes": list(self.dataset.classes),
                    "image_shape": shape, "test_image_shape": shape, "fingerprint": self.dataset.fingerprint}
        return {"num_classes": self.dataset.num_classes,
                "classes": None if self.dataset.classes is None else list(self.dataset.classes),
                "image_shape": list(self.loader.image_shape),
                "test_image_shape": list(augmentation.test_shape(self.dataset.image_shape)),
                "test_crop": augmentation.test_crop, "interpolation": self.loader.interpolation,
                "mean": [value / 255 for value in normalization.mean],
                "std": [value / 255 for value in normalization.std], "fingerprint": self.dataset.fingerprint}

    def set_micro_batches(self, count: int) -> None:
        """Run a batch in at least so many micro-batches, where the config leaves their number open (``auto``)."""
        engine = self.trainer.engine
        if engine.accumulation == "auto" or self.config["engine"].get("accumulation") == "auto":
            self.trainer.engine = replace(engine, accumulation=max(count, engine.micro_batches))

    def set_evaluation_batch(self, images: int) -> None:
        """Predict at most so many images at once."""
        engine = self.trainer.engine
        if images < engine.evaluation_batch:
            self.trainer.engine = replace(engine, evaluation_batch=images)

    @property
    def test_batch(self) -> tuple[int, ...]:
        """Shape ``(N, C, H, W)`` of the largest batch that evaluation predicts at once."""
        images = max(len(split) for split in (self.dataset.test, self.dataset.validation) if split is not None)
        return (min(images, self.trainer.engine.evaluation_batch),
                *self.loader.augmentation.test_shape(self.dataset.image_shape))

    def state_dict(self) -> dict[str, Any]:
        """All state of the run; learning rates and data order are derived from the position."""
        return {"config": self.config, "data": self.dataset.fingerprint, "position": asdict(self.position),
                "trainer": self.trainer.state_dict(), "accumulation": self.trainer.engine.micro_batches,
                "history": self.history, "hardware": self.hardware,
                **({} if self.lever is None else {"lever": self.lever.state_dict()}),
                "random": all_gather(random_state())}

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Restore a state saved by `state_dict`.

        Args:
            state: read from a checkpoint.
            source: its file, for error messages.

        Raises:
            ValueError: the checkpoint is of another run or other data.
        """
        try:
            if state["data"] != self.dataset.fingerprint:
                raise ValueError("the data set has changed since: other images, labels or splits")
            check_changes(state["config"], self.config)
            if (count := len(state["random"])) != processes():
                raise ValueError(f"processes: {count} -> {processes()}, each with its own random numbers; resume it "
                                 f"{f'with torchrun and {count} processes' if count > 1 else 'without torchrun'}")
            self.trainer.load_state_dict(state["trainer"])
            self.set_micro_batches(state["accumulation"])
            self.position = Position(**state["position"])
            if self.lever is not None:
                self.lever.load_state_dict(state["lever"])
            self.history = with_changes(state.get("history", []), self.trainer.steps, state["config"], self.config)
            # A checkpoint of an earlier version has none.
            self.hardware = list(dict.fromkeys([*state.get("hardware", ()), *self.hardware]))
            restore_random_state(state["random"][rank()])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{source} is no checkpoint of this run: {' '.join(str(error).split())[:200]}") from error
        except ValueError as error:
            raise ValueError(f"{source} cannot be resumed: {error}") from error
