"""Share of a run's wall clock that evaluation takes, in the settings of the recipes and by precision.

Measured: images a second in training the base, and in predicting with the base and with the motivated network, in turn.
From them, for as many images as the data set has and an evaluation of both networks every so many epochs: evaluation
over evaluation and training. `motivation train` evaluates every epoch unless `evaluate_every` says otherwise, the
paper's tables at scales reduced and paper every 5. Motivated steps take longer, so that a run with some of them has a
smaller share.
"""

import itertools
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from motivation.training.precision import fastest
from motivation.validation import NotNegative

from .table import Table
from .turns import take_turns, timed
from .workload import DEVICES, batches_of, config_of, is_here, open_session, write_images

# Recipe: its model, training and test images of its data set, size of the stored images, and images a step here: as
# the recipe has, or as many as a CPU trains in a second.
SETTINGS = {"digits": ("resnet20_32", 1437, 360, 8, 64), "resnet_cifar": ("resnet20_32", 50_000, 10_000, 32, 128),
            "efficientnet_cifar": ("efficientnet_b0_b1", 50_000, 10_000, 32, 8),
            "vit_cifar": ("vit_tiny_small", 50_000, 10_000, 32, 8)}
# Epochs between evaluations at the paper's scales, and the share of the wall clock that they may take there.
EVERY, BOUND = 5, 0.05
# The options of conf/model/vit_tiny_small.yaml fit the digits.
OPTIONS = {"vit_cifar": ("model.options.img_size=224", "model.options.patch_size=16")}


def images_a_second(opened: ExitStack, folder: Path, device: str, recipe: str, precision: str,
                    seconds: float) -> tuple[dict[str, float], int]:
    """Median images a second in training and in evaluation of each network, and images a batch of each."""
    model, _, _, size, batch = SETTINGS[recipe]
    path = write_images(folder / "images.npz", size, 512)
    session = open_session(opened, config_of(
        path, f"recipe={recipe}", f"model={model}", f"recipe.batch_size={batch}", *OPTIONS.get(recipe, ()),
        "schedule=never", "recipe.epochs=1000", f"engine.device={device}", f"engine.precision={precision}",
        f"engine.evaluation_batch={batch}"))
    batches, engine = batches_of(session), session.trainer.engine
    part = session.dataset.test.take(slice(0, batch))

    def train() -> None:
        session.step(*next(batches))
        # The loss is read in every step.
        session.pending.pop()[1].loss  # noqa: B018

    def predict(phase: str) -> Callable[[], None]:
        return lambda: engine.predict(session.trainer.network(phase), session.loader.evaluation_batches(part, batch))

    loops = {"training": train, "base": predict("base"), "motivated": predict("motivated")}
    rates, _ = take_turns({name: timed(step, device) for name, step in loops.items()}, seconds)
    return {name: batch * statistics.median(values) for name, values in rates.items()}, batch


def measure(seconds: NotNegative = 24, recipes: tuple[Literal["digits", "resnet_cifar", "efficientnet_cifar",
                                                             "vit_cifar"], ...] = tuple(SETTINGS),
            precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        recipes: in whose settings.
        precisions: of training and evaluation; bfloat16 only where the hardware is made for it.
    """
    table = Table("Evaluation", {
        "device": "", "recipe": "", "model": "", "precision": "", "images a step": "d", "training, images/s": ",.1f",
        "base, images/s": ",.1f", "motivated, images/s": ",.1f", "every epoch": ".1%",
        f"every {EVERY} epochs": ".1%"}, [], bounds={})
    here = [case for case in itertools.product(filter(is_here, DEVICES), recipes, precisions)
            if case[2] in ("float32", fastest(case[0])[0])]
    for device, recipe, precision in here:
        model, train_images, test_images, *_ = SETTINGS[recipe]
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            rate, batch = images_a_second(opened, folder, device, recipe, precision, seconds / len(here))
        evaluation = test_images / rate["base"] + test_images / rate["motivated"]
        shares = [evaluation / (evaluation + epochs * train_images / rate["training"]) for epochs in (1, EVERY)]
        table.rows.append((device, recipe, model, precision, batch, *rate.values(), *shares))
        if recipe != "digits":
            table.bounds[f"{device}, {recipe}, {precision}: at most {BOUND:.0%} every {EVERY} epochs; "
                         f"{shares[1]:.1%}"] = shares[1] <= BOUND
    for device in DEVICES:
        for precision in precisions:
            if not any(case[0] == device and case[2] == precision for case in here):
                table.unmeasured(device, "all", "all", precision)
    return [table]
