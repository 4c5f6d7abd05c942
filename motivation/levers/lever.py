"""What every lever does: it chooses what is trained on, and what each unit of a batch weighs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from motivation.data import Dataset, EpochLoader
from motivation.training.trainer import Trainer


class Lever:
    """Divides a budget unevenly; capacity, which a pair and its schedule divide, is none of these.

    A lever overrides what it needs. Whatever it computes is charged to the trainer's ledger, see `Ledger.charge`. What
    it draws is derived from seed, epoch and step, so that a resume draws the same.

    Attributes:
        rung: of the last batch, from 0, for a lever that has rungs.
        rungs: what they are; empty for a lever without.
    """

    rung: int | None = None
    rungs: Sequence[Any] = ()

    @property
    def climbs(self) -> bool:
        """Whether the run's schedule climbs its rungs, one in every motivated step."""
        return False

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """The loader to train from.

        Args:
            loader: of the training set, as without a lever.
            dataset: all splits; never the test sets.
        """
        return loader

    def heldout(self) -> tuple[Tensor, Tensor] | None:
        """Inputs and targets for monitors that need held-out ones; None for those of the data set."""
        return None

    def check(self, trainer: Trainer) -> None:
        """Raise ValueError where it cannot train these networks; before the first step."""

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The batch to train on: that of the loader, some of it, or another one that is made from it.

        Args:
            trainer: before the step; its networks may be asked for scores or answers.
            inputs: the loader's batch.
            targets: its targets.
            weights: what its units weigh, see `Trainer.step`; None for one each.
        """
        return inputs, targets, weights

    def totals(self) -> dict[str, float]:
        """Figures of its own for the rows of epochs.jsonl and the summary, named ``lever/...``."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What it carries from one step to the next."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state saved by `state_dict`."""
