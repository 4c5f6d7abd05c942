"""A problem, and what every task of problems has: a vocabulary, splits, a generator and a verifier."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from motivation.randomness import PROBLEMS, derived_seed

PADDING = "_"
ASK = "="
# Draws until one belongs to a split; where none does, the split has (nearly) no problem.
MOST_DRAWS = 10_000
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Problem:
    """A problem and an answer to it.

    Args:
        prompt: tokens that are given; the last one asks for the answer.
        answer: the tokens after it: a right solution, or in noisy training what is trained on in its place.
        written: by token of the answer, whether the solver writes it; otherwise the environment does.
        hidden: what only the verifier knows.
    """

    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    written: tuple[bool, ...]
    hidden: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """A family of problems. No problem of a test split, and none of ``validation``, is trained on.

    Args:
        task_seed: of its functions, its problems and their splits, separate from the run's seed so that all runs share
            them.
    """

    task_seed: int = 0

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token; an id is its place. The padding is the first."""
        raise NotImplementedError

    @property
    def splits(self) -> tuple[str, ...]:
        """Names: ``train``, ``validation`` (as ``seen``, other problems), ``seen`` (what training draws from), and
        further test splits such as ``longer``.
        """
        raise NotImplementedError

    def draw(self, split: str, rng: random.Random) -> Problem:
        """A problem of a split."""
        raise NotImplementedError

    def verify(self, problem: Problem, answer: Sequence[str]) -> list[bool]:
        """Which tokens of an answer are right, each given those before it; what the environment writes included."""
        raise NotImplementedError

    def environment(self, problem: Problem, answer: Sequence[str]) -> str | None:
        """What the environment writes after an answer so far; None where the solver writes the next token."""
        return None

    def is_over(self, problem: Problem, answer: Sequence[str]) -> bool:
        """Whether an answer so far, right or wrong, is at its end; most tasks give its length in the prompt."""
        return len(answer) >= len(problem.answer)

    def accepts(self, problem: Problem, answer: Sequence[str]) -> bool:
        """Whether an answer solves its problem: every token is right and none is missing."""
        return len(answer) == len(self.solution(problem)) and all(self.verify(problem, answer))

    def render(self, problem: Problem) -> str:
        """A problem as text: wrong steps have a ``!`` behind them, what the environment writes is in brackets."""
        right = self.verify(problem, problem.answer)
        marked = [(token if written else f"[{token}]") + "!" * (not fine)
                  for token, written, fine in zip(problem.answer, problem.written, right, strict=True)]
        return " ".join([*problem.prompt, *marked])

    def problems(self, split: str, count: int) -> list[Problem]:
        """The first problems of a split: more of them begin with the same ones.

        Raises:
            ValueError: the task has no such split, or its verifier rejects the solution of one of its own problems.
        """
        if split not in self.splits:
            raise ValueError(f"split={split}: {type(self).__name__} has {', '.join(self.splits)}")
        rng = random.Random(derived_seed(self.task_seed, PROBLEMS, self.splits.index(split)))
        drawn = [self.draw(split, rng) for _ in range(count)]
        for problem in drawn:
            if not self.accepts(problem, self.solution(problem)):
                raise ValueError(f"{type(self).__name__}: its verifier rejects its own solution of "
                                 f"{' '.join(problem.prompt)} {' '.join(self.solution(problem))}")
        return drawn

    def solution(self, problem: Problem) -> tuple[str, ...]:
        """A right answer, also where the problem's own is not."""
        return problem.answer

    def solution_written(self, problem: Problem) -> tuple[bool, ...]:
        """By token of the solution, whether the solver writes it."""
        return problem.written


def first_that(belongs: Callable[[Drawn], bool], draw: Callable[[], Drawn], split: str) -> Drawn:
    """The first draw that belongs to a split.

    Raises:
        ValueError: none in 10,000 draws.
    """
    for _ in range(MOST_DRAWS):
        if belongs(drawn := draw()):
            return drawn
    raise ValueError(f"split={split}: none of {MOST_DRAWS:,} problems belongs to it; give more values or functions, or "
                     "other shares")
