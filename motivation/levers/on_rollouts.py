"""What every lever does that trains on rollouts: samples them, counts them, and gives the trainer a weighted batch."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from motivation.accuracy import IGNORED
from motivation.data import Dataset, EpochLoader
from motivation.levers.lever import Lever
from motivation.levers.rollouts import Rollout, Sampler, per_token
from motivation.training.trainer import Trainer

# What is counted: sampled answers, and accepted ones; tokens that a teacher wrote; tokens that were trained on.
COUNTED = ("rollouts", "right_rollouts", "teacher_tokens", "update_tokens")


class OnRollouts(Lever):
    """Of a batch of B problems, B / group are answered ``group`` times by the network that trains.

    Tokens of the environment are no targets. A lever says which rollouts are trained on, with which weights.

    Args:
        group: answers a problem.
        temperature: of sampling.
        after: steps of supervised training before, on whole batches.
        seed: of the run.
        total_steps: length of training; None where it is unknown.

    Raises:
        ValueError: no step is left for rollouts.
    """

    def __init__(self, group: int, temperature: float, after: int, seed: int, total_steps: int | None = None):
        if total_steps is not None and after >= total_steps:
            raise ValueError(f"after={after}: must be below the {total_steps} steps of training; "
                             "rollouts begin there")
        self.group, self.temperature, self.after, self.seed = group, temperature, after, seed
        self._counted = dict.fromkeys(COUNTED, 0)
        self._sampler: Sampler

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Lever.loader`.

        Raises:
            ValueError: batches that groups do not divide, data without a verifier, or several processes.
        """
        if loader.batch_size % self.group:
            raise ValueError(f"group={self.group}: must divide the batch of {loader.batch_size}")
        self._sampler = Sampler(dataset)
        return loader

    def chosen(self, trainer: Trainer, rollouts: list[Rollout]) -> tuple[Sequence[Rollout], Tensor]:
        """The rollouts to train on, and what each weighs ``(R,)``.

        Args:
            trainer: before its step.
            rollouts: sampled, group after group.
        """
        raise NotImplementedError

    def learned(self, targets: Tensor, taught: Tensor) -> Tensor:
        """Which targets are trained on, bool ``(R, T)``: all that the solver writes.

        Args:
            targets: ``(R, T)``.
            taught: which of them a teacher wrote, bool ``(R, T)``.
        """
        return targets != IGNORED

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`."""
        if trainer.steps < self.after:
            return inputs, targets, weights
        rollouts = self._sampler.sample(trainer, inputs[:len(inputs) // self.group], self.group, self.temperature,
                                        self.seed)
        accepted = sum(one.accepted for one in rollouts)
        kept, values = self.chosen(trainer, rollouts)
        inputs, targets, taught = self._sampler.batch(kept, inputs.device)
        learned = self.learned(targets, taught)
        for name, number in zip(COUNTED, (len(rollouts), accepted, int(taught.sum()), int(learned.sum())), strict=True):
            self._counted[name] += number
        return inputs, targets, per_token(values.to(inputs.device), learned)

    def totals(self) -> dict[str, float]:
        """See `Lever.totals`: what was counted so far, see `COUNTED`."""
        return {f"lever/{name}": number for name, number in self._counted.items()}

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return {"counted": dict(self._counted)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        self._counted = dict(state["counted"])
