"""What recording a run costs: rows of steps.csv, progress, and the tracker.

Microseconds of the loop that are spent in recording a step, against the step itself: ResNet-8, two images of 8 x 8, the
smallest step there is. W&B is offline, with a row every step and, as by default, every 50 steps; what its own process
and threads take of the cores is not in it.
"""

import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Literal

from motivation.run.record import record_steps
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import alternate
from .workload import DEVICES, SHAPES, batches_of, config_of, is_here, open_record, open_session, write_images

TRACKERS = {"none": ("tracker=none",), "wandb": ("tracker=wandb", "tracker.mode=offline", "tracker.every=50"),
            "wandb every step": ("tracker=wandb", "tracker.mode=offline", "tracker.every=1")}


def recording(opened: ExitStack, folder: Path, device: str, overrides: tuple[str, ...],
              steps: int) -> Callable[[], tuple[float, float]]:
    """A block of steps: seconds a step in recording, and in training."""
    batch, size = SHAPES["launch-bound"]
    config = config_of(write_images(folder / "images.npz", size), "model=resnet8", "recipe=resnet_cifar",
                       "recipe.epochs=1000", f"recipe.batch_size={batch}", f"engine.device={device}", *overrides)
    session = open_session(opened, config)
    record = open_record(opened, folder / "run", session)
    batches = batches_of(session)

    def block() -> tuple[float, float]:
        trained = recorded = 0.0
        for _ in range(steps):
            start = perf_counter()
            session.step(*next(batches))
            middle = perf_counter()
            record_steps(session, record)
            trained, recorded = trained + middle - start, recorded + perf_counter() - middle
        return recorded / steps, trained / steps

    return block


def measure(seconds: NotNegative = 6, trackers: tuple[Literal["none", "wandb", "wandb every step"], ...] =
            tuple(TRACKERS), steps: Count = 50) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        trackers: which are measured, each beside steps.csv and progress.
        steps: a block.
    """
    table = Table("Logging", {"device": "", "tracker": "", "us a step": ".1f", "lowest": ".1f", "highest": ".1f",
                              "share of the smallest step": ".2%"}, [])
    for device in DEVICES:
        if not is_here(device):
            table.unmeasured(device, "all")
            continue
        blocks = {}
        for name in trackers:
            # One after another: W&B has one run open a process.
            with ExitStack() as opened:
                folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
                block = recording(opened, folder, device, TRACKERS[name], steps)
                block()
                blocks |= alternate({name: block}, seconds / len(trackers))
        for name, figures in blocks.items():
            recorded = [one * 1e6 for one, _ in figures]
            table.rows.append((device, name, statistics.median(recorded), min(recorded), max(recorded),
                               statistics.median(one / trained for one, trained in figures)))
    return [table]
