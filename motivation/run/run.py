"""One run: a config, as plain mappings, -> a run folder."""

import functools
import itertools
import math
import random
import signal
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import motivation.data
import motivation.monitors
import motivation.run.model_choice
import motivation.run_folder.write
import motivation.schedules
from motivation.data import EVALUATION_BATCH, Dataset, EpochLoader, open_loader
from motivation.data.dataset import Part
from motivation.null.rate import build_trigger, null_rate
from motivation.phase import PHASES, Phase
from motivation.randomness import DROPOUT, HELDOUT, derived_generator, derived_seed, random_state, restore_random_state
from motivation.registry import ConfigError, build, check, check_keys, convert, named, refuse_targets
from motivation.run.model_choice import ClassicalModel, PairModel
from motivation.run.preflight import check_disk, check_memory
from motivation.run.progress import PlainProgress, open_progress
from motivation.run.signals import Interrupted, StopRequest
from motivation.run_folder.checkpoints import Checkpoints, load_checkpoint, save_checkpoint, size_of
from motivation.run_folder.config import check_changes, read_config
from motivation.run_folder.read import read_readings, read_steps
from motivation.run_folder.write import Expendable, RunFolder, Tracker, check_run_folder
from motivation.stderr import say
from motivation.training.distributed import (
    average,
    everyone,
    from_main,
    is_main,
    largest,
    main_first,
    main_only,
    processes,
    rank,
    running_statistics,
    share,
    together,
)
from motivation.training.engine import Engine
from motivation.training.ledger import forward_flops
from motivation.training.recipe import Recipe
from motivation.training.trainer import LateStep, NonFiniteLoss, StepResult, Trainer
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
    """Where a run stands; the trainer counts the steps.

    Attributes:
        epoch: the epoch it is in.
        closed: all steps of this epoch and its edge are done, its evaluation is not.
        loss_sum: sum of the batch losses of this epoch so far.
        signals: rows of signals.csv so far.
        rollbacks: how often it went back after a NaN.
        failed: the step of the last one.
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
    """Everything one run trains with, built and checked; nothing is on disk yet.

    Attributes:
        config: the resolved config.
        dataset: all its splits.
        loader: training batches.
        trainer: the dual loop.
        learning_rates: schedulers, one an optimizer.
        total_steps: of the whole run.
        forward_flops: of one image, by network.
        recipe: how it is trained.
        checkpointing: when its state is saved.
        position: where in the run training stands.
        unrecorded: trained steps that are not on record yet; with a lag, their losses are still on the way.
        recalibration_batches: for ``batch_norm: recalibrate``.
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
    position: Position = field(default_factory=lambda: Position())
    unrecorded: deque = field(default_factory=deque)
    recalibration_batches: int = 0
    synchronized: bool | None = None

    def steps(self) -> Iterator[StepResult | LateStep]:
        """Train what is left of the epoch it stands in, a step a time."""
        first = self.position.epoch * len(self.loader)
        batches = self.loader.epoch(self.position.epoch, start=self.trainer.steps - first)
        for step in range(self.trainer.steps, min(first + len(self.loader), self.total_steps)):
            for scheduler in self.learning_rates:
                scheduler.step_update(step)
            if self.position.lr_scale != 1:
                for optimizer in self.trainer.optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] *= self.position.lr_scale
            yield self.trainer.step(*next(batches))

    def evaluate(self, stop: StopRequest, *splits: Part | None) -> list[dict[str, np.ndarray | None]]:
        """Class probabilities ``(N, classes)`` of both networks on each split; None without images or network.

        Of several processes each predicts some of the batches, and all return the same.

        Raises:
            Interrupted: a signal came; the ledger is as it was before.
        """
        engine, pair, ledger = self.trainer.engine, self.trainer.pair, self.trainer.ledger
        copied = ledger.bytes_copied
        self.trainer.synchronize()
        self.synchronized = pair and pair.is_synchronized()
        if pair is not None and pair.batch_norm == "recalibrate":
            # The first epoch's batches, drawn again: the loader keeps no state, so training sees nothing of it.
            images = (images for images, _ in itertools.islice(self.loader.epoch(0), self.recalibration_batches))
            phase = "base" if self.trainer.phase == "motivated" else "motivated"
            pair.recalibrate(phase, images)
            average(running_statistics(pair.network(phase)))

        def predict(phase: Phase, split: Part | None) -> np.ndarray | None:
            if split is None or (phase == "motivated" and pair is None):
                return None
            # Whole batches, so that any number of processes computes the same bits.
            starts = range(0, len(split), EVALUATION_BATCH)
            mine = starts[share(len(starts))]
            part = split.take(slice(mine.start, mine.stop))
            watched = stop.watched(self.loader.evaluation_batches(part, EVALUATION_BATCH), largest(len(mine)))
            parts = everyone(engine.predict(self.trainer.network(phase), watched))
            return np.concatenate([part for part in parts if part is not None])

        try:
            return [{phase: predict(phase, split) for phase in PHASES} for split in splits]
        except Interrupted:
            ledger.bytes_copied = copied
            raise

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint, with room for two optimizer states a weight."""
        return 3 * size_of(self.trainer.model.state_dict())

    @property
    def fed(self) -> dict[str, Any]:
        """What the networks are fed: classes and their names, ``(C, H, W)`` in training and in evaluation, the share of
        a side that evaluation sees and how it is resized, mean and standard deviation by channel of images from 0 to 1
        (as timm states them), and the fingerprint of the data.
        """
        normalization, augmentation = self.loader.normalization, self.loader.augmentation
        return {"num_classes": self.dataset.num_classes,
                "classes": None if self.dataset.classes is None else list(self.dataset.classes),
                "image_shape": list(self.loader.image_shape),
                "test_image_shape": list(augmentation.test_shape(self.dataset.image_shape)),
                "test_crop": augmentation.test_crop, "interpolation": self.loader.interpolation,
                "mean": [value / 255 for value in normalization.mean],
                "std": [value / 255 for value in normalization.std], "fingerprint": self.dataset.fingerprint}

    def run_in_parts(self, parts: int) -> None:
        """Run a batch in at least so many parts, where their number was left open (``engine.accumulation=auto``)."""
        engine = self.trainer.engine
        if self.config["engine"].get("accumulation") == "auto":
            self.trainer.engine = replace(engine, accumulation=max(parts, engine.parts))

    def state_dict(self) -> dict[str, Any]:
        """Everything the run carries from here on; learning rates and data order are derived from the position."""
        return {"config": self.config, "data": self.dataset.fingerprint, "position": asdict(self.position),
                "trainer": self.trainer.state_dict(), "accumulation": self.trainer.engine.parts,
                "random": everyone(random_state())}

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
                raise ValueError(f"processes: {count} -> {processes()}, each with its own random numbers; go on "
                                 f"{f'with torchrun and {count} processes' if count > 1 else 'without torchrun'}")
            self.trainer.load_state_dict(state["trainer"])
            self.run_in_parts(state["accumulation"])
            self.position = Position(**state["position"])
            restore_random_state(state["random"][rank()])
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{source} is no checkpoint of this run: {' '.join(str(error).split())[:200]}") from error
        except ValueError as error:
            raise ValueError(f"{source} cannot be resumed: {error}") from error


def prepare(config: Mapping[str, Any]) -> Session:
    """Check a config whole, then load the data and build what trains.

    Args:
        config: ``seed``, ``evaluate_every``, ``checkpoint``, and one mapping a group of conf/.

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
    check(motivation.monitors.BY_NAME, split_lag(config.get("monitor"))[0], "monitor", *FACTS)
    check(motivation.schedules.BY_NAME, config.get("schedule"), "schedule", *FACTS)
    choice = build(motivation.run.model_choice.BY_NAME, config.get("model"), "model")
    data = build(motivation.data.BY_NAME, config.get("data"), "data")
    recipe = _only(Recipe, config, "recipe")
    engine = _only(Engine, config, "engine")
    checkpointing = _only(Checkpointing, config, "checkpoint")
    build(motivation.run_folder.write.BY_NAME, config.get("tracker"), "tracker")

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
    with _naming("recipe", Recipe):
        learning_rates = recipe.learning_rates(trainer.optimizers, len(loader))
    # Dropout draws from torch's global generator: started here, so that pair and classical training draw alike, and
    # every process for its own images.
    torch.manual_seed(derived_seed(seed, DROPOUT, *[rank()][:rank()]))
    # Nothing of ours draws from these two in this process; equal runs have equal checkpoints.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    return Session(dict(config), dataset, loader, trainer, learning_rates, recipe.total_steps(len(loader)), flops,
                   recipe, checkpointing, recalibration_batches=getattr(choice, "recalibration_batches", 0))


