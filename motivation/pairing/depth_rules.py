"""Depth rules: which block of a longer stage each block of a shorter one maps to, and which rule a family takes."""

from itertools import groupby
from typing import Any, Literal, get_args

from torch import nn

DepthRule = Literal["last-to-last", "first", "spread"]


def paired_blocks(base: int, motivated: int, rule: DepthRule) -> list[int]:
    """Which motivated block each of a stage's base blocks maps to.

    Args:
        base: number of blocks of the base stage, l.
        motivated: number of blocks of the motivated stage, l' >= l.
        rule: ``last-to-last`` maps the last block to the last and the first l - 1 to the first l - 1 (paper, ResNet; a
            one-block stage falls back to ``first``); ``first`` maps the first l to the first l (paper, EfficientNet);
            ``spread`` spaces them evenly.

    Returns:
        Increasing indices into the motivated stage, one a base block.
    """
    check_depth_rule(rule)
    if rule == "last-to-last" and base > 1:
        return [*range(base - 1), motivated - 1]
    if rule == "spread" and base > 1:
        return [round(i * (motivated - 1) / (base - 1)) for i in range(base)]
    return list(range(base))


def paired_stage(base: list[Any], motivated: list[Any], rule: DepthRule) -> list[int]:
    """`paired_blocks`, or that run by run where a stage's blocks change their kind and the rule alone would mix kinds.

    Args:
        base: kinds of the base stage's blocks: anything that equal blocks have in common.
        motivated: kinds of the motivated stage's blocks.
        rule: over the whole stage where it pairs blocks of one kind, or where the two stages' runs do not match.
    """
    whole = paired_blocks(len(base), len(motivated), rule)
    if all(kind == motivated[place] for kind, place in zip(base, whole, strict=True)):
        return whole
    runs = [[(kind, len(list(run))) for kind, run in groupby(kinds)] for kinds in (base, motivated)]
    if [kind for kind, _ in runs[0]] != [kind for kind, _ in runs[1]] \
            or any(ours > theirs for (_, ours), (_, theirs) in zip(*runs, strict=True)):
        return whole
    places, start = [], 0
    for (_, ours), (_, theirs) in zip(*runs, strict=True):
        places += [start + place for place in paired_blocks(ours, theirs, rule)]
        start += theirs
    return places


def check_depth_rule(rule: str) -> None:
    """Raise ValueError for an unknown rule."""
    if rule not in get_args(DepthRule):
        raise ValueError(f"unknown depth rule {rule!r}; choose one of {', '.join(get_args(DepthRule))}")


def depth_rule_of(network: nn.Module) -> DepthRule:
    """The family's rule: ``last-to-last`` for ResNets (paper), ``first`` for all others (paper, EfficientNet)."""
    return "last-to-last" if "resnet" in type(network).__name__.lower() else "first"
