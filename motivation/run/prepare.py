"""From a config to a session: what it names is checked and built, once, before anything is on disk."""

import functools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import motivation.data
import motivation.levers
import motivation.monitors
import motivation.run.model_choice
import motivation.run.trackers
import motivation.schedules
from motivation.data import Dataset, EpochLoader, Sequences, open_loader
from motivation.data.shared import load
from motivation.levers import Lever
from motivation.pairing.pair import Pair
from motivation.pairing.tracing.example import takes_tokens
from motivation.phase import PHASES
from motivation.randomness import DROPOUT, HELDOUT, derived_generator, derived_seed
from motivation.registry import ConfigError, build, check_keys, convert, named, refuse_targets
from motivation.run.hardware import describe
from motivation.run.model_choice import ClassicalModel, PairModel
from motivation.run.session import Checkpointing, Session
from motivation.schedules import Ladder
from motivation.training.distributed import main_first, processes, rank, share
from motivation.training.engine import Engine
from motivation.training.ledger import forward_flops
from motivation.training.recipe import Recipe
from motivation.training.trainer import Trainer

GROUPS = ("model", "data", "recipe", "monitor", "schedule", "engine", "tracker")
# What the run knows and no config says; a monitor or schedule that has such an argument is given it. The FLOPs are
# those of one image's forward pass.
FACTS = ("seed", "total_steps", "steps_per_epoch", "base_flops", "motivated_flops")


class Parts(NamedTuple):
    """What a config names that needs no data to be built."""

    seed: int
    choice: Any
    data: Any
    recipe: Recipe
    engine: Engine
    checkpointing: Checkpointing
    tracker: motivation.run.trackers.Tracker


def parts_of(config: Mapping[str, Any], restored: bool = False) -> Parts:
    """Check a config as far as that takes no data; arguments and errors as of `prepare`."""
    refuse_targets(config)
    check_keys(config, ["seed", "evaluate_every", "checkpoint", *GROUPS, *(["lever"] if "lever" in config else [])])
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
    return Parts(seed, choice, data, recipe, engine, checkpointing, tracker)


def prepare(config: Mapping[str, Any], restored: bool = False) -> Session:
    """Check a config, load the data and build what trains.

    Args:
        config: ``seed``, ``evaluate_every``, ``checkpoint``, and one mapping a group of conf/; ``lever`` may be absent.
        restored: all weights will come from a checkpoint: a transfer run does not need its source again.

    Raises:
        ValueError: what in the config or the data cannot be right, in one line that names the key.
    """
    seed, choice, data, recipe, engine, checkpointing, tracker = parts_of(config, restored)
    engine.configure()
    with _naming("data", type(data)):
        dataset = main_first(functools.partial(load, data))
    with _naming("recipe", Recipe):
        loader = open_loader(dataset, recipe.batch_size, seed=seed, device=engine.torch_device,
                             augmentation=recipe.augmentation, channels_last=engine.channels_last,
                             share=share(recipe.batch_size))
    lever = None
    if config.get("lever"):
        lever = build(motivation.levers.BY_NAME, config["lever"], "lever", seed=seed,
                      total_steps=recipe.total_steps(len(loader)))
        with _naming("lever", type(lever)):
            loader = lever.loader(loader, dataset)
    trainer, flops = _trainer(config, choice, recipe, engine, dataset, loader, lever)
    if lever is not None:
        with _naming("lever", type(lever)):
            lever.check(trainer)
    # Dropout draws from torch's global generator: seeded here, so that pair and classical training draw alike, and
    # every process differently, for its own images.
    torch.manual_seed(derived_seed(seed, DROPOUT, rank()) if rank() else derived_seed(seed, DROPOUT))
    # Nothing of ours draws from these two in this process; equal runs have equal checkpoints.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    with _naming("recipe", Recipe):
        learning_rates = recipe.learning_rates(trainer.optimizers, len(loader))
    return Session(dict(config), dataset, loader, trainer, learning_rates, recipe.total_steps(len(loader)), flops,
                   recipe, checkpointing, tracker, lever,
                   recalibration_batches=getattr(choice, "recalibration_batches", 0), hardware=[describe(engine)])


def _trainer(config: Mapping[str, Any], choice: PairModel | ClassicalModel, recipe: Recipe, engine: Engine,
             dataset: Dataset, loader: EpochLoader, lever: Lever | None) -> tuple[Trainer, dict[str, int]]:
    """The trainer, and both networks' forward FLOPs."""
    shape = loader.image_shape
    with _naming("model", type(choice)):
        model = engine.place(_network(choice, recipe, dataset.num_classes, shape[0], loader.seed))
    networks = {phase: model.network(phase) for phase in PHASES} if isinstance(model, Pair) else {PHASES[0]: model}
    sequences = isinstance(dataset.train, Sequences)
    if takes_tokens(networks["base"]) != sequences:
        tokens, images = ("the data has", "the network takes")[::1 if sequences else -1]
        raise ConfigError(f"model: {tokens} tokens, {images} images; choose "
                          f"{'a network of tokens, model=gpt_pair' if sequences else 'data of tokens, data=chains'}")
    with _naming("recipe", Recipe):
        loss = recipe.loss_function(sequences)
    flops = {phase: forward_flops(network, shape) for phase, network in networks.items()}
    known = {(phase, tuple(shape)): value for phase, value in flops.items()}
    climbs = lever is not None and lever.climbs
    if climbs and isinstance(model, Pair):
        raise ConfigError("lever: the schedule of a pair switches its networks, and climbs no rungs; choose one "
                          "network, such as model=classical model.network=gpt_2x64")
    if not climbs and not isinstance(model, Pair):
        return Trainer(model, recipe.optimizer_factory(), loss, groups=recipe.groups, engine=engine,
                       known_flops=known), flops
    facts = dict(zip(FACTS, (loader.seed, recipe.total_steps(len(loader)), len(loader), *flops.values()), strict=False))
    spec, lag = split_lag(config["monitor"])
    if lag > facts["total_steps"]:
        raise ConfigError(f"monitor.lag={lag}: longer than training, which has {facts['total_steps']} steps")
    monitor = build(motivation.monitors.BY_NAME, spec, "monitor", **facts)
    schedule = build(motivation.schedules.BY_NAME, config["schedule"], "schedule", **facts)
    if climbs:
        with _naming("schedule", Ladder):
            schedule = Ladder(schedule, len(lever.rungs), total_steps=facts["total_steps"])
    try:
        schedule.bind(monitor)
    except ValueError as error:
        raise ConfigError(f"schedule.{error}") from error
    heldout = None
    if "heldout" in monitor.needs:
        heldout = (lever and lever.heldout()) or _heldout_batch(dataset, loader, spec["name"])
    return Trainer(model, recipe.optimizer_factory(), loss, monitor, schedule, groups=recipe.groups,
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
