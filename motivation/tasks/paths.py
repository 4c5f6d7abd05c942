"""Which compositions of functions are trained on: a path, and where it may start, belongs to one split for good."""

from collections.abc import Sequence

from motivation.randomness import SPLIT, uniform

# Of the starts of trained paths: what `seen` tests, and what validation takes.
SEEN, VALIDATION = 0.1, 0.2


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
