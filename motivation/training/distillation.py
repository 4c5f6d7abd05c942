"""A pair's base that learns from its motivated network's predictions (Hinton et al. 2015, arXiv 1503.02531)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.amp import GradScaler

from motivation.pairing.pair import Pair
from motivation.pairing.weights_map import tensor_of
from motivation.training.engine import Engine, Loss


def mixture(targets: Tensor, logits: Tensor, share: float, temperature: float) -> Tensor:
    """Targets of a student, ``(N, classes)``: the data's, mixed with what a teacher predicts.

    Args:
        targets: class indices ``(N,)``, or shares ``(N, classes)``.
        logits: the teacher's, ``(N, classes)``.
        share: of the mixture that is the teacher's.
        temperature: that the logits are divided by.
    """
    taught = (logits / temperature).softmax(1)
    known = targets if targets.is_floating_point() else F.one_hot(targets, taught.shape[1]).to(taught.dtype)
    return known.lerp(taught, share)


class Student:
    """The base, taught in motivated steps by the logits that these compute anyway (inplace distillation).

    Yu and Huang 2019, arXiv 1903.05134. A motivated step then has two losses: the motivated network's own, and the
    base's against the `mixture`. Their gradients add up in the weights that both networks share, also where the base's
    are a slice, and one update takes them.

    Args:
        pair: the networks.
        share: see `mixture`.
        temperature: see `mixture`.
    """

    def __init__(self, pair: Pair, share: float, temperature: float):
        self.pair, self.share, self.temperature = pair, share, temperature
        self._logits: list[Tensor] = []

    def listen(self, loss: Loss) -> Loss:
        """The loss of the motivated network, which also keeps the logits of each micro-batch for `learn`."""
        def listened(logits: Tensor, targets: Tensor) -> Tensor:
            self._logits.append(logits.detach())
            return loss(logits, targets)

        self._logits.clear()
        return listened

    def learn(self, engine: Engine, loss: Loss, images: Tensor, targets: Tensor, scaler: GradScaler | None = None
              ) -> int:
        """Add the base's gradients to those of the motivated network, after its backward.

        Args:
            engine: of the step.
            loss: of the base's logits and the mixture.
            images: the step's batch.
            targets: its targets.
            scaler: of the step.

        Returns:
            Bytes that were copied to bring the base up to date.
        """
        base, motivated = self.pair.base, self.pair.motivated
        copied = self.pair.contract()
        sliced = [(entry, tensor_of(base, entry.base), tensor_of(motivated, entry.motivated))
                  for entry in self.pair.weights_map.sliced]
        for _, ours, _ in sliced:
            ours.grad = None
        base.train()
        mixed = mixture(targets, torch.cat(self._logits), self.share, self.temperature)
        self._logits.clear()
        engine.gradients(base, loss, images, mixed, scaler)
        for entry, ours, theirs in sliced:
            if ours.grad is not None and theirs.grad is not None:
                for mine, shared in entry.pieces(ours.grad, theirs.grad):
                    shared.add_(mine)
            ours.grad = None
        return copied
