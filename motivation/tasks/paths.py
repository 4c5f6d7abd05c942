"""Tasks that compose functions, and which compositions are trained on: a path, and where it may start, belongs to one
split for good.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from motivation.randomness import FUNCTIONS, SPLIT, derived_seed, uniform
from motivation.tasks.problem import Task

# Of the starts of trained paths: what `seen` tests, and what validation takes.
SEEN, VALIDATION = 0.1, 0.2


@dataclass(frozen=True)
class PathTask(Task):
    """A task of paths through fixed functions; each such task says what its sizes are and may be.

    Args:
        task_seed: of functions, problems and splits.
        values: how many there are.
        functions: how many there are.
        unseen_paths: share of paths that are never trained on.
        unseen_functions: how many are never trained on in a path.
    """

    values: int = 10
    functions: int = 8
    unseen_paths: float = 0.0
    unseen_functions: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """See `Task.splits`."""
        return ("train", "validation", "seen", "longer", *["unseen_path"] * (self.unseen_paths > 0),
                *["unseen_function"] * (self.unseen_functions > 0))

    @cached_property
    def tables(self) -> list[list[int]]:
        """The functions, fixed random permutations of the values: value -> value."""
        rng = random.Random(derived_seed(self.task_seed, FUNCTIONS))
        return [rng.sample(range(self.values), self.values) for _ in range(self.functions)]


def split_of(path: Sequence[int], start: int, unseen_paths: float, task_seed: int) -> str:
    """The split of a path of two functions or more: ``unseen_path``, or by its start one of the others.

    Args:
        path: the functions, by number.
        start: the first value.
        unseen_paths: share of all paths that are never trained on.
        task_seed: of the choice.
    """
    place = 0
    for number in path:
        place = place * 64 + number + 1
    if uniform(task_seed, SPLIT, place) < unseen_paths:
        return "unseen_path"
    share = uniform(task_seed, SPLIT, place * 1024 + start + 1)
    return "seen" if share < SEEN else "validation" if share < VALIDATION else "train"
