"""What a run logs about itself before its first step: data, networks, monitor and schedule, device, length."""

import logging

from motivation.data import Sequences
from motivation.data.dataset import Part
from motivation.phase import PHASES
from motivation.run.session import Session
from motivation.training.compiled import is_compiled
from motivation.training.distributed import processes
from motivation.training.trainer import Trainer

logger = logging.getLogger(__name__)


def narrate(session: Session) -> None:
    """Log one line a subject."""
    config, dataset, trainer, engine = session.config, session.dataset, session.trainer, session.trainer.engine
    parts = (("training", dataset.train), ("validation", dataset.validation), ("held-out", dataset.heldout),
             ("test", dataset.test), *dataset.further_tests.items())
    logger.info("data: %s of %d %s, %s, batches of %d", ", ".join(_count(name, part) for name, part in parts
                                                                  if part is not None),
                dataset.num_classes, "tokens" if isinstance(dataset.train, Sequences) else "classes",
                " x ".join(map(str, session.loader.image_shape)), session.recipe.batch_size)
    model, pair = config["model"], trainer.pair
    flops = " and ".join(f"{flops / 1e6:.3g}" for flops in session.forward_flops.values())
    if pair:
        sizes = [sum(parameter.numel() for parameter in network.parameters()) / 1e6
                 for network in (pair.base, pair.motivated)]
        logger.info("pair: %s in %s, %.2f + %.2f M parameters, %s MFLOPs an image", model["base"], model["motivated"],
                    sizes[0], sizes[1] - sizes[0], flops)
        if sizes[0] == sizes[1]:
            logger.warning("the motivated network is as large as the base: an expansion changes nothing")
        lag = f" with a lag of {trainer.lag} steps" if trainer.lag else ""
        logger.info("monitor: %s%s; schedule: %s", config["monitor"]["name"], lag, config["schedule"]["name"])
    else:
        size = sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6
        logger.info("network: %s, %.2f M parameters, %s MFLOPs an image", model["network"], size, flops)
    of = f", {processes()} processes" if processes() > 1 else ""
    logger.info("engine: %s, %s%s, micro-batches a step: %d", engine.torch_device, engine.precision, of,
                engine.micro_batches)
    at = f", from step {trainer.steps}" if trainer.steps else ""
    epochs = f"{session.epochs} epoch{'s' * (session.epochs > 1)}"
    logger.info("training: %d steps in %s%s", session.total_steps, epochs, at)


def narrate_compilation(trainer: Trainer, seconds: float) -> None:
    """Log which networks were compiled before step 0, and the seconds that they and their first step took."""
    mode = trainer.engine.compile
    found = [phase for phase in (PHASES if trainer.pair else PHASES[:1]) if is_compiled(trainer.network(phase), mode)]
    if found:
        logger.info("compile: %s compiled (%s) for training and evaluation in %.1f s",
                    "both networks" if len(found) == 2 else f"the {found[0]} network", mode, seconds)


def _count(name: str, part: Part) -> str:
    return f"{len(part):,} {name} {'problems' if isinstance(part, Sequences) else 'images'}"
