"""A session: everything that one run trains with, checked and built from its config, once."""

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import motivation.data
import motivation.monitors
import motivation.run.model_choice
import motivation.run.trackers
import motivation.schedules
from motivation.data import Dataset, EpochLoader, open_loader
from motivation.phase import PHASES
from motivation.randomness import DROPOUT, HELDOUT, derived_generator, derived_seed, random_state, restore_random_state
from motivation.registry import ConfigError, build, check_keys, convert, named, refuse_targets
from motivation.run.model_choice import ClassicalModel, PairModel
from motivation.run.resume import check_changes
from motivation.run.trackers import Tracker
from motivation.run_folder.checkpoints import size_of
from motivation.run_folder.identity import with_changes
from motivation.training.distributed import all_gather, main_first, processes, rank, share
from motivation.training.engine import Engine
from motivation.training.ledger import forward_flops
from motivation.training.recipe import Recipe
from motivation.training.trainer import StepResult, Trainer
from motivation.validation import Count, check_arguments

GROUPS = ("model", "data", "recipe", "monitor", "schedule", "engine", "tracker")
# What the run knows and no config says; a monitor or schedule that has such an argument is given it. The FLOPs are
# those of one image's forward pass.
FACTS = ("seed", "total_steps", "steps_per_epoch", "base_flops", "motivated_flops")


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
        position: how far training has come.
        pending: trained steps that are not in steps.csv yet; with a lag their losses are still on the way.
        recalibration_batches: for ``batch_norm: recalibrate``.
        history: rows of history.jsonl: what resumes changed of what sets the result, and rollbacks.
        synchronized: whether both networks held one set of mapped weights when last evaluated.
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
    position: Position = field(default_factory=Position)
    pending: deque[tuple[int, StepResult]] = field(default_factory=deque)
    recalibration_batches: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    synchronized: bool | None = None

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
        batches = self.loader.epoch(self.position.epoch, start=self.trainer.steps - first)
        for _ in range(self.trainer.steps, min(first + len(self.loader), self.total_steps)):
            yield next(batches)

    def step(self, images: Tensor, targets: Tensor) -> None:
        """Train one step with the learning rates that are due; its result joins ``pending``."""
        step = self.trainer.steps
        for scheduler in self.learning_rates:
            scheduler.step_update(step)
        if self.position.lr_scale != 1:
            for optimizer in self.trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] *= self.position.lr_scale
        self.pending.append((step, self.trainer.step(images, targets)))

    def next_epoch(self) -> None:
        """Move on to the next epoch, once the current one is evaluated."""
        self.position = replace(self.position, epoch=self.position.epoch + 1, closed=False, loss_sum=0.0)

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint, with room for two optimizer states a weight."""
        return 3 * size_of(self.trainer.model.state_dict())

    @property
    def input_spec(self) -> dict[str, Any]:
        """What the networks are fed, for data.json: classes and their names, ``(C, H, W)`` in training and in
        evaluation, the share of a side that evaluation sees and how it is resized, mean and standard deviation by
        channel of images from 0 to 1 (as timm states them), and the fingerprint of the data.
        """
        normalization, augmentation = self.loader.normalization, self.loader.augmentation
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
                "history": self.history,
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
            self.history = with_changes(state.get("history", []), self.trainer.steps, state["config"], self.config)
            restore_random_state(state["random"][rank()])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{source} is no checkpoint of this run: {' '.join(str(error).split())[:200]}") from error
        except ValueError as error:
            raise ValueError(f"{source} cannot be resumed: {error}") from error


def prepare(config: Mapping[str, Any], restored: bool = False) -> Session:
    """Check a config, load the data and build what trains.

    Args:
        config: ``seed``, ``evaluate_every``, ``checkpoint``, and one mapping a group of conf/.
        restored: all weights will come from a checkpoint: a transfer run does not need its source again.

    Raises:
        ValueError: what in the config or the data cannot be right, in one line that names the key.
    """
    refuse_targets(config)
    check_keys(config, ["seed", "evaluate_every", "checkpoint", *GROUPS])
    seed = convert(config.get("seed"), int, "seed")
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"seed={seed}: must be from 0 to 2^32 - 1")
    if convert(config.get("evaluate_every"), int, "evaluate_every") < 1:
        raise ValueError(f"evaluate_every={config['evaluate_every']}: must be at least 1 epoch")
    model = config.get("model")
    if restored and model["name"] == "transfer":
        model = {key: value for key, value in model.items() if key not in ("run", "of")} | {"name": "classical"}
    choice = build(motivation.run.model_choice.BY_NAME, model, "model")
    data = build(motivation.data.BY_NAME, config.get("data"), "data")
    recipe = _only(Recipe, config, "recipe")
    engine = _only(Engine, config, "engine")
    checkpointing = _only(Checkpointing, config, "checkpoint")
    tracker = build(motivation.run.trackers.BY_NAME, config.get("tracker"), "tracker")
    if recipe.batch_size % processes():
        raise ValueError(f"recipe.batch_size={recipe.batch_size}: is shared by {processes()} processes, and must be "
                         f"divisible by {processes()}")

    engine.configure()
    with _naming("data", type(data)):
        dataset = main_first(data.load)
    with _naming("recipe", Recipe):
        loader = open_loader(dataset, recipe.batch_size, seed=seed, device=engine.torch_device,
                             augmentation=recipe.augmentation, channels_last=engine.channels_last,
                             share=share(recipe.batch_size))
    trainer, flops = _trainer(config, choice, recipe, engine, dataset, loader)
    # Dropout draws from torch's global generator: seeded here, so that pair and classical training draw alike, and
    # every process differently, for its own images.
    torch.manual_seed(derived_seed(seed, DROPOUT, rank()) if rank() else derived_seed(seed, DROPOUT))
    # Nothing of ours draws from these two in this process; equal runs have equal checkpoints.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    with _naming("recipe", Recipe):
        learning_rates = recipe.learning_rates(trainer.optimizers, len(loader))
    return Session(dict(config), dataset, loader, trainer, learning_rates, recipe.total_steps(len(loader)), flops,
                   recipe, checkpointing, tracker,
                   recalibration_batches=getattr(choice, "recalibration_batches", 0))


def _trainer(config: Mapping[str, Any], choice: PairModel | ClassicalModel, recipe: Recipe, engine: Engine,
             dataset: Dataset, loader: EpochLoader) -> tuple[Trainer, dict[str, int]]:
    """The trainer, and both networks' forward FLOPs."""
    shape = loader.image_shape
    with _naming("model", type(choice)):
        model = engine.place(_network(choice, recipe, dataset.num_classes, shape[0], loader.seed))
    networks = {"base": model} if isinstance(choice, ClassicalModel) else {
        phase: model.network(phase) for phase in PHASES}
    flops = {phase: forward_flops(network, shape) for phase, network in networks.items()}
    known = {(phase, tuple(shape)): value for phase, value in flops.items()}
    if len(networks) == 1:
        return Trainer(model, recipe.optimizer_factory(), recipe.loss_function(), groups=recipe.groups, engine=engine,
                       known_flops=known), flops
    facts = dict(zip(FACTS, (loader.seed, recipe.total_steps(len(loader)), len(loader), *flops.values()), strict=True))
    spec, lag = split_lag(config["monitor"])
    if lag > facts["total_steps"]:
        raise ConfigError(f"monitor.lag={lag}: longer than training, which has {facts['total_steps']} steps")
    monitor = build(motivation.monitors.BY_NAME, spec, "monitor", **facts)
    schedule = build(motivation.schedules.BY_NAME, config["schedule"], "schedule", **facts)
    try:
        schedule.bind(monitor)
    except ValueError as error:
        raise ConfigError(f"schedule.{error}") from error
    heldout = _heldout_batch(dataset, loader, spec["name"]) if "heldout" in monitor.needs else None
    return Trainer(model, recipe.optimizer_factory(), recipe.loss_function(), monitor, schedule, groups=recipe.groups,
                   heldout=heldout, engine=engine, lag=lag, state=recipe.state, differential_lr=recipe.differential_lr,
                   differential_weight_decay=recipe.differential_weight_decay,
                   known_flops=known), flops


