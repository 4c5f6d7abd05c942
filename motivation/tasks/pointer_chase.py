"""Pointer chase: follow a table that the solver cannot see, by asking for one entry after another."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field

from motivation.tasks.problem import ASK, PADDING, Problem, Task
from motivation.validation import Count, check_arguments

LOOK_UP, ANSWER = "S", "A"


@check_arguments
@dataclass(frozen=True)
class PointerChase(Task):
    """``k x0 = S x1 .. S xk A xk``: after each ``S`` the environment writes the next entry; ``A`` answers.

    Every problem has a random table of its own. Splits: ``seen`` and ``longer``.

    Args:
        task_seed: of the problems.
        values: how many there are.
        hops: fewest and most look-ups that a problem needs, but for ``longer``.
        longer: most look-ups of the split ``longer``, which needs more than training.
        shown: fewest and most look-ups of the answers in training, however many the problem needs: training then shows
            how to look up, and not how often. None for as many as it needs.

    Raises:
        ValueError: sizes that leave a split without a problem.
    """

    values: Annotated[int, Field(ge=2, le=1000)] = 10
    hops: tuple[Count, Count] = (1, 4)
    longer: Count = 6
    shown: tuple[Count, Count] | None = None

    def __post_init__(self):
        for name, range_of in (("hops", self.hops), ("shown", self.shown)):
            if range_of and range_of[0] > range_of[1]:
                raise ValueError(f"{name}={list(range_of)}: must be the fewest and the most look-ups, such as [1,4]")
        if self.longer <= self.hops[1]:
            raise ValueError(f"longer={self.longer}: must be more than the {self.hops[1]} look-ups of training")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, ``=``, ``S``, ``A``, the values ``0``, ``1``, ..., and numbers of look-ups ``k1``, ``k2``, ..."""
        return (PADDING, ASK, LOOK_UP, ANSWER, *map(str, range(self.values)),
                *(f"k{number}" for number in range(1, self.longer + 1)))

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Task.splits`."""
        return "train", "validation", "seen", "longer"

    def draw(self, split: str, rng: random.Random) -> Problem:
        """See `Task.draw`."""
        hops = rng.randint(*((self.hops[1] + 1, self.longer) if split == "longer" else self.hops))
        table = tuple(rng.randrange(self.values) for _ in range(self.values))
        start = rng.randrange(self.values)
        shown = rng.randint(*self.shown) if self.shown and split == "train" else hops
        return Problem((f"k{hops}", str(start), ASK), _chased(table, start, shown), _by_solver(shown), table)

    def solution(self, problem: Problem) -> tuple[str, ...]:
        """See `Task.solution`."""
        return _chased(problem.hidden, int(problem.prompt[1]), int(problem.prompt[0][1:]))

    def solution_written(self, problem: Problem) -> tuple[bool, ...]:
        """See `Task.solution_written`."""
        return _by_solver(int(problem.prompt[0][1:]))

    def environment(self, problem: Problem, answer: Sequence[str]) -> str | None:
        """See `Task.environment`: the entry that a look-up asks for, in the solver's own order or number of them."""
        if not answer or answer[-1] != LOOK_UP:
            return None
        value = int(problem.prompt[1])
        for _ in range(answer.count(LOOK_UP)):
            value = problem.hidden[value]
        return str(value)

    def is_over(self, problem: Problem, answer: Sequence[str]) -> bool:
        """See `Task.is_over`: with the token after ``A``."""
        return len(answer) > 1 and answer[-2] == ANSWER

    def verify(self, problem: Problem, answer: Sequence[str]) -> list[bool]:
        """See `Task.verify`; a look-up more than is needed is no right step, nor is an answer before that."""
        solution = self.solution(problem)
        return [number < len(solution) and token == solution[number] for number, token in enumerate(answer)]


def _chased(table: Sequence[int], value: int, hops: int) -> tuple[str, ...]:
    """The answer that makes so many look-ups from a value on."""
    answer: list[str] = []
    for _ in range(hops):
        value = table[value]
        answer += [LOOK_UP, str(value)]
    return (*answer, ANSWER, str(value))


def _by_solver(hops: int) -> tuple[bool, ...]:
    """By token of an answer of so many look-ups, whether the solver writes it."""
    return (*[True, False] * hops, True, True)
