"""Prefix: a failed attempt pays; its right beginning is kept, a teacher finishes it (SCOPE, arXiv 2602.24110).

The paper's model that finds the first wrong step is here the task's exact verifier.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from motivation.data import Dataset, EpochLoader
from motivation.levers.on_rollouts import OnRollouts
from motivation.levers.reference import Reference, read_reference
from motivation.levers.rollouts import Rollout, Written, advantages, likeliest
from motivation.phase import Phase
from motivation.randomness import CUTS, uniform
from motivation.tasks.problem import Problem, Task
from motivation.training.trainer import Trainer
from motivation.validation import Positive, check_arguments

Rule = Literal["grpo", "first_wrong", "random_cut", "whole", "whole_matched", "dagger"]
# Finishes answers: problems with what is kept -> answers that begin with that.
Teacher = Callable[[Sequence[tuple[Problem, Written]]], list[Written]]


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
    return [(task.solution(problem), task.solution_written(problem)) for problem, _ in begun]


class Prefix(OnRollouts):
    """Trains on rollouts, see `OnRollouts`, some failures repaired.

    In every group that failed, one failure is repaired: the one with the longest right beginning, the first of equals.
    It takes the failure's place before advantages are computed; its tokens, also the teacher's, weigh its advantage
    (no correction for their being off-policy).

    Args:
        rule: what is kept of the failure: ``first_wrong`` all before its first wrong token (SCOPE); ``random_cut`` a
            beginning of that of random length; ``whole`` nothing; ``whole_matched`` nothing, but only as often that the
            teacher writes as many tokens as ``first_wrong`` would for this run's failures; ``grpo`` repairs nothing;
            ``dagger`` keeps what ``first_wrong`` does, and trains by plain cross-entropy on the teacher's tokens alone.
        group: answers a problem.
        successes: most accepted answers of a group that failed.
        temperature: of sampling.
        after: steps of supervised training before, on whole batches.
        teacher: ``verifier``, the task itself: it costs no FLOPs; ``run``, a network of a finished run: its whole
            training is charged as ``reference`` at the first step, and its tokens as ``teacher``; ``motivated``, the
            pair's motivated network: its tokens are. A network writes its likeliest tokens, right or wrong.
        run: the finished run's folder.
        of: which of the run's networks.
        seed: of the run.
        total_steps: length of training; None where it is unknown.

    Raises:
        ValueError: a group of fewer than 2, no step left for rollouts, a run without a use for it, or none where one
            is used.
    """

    @check_arguments
    def __init__(self, rule: Rule = "first_wrong", group: Annotated[int, Field(ge=2)] = 8,
                 successes: Annotated[int, Field(ge=0)] = 1, temperature: Positive = 1.0,
                 after: Annotated[int, Field(ge=0)] = 0,
                 teacher: Literal["verifier", "run", "motivated"] = "verifier", run: str | None = None,
                 of: Phase = "base", *, seed: int, total_steps: int | None = None):
        if (teacher == "run") != (run is not None):
            raise ValueError(f"run={run}: is for teacher=run, and teacher={teacher}" if run else
                             "run is missing: teacher=run takes a network of a finished run; give its folder")
        super().__init__(group, temperature, after, seed, total_steps)
        self.rule, self.successes, self.teacher, self.run, self.of = rule, successes, teacher, run, of
        # Of `whole_matched`: tokens that `first_wrong` would have spent so far, less those that were.
        self._credit = 0
        self._reference: Reference | None = None

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `OnRollouts.loader`.

        Raises:
            ValueError: as there, or a teacher of other tokens.
        """
        loader = super().loader(loader, dataset)
        if self.run is not None:
            self._reference = read_reference(self.run, self.of, dataset, loader.image_shape)
            self._reference.network.to(loader.device)
        return loader

    def check(self, trainer: Trainer) -> None:
        """See `Lever.check`."""
        if self.teacher == "motivated" and trainer.pair is None:
            raise ValueError("teacher=motivated: is a pair's motivated network, and there is one network alone; choose "
                             "a pair, such as model=gpt_pair")

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`: as many rows as the loader's batch."""
        if self._reference is not None:
            self._reference.charge_training(trainer)
        return super().batch(trainer, inputs, targets, weights)

    def chosen(self, trainer: Trainer, rollouts: list[Rollout]) -> tuple[Sequence[Rollout], Tensor]:
        """See `OnRollouts.chosen`: all, failures repaired."""
        self._repair(trainer, rollouts)
        if self.rule == "dagger":
            return rollouts, torch.ones(len(rollouts))
        return rollouts, advantages(rollouts, self.group)

    def learned(self, targets: Tensor, taught: Tensor) -> Tensor:
        """See `OnRollouts.learned`."""
        return taught if self.rule == "dagger" else super().learned(targets, taught)

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
        if places:
            repaired = repair([rollouts[place] for place in places], cuts, self._sampler.task,
                              functools.partial(self._finish, trainer))
            for place, one in zip(places, repaired, strict=True):
                rollouts[place] = one

    def _finish(self, trainer: Trainer, begun: Sequence[tuple[Problem, Written]]) -> list[Written]:
        """The teacher."""
        if self.teacher == "verifier":
            return solve(self._sampler.task, begun)
        if self._reference is not None:
            network = self._reference.network
        else:
            trainer.synchronize()
            network = trainer.network("motivated")
        written, flops = self._sampler.write(network, trainer.engine, begun, likeliest)
        trainer.ledger.charge("teacher", flops)
        return written

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
            written = self._sampler.task.solution_written(failure.problem)
            whole = sum(written)
            self._credit += sum(written[right:])
            if self._credit < whole:
                return None
            self._credit -= whole
        return 0

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return super().state_dict() | {"credit": self._credit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        super().load_state_dict(state)
        self._credit = state["credit"]
