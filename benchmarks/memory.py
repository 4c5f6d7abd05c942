"""Memory that training a pair takes, against training its motivated network alone.

Each trains in a process of its own, the pair every other step in the other phase. *weights and state*: parameters,
buffers and optimizer state, shared storage counted once. *peak*: what building and training add to the resident size
of the process (Linux), or take of a GPU's memory; gradients and activations are in it.
"""

import functools
import itertools
import json
import statistics
import subprocess
import sys
from typing import Literal

import torch
import torch.nn.functional as F

from motivation.models import create_model, create_pair
from motivation.run.machine import most_resident_memory
from motivation.schedules import Periodic
from motivation.training.engine import Engine
from motivation.training.trainer import Trainer
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import alternate
from .workload import CLASSES, DEVICES, is_here

BOUND = 1.03
STEPS = 6
# Base, motivated, batch, image size, optimizer. Depth alone shares every tensor; width copies what is sliced.
PAIRS = {"depth": ("resnet20", "resnet32", 128, 32, torch.optim.SGD),
         "width": ("vit_tiny_patch16_224", "vit_small_patch16_224", 8, 224, torch.optim.AdamW)}
OPTIONS = {torch.optim.SGD: {"lr": 0.01, "momentum": 0.9}, torch.optim.AdamW: {"lr": 1e-4}}


def train(kind: str, device: str, base: str, motivated: str, batch: int, size: int,
          optimizer: type[torch.optim.Optimizer]) -> dict[str, int]:
    """Train some steps; bytes of weights and state, and of the peak that building and training add."""
    torch.manual_seed(0)
    engine, before = Engine(device=device), most_resident_memory()
    engine.configure()
    model = engine.place(create_pair(base, motivated, CLASSES) if kind == "pair" else create_model(motivated, CLASSES))
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES, (batch,), device=device)
    trainer = Trainer(model, lambda params: optimizer(params, fused=True, **OPTIONS[optimizer]), F.cross_entropy,
                      schedule=Periodic(2, 1) if kind == "pair" else None, engine=engine)
    for _ in range(STEPS):
        trainer.step(images, targets)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else most_resident_memory() - before
    state = [value for one in trainer.optimizers for values in one.state.values() for value in values.values()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for tensor in (*model.parameters(), *model.buffers(), *filter(torch.is_tensor, state))}
    return {"held": sum(storages.values()), "peak": peak}


def in_process(kind: str, device: str, pair: str, batch: int | None) -> dict[str, int]:
    """The same, in a process of its own."""
    base, motivated, images, *_ = PAIRS[pair]
    ended = subprocess.run([sys.executable, "-m", __name__, kind, device, pair, str(batch or images)],
                           capture_output=True, text=True)
    if ended.returncode:
        raise ValueError(f"{kind} {base}, {motivated}: {ended.stderr.strip().splitlines()[-1]}")
    return json.loads(ended.stdout)


def measure(seconds: NotNegative = 20, pairs: tuple[Literal["depth", "width"], ...] = ("depth", "width"),
            batch: Count | None = None) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        pairs: ``depth`` (ResNet-20/32, SGD) and ``width`` (ViT-Tiny/Small, AdamW).
        batch: images a step; null for 128 and 8.
    """
    table = Table("Memory", {
        "device": "", "trained": "", "batch": "d", "weights and state, MiB": ".1f", "x alone": ".3f",
        "peak, MiB": ".0f", "peak x alone": ".3f"}, [])
    here = list(itertools.product(filter(is_here, DEVICES), pairs))
    for device, pair in here:
        taken = alternate({kind: functools.partial(in_process, kind, device, pair, batch)
                           for kind in ("pair", "motivated")}, seconds / len(here))
        base, motivated, images, *_ = PAIRS[pair]
        medians = {kind: {key: statistics.median(one[key] for one in values) for key in ("held", "peak")}
                   for kind, values in taken.items()}
        for kind, name in (("motivated", f"{motivated} alone"), ("pair", f"{base} and {motivated}")):
            own, alone = medians[kind], medians["motivated"]
            table.rows.append((device, name, batch or images, own["held"] / 2**20, own["held"] / alone["held"],
                               own["peak"] / 2**20, own["peak"] / alone["peak"]))
        if pair == "depth":
            ratio = medians["pair"]["peak"] / medians["motivated"]["peak"]
            table.bounds[f"{device}: peak of a pair by depth at most {BOUND} x alone; {ratio:.3f}"] = ratio <= BOUND
    if not is_here("cuda"):
        table.unmeasured("cuda", "all")
    return [table]


if __name__ == "__main__":
    kind, device, pair, batch = sys.argv[1:]
    base, motivated, _, size, optimizer = PAIRS[pair]
    print(json.dumps(train(kind, device, base, motivated, int(batch), size, optimizer)))
