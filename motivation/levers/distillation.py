"""Distillation: the base learns from the pair's motivated network too (Hinton et al. 2015, arXiv 1503.02531)."""

from torch import Tensor

from motivation.data import Dataset, EpochLoader, Sequences
from motivation.levers.lever import Lever
from motivation.levers.scores import logits
from motivation.levers.selection import Share
from motivation.training.distillation import mixture
from motivation.training.trainer import Trainer
from motivation.validation import Positive, check_arguments


class Distillation(Lever):
    """In base steps, mixes the targets with the motivated network's predictions; motivated steps are unchanged.

    The motivated network's forward is charged as ``teacher``.

    Args:
        share: of the target that is the teacher's; the rest is the data's.
        temperature: that the teacher's logits are divided by.
    """

    @check_arguments
    def __init__(self, share: Share = 0.5, temperature: Positive = 1.0):
        self.share, self.temperature = share, temperature

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Lever.loader`.

        Raises:
            ValueError: data of tokens.
        """
        if isinstance(dataset.train, Sequences):
            raise ValueError("distillation mixes the targets of images, and the data has tokens; choose data of "
                             "images, such as data=cifar10")
        return loader

    def check(self, trainer: Trainer) -> None:
        """See `Lever.check`.

        Raises:
            ValueError: one network alone.
        """
        if trainer.pair is None:
            raise ValueError("the teacher is a pair's motivated network, and there is one network alone; choose a "
                             "pair, such as model=resnet20_32")

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`: targets become shares ``(N, classes)`` in base steps."""
        if trainer.phase == "motivated":
            return inputs, targets, weights
        trainer.synchronize()
        trainer.ledger.charge("teacher", len(inputs) * trainer.forward_flops("motivated", inputs))
        predicted = logits(trainer.network("motivated"), inputs, trainer.engine)
        return inputs, mixture(targets, predicted, self.share, self.temperature), weights
