"""Two-source chains: some functions are learned, others stand in the prompt; skills that add up to a third.

After "From Atomic to Composite" (arXiv 2512.01970): memory and context are atomic, their composition is the test.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from pydantic import Field

from motivation.tasks.paths import PathTask, split_of
from motivation.tasks.problem import ASK, PADDING, Problem, first_that
from motivation.validation import NotNegative, ShareBelowOne, check_arguments

SKILLS = ("facts", "memory", "context", "composite")


@check_arguments
@dataclass(frozen=True)
class TwoSourceChains(PathTask):
    """``[name v0 v1 ..] x0 p q = x1 x2``: two hops through functions ``f`` that are fixed, and names ``n`` whose tables
    stand in the prompt, new ones in every problem.

    Skills: ``facts`` (one hop), ``memory`` (two functions), ``context`` (two names), ``composite`` (one of each). All
    functions and names are trained on in the first three. Splits are of composites: ``seen``, ``longer`` (three hops),
    ``unseen_path``, ``unseen_function`` (one or both never trained on in a composite).

    Args:
        task_seed: of functions, problems and splits.
        values: how many there are.
        functions: how many are learned.
        names: how many stand in prompts.
        mixture: how often each skill is trained, in relation to the others.
        unseen_paths: share of composites that are never trained on.
        unseen_functions: how many functions, and how many names, are in no trained composite.

    Raises:
        ValueError: nothing to train on, or sizes that leave a split without a problem.
    """

    values: Annotated[int, Field(ge=2, le=100)] = 8
    functions: Annotated[int, Field(ge=2, le=30)] = 12
    names: Annotated[int, Field(ge=2, le=30)] = 12
    mixture: tuple[NotNegative, NotNegative, NotNegative, NotNegative] = (1.0, 1.0, 1.0, 1.0)
    unseen_paths: ShareBelowOne = 0.5
    unseen_functions: Annotated[int, Field(ge=0)] = 3

    def __post_init__(self):
        if not any(self.mixture):
            raise ValueError(f"mixture={list(self.mixture)}: must have a share above 0 of {', '.join(SKILLS)}")
        if self.unseen_functions >= min(self.functions, self.names):
            raise ValueError(f"unseen_functions={self.unseen_functions}: must leave one of {self.functions} functions "
                             f"and one of {self.names} names to train composites of")

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, ``=``, the values ``0``, ``1``, ..., the functions ``f0``, ..., the names ``n0``, ..."""
        return (PADDING, ASK, *map(str, range(self.values)), *(f"f{number}" for number in range(self.functions)),
                *(f"n{number}" for number in range(self.names)))

    def draw(self, split: str, rng: random.Random) -> Problem:
        """See `Task.draw`."""
        skill = rng.choices(SKILLS, self.mixture)[0] if split == "train" else "composite"
        if skill != "composite":
            sources = {"facts": [rng.choice("fn")], "memory": ["f", "f"], "context": ["n", "n"]}[skill]
            return self._problem([self._any(source, rng) for source in sources], rng.randrange(self.values), rng)
        hops = 3 if split == "longer" else 2

        def propose() -> tuple[list[str], int]:
            sources = rng.sample("fn", 2) + [rng.choice("fn")] * (hops - 2)
            return [self._any(source, rng) for source in sources], rng.randrange(self.values)

        def belongs(drawn: tuple[list[str], int]) -> bool:
            path, start = drawn
            unseen = any(int(name[1:]) >= (self.functions if name[0] == "f" else self.names) - self.unseen_functions
                         for name in path)
            if unseen or split == "unseen_function":
                return unseen and split == "unseen_function"
            numbers = [int(name[1:]) + (self.functions if name[0] == "n" else 0) for name in path]
            return split == "longer" or split_of(numbers, start, self.unseen_paths, self.task_seed) == split

        return self._problem(*first_that(belongs, propose, split), rng)

    def skill(self, problem: Problem) -> str:
        """Which of the skills a problem is of."""
        sources = [name[0] for name in self._read(problem)[2]]
        if len(sources) == 1:
            return "facts"
        return "composite" if len({*sources}) > 1 else {"f": "memory", "n": "context"}[sources[0]]

    def verify(self, problem: Problem, answer: Sequence[str]) -> list[bool]:
        """See `Task.verify`; a value is right where it follows from the one written before it."""
        tables, before, path = self._read(problem)
        known, right = set(self.vocabulary[2:2 + self.values]), []
        for token, name in zip(answer, [*path, *[None] * len(answer)], strict=False):
            right.append(name is not None and before in known and token == self._apply(name, before, tables))
            before = token
        return right

    def _read(self, problem: Problem) -> tuple[dict[str, tuple[str, ...]], str, tuple[str, ...]]:
        """The tables in a prompt, the start, and the path."""
        tables, rest = {}, problem.prompt[:-1]
        while rest[0][0] == "n":
            tables[rest[0]], rest = rest[1:1 + self.values], rest[1 + self.values:]
        return tables, rest[0], rest[1:]

    def _apply(self, name: str, value: str, tables: dict[str, tuple[str, ...]]) -> str:
        return tables[name][int(value)] if name in tables else str(self.tables[int(name[1:])][int(value)])

    def _any(self, source: str, rng: random.Random) -> str:
        return f"{source}{rng.randrange(self.functions if source == 'f' else self.names)}"

    def _problem(self, path: list[str], start: int, rng: random.Random) -> Problem:
        tables = {name: tuple(map(str, rng.sample(range(self.values), self.values)))
                  for name in dict.fromkeys(path) if name[0] == "n"}
        shown = tuple(token for name, table in tables.items() for token in (name, *table))
        answer: list[str] = []
        for name in path:
            answer.append(self._apply(name, answer[-1] if answer else str(start), tables))
        return Problem((*shown, str(start), *path, ASK), tuple(answer), (True,) * len(answer))
