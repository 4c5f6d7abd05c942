"""Data sets in memory, whose loader keeps them on the device, and in files, whose loader has worker processes.

Of images, or of token sequences (in memory).
"""

from motivation.data.augment.augmentation import Augmentation
from motivation.data.dataset import Dataset, Split
from motivation.data.loaders.ahead import Ahead
from motivation.data.loaders.files import FileLoader
from motivation.data.loaders.resident import EVALUATION_BATCH, EpochLoader, Loader, Normalization, evaluation_batches
from motivation.data.loaders.sequences import SequenceLoader
from motivation.data.sequences import Sequences
from motivation.data.sources.arrays import Arrays
from motivation.data.sources.cifar import Cifar
from motivation.data.sources.digits import Digits
from motivation.data.sources.files import Files
from motivation.data.sources.image_folder import ImageFolder, ImageNet
from motivation.data.sources.oxford import Flowers, Pets
from motivation.data.sources.problems import ChainProblems, PointerChaseProblems, Problems, TwoSourceProblems
from motivation.data.sources.webdataset import WebDataset

BY_NAME = {"digits": Digits, "arrays": Arrays, "cifar": Cifar, "image_folder": ImageFolder, "imagenet": ImageNet,
           "webdataset": WebDataset, "flowers": Flowers, "pets": Pets, "chains": ChainProblems,
           "pointer_chase": PointerChaseProblems, "two_source_chains": TwoSourceProblems}

__all__ = ["BY_NAME", "EVALUATION_BATCH", "Ahead", "Arrays", "Augmentation", "Cifar", "Dataset", "Digits",
           "EpochLoader", "FileLoader", "Files", "Flowers", "ImageFolder", "ImageNet", "Loader", "Normalization",
           "Pets", "Problems", "SequenceLoader", "Sequences", "Split", "WebDataset", "evaluation_batches",
           "open_loader"]


def open_loader(dataset: Dataset, batch_size: int, **options) -> EpochLoader:
    """The loader of a data set's training images, in memory or in files, or of its token sequences.

    Args:
        dataset: the data set.
        batch_size: images a batch.
        options: of `EpochLoader`.

    Raises:
        ValueError: fewer images than a batch, or an augmentation that such images or batches cannot have.
    """
    train = dataset.train
    if isinstance(train, Files):
        return FileLoader(train, batch_size, train.reading.normalization, num_classes=dataset.num_classes, **options)
    if isinstance(train, Sequences):
        return SequenceLoader(train, batch_size, num_classes=dataset.num_classes, **options)
    return Loader(train, batch_size, Normalization.of(train), num_classes=dataset.num_classes, **options)