def _trainer(config: Mapping[str, Any], choice: PairModel | ClassicalModel, recipe: Recipe, engine: Engine,
             dataset: Dataset, loader: EpochLoader) -> tuple[Trainer, dict[str, int]]:
    """The trainer, and both networks' forward FLOPs."""
    shape = loader.image_shape
    with _naming("model", type(choice)):
        model = engine.place(_network(choice, recipe, dataset.num_classes, shape[0], loader.seed))
    if isinstance(choice, ClassicalModel):
        trainer = Trainer(model, recipe.optimizer_factory(), recipe.loss_function(), groups=recipe.groups,
                          engine=engine)
        return trainer, {"base": forward_flops(model, shape)}
    flops = {"base": forward_flops(model.base, shape), "motivated": forward_flops(model.motivated, shape)}
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
                   differential_weight_decay=recipe.differential_weight_decay), flops


def _network(choice: PairModel | ClassicalModel, recipe: Recipe, num_classes: int, in_chans: int, seed: int) -> Any:
    """Build what conf/model chose, with the recipe's dropout; what the choice itself says comes first."""
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
    """Put the group of the config that an error is about before it; what a network's constructor refuses is one."""
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


def run(config: Mapping[str, Any], path: Path | str, resume: bool = False) -> Path:
    """Train one run and leave its run folder.

    Args:
        config: the resolved config, plain mappings; see `prepare`.
        path: the run folder; it must not hold a run, or with ``resume`` one of this very config (more epochs or
            steps, and another engine, tracker or checkpointing, may be asked for).
        resume: go on with the run in this folder, from its newest readable checkpoint. The result is, but for seconds,
            that of a run that was never stopped, to the bit.

    In several processes all of them call this with the same arguments; the first one writes.

    Returns:
        The run folder.

    Raises:
        ValueError: a config, data set or run folder that cannot be right (nothing is written), or a NaN loss (the run
            folder then holds every step before it).
        Interrupted: a signal stopped the run; its state is saved.
        PeerLost: another process failed.
    """
    path = Path(path)
    refuse_targets(config)
    with StopRequest() as stop:
        if resume:
            return _resume(config, path, stop)
        from_main(check_run_folder, path)
        session = _rehearsed(config, stop)
        with closing(session.loader):
            from_main(check_disk, path, session.checkpoint_bytes, session.checkpointing.keep + 2)
            return _recorded(session, main_only(RunFolder, path, config), path, stop, restore=False)


