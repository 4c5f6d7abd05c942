"""What a table's missing runs cost: training FLOPs from networks that are never made, time from a few steps."""

import functools
import itertools
import json
from contextlib import closing
from time import perf_counter
from typing import Any

import torch

import motivation.data
import motivation.run.model_choice
from motivation.data.shared import load
from motivation.models import create_model
from motivation.phase import PHASES
from motivation.registry import build
from motivation.run.prepare import prepare
from motivation.run.session import Session
from motivation.tables.cells import OF_FLOPS, Cell
from motivation.training.engine import Engine
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops
from motivation.training.recipe import Recipe

TIMED_STEPS = 3
TIMED_FLOPS = 1e11


class DataSets:
    """Data sets that a plan asks about, each read once."""

    def __init__(self):
        self._known: dict[str, motivation.data.Dataset | ValueError] = {}

    def dataset(self, spec: dict[str, Any]) -> motivation.data.Dataset:
        """The data set of a config's data group.

        Raises:
            ValueError: it cannot be read.
        """
        key = repr(spec)
        if key not in self._known:
            try:
                self._known[key] = load(build(motivation.data.BY_NAME, spec, "data"))
            except ValueError as error:
                self._known[key] = error
        if isinstance(self._known[key], ValueError):
            raise self._known[key]
        return self._known[key]

    def fingerprint(self, spec: dict[str, Any]) -> str:
        """Fingerprint of the data set of a config's data group."""
        return self.dataset(spec).fingerprint


def cost_of(cell: Cell, datasets: DataSets) -> float:
    """Training FLOPs of a cell, evaluation and what a lever scores excluded; a control of its source's FLOPs costs its
    part of them, a reference's included.
    """
    if cell.control not in OF_FLOPS:
        batch, steps, image = _batch_steps_flops(cell, datasets)
        return image * batch * steps
    assert cell.source
    batch, steps, image = _batch_steps_flops(cell.source, datasets)
    phase, part = OF_FLOPS[cell.control]
    forward = _forward_of(cell.source.config, datasets)
    own, other = forward.pop(phase), next(iter(forward.values()), 0)
    reference = cell.source.source if cell.source.control == "reference" else None
    return (image * batch * steps + (cost_of(reference, datasets) if reference else 0)) * part(own, other)


def _batch_steps_flops(cell: Cell, datasets: DataSets) -> tuple[int, int, float]:
    """Batch size, steps, and training FLOPs an image; of a pair its base's cost and the extra of the share of motivated
    steps that its schedule says.

    Where it says none, a sixth: the paper's rule's share on noise at k = 2; other such schedules have less.
    """
    config = cell.config
    dataset, recipe = datasets.dataset(config["data"]), _recipe(config)
    forward = _forward_of(config, datasets)
    share = config["schedule"].get("share", 1 / 6)
    image = forward["base"] + share * (forward.get("motivated", forward["base"]) - forward["base"])
    return recipe.batch_size, recipe.total_steps(len(dataset.train) // recipe.batch_size), TRAINING_FORWARDS * image


def _recipe(config: dict[str, Any]) -> Recipe:
    return build({"recipe": Recipe}, {"name": "recipe", **config["recipe"]}, "recipe")


def _forward_of(config: dict[str, Any], datasets: DataSets) -> dict[str, int]:
    """Forward FLOPs of one image by network; one network alone counts as ``base``."""
    dataset, recipe = datasets.dataset(config["data"]), _recipe(config)
    choice = build(motivation.run.model_choice.BY_NAME, config["model"], "model")

    def forward(role: str) -> int:
        options = recipe.network_options | choice.options | getattr(choice, f"{role}_options", {})
        return _forward_flops(getattr(choice, role), json.dumps(options, sort_keys=True), dataset.num_classes,
                              recipe.train_shape(dataset.image_shape))

    if hasattr(choice, "motivated"):
        return {phase: forward(phase) for phase in PHASES}
    return {"base": forward("network")}


@functools.cache
def _forward_flops(name: str, options: str, num_classes: int, shape: tuple[int, ...]) -> int:
    """Forward FLOPs of one image; no weights are drawn."""
    with torch.device("meta"):
        return forward_flops(create_model(name, num_classes, shape[0], **json.loads(options)), shape)


def flops_per_second(cell: Cell, datasets: DataSets) -> float:
    """Training speed on this machine, from a few steps of a cell, or of its source."""
    session = prepare(cut_to_seconds(cell.source or cell, datasets)[0])
    with closing(session.loader):
        return flops_per_second_of(session)


def cut_to_seconds(cell: Cell, datasets: DataSets) -> tuple[dict[str, Any], float]:
    """The config of a cell whose steps are to be timed, and the share of a batch that is left.

    On a CPU, whose speed hardly depends on the batch size, the batch is cut to what takes some seconds.
    """
    config = cell.config
    whole, _, image = _batch_steps_flops(cell, datasets)
    batch = whole
    if build({"engine": Engine}, {"name": "engine", **config["engine"]}, "engine").torch_device.type == "cpu":
        # An even number, which Mixup needs.
        batch = min(batch, max(2, int(TIMED_FLOPS / image / (TIMED_STEPS + 1)) // 2 * 2))
        config = config | {"recipe": config["recipe"] | {"batch_size": batch}}
    return config, batch / whole


def flops_per_second_of(session: Session) -> float:
    """Training speed of a session at its next steps, of which the first warms up."""
    batches = session.batches()
    session.step(*next(batches))
    before, start = sum(session.trainer.ledger.flops.values()), perf_counter()
    for batch in itertools.islice(batches, TIMED_STEPS):
        session.step(*batch)
    seconds = perf_counter() - start
    return max(1.0, (sum(session.trainer.ledger.flops.values()) - before)) / seconds
