"""One run: a config, as plain mappings, -> a run folder."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import motivation.data
import motivation.models.choice
import motivation.monitors
import motivation.schedules
import motivation.tracking
from motivation.checkpoint import save_checkpoint
from motivation.config import build, check, check_keys, convert, refuse_targets
from motivation.data import Dataset, Loader, Normalization, Split, evaluation_batches
from motivation.engine import Engine
from motivation.ledger import forward_flops
from motivation.models.choice import ClassicalModel, PairModel
from motivation.progress import PlainProgress, open_progress
from motivation.recipes import Recipe
from motivation.tracking import RunFolder, Tracker, check_run_folder
from motivation.trainer import StepResult, Trainer

GROUPS = ("model", "data", "recipe", "monitor", "schedule", "engine", "tracker")
# What the run knows and no config says; a monitor or schedule that has such an argument is given it.
FACTS = ("seed", "total_steps", "steps_per_epoch", "base_flops", "motivated_flops")


@dataclass
class Session:
    """Everything one run trains with, built and checked; nothing is on disk yet.

    Attributes:
        config: the resolved config.
        dataset: all its splits.
        loader: training batches.
        trainer: the dual loop.
        learning_rates: schedulers, one an optimizer.
        total_steps: of the whole run.
        forward_flops: of one image, by network.
        null_rate: share of motivated steps on noise; NaN where undefined.
    """

    config: dict[str, Any]
    dataset: Dataset
    loader: Loader
    trainer: Trainer
    learning_rates: list
    total_steps: int
    forward_flops: dict[str, int]
    null_rate: float

    def steps(self, epoch: int) -> Iterator[StepResult]:
        """Train one epoch, or what is left of the run, a step a time."""
        first = epoch * len(self.loader)
        batches = self.loader.epoch(epoch)
        for step in range(first, min(first + len(self.loader), self.total_steps)):
            for scheduler in self.learning_rates:
                scheduler.step_update(step)
            yield self.trainer.step(*next(batches))

    def evaluate(self, split: Split | None) -> dict[str, np.ndarray | None]:
        """Class probabilities ``(N, classes)`` of both networks; None without images, or without a second network."""
        if split is None:
            return {"base": None, "motivated": None}
        self.trainer.synchronize()
        engine, pair = self.trainer.engine, self.trainer.pair
        return {phase: None if phase == "motivated" and pair is None else
                engine.predict(self.trainer.network(phase),
                               evaluation_batches(split, self.loader.normalization, engine.torch_device,
                                                  channels_last=engine.channels_last))
                for phase in ("base", "motivated")}


def prepare(config: Mapping[str, Any]) -> Session:
    """Check a config whole, then load the data and build what trains.

    Args:
        config: ``seed``, ``evaluate_every``, and one mapping a group of conf/.

    Raises:
        ValueError: what in the config or the data cannot be right, in one line that names the key.
    """
    refuse_targets(config)
    check_keys(config, ["seed", "evaluate_every", *GROUPS])
    seed = convert(config.get("seed"), int, "seed")
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"seed={seed}: must be from 0 to 2^32 - 1")
    if convert(config.get("evaluate_every"), int, "evaluate_every") < 1:
        raise ValueError(f"evaluate_every={config['evaluate_every']}: must be at least 1 epoch")
    for group, registry in (("monitor", motivation.monitors.BY_NAME), ("schedule", motivation.schedules.BY_NAME)):
        check(registry, config.get(group), group, *FACTS)
    choice = build(motivation.models.choice.BY_NAME, config.get("model"), "model")
    data = build(motivation.data.BY_NAME, config.get("data"), "data")
    recipe = _only(Recipe, config, "recipe")
    engine = _only(Engine, config, "engine")
    build(motivation.tracking.BY_NAME, config.get("tracker"), "tracker")

    dataset = data.load()
    engine.configure()
    loader = Loader(dataset.train, recipe.batch_size, Normalization.of(dataset.train), seed=seed,
                    device=engine.torch_device, crop_padding=recipe.crop_padding, flip=recipe.flip,
                    channels_last=engine.channels_last)
    trainer, flops, null_rate = _trainer(config, choice, recipe, engine, dataset, len(loader), seed)
    return Session(dict(config), dataset, loader, trainer, recipe.learning_rates(trainer.optimizers, len(loader)),
                   recipe.total_steps(len(loader)), flops, null_rate)


def _trainer(config: Mapping[str, Any], choice: PairModel | ClassicalModel, recipe: Recipe, engine: Engine,
             dataset: Dataset, steps_per_epoch: int, seed: int) -> tuple[Trainer, dict[str, int], float]:
    """The trainer, both networks' forward FLOPs, and the null rate of its monitor and schedule."""
    shape = dataset.image_shape
    model = engine.place(choice.build(dataset.num_classes, shape[0], seed))
    if isinstance(choice, ClassicalModel):
        trainer = Trainer(model, recipe.optimizer_factory(), recipe.loss(), engine=engine)
        return trainer, {"base": forward_flops(model, shape)}, math.nan
    flops = {"base": forward_flops(model.base, shape), "motivated": forward_flops(model.motivated, shape)}
    facts = dict(zip(FACTS, (seed, recipe.total_steps(steps_per_epoch), steps_per_epoch, *flops.values()), strict=True))
    monitor = build(motivation.monitors.BY_NAME, config["monitor"], "monitor", **facts)
    schedule = build(motivation.schedules.BY_NAME, config["schedule"], "schedule", **facts)
    trainer = Trainer(model, recipe.optimizer_factory(), recipe.loss(), monitor, schedule, engine=engine)
    return trainer, flops, schedule.null_rate(monitor, steps_per_epoch)