def _rehearsed(config: Mapping[str, Any], stop: StopRequest) -> Session:
    """A session whose networks fit in memory, in every process; a signal that came meanwhile ends it."""
    with together():
        session = prepare(config)
        try:
            check_memory(session.trainer, *next(session.loader.epoch(0)))
        except BaseException:
            session.loader.close()
            raise
    try:
        stop.check()
    except Interrupted as error:
        session.loader.close()
        raise Interrupted(error.number, f"stopped by {signal.Signals(error.number).name} before training; nothing was "
                          "written") from None
    session.run_in_parts(largest(session.trainer.engine.parts))
    return session


def _resume(config: Mapping[str, Any], path: Path, stop: StopRequest) -> Path:
    folder = main_only(RunFolder, path, None)
    try:
        if from_main(_finished, folder, config):
            _say(f"{path} is finished; nothing is left to train")
            folder.close()
            return path
        session = _rehearsed(config, stop)
    except BaseException:
        folder.close()
        raise
    with closing(session.loader):
        return _recorded(session, folder, path, stop, restore=True)


def _finished(folder: RunFolder, config: Mapping[str, Any]) -> bool:
    """Whether nothing of this config is left to train in a folder; ValueError where it is another run's."""
    saved = read_config(folder.path)
    check_changes(saved, config)
    return folder.finished and saved.get("recipe") == config.get("recipe")


