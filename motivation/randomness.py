"""Derived randomness: bits that depend on the run's seed, a purpose and a place in training, and on nothing before it.

A resumed run therefore needs no replay, and no purpose disturbs another.
"""

import random

import numpy as np
import torch

# One number a purpose. They are part of what a seed means: never change or reuse one.
ORDER, AUGMENTATION, MOTIVATED_WEIGHTS, DROPOUT, MIXING, IMAGE = 0, 1, 2, 3, 4, 5
SCHEDULE, MONITOR, HELDOUT, SUBSET = 10, 11, 12, 13
FUNCTIONS, PROBLEMS, SPLIT = 20, 21, 22
SELECTION = 30
RUNGS, BUCKETS = 40, 41
ROLLOUTS, CUTS, KEPT = 50, 51, 52
SKILLS_DRAWN, SKILL_PROBLEMS = 60, 61
_64_BITS = (1 << 64) - 1


def derived_seed(seed: int, purpose: int, *place: int) -> int:
    """A 32-bit seed (torch's CPU generator reads no more) for a purpose, at a place such as (epoch, step)."""
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(purpose, *place)).generate_state(1)[0])


def derived_generator(seed: int, purpose: int, *place: int) -> torch.Generator:
    """A CPU generator started from `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *place))


def uniform(seed: int, purpose: int, place: int) -> float:
    """A number from 0 to below 1 for a purpose, at a place such as a step; 1 us (SplitMix64, Steele et al. 2014)."""
    bits = seed
    for part in (purpose, place):
        bits = (bits ^ part) + 0x9E3779B97F4A7C15 & _64_BITS
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _64_BITS
        bits ^= bits >> 31
    return (bits >> 11) / (1 << 53)


def random_state() -> dict:
    """State of every global generator that a forward pass or an augmentation may draw from; of GPUs, the current one.

    Plain values and tensors.
    """
    # timm's augmentation draws from numpy's global generator, which only the legacy calls reach.
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def restore_random_state(state: dict) -> None:
    """Set every global generator as `random_state` found it; without a GPU the GPU's is left out."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
