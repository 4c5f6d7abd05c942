"""What monitors and schedules cost: microseconds to observe and decide, and the share of a step that a probe takes.

Scores: on noise, one CPU core. Probes: steps of ResNet-8/14 in the base phase with a monitor of each kind of reading
(`Monitor.needs`) and with none, in turn; a probe is due in every step, as large as it is made by default.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from motivation.models import create_pair
from motivation.monitors import Consecutive, GradientNorm, Heldout, Monitor, PredictionGain
from motivation.schedules import Never, Schedule, Threshold
from motivation.training.engine import Engine
from motivation.training.trainer import Trainer
from motivation.validation import Count, NotNegative

from .noise import MONITORS, SCHEDULES, nothing, signals
from .table import Table
from .turns import RATIO, ratios, take_turns, timed
from .workload import CLASSES, DEVICES, SHAPES, is_here

BOUND = 20
# By what a monitor reads; `none` is what the others are compared with.
PROBES: dict[str, Callable[[], Monitor | None]] = {
    "none": lambda: None, "loss": Consecutive, "gradient": GradientNorm, "after": PredictionGain,
    "heldout": lambda: Heldout(every=1)}


def microseconds(act: Callable[[object], object], values: Sequence, blocks: int = 20) -> float:
    """Median time of an action on one value, over blocks of them."""
    times = []
    for block in np.array_split(np.arange(len(values)), blocks):
        mine = [values[index] for index in block]
        start = perf_counter()
        for value in mine:
            act(value)
        times.append((perf_counter() - start) / len(mine))
    return statistics.median(times) * 1e6


def monitor_and_schedule(monitor: Monitor, schedule: Schedule) -> Callable[[object], object]:
    """Observes a signal and decides."""
    return lambda signal: schedule.decide(monitor.observe(signal))


def scores(steps: int) -> Table:
    """Microseconds of every monitor, with a threshold, and of every schedule."""
    table = Table("Monitors and schedules", {"kind": "", "name": "", "us a step": ".1f"}, [])
    slow = []
    for name, make in MONITORS.items():
        monitor = make()
        values = list(signals(monitor, "independent", steps, 0, nothing))
        taken = microseconds(monitor_and_schedule(monitor, Threshold(0)), values)
        table.rows.append(("monitor", name, taken))
        slow += [name] * (not monitor.needs and taken > BOUND)
    losses, consecutive = np.random.default_rng(0).normal(size=steps).tolist(), Consecutive()
    decided_on = [consecutive.observe(loss) for loss in losses]
    for name, make_schedule in SCHEDULES.items():
        schedule = make_schedule()
        schedule.start()
        taken = microseconds(schedule.decide, decided_on)
        table.rows.append(("schedule", name, taken))
        slow += [name] * (taken > BOUND)
    table.bounds[f"at most {BOUND} us without probes" + (f"; slower: {', '.join(slow)}" if slow else "")] = not slow
    return table


def trainer_step(monitor: Monitor | None, device: str, batch: int, size: int) -> Callable[[], object]:
    """Steps of a pair in the base phase."""
    torch.manual_seed(0)
    engine = Engine(device=device)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES, (batch,), device=device)
    trainer = Trainer(engine.place(create_pair("resnet8", "resnet14", CLASSES)),
                      lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9, fused=True), F.cross_entropy,
                      monitor, Never(), heldout=(images, targets), engine=engine)
    # The loss is read, as every loop does.
    return lambda: trainer.step(images, targets).loss


def measure(seconds: NotNegative = 16, steps: Count = 4000,
            shapes: tuple[Literal["compute-bound", "launch-bound"], ...] = tuple(SHAPES)) -> list[Table]:
    """Measure this.

    Args:
        seconds: of the steps with probes.
        steps: of noise for the microseconds.
        shapes: of the steps with probes: 128 images of 32 x 32, or 2 of 8 x 8.
    """
    table = Table("Probes", {"device": "", "shape": "", "monitor reads": "", "steps/s": ".2f",
                             "x without a monitor": ".3f", **RATIO}, [])
    here = list(itertools.product(filter(is_here, DEVICES), shapes))
    for device, shape in here:
        rates, _ = take_turns({name: timed(trainer_step(make(), device, *SHAPES[shape]), device)
                               for name, make in PROBES.items()}, seconds / len(here))
        table.rows += [(device, shape, name, statistics.median(values), *ratios(values, rates["none"]))
                       for name, values in rates.items()]
    if not is_here("cuda"):
        table.unmeasured("cuda", "all", "all")
    return [scores(steps), table]