def _recorded(session: Session, folder: RunFolder, path: Path, stop: StopRequest, restore: bool) -> Path:
    """Train a session into its folder."""
    try:
        _followed(session, folder, path, restore, stop)
    except Interrupted:
        # torchrun ends all processes once one has ended: not before the first has put everything away.
        largest(0)
        raise
    return path


def _followed(session: Session, folder: RunFolder, path: Path, restore: bool, stop: StopRequest) -> None:
    """Train a session, followed by checkpoints and tracker."""
    tracker = main_only(lambda: Expendable(build(motivation.run_folder.write.BY_NAME, session.config["tracker"],
                                                 "tracker")))
    checkpoints = main_only(Checkpoints, path / "checkpoints", session.checkpointing.keep, folder.flush, _say)
    summary = None
    try:
        if restore:
            _restore(session, folder, checkpoints)
            folder.config(session.config)
        else:
            from_main(_save_first, session.state_dict(), folder, checkpoints)
        folder.data(session.fed)
        tracker.start(path, session.config, folder.epochs())
        summary = _train(session, folder, path, tracker, checkpoints, stop)
    finally:
        checkpoints.close()
        folder.close()
        tracker.finish(summary)


def _save_first(state: dict[str, Any], folder: RunFolder, checkpoints: Checkpoints) -> None:
    """The checkpoint of step 0, waited for: a disk that takes none is known before training."""
    checkpoints.save(state, 0)
    checkpoints.wait()
    if not checkpoints.found():
        folder.abandon()
        raise ValueError(f"{checkpoints.folder} takes no checkpoint; free some space or choose another disk with "
                         "hydra.run.dir=PATH")


def _restore(session: Session, folder: RunFolder, checkpoints: Checkpoints) -> None:
    """Load the newest checkpoint that can be read and that the folder's rows reach; without any, start at step 0."""
    source, state = from_main(_newest, folder, checkpoints)
    if state is not None:
        session.load_state_dict(state, source)
        checkpoints.discard_after(session.trainer.steps)
    folder.rewind(session.trainer.steps, session.position.epoch, session.position.signals)


def _newest(folder: RunFolder, checkpoints: Checkpoints) -> tuple[Path | None, dict | None]:
    """The newest checkpoint that can be gone on from, and its state; None where there has been none."""
    recorded, short = folder.recorded(), ""
    for saved, state in checkpoints.readable():
        short = _short(saved.step, state, recorded)
        if not short:
            return saved.path, state
        _say(f"{saved.path} is of step {saved.step}, but {short}; an older one is tried")
    if checkpoints.found():
        raise ValueError(f"no checkpoint in {checkpoints.folder} can be used{short and f', since {short}'}; train the "
                         "run anew in another folder")
    _say(f"{folder.path} has no checkpoint; training starts at step 0")
    return None, None


def _short(step: int, state: Mapping[str, Any], recorded: Mapping[str, tuple[int, str]]) -> str:
    """Which files do not hold all rows that a checkpoint's run had left; nothing where all do."""
    try:
        needed = {"steps.csv": step, "epochs.jsonl": state["position"]["epoch"],
                  "signals.csv": state["position"]["signals"]}
        return " and ".join(recorded[name][1] for name, rows in needed.items() if recorded[name][0] < rows)
    except (KeyError, TypeError):
        # No checkpoint of a run: loading it says so.
        return ""


