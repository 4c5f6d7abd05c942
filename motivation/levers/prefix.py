"""Prefix: a failed attempt pays; its right beginning is kept, a teacher finishes it (SCOPE, arXiv 2602.24110).

The paper's model that finds the first wrong step is here the task's exact verifier.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from motivation.accuracy import IGNORED
from motivation.data import Dataset, EpochLoader
from motivation.levers.lever import Lever
from motivation.levers.rollouts import Rollout, Sampler, Written, advantages, per_token
from motivation.randomness import CUTS, uniform
from motivation.tasks.problem import Problem, Task
from motivation.training.trainer import Trainer
from motivation.validation import Positive, check_arguments

Rule = Literal["grpo", "first_wrong", "random_cut", "whole", "whole_matched", "dagger"]


class Teacher(Protocol):
    """What finishes answers."""

    def __call__(self, begun: Sequence[tuple[Problem, Written]]) -> list[Written]:
        """Answers that begin with what is written."""


def repair(rollouts: Sequence[Rollout], cuts: Sequence[int], task: Task, teacher: Teacher) -> list[Rollout]:
    """Rollouts cut before a token and finished by a teacher, verified again.

    Args:
        rollouts: failed ones.
        cuts: how many tokens of each are kept, such as its `Rollout.first_wrong`.
        task: that verifies.
        teacher: that finishes.
    """
    begun = [(one.problem, (one.answer[:cut], one.written[:cut])) for one, cut in zip(rollouts, cuts, strict=True)]
    return [Rollout.verified(task, problem, written, cut)
            for (problem, _), written, cut in zip(begun, teacher(begun), cuts, strict=True)]


def solve(task: Task, begun: Sequence[tuple[Problem, Written]]) -> list[Written]:
    """The teacher that is the task itself: each right beginning continued by the task's solution, for no FLOPs."""
    return [(task.solution(problem), problem.written) for problem, _ in begun]


class Prefix(Lever):
    """Trains on rollouts: of a batch of B problems, B / group are answered ``group`` times by the network that trains.

    In every group that failed, one failure is repaired: the one with the longest right beginning, the first of equals.
    It takes the failure's place before advantages are computed; its tokens, also the teacher's, weigh its advantage
    (no correction for their being off-policy). Tokens of the environment are no targets.

    Args:
        rule: what is kept of the failure: ``first_wrong`` all before its first wrong token (SCOPE); ``random_cut`` a
            beginning of that of random length; ``whole`` nothing; ``whole_matched`` nothing, but only as often that the
            teacher writes as many tokens as ``first_wrong`` would for this run's failures; ``grpo`` repairs nothing;
            ``dagger`` keeps what ``first_wrong`` does, and trains by plain cross-entropy on the teacher's tokens alone.
        group: answers a problem.
        successes: most accepted answers of a group that failed.
        temperature: of sampling.
        after: steps of supervised training before, on whole batches.
        seed: of the run.

    Raises:
        ValueError: a group of fewer than 2.
    """

    @check_arguments
    def __init__(self, rule: Rule = "first_wrong", group: Annotated[int, Field(ge=2)] = 8,
                 successes: Annotated[int, Field(ge=0)] = 1, temperature: Positive = 1.0,
                 after: Annotated[int, Field(ge=0)] = 0, *, seed: int):
        self.rule, self.group, self.successes, self.temperature = rule, group, successes, temperature
        self.after, self.seed = after, seed
        # Of `whole_matched`: tokens that `first_wrong` would have spent so far, less those that were.
        self._credit = 0
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

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`: as many rows as the loader's batch."""
        if trainer.steps < self.after:
            return inputs, targets, weights
        rollouts = self._sampler.sample(trainer, inputs[:len(inputs) // self.group], self.group, self.temperature,
                                        self.seed)
        self._repair(trainer, rollouts)
        inputs, targets, taught = self._sampler.batch(rollouts, inputs.device)
        if self.rule == "dagger":
            learned, values = taught, torch.ones(len(rollouts))
        else:
            learned = targets != IGNORED
            values = advantages(torch.tensor([float(one.accepted) for one in rollouts]), self.group)
        trainer.ledger.count("update_tokens", int(learned.sum()))
        trainer.ledger.count("teacher_tokens", int(taught.sum()))
        return inputs, targets, per_token(values.to(inputs.device), learned)

    def _repair(self, trainer: Trainer, rollouts: list[Rollout]) -> None:
        """Put repaired rollouts in the place of failures."""
        if self.rule == "grpo":
            return
        places, cuts = [], []
        for start in range(0, len(rollouts), self.group):
            group = rollouts[start:start + self.group]
            failures = [number for number, one in enumerate(group) if not one.accepted]
            if not failures or self.group - len(failures) > self.successes:
                continue
            best = max(failures, key=lambda number: group[number].first_wrong)
            cut = self._cut(group[best], trainer.steps * len(rollouts) + start)
            if cut is not None:
                places.append(start + best)
                cuts.append(cut)
        task = self._sampler.task
        repaired = repair([rollouts[place] for place in places], cuts, task, lambda begun: solve(task, begun))
        for place, one in zip(places, repaired, strict=True):
            rollouts[place] = one

    def _cut(self, failure: Rollout, place: int) -> int | None:
        """How many tokens of a failure are kept; None to leave it as it is.

        Args:
            failure: a rollout.
            place: in training, that random cuts are drawn for.
        """
        right = failure.first_wrong
        if self.rule in ("first_wrong", "dagger"):
            return right
        if self.rule == "random_cut":
            return int(uniform(self.seed, CUTS, place) * (right + 1))
        if self.rule == "whole_matched":
            whole = sum(failure.problem.written)
            self._credit += sum(failure.problem.written[right:])
            if self._credit < whole:
                return None
            self._credit -= whole
        return 0

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return {"credit": self._credit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        self._credit = state["credit"]
