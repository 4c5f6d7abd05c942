"""Chains: ``x0 f1 .. fd = x1 .. xd``, the functions fixed unknown permutations, so that every step can be checked."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

from pydantic import Field

from motivation.tasks.paths import PathTask, split_of
from motivation.tasks.problem import ASK, PADDING, Problem, first_that
from motivation.validation import Count, Positive, Probability, ShareBelowOne, check_arguments


@check_arguments
@dataclass(frozen=True)
class Chains(PathTask):
    """Apply functions one after another, and write every value on the way.

    Single functions are facts, all of which are trained on. Splits: ``seen`` (trained paths from other starts),
    ``longer``, ``unseen_path`` (an order of functions never trained on), ``unseen_function`` (one that was trained on
    alone, never in a path).

    Args:
        task_seed: of functions, problems and splits.
        values: how many there are.
        functions: how many there are.
        depth: fewest and most functions of a problem, in training and in all splits but ``longer``.
        depth_shares: pairs ``[most, share]`` in place of depths that are all alike likely: of problems with at most so
            many functions and more than the pair before, and how often they are drawn, in relation to the others. Each
            gets a test split of its own beside the others, such as ``depth_16``. Null for none.
        longer: most functions of the split ``longer``, which has more than training.
        unseen_paths: share of paths that are never trained on.
        unseen_functions: how many are never trained on in a path.
        noise: share of training steps whose value is a random one; the chain goes on from what is written. Test splits
            have none.

    Raises:
        ValueError: sizes that leave a split without a problem.
    """

    values: Annotated[int, Field(ge=2, le=1000)] = 10
    functions: Annotated[int, Field(ge=2, le=60)] = 8
    depth: tuple[Count, Count] = (1, 6)
    depth_shares: tuple[tuple[Count, Positive], ...] | None = None
    longer: Count = 8
    unseen_paths: ShareBelowOne = 0.2
    unseen_functions: Annotated[int, Field(ge=0)] = 2
    noise: Probability = 0.0

    def __post_init__(self):
        least, most = self.depth
        if not least <= most or most < 2:
            raise ValueError(f"depth={list(self.depth)}: must be the fewest and the most functions of a problem, and "
                             "reach 2, such as [1,6]")
        if self.depth_shares is not None:
            ends = [end for end, _ in self.depth_shares]
            if not ends or ends != sorted(set(ends)) or ends[0] < max(2, least) or ends[-1] != most:
                raise ValueError(f"depth_shares={[list(pair) for pair in self.depth_shares]}: must be pairs of most "
                                 f"functions and a share, ascending from at least {max(2, least)} and up to {most}, "
                                 "the most of depth")
        if self.longer <= most:
            raise ValueError(f"longer={self.longer}: must be more than the {most} functions of training")
        if self.unseen_functions > self.functions - 1:
            raise ValueError(f"unseen_functions={self.unseen_functions}: must leave one of {self.functions} functions "
                             "to train paths of")
        if self.unseen_functions and least > 1:
            raise ValueError(f"unseen_functions={self.unseen_functions}: are learned from single functions, and "
                             f"depth={list(self.depth)} has none; start it at 1, or give unseen_functions=0")

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Task.splits`; one for each of the depth shares too."""
        return (*super().splits, *(f"depth_{end}" for end, _ in self.depth_shares or ()))

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Padding, ``=``, the values ``0``, ``1``, ..., the functions ``f0``, ``f1``, ..."""
        return (PADDING, ASK, *map(str, range(self.values)), *(f"f{number}" for number in range(self.functions)))

    def draw(self, split: str, rng: random.Random) -> Problem:
        """See `Task.draw`."""
        paths = self.functions - self.unseen_functions
        least, most = self.depth
        shares = bands = list(self.depth_shares or ())
        if split == "longer":
            least, most, shares = most + 1, self.longer, []
        elif split != "train":
            least = max(2, least)
        if split.startswith("depth_"):
            shares, split = [pair for pair in bands if split == f"depth_{pair[0]}"], "seen"

        def propose() -> tuple[list[int], int]:
            if shares:
                [(end, _)] = rng.choices(shares, [share for _, share in shares])
                before = max((other for other, _ in bands if other < end), default=0)
                depth = rng.randint(max(least, before + 1), end)
            else:
                depth = rng.randint(least, most)
            known = self.functions if split == "unseen_function" or depth == 1 else paths
            return [rng.randrange(known) for _ in range(depth)], rng.randrange(self.values)

        def belongs(drawn: tuple[list[int], int]) -> bool:
            path, start = drawn
            if split == "unseen_function":
                return max(path) >= paths
            return split == "longer" or len(path) == 1 or split_of(path, start, self.unseen_paths,
                                                                    self.task_seed) == split

        path, start = first_that(belongs, propose, split)
        problem = Problem((str(start), *(f"f{number}" for number in path), ASK), (), (True,) * len(path))
        problem = replace(problem, answer=self.solution(problem))
        return self._noisy(problem, rng) if split == "train" and self.noise else problem

    def solution(self, problem: Problem) -> tuple[str, ...]:
        """See `Task.solution`."""
        value, values = int(problem.prompt[0]), []
        for table in self._path(problem):
            value = table[value]
            values.append(str(value))
        return tuple(values)

    def verify(self, problem: Problem, answer: Sequence[str]) -> list[bool]:
        """See `Task.verify`; a value is right where it follows from the one written before it."""
        known, before, right = set(self.vocabulary[2:2 + self.values]), problem.prompt[0], []
        for token, table in zip(answer, [*self._path(problem), *[None] * len(answer)], strict=False):
            right.append(table is not None and before in known and token == str(table[int(before)]))
            before = token
        return right

    def _path(self, problem: Problem) -> Iterator[list[int]]:
        return (self.tables[int(name[1:])] for name in problem.prompt[1:-1])

    def _noisy(self, problem: Problem, rng: random.Random) -> Problem:
        value, values = int(problem.prompt[0]), []
        for table in self._path(problem):
            value = rng.randrange(self.values) if rng.random() < self.noise else table[value]
            values.append(str(value))
        return replace(problem, answer=tuple(values))