def _train(session: Session, folder: RunFolder, path: Path, tracker: Tracker, checkpoints: Checkpoints,
           stop: StopRequest) -> dict[str, Any]:
    """Every epoch of a run from where it stands, then its predictions, networks and summary."""
    steps_per_epoch = len(session.loader)
    epochs = math.ceil(session.total_steps / steps_per_epoch)
    mirrored = session.position.epoch
    predicted: dict[str, np.ndarray | None] = {}
    if session.trainer.pair:
        folder.weights_map(session.trainer.pair.weights_map.to_json())
    with main_only(open_progress, session.total_steps, steps_per_epoch, session.loader.batch_size) as progress:
        try:
            while session.position.epoch < epochs:
                try:
                    row, predicted = _epoch(session, folder, checkpoints, stop, progress)
                except NonFiniteLoss as error:
                    _roll_back(session, folder, checkpoints, error)
                    continue
                if row["epoch"] >= mirrored:
                    # After a rollback an epoch may end twice; a mirror takes each once.
                    tracker.epoch(row)
                    mirrored = row["epoch"] + 1
                progress.epoch(row)
        except Interrupted as error:
            _take_down(session, folder, progress)
            _save(session, checkpoints)
            checkpoints.wait()
            name = signal.Signals(error.number).name
            launcher = "torchrun ... -m " if processes() > 1 else ""
            raise Interrupted(error.number, f"stopped by {name} at step {session.trainer.steps} of "
                              f"{session.total_steps}; go on with: {launcher}motivation train resume={path}") from None
    if not predicted:
        # Resumed after the last epoch: its row is on record, its predictions are not.
        predicted = session.evaluate(stop, session.dataset.test)[0]
    return from_main(_finish, session, folder, checkpoints, predicted)


def _finish(session: Session, folder: RunFolder, checkpoints: Checkpoints,
            predicted: Mapping[str, np.ndarray | None]) -> dict[str, Any]:
    """A trained run's predictions, networks and summary."""
    folder.predictions(labels=session.dataset.test.labels,
                       **{phase: array for phase, array in predicted.items() if array is not None})
    save_checkpoint(folder.path / "checkpoints" / "final.pt", session.trainer.model.state_dict())
    pair = session.trainer.pair
    summary = {**folder.epochs()[-1], "seed": session.config["seed"], "null_rate": math.nan,
               "pair/batch_norm": pair and pair.batch_norm, "pair/synchronized": session.synchronized}
    if pair:
        steps = read_steps(folder.path)
        monitor, lag = split_lag(session.config["monitor"])
        per_epoch = int(np.count_nonzero(steps["epoch"] == 0))
        facts = (session.loader.seed, len(steps["loss"]), per_epoch, *session.forward_flops.values())
        trigger = functools.partial(build_trigger, monitor, session.config["schedule"],
                                    **dict(zip(FACTS, facts, strict=True)))
        summary["null_rate"] = null_rate(trigger, *read_readings(folder.path), steps["motivated"], per_epoch,
                                         lag).rate
    checkpoints.wait()
    folder.summary(summary)
    return summary


def _epoch(session: Session, folder: RunFolder, checkpoints: Checkpoints, stop: StopRequest,
           progress: PlainProgress) -> tuple[dict[str, Any], dict[str, np.ndarray | None]]:
    """What is left of an epoch: its steps, its edge, its evaluation; returns its row and the test predictions."""
    position, trainer, dataset, when = session.position, session.trainer, session.dataset, session.checkpointing
    epoch, epochs = position.epoch, math.ceil(session.total_steps / len(session.loader))
    if not position.closed:
        for _ in recorded_steps(session, folder, progress):
            stop.check()
            due = when.every_steps and trainer.steps % when.every_steps == 0
            if due and not from_main(lambda: checkpoints.busy):
                _take_down(session, folder, progress)
                _save(session, checkpoints)
        trainer.end_epoch()
        position.closed = True
    row = {"epoch": epoch, **_accuracies(None, "top1"), **_accuracies(None, "val_top1")}
    predicted: dict[str, np.ndarray | None] = {}
    if (epoch + 1) % session.config["evaluate_every"] == 0 or epoch == epochs - 1:
        predicted, validated = session.evaluate(stop, dataset.test, dataset.validation)
        row |= _accuracies(dataset.test, "top1", predicted) | _accuracies(dataset.validation, "val_top1", validated)
    steps = trainer.steps - epoch * len(session.loader)
    row |= {"train/loss": position.loss_sum / steps, **trainer.ledger.totals(),
            "base/forward_flops": session.forward_flops["base"],
            "motivated/forward_flops": session.forward_flops.get("motivated")}
    folder.epoch(row)
    session.position = replace(position, epoch=epoch + 1, closed=False, loss_sum=0.0)
    if (when.every_epochs and (epoch + 1) % when.every_epochs == 0) or epoch == epochs - 1:
        _save(session, checkpoints, row["base/val_top1"])
    return row, predicted


