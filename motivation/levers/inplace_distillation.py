"""Inplace distillation: motivated steps train the base too, by the logits that they compute anyway.

Yu and Huang 2019, arXiv 1903.05134, who train all widths of a slimmable network so.
"""

from torch import Tensor

from motivation.levers.distillation import Distillation
from motivation.training.distillation import Student
from motivation.training.trainer import Trainer


class InplaceDistillation(Distillation):
    """In motivated steps, adds the base's loss against a mixture of the targets and the step's own logits.

    One update takes both losses; the base's forward and backward are charged as ``student``. Base steps are unchanged.
    Arguments as in `Distillation`.
    """

    def check(self, trainer: Trainer) -> None:
        """See `Lever.check`; makes the base the trainer's student.

        Raises:
            ValueError: one network alone, or a compiled engine.
        """
        super().check(trainer)
        if trainer.engine.compile is not None:
            raise ValueError("the logits of a compiled step are not to be had; choose an engine that compiles nothing")
        assert trainer.pair
        trainer.student = Student(trainer.pair, self.share, self.temperature)

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`: as it came."""
        return inputs, targets, weights
