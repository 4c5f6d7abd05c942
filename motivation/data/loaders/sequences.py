"""Training batches of token sequences that live on the device."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from motivation.data.augment.augmentation import Augmentation
from motivation.data.loaders.resident import EVALUATION_BATCH, EpochLoader, epoch_order
from motivation.data.sequences import Sequences


class SequenceLoader(EpochLoader):
    """Batches of sequences in an epoch's order; nothing about them is drawn.

    Args:
        part: the training sequences.
        batch_size: sequences a batch; a last partial batch is dropped.
        options: of `EpochLoader`.

    Raises:
        ValueError: fewer sequences than a batch, or an augmentation, which is for images.
    """

    def __init__(self, part: Sequences, batch_size: int, **options: Any):
        super().__init__(part, batch_size, None, **options)
        for one in fields(Augmentation):
            if one.name != "repeats" and (value := getattr(self.augmentation, one.name)) != one.default:
                raise ValueError(f"{one.name}={value}: is for images, and these are tokens; must be {one.default}")
        self.tokens = torch.from_numpy(part.tokens).to(self.device)
        self.labels = torch.from_numpy(part.labels).to(self.device)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one epoch, see `EpochLoader.epoch`: tokens int64 ``(N, T)`` and their targets ``(N, T)``."""
        order = epoch_order(self.count, self.seed, epoch, self.augmentation.repeats).to(self.device)
        for step in range(start, len(self)):
            indices = order[step * self.batch_size:(step + 1) * self.batch_size][self.share]
            yield self.tokens[indices], self.labels[indices]

    def evaluation_batches(self, part: Sequences, batch_size: int = EVALUATION_BATCH) -> Iterator[Tensor]:
        """Tokens int64 ``(N, T)`` in the part's order, the last partial batch included."""
        for start in range(0, len(part), batch_size):
            yield torch.from_numpy(part.tokens[start:start + batch_size]).to(self.device)
