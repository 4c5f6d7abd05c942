"""Images a second for each process, in one run of several processes against one of a single process.

Each is `motivation train` of a ResNet-20 as torchrun starts it, on random images with a batch of 128 a process: on a
CPU with one thread a process and gloo, on GPUs with one GPU a process and NCCL. The first epoch is left out.
"""

import functools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import torch

from motivation.run.machine import cores
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import RATIO, alternate, ratios
from .workload import DEVICES, SHAPES, write_images

BOUND = 0.85
EPOCHS, STEPS = 2, 12


def images_a_second(device: str, count: int, folder: Path, overrides: tuple[str, ...]) -> float:
    """Of each of so many processes that train as one.

    Raises:
        ValueError: the command failed; with what it said.
    """
    batch, size = SHAPES["compute-bound"]
    images = write_images(folder / f"images{count}.npz", size, STEPS * batch * count)
    start = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)) if count > 1 else ()
    with tempfile.TemporaryDirectory(dir=folder) as run:
        command = [
            sys.executable, *start, "-m", "motivation", "train", "model=classical", "model.network=resnet20",
            "data=arrays", f"data.path={images}", f"recipe.batch_size={batch * count}", f"recipe.epochs={EPOCHS}",
            f"evaluate_every={EPOCHS}", "tracker=none", f"engine.device={device}", "engine.threads=1",
            f"hydra.run.dir={run}/run", *overrides]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            said = next((line for line in ended.stderr.splitlines() if "motivation: error: " in line), ended.stderr)
            raise ValueError(said.partition("motivation: error: ")[2] or said[-200:])
        rows = [json.loads(line) for line in Path(run, "run", "epochs.jsonl").read_text().splitlines()]
    trained, seconds = (rows[-1][key] - rows[0][key] for key in ("budget/images", "budget/seconds"))
    return trained / seconds / count


def measure(seconds: NotNegative = 60, processes: tuple[Count | Literal["all"], ...] = (1, "all"),
            overrides: tuple[str, ...] = ()) -> list[Table]:
    """Measure this.

    Args:
        seconds: of each device; each number of processes is measured at least once.
        processes: numbers of them, the first one as the reference; ``all`` is one a core (at least 2) or a GPU.
        overrides: of every run.
    """
    made = Table("Processes that train as one", {"device": "", "processes": "", "images/s for each": ".0f",
                                                 f"x {processes[0]}": ".3f", **RATIO}, [], bounds={})
    for device in DEVICES:
        count = max(2, cores()) if device == "cpu" else torch.cuda.device_count()
        if count < 2:
            made.unmeasured(device, "all")
            continue
        with tempfile.TemporaryDirectory() as folder:
            rates = alternate({str(number): functools.partial(images_a_second, device, number, Path(folder), overrides)
                               for number in (count if number == "all" else number for number in processes)}, seconds)
        first, *_ = rates.values()
        made.rows += [(device, number, statistics.median(values), *ratios(values, first))
                      for number, values in rates.items()]
        others = [row[3] for row in made.rows if row[0] == device and row[1] != str(processes[0])]
        slowest = min(others, default=1.0)
        made.bounds[f"{device}: each of several at least {BOUND} of one alone; {slowest:.3f}"] = slowest >= BOUND
    return [made]