def _network(choice: PairModel | ClassicalModel, recipe: Recipe, num_classes: int, in_chans: int, seed: int) -> Any:
    """Build what conf/model chose, with the recipe's dropout; the choice's own options win."""
    try:
        return replace(choice, options=recipe.network_options | choice.options).build(num_classes, in_chans, seed)
    except TypeError as error:
        for key, option in (("dropout", "drop_rate"), ("drop_path", "drop_path_rate")):
            if option in recipe.network_options and f"'{option}'" in str(error):
                raise ConfigError(f"recipe.{key}={getattr(recipe, key)}: the model takes none ({error}); leave it out "
                                  f"with recipe.{key}=null") from error
        raise


def split_lag(spec: Any) -> tuple[Any, int]:
    """A monitor's spec without ``lag``, which is the trainer's, and the lag."""
    if not isinstance(spec, Mapping):
        return spec, 0
    lag = convert(spec.get("lag", 0), int, "monitor.lag")
    if lag < 0:
        raise ConfigError(f"monitor.lag={lag}: must be 0 or more steps")
    return {key: value for key, value in spec.items() if key != "lag"}, lag


def _heldout_batch(dataset: Dataset, loader: EpochLoader, monitor: str) -> tuple[Tensor, Tensor]:
    """One fixed batch of held-out training images, as large as a training batch where there are as many."""
    if dataset.heldout is None:
        raise ConfigError(f"monitor.name={monitor}: needs held-out images and there are none; keep some of the "
                          "training set with data.heldout, such as data.heldout=0.1")
    order = torch.randperm(len(dataset.heldout), generator=derived_generator(loader.seed, HELDOUT))
    part = dataset.heldout.take(order[:loader.batch_size].sort().values.numpy())
    [images] = loader.evaluation_batches(part, len(part))
    return images, torch.from_numpy(part.labels).to(loader.device)


@contextmanager
def _naming(group: str, maker: type) -> Iterator[None]:
    """Put the config's key before an error of data, loader or network, also one that torch or timm raises."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise ConfigError(named(error, group, maker)) from error


def _only(maker: type, config: Mapping[str, Any], group: str) -> Any:
    """Build a group that has one kind of thing, and so needs no name."""
    values = config.get(group)
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{group}={values!r}: must be a mapping")
    return build({group: maker}, {"name": group, **(values or {})}, group)
