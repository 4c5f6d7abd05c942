"""Data sets in memory, and the loader that keeps them on the device."""

from motivation.data.arrays import Arrays
from motivation.data.augmentation import Augmentation
from motivation.data.cifar import Cifar
from motivation.data.dataset import Dataset, Split
from motivation.data.digits import Digits
from motivation.data.loader import Loader, Normalization, evaluation_batches

BY_NAME = {"digits": Digits, "arrays": Arrays, "cifar": Cifar}

__all__ = ["BY_NAME", "Arrays", "Augmentation", "Cifar", "Dataset", "Digits", "Loader", "Normalization", "Split",
           "evaluation_batches"]