def _only(maker: type, config: Mapping[str, Any], group: str) -> Any:
    """Build a group that has one kind of thing, and so needs no name."""
    return build({group: maker}, {"name": group, **(config.get(group) or {})}, group)


def run(config: Mapping[str, Any], path: Path | str) -> Path:
    """Train one run and leave its run folder.

    Args:
        config: the resolved config, plain mappings; see `prepare`.
        path: the run folder, which must not hold a run.

    Returns:
        The run folder.

    Raises:
        ValueError: a config, data set or run folder that cannot be right (nothing is written), or a NaN loss (the run
            folder then holds every step before it).
    """
    path = Path(path)
    check_run_folder(path)
    session = prepare(config)
    tracker = build(motivation.tracking.BY_NAME, config["tracker"], "tracker")
    folder = RunFolder(path, config)
    summary = None
    try:
        tracker.start(path, config)
        summary = _train(session, folder, tracker)
    finally:
        folder.close()
        tracker.finish(summary)
    return path


def _train(session: Session, folder: RunFolder, tracker: Tracker) -> dict[str, Any]:
    """Every epoch of a run, then its predictions, networks and summary."""
    epochs = math.ceil(session.total_steps / len(session.loader))
    row, predicted = {}, {}
    with open_progress(session.total_steps, len(session.loader), session.loader.batch_size) as progress:
        for epoch in range(epochs):
            losses = [result.loss for result in recorded_steps(session, epoch, folder, progress)]
            session.trainer.end_epoch()
            row = {"epoch": epoch, **_accuracies(None, "top1"), **_accuracies(None, "val_top1")}
            if (epoch + 1) % session.config["evaluate_every"] == 0 or epoch == epochs - 1:
                predicted = session.evaluate(session.dataset.test)
                row |= _accuracies(session.dataset.test, "top1", predicted)
                validation = session.dataset.validation
                row |= _accuracies(validation, "val_top1", session.evaluate(validation))
            row |= {"train/loss": sum(losses) / len(losses), **session.trainer.ledger.totals(),
                    "base/forward_flops": session.forward_flops["base"],
                    "motivated/forward_flops": session.forward_flops.get("motivated")}
            folder.epoch(row)
            tracker.epoch(row)
            progress.epoch(row)
    folder.predictions(labels=session.dataset.test.labels,
                       **{phase: array for phase, array in predicted.items() if array is not None})
    save_checkpoint(folder.path / "checkpoints" / "final.pt", session.trainer.model.state_dict())
    summary = {**row, "seed": session.config["seed"], "null_rate": session.null_rate}
    folder.summary(summary)
    return summary


def recorded_steps(session: Session, epoch: int, folder: RunFolder, progress: PlainProgress) -> Iterator[StepResult]:
    """The steps of an epoch, each on record and on screen before it is handed on."""
    for step, result in enumerate(session.steps(epoch), start=epoch * len(session.loader)):
        folder.step(step, epoch, result.phase, result.loss, result.score, result.lr, result.flops)
        progress.step(step, epoch, result, session.trainer.ledger)
        yield result


def _accuracies(split: Split | None, key: str, predicted: Mapping[str, np.ndarray | None] | None = None) -> dict:
    """Top-1 accuracy of both networks in percent; null where there is nothing to measure."""
    predicted = predicted or {}
    return {f"{phase}/{key}": None if split is None or predicted.get(phase) is None else
            float(np.mean(predicted[phase].argmax(1) == split.labels) * 100) for phase in ("base", "motivated")}
