"""What a switch of capacity costs, against a training step of the base; what building a pair costs.

A switch copies sliced weights and their optimizer state; by depth alone there is nothing to copy. Building: the seconds
that making the pair takes beyond creating its two networks.
"""

import itertools
import statistics
from typing import Literal

import torch
import torch.nn.functional as F

from motivation import Pair
from motivation.models import create_model
from motivation.training.optimizer_state import SharedState, split_groups
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import alternate, now
from .workload import CLASSES, DEVICES, is_here

SWITCH_BOUND, BUILD_BOUND = 0.01, 0.5
# Base, motivated, batch and image size of the base's step.
PAIRS = {"vit": ("vit_tiny_patch16_224", "vit_small_patch16_224", 64, 224),
         "efficientnet": ("efficientnet_b0", "efficientnet_b1", 64, 64),
         "resnet": ("resnet50", "resnet101", 64, 64),
         "cifar": ("resnet20", "resnet32", 128, 32)}


def built(base: str, motivated: str, device: str) -> tuple[Pair, float]:
    """A pair, and the seconds to make it."""
    networks = [create_model(name, CLASSES).to(device) for name in (base, motivated)]
    start = now(device)
    return Pair(*networks), now(device) - start


def step_and_switch(pair: Pair, seconds: float, batch: int, size: int, device: str) -> tuple[float, float, int]:
    """Median seconds of a base step and of a switch, and the bytes that a switch copies; with AdamW's two moments."""
    optimizers = [torch.optim.AdamW(groups, lr=1e-4, fused=True)
                  for groups in split_groups(pair, torch.nn.Module.parameters)]
    parts = (pair, SharedState(pair, *optimizers))
    images = torch.randn(batch, 3, size, size, device=device)
    targets = torch.randint(0, CLASSES, (batch,), device=device)
    copied = 0

    def step() -> float:
        start = now(device)
        optimizers[0].zero_grad()
        F.cross_entropy(pair.base(images), targets).backward()
        optimizers[0].step()
        return now(device) - start

    def switch() -> float:
        """Mean of an expand and a contract."""
        nonlocal copied
        start = now(device)
        for part in parts:
            part.expand()
        copied = sum(part.contract() for part in parts)
        return (now(device) - start) / 2

    # The first step allocates, the first switch of each direction lists what it copies.
    step()
    switch()
    # A step moves the weights out of the cache, as in training: switches are measured after one.
    figures = alternate({"step": step, "switch": switch}, seconds)
    return statistics.median(figures["step"]), statistics.median(figures["switch"]), copied


def measure(seconds: NotNegative = 15, batch: Count | None = None,
            pairs: tuple[Literal["vit", "efficientnet", "resnet", "cifar"], ...] = tuple(PAIRS)) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all.
        batch: images of the base's step; null for 64, and 128 for ResNet-20.
        pairs: ViT-Tiny/Small, EfficientNet-B0/B1, ResNet-50/101, ResNet-20/32.
    """
    table = Table("Switch", {
        "device": "", "pair": "", "batch": "d", "px": "d", "base step, s": ".4f", "switch, ms": ".3f",
        "copied, MiB": ".1f", "switch / base step": ".3%", "built in, s": ".2f"}, [])
    here = list(itertools.product(filter(is_here, DEVICES), pairs))
    for device, name in here:
        base, motivated, images, size = PAIRS[name]
        pair, built_in = built(base, motivated, device)
        step, switch, copied = step_and_switch(pair, seconds / len(here), batch or images, size, device)
        table.rows.append((device, f"{base} / {motivated}", batch or images, size, step, switch * 1e3, copied / 2**20,
                           switch / step, built_in))
        table.bounds |= {
            f"{device}, {base}: a switch at most {SWITCH_BOUND:.0%} of a base step; {switch / step:.3%}":
                switch <= SWITCH_BOUND * step,
            f"{device}, {base}: built in at most {BUILD_BOUND} s; {built_in:.2f}": built_in <= BUILD_BOUND}
        if not pair.weights_map.sliced:
            table.bounds[f"{device}, {base}: by depth nothing is copied; {copied} bytes"] = copied == 0
    if not is_here("cuda"):
        table.unmeasured("cuda", "all")
    return [table]
