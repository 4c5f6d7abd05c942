"""How long training waits for its checkpoints.

The steps of `motivation train` with ResNet-20/32 and AdamW (three tensors a weight); the time inside `Checkpoints.save`
and in cutting the state, over all time. Files are written by a thread meanwhile.
"""

import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter

from motivation.run_folder.checkpoints import Checkpoints, size_of
from motivation.validation import Count, NotNegative

from .table import Table
from .workload import DEVICES, SHAPES, batches_of, config_of, is_here, open_session, write_images

BOUND = 0.01


def waiting(seconds: float, every: int, batch: int, device: str) -> tuple[float, float, int, int]:
    """Seconds of all training, those that it waited, bytes of a checkpoint, and how many there were."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        session = open_session(opened, config_of(
            write_images(folder / "images.npz", SHAPES["compute-bound"][1]), "recipe=resnet_cifar",
            f"recipe.batch_size={batch}", "recipe.optimizer.name=adamw", "~recipe.optimizer.momentum",
            "recipe.epochs=1000", f"engine.device={device}"))
        checkpoints = opened.enter_context(closing(Checkpoints(folder / "checkpoints")))
        # As every run, it starts with a checkpoint of step 0, whose first copy allocates what later ones use again.
        checkpoints.save(session.state_dict(), 0)
        checkpoints.wait()
        waits: list[float] = []
        start = perf_counter()
        for images, targets in batches_of(session):
            session.step(images, targets)
            session.pending.clear()
            if session.trainer.steps % every == 0 and not checkpoints.busy:
                before = perf_counter()
                checkpoints.save(session.state_dict(), session.trainer.steps)
                waits.append(perf_counter() - before)
                if perf_counter() - start > seconds:
                    break
        return perf_counter() - start, sum(waits), size_of(session.state_dict()), len(waits)


def measure(seconds: NotNegative = 12, every: Count = 10, batch: Count = 128) -> list[Table]:
    """Measure this.

    Args:
        seconds: of training; it goes on to the next checkpoint.
        every: steps between checkpoints.
        batch: images of 32 x 32 a step.
    """
    table = Table("Checkpoints", {"device": "", "steps between": "d", "size, MiB": ".1f", "checkpoints": "d",
                                  "each, ms": ".1f", "share of training that waits": ".2%"}, [])
    for device in DEVICES:
        if not is_here(device):
            table.unmeasured(device)
            continue
        total, waited, size, count = waiting(seconds, every, batch, device)
        share = waited / total
        table.rows.append((device, every, size / 2**20, count, waited / count * 1e3, share))
        table.bounds[f"{device}: at most {BOUND:.0%} of training waits; {share:.2%}"] = share <= BOUND
    return [table]
