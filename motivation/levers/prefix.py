"""Prefix: a failed attempt pays; its right beginning is kept, a teacher finishes it (SCOPE, arXiv 2602.24110).

The paper's model that finds the first wrong step is here the task's exact verifier.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from motivation.accuracy import IGNORED
from motivation.data import Dataset, EpochLoader
from motivation.levers.lever import Lever
from motivation.levers.reference import Reference, read_reference
from motivation.levers.rollouts import Rollout, Sampler, Written, advantages, likeliest, per_token
from motivation.phase import Phase
from motivation.randomness import CUTS, uniform
from motivation.tasks.problem import Problem, Task
from motivation.training.trainer import Trainer
from motivation.validation import Positive, check_arguments

Rule = Literal["grpo", "first_wrong", "random_cut", "whole", "whole_matched", "dagger"]
# Finishes answers: problems with what is kept -> answers that begin with that.
Teacher = Callable[[Sequence[tuple[Problem, Written]]], list[Written]]
# What is counted: sampled answers, and accepted ones; tokens that the teacher wrote; tokens that were trained on.
COUNTED = ("rollouts", "right_rollouts", "teacher_tokens", "update_tokens")


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
        teacher: ``verifier``, the task itself: it costs no FLOPs; ``run``, a network of a finished run: its whole
            training is charged as ``reference`` at the first step, and its tokens as ``teacher``; ``motivated``, the
            pair's motivated network: its tokens are. A network writes its likeliest tokens, right or wrong.
        run: the finished run's folder.
        of: which of the run's networks.
        seed: of the run.

    Raises:
        ValueError: a group of fewer than 2, or a run without a use for it, or none where one is used.
    """

    @check_arguments
    def __init__(self, rule: Rule = "first_wrong", group: Annotated[int, Field(ge=2)] = 8,
                 successes: Annotated[int, Field(ge=0)] = 1, temperature: Positive = 1.0,
                 after: Annotated[int, Field(ge=0)] = 0,
                 teacher: Literal["verifier", "run", "motivated"] = "verifier", run: str | None = None,
                 of: Phase = "base", *, seed: int):
        if (teacher == "run") != (run is not None):
            raise ValueError(f"run={run}: is for teacher=run, and teacher={teacher}" if run else
                             "run is missing: teacher=run takes a network of a finished run; give its folder")
        self.rule, self.group, self.successes, self.temperature = rule, group, successes, temperature
        self.after, self.teacher, self.run, self.of, self.seed = after, teacher, run, of, seed
        # Of `whole_matched`: tokens that `first_wrong` would have spent so far, less those that were.
        self._credit = 0
        self._counted = dict.fromkeys(COUNTED, 0)
        self._reference: Reference | None = None
        self._sampler: Sampler

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Lever.loader`.

        Raises:
            ValueError: batches that groups do not divide, data without a verifier, several processes, or a teacher of
                other tokens.
        """
        if loader.batch_size % self.group:
            raise ValueError(f"group={self.group}: must divide the batch of {loader.batch_size}")
        self._sampler = Sampler(dataset)
        if self.run is not None:
            self._reference = read_reference(self.run, self.of, dataset)
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
        if trainer.steps == 0 and self._reference is not None:
            trainer.ledger.charge("reference", self._reference.training)
        if trainer.steps < self.after:
            return inputs, targets, weights
        rollouts = self._sampler.sample(trainer, inputs[:len(inputs) // self.group], self.group, self.temperature,
                                        self.seed)
        self._count(rollouts=len(rollouts), right_rollouts=sum(one.accepted for one in rollouts))
        self._repair(trainer, rollouts)
        inputs, targets, taught = self._sampler.batch(rollouts, inputs.device)
        if self.rule == "dagger":
            learned, values = taught, torch.ones(len(rollouts))
        else:
            learned = targets != IGNORED
            values = advantages(torch.tensor([float(one.accepted) for one in rollouts]), self.group)
        self._count(teacher_tokens=int(taught.sum()), update_tokens=int(learned.sum()))
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
            whole = sum(failure.problem.written)
            self._credit += sum(failure.problem.written[right:])
            if self._credit < whole:
                return None
            self._credit -= whole
        return 0

    def _count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self._counted[name] += number

    def totals(self) -> dict[str, float]:
        """See `Lever.totals`: what was counted so far, see `COUNTED`."""
        return {f"lever/{name}": number for name, number in self._counted.items()}

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return {"credit": self._credit, "counted": dict(self._counted)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        self._credit, self._counted = state["credit"], dict(state["counted"])
