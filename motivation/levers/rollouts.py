"""Rollouts: answers sampled from a network, their rewards by the task's verifier, and advantages within a group.

One update of GRPO (Shao et al. 2024, arXiv 2402.03300) on the batch that was just sampled is cross-entropy whose units
weigh their advantage: the ratio of policies is 1, so that nothing is clipped, and no reference policy is held to. What
a trainer sees of it is inputs, targets and weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from motivation.accuracy import IGNORED
from motivation.data import Dataset, Sequences
from motivation.data.sequences import encode, prompt_length
from motivation.randomness import ROLLOUTS, derived_generator
from motivation.tasks.problem import Problem, Task
from motivation.training.distributed import processes
from motivation.training.engine import Engine
from motivation.training.ledger import forward_flops
from motivation.training.trainer import Trainer

# An answer so far, and by token whether the solver wrote it (or the environment).
Written = tuple[tuple[str, ...], tuple[bool, ...]]


@dataclass(frozen=True)
class Rollout:
    """An answer to a problem, and what the verifier says of it.

    Args:
        problem: with its own solution.
        answer: the tokens, those of the environment included.
        written: by token, whether the solver wrote it; otherwise the environment did.
        right: by token, whether it is right.
        accepted: whether the answer solves the problem.
        own: tokens before the teacher's; all of them without a teacher.
    """

    problem: Problem
    answer: tuple[str, ...]
    written: tuple[bool, ...]
    right: tuple[bool, ...]
    accepted: bool
    own: int

    @classmethod
    def verified(cls, task: Task, problem: Problem, written: Written, own: int | None = None) -> "Rollout":
        """A rollout, judged by its task's verifier."""
        answer, by_solver = written
        return cls(problem, answer, by_solver, tuple(task.verify(problem, answer)), task.accepts(problem, answer),
                   len(answer) if own is None else own)

    @property
    def first_wrong(self) -> int:
        """Place of the first wrong token; the answer's length where there is none."""
        return (*self.right, False).index(False)

    @property
    def depth(self) -> int:
        """How often it asked the environment and was answered: the tokens that the environment wrote."""
        return len(self.written) - sum(self.written)

    @property
    def taught(self) -> int:
        """Tokens that a teacher wrote."""
        return sum(self.written[self.own:])


def advantages(rollouts: Sequence[Rollout], group: int) -> Tensor:
    """Rewards, 1 for an accepted answer and else 0, less their group's mean, over its standard deviation.

    Args:
        rollouts: R of them, group after group.
        group: rollouts of one problem.

    Returns:
        Float ``(R,)``; 0 in a group of equal rewards.
    """
    groups = torch.tensor([float(one.accepted) for one in rollouts]).view(-1, group)
    deviation = groups.std(1, correction=0, keepdim=True)
    return ((groups - groups.mean(1, keepdim=True)) / torch.where(deviation > 0, deviation, 1)).flatten()


def per_token(values: Tensor, learned: Tensor) -> Tensor:
    """Weights ``(R, T)`` with which a step's loss is the mean over all learned tokens, times their row's value.

    A step's loss is the mean over all units, prompts and padding included; here only learned tokens count, and a long
    answer counts by its length (as in DAPO, arXiv 2503.14476, and not by 1 over it).

    Args:
        values: by row ``(R,)``.
        learned: bool ``(R, T)``.
    """
    return values[:, None] * learned * (learned.numel() / learned.sum().clamp(min=1))


