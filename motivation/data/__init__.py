"""Data sets in memory, and the loader that keeps them on the device."""

from motivation.data.arrays import Arrays
from motivation.data.cifar import Cifar
from motivation.data.dataset import Dataset, Split
from motivation.data.digits import Digits
from motivation.data.loader import EVALUATION_BATCH, Loader, Normalization, evaluation_batches

BY_NAME = {"digits": Digits, "arrays": Arrays, "cifar": Cifar}

__all__ = ["BY_NAME", "EVALUATION_BATCH", "Arrays", "Cifar", "Dataset", "Digits", "Loader", "Normalization", "Split",
           "evaluation_batches"]
