"""CIFAR-10 and CIFAR-100 from torchvision's downloadable classes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motivation.data.dataset import Dataset, Split, check_shares, split_train


@dataclass(frozen=True)
class Cifar:
    """50,000 training and 10,000 test images of 32 x 32 (Krizhevsky 2009).

    Args:
        classes: 10 or 100.
        root: folder that holds, or will hold, the data.
        download: fetch the data (163 MiB) where it is missing.
        validation: share of the training set kept for model selection.
        heldout: share of the training set kept for monitors.
        fold: which of 1 / validation equal parts is the validation part, for cross-validation; null for a random one.
        split_seed: seed of those splits, apart from the run's seed so that all runs share them.

    Raises:
        ValueError: another number of classes, or shares outside [0, 1).
    """

    classes: int = 10
    root: str = "data"
    download: bool = False
    validation: float = 0.0
    heldout: float = 0.0
    fold: int | None = None
    split_seed: int = 0

    def __post_init__(self):
        if self.classes not in (10, 100):
            raise ValueError(f"classes={self.classes}: choose 10 or 100")
        check_shares(self.validation, self.heldout, self.fold)

    def load(self) -> Dataset:
        """Read the data, downloading it first if asked to.

        Raises:
            ValueError: the data is missing or damaged, or the download failed.
        """
        import torchvision.datasets

        source = getattr(torchvision.datasets, f"CIFAR{self.classes}")
        try:
            train, test = (source(self.root, train=part, download=self.download) for part in (True, False))
        except (RuntimeError, OSError) as error:
            reason = "the download failed" if self.download else "it is missing or damaged, and data.download is off"
            raise ValueError(f"CIFAR-{self.classes} in {Path(self.root).resolve()}: {reason} ({_first_line(error)}); "
                             "fetch it with data.download=true (163 MiB) or point data.root at a copy") from error
        return split_train(*(Split(np.asarray(part.data), np.asarray(part.targets, np.int64))
                             for part in (train, test)), self.validation, self.heldout, self.split_seed, self.fold)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". You can use")[0]