class Sampler:
    """Samples answers to the training problems of a data set, a token of all of them at a time.

    Args:
        dataset: of a task.

    Raises:
        ValueError: the data has no verifier, or several processes train together.
    """

    def __init__(self, dataset: Dataset):
        if dataset.task is None or not isinstance(dataset.train, Sequences):
            raise ValueError("rollouts need problems and their verifier, and the data has none; choose data of a task, "
                             "such as data=chains")
        if processes() > 1:
            raise ValueError(f"rollouts are sampled in one process, and {processes()} train together; run it without "
                             "torchrun")
        self.task, tokens = dataset.task, dataset.train.tokens
        self._ids = {token: number for number, token in enumerate(self.task.vocabulary)}
        self._prompt = prompt_length(self.task, dataset.train)
        # A sequence's last token is a target alone.
        self.longest = tokens.shape[1] + 1 - self._prompt
        self._problems = {row.tobytes(): problem for row, problem in zip(tokens, dataset.problems, strict=True)}
        self._forward: dict[tuple[nn.Module, int], int] = {}

    def problems(self, inputs: Tensor) -> list[Problem]:
        """The problems of rows of training inputs ``(N, T)``."""
        return [self._problems[row.tobytes()] for row in inputs.cpu().numpy()]

    def sample(self, trainer: Trainer, inputs: Tensor, group: int, temperature: float, seed: int) -> list[Rollout]:
        """Answers of the network that trains, group after group; their FLOPs are charged as ``rollout``.

        Args:
            trainer: before its step, which the draws depend on.
            inputs: a row a problem ``(N, T)``.
            group: answers a problem.
            temperature: that logits are divided by; the loss is that of temperature 1.
            seed: of the run.
        """
        problems = [problem for problem in self.problems(inputs) for _ in range(group)]
        draws = torch.rand(len(problems), self.longest, generator=derived_generator(seed, ROLLOUTS, trainer.steps))
        written, flops = self.write(trainer.network(trainer.phase), trainer.engine,
                                    [(one, ((), ())) for one in problems],
                                    lambda logits, place, rows: drawn(logits / temperature, draws[rows, place]))
        rollouts = [Rollout.verified(self.task, *one) for one in zip(problems, written, strict=True)]
        trainer.ledger.charge("rollout", flops)
        return rollouts

    @torch.no_grad()
    def write(self, network: nn.Module, engine: Engine, begun: Sequence[tuple[Problem, Written]],
              choose: Callable[[Tensor, int, list[int]], Tensor]) -> tuple[list[Written], int]:
        """Answers finished by a network: a forward of all rows that are not over for every token, without a cache.

        Args:
            network: left in evaluation mode; the next training step sets it back.
            engine: its precision.
            begun: problems with what is written already.
            choose: logits ``(rows, vocabulary)``, the place in the answer and the numbers of the rows -> ids
                ``(rows,)``.

        Returns:
            The answers, no longer than the longest in training, and the FLOPs of writing them.
        """
        network.eval()
        device, flops = next(network.parameters()).device, 0
        answers = [(list(answer), list(written)) for _, (answer, written) in begun]
        rows = torch.from_numpy(self._encoded([problem for problem, _ in begun], answers).tokens).to(device)
        for place in range(min(len(answer) for answer, _ in answers), self.longest):
            asked = []
            for number, ((problem, _), (answer, written)) in enumerate(zip(begun, answers, strict=True)):
                if len(answer) != place or self.task.is_over(problem, answer):
                    continue
                token = self.task.environment(problem, answer)
                if token is None:
                    asked.append(number)
                else:
                    answer.append(token)
                    written.append(False)
            if asked:
                seen = rows[asked, :self._prompt + place]
                with engine.autocast():
                    logits = network(seen)[..., -1].float().cpu()
                flops += len(asked) * self._flops(network, seen.shape[1])
                for number, token in zip(asked, choose(logits, place, asked).tolist(), strict=True):
                    answers[number][0].append(self.task.vocabulary[token])
                    answers[number][1].append(True)
            grown = [number for number, (answer, _) in enumerate(answers) if len(answer) == place + 1]
            if place + 1 < self.longest and grown:
                rows[grown, self._prompt + place] = torch.tensor([self._ids[answers[number][0][-1]]
                                                                  for number in grown], device=device)
        return [(tuple(answer), tuple(written)) for answer, written in answers], flops

    def batch(self, rollouts: Sequence[Rollout], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Rollouts as a batch to train on.

        Returns:
            Inputs ``(R, T)``, targets ``(R, T)``, and by target whether a teacher wrote it, bool ``(R, T)``.
        """
        part = self._encoded([one.problem for one in rollouts], [(one.answer, one.written) for one in rollouts])
        taught = np.zeros(part.labels.shape, bool)
        for row, one in zip(taught, rollouts, strict=True):
            row[self._prompt - 1 + one.own:] = True
        taught &= part.labels != IGNORED
        inputs, targets, by_teacher = (torch.from_numpy(array).to(device)
                                       for array in (part.tokens, part.labels, taught))
        return inputs, targets, by_teacher

    def _encoded(self, problems: Sequence[Problem], answers: Sequence[tuple[Sequence[str], Sequence[bool]]]
                 ) -> Sequences:
        return encode(self.task, [replace(problem, answer=tuple(answer), written=tuple(written))
                                  for problem, (answer, written) in zip(problems, answers, strict=True)],
                      self._prompt, self.longest)

    def _flops(self, network: nn.Module, length: int) -> int:
        if (network, length) not in self._forward:
            self._forward[network, length] = forward_flops(network, (length,))
        return self._forward[network, length]


def drawn(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Ids ``(N,)`` drawn from logits ``(N, vocabulary)`` by a number from 0 to below 1 each."""
    shares = logits.softmax(1).cumsum(1)
    return (shares <= uniforms[:, None]).sum(1).clamp(max=logits.shape[1] - 1)


def likeliest(logits: Tensor, place: int, rows: list[int]) -> Tensor:
    """Ids ``(N,)`` of greatest logits ``(N, vocabulary)``: how a network writes as a teacher."""
    return logits.argmax(1)