def recorded_steps(session: Session, folder: RunFolder, progress: PlainProgress) -> Iterator[StepResult | LateStep]:
    """The steps of an epoch, each on record and on screen before it is handed on.

    With a lag they are taken down so much later, when their losses have arrived; at the epoch's end all are.
    """
    for numbered in enumerate(session.steps(), start=session.trainer.steps):
        session.unrecorded.append(numbered)
        yield from _record(session, folder, progress, session.trainer.lag)
    yield from _record(session, folder, progress)


def _record(session: Session, folder: RunFolder, progress: PlainProgress,
            leave: int = 0) -> Iterator[StepResult | LateStep]:
    """Take down the oldest steps that are not on record, all but some."""
    reads = getattr(session.trainer.monitor, "reads", ("loss",))
    while len(session.unrecorded) > leave:
        step, result = session.unrecorded.popleft()
        session.position.loss_sum += result.loss
        folder.step(step, session.position.epoch, result.phase, result.loss, result.score, result.lr, result.flops)
        if reads != ("loss",) and result.reading is not None:
            folder.signals(step - session.trainer.lag, reads, result.reading)
            session.position.signals += 1
        progress.step(step, session.position.epoch, result, session.trainer.ledger)
        yield result


def _take_down(session: Session, folder: RunFolder, progress: PlainProgress) -> None:
    """Take down every trained step: a checkpoint is never ahead of the record."""
    deque(_record(session, folder, progress), maxlen=0)


def _save(session: Session, checkpoints: Checkpoints, validation: float | None = None) -> None:
    """Save a checkpoint, where there is something to go on from: weights that are NaN or infinite are none."""
    # First, since with a lag it reads what is on its way: a loss that is not finite is the better story.
    state, model = session.state_dict(), session.trainer.model
    weights = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    if torch.stack(torch._foreach_norm(weights, 1)).isfinite().all():
        checkpoints.save(state, session.trainer.steps, validation)
    else:
        _say(f"no checkpoint of step {session.trainer.steps}: the weights are not finite; older ones stay")


def _roll_back(session: Session, folder: RunFolder, checkpoints: Checkpoints, error: NonFiniteLoss) -> None:
    """Go back to a checkpoint and on with a smaller learning rate; or stop, where the recipe says so.

    The newest one, or the one before where the run fails at the same step again: its weights may be spoiled already.
    """
    checkpoints.wait()
    before = session.position
    found = from_main(checkpoints.found)
    place = "epoch {}, batch {}".format(*divmod(error.step, len(session.loader)))
    if before.rollbacks >= session.recipe.rollbacks or not found:
        kept = f"the last good checkpoint is {found[0].path}" if found else "there is no checkpoint"
        raise ValueError(f"{error} ({place}); {kept}") from error
    back = found[min(error.step <= before.failed, len(found) - 1)]
    session.load_state_dict(from_main(load_checkpoint, back.path), back.path)
    session.position.rollbacks, session.position.failed = before.rollbacks + 1, error.step
    session.position.lr_scale = before.lr_scale * session.recipe.rollback_lr
    session.unrecorded.clear()
    folder.rewind(session.trainer.steps, session.position.epoch, session.position.signals)
    # What a run that is killed now has to know too.
    checkpoints.discard_after(back.step)
    _save(session, checkpoints, back.validation)
    checkpoints.wait()
    _say(f"{error} ({place}); back to step {back.step}, learning rate x {session.position.lr_scale:g} from here on")


def _say(line: str) -> None:
    if is_main():
        say(f"motivation: {line}")


def _accuracies(split: Part | None, key: str, predicted: Mapping[str, np.ndarray | None] | None = None) -> dict:
    """Top-1 accuracy of both networks in percent; null where there is nothing to measure."""
    predicted = predicted or {}
    return {f"{phase}/{key}": None if split is None or predicted.get(phase) is None else
            float(np.mean(predicted[phase].argmax(1) == split.labels) * 100) for phase in ("base", "motivated")}
