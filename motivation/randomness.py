"""Derived randomness: bits that depend on the run's seed, a purpose and a place in training, and on nothing before it.

A resumed run therefore needs no replay, and no purpose disturbs another.
"""

import numpy as np
import torch

# One number a purpose. They are part of what a seed means: never change or reuse one.
ORDER, AUGMENTATION, MOTIVATED_WEIGHTS = 0, 1, 2


def derived_seed(seed: int, purpose: int, *place: int) -> int:
    """A 32-bit seed (torch's CPU generator reads no more) for a purpose, at a place such as (epoch, step)."""
    return int(np.random.SeedSequence(entropy=seed, spawn_key=(purpose, *place)).generate_state(1)[0])


def derived_generator(seed: int, purpose: int, *place: int) -> torch.Generator:
    """A CPU generator started from `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, *place))
