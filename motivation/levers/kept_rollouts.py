"""Kept rollouts: of all that were sampled, a fixed number is trained on, chosen over the whole batch.

Depth first is CuSearch (arXiv 2605.11611): ``deepest`` is its SDGA-Auto, ``phase`` its SDGA-Phase. Not read: how it
breaks ties, how many deep rollouts are enough and what fills up the others' places in ``phase``, and whether advantages
are those before the choice. Here: at random, as many as are kept, random ones, and they are. Extremes of the advantage
is PODS (arXiv 2504.13818).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from motivation.data import Dataset, EpochLoader
from motivation.levers.on_rollouts import OnRollouts
from motivation.levers.rollouts import Rollout, advantages
from motivation.randomness import KEPT, derived_generator
from motivation.training.trainer import Trainer
from motivation.validation import Count, Positive, check_arguments

Rule = Literal["all", "random", "deepest", "phase", "same_problems", "shallowest", "extremes", "random_tokens"]
# Rules that read the depth.
OF_DEPTH = ("deepest", "phase", "same_problems", "shallowest", "random_tokens")


def keep(rule: Rule, rollouts: Sequence[Rollout], values: Tensor, group: int, count: int, order: Sequence[int],
         threshold: int = 0) -> list[int]:
    """Which rollouts are trained on, by number.

    Args:
        rule: see `KeptRollouts`.
        rollouts: R of them, group after group.
        values: their advantages ``(R,)``.
        group: rollouts of one problem.
        count: how many are kept.
        order: all numbers in random order: ties go to those that come first in it.
        threshold: of ``phase``: the depth that is enough.
    """
    def first(score: Sequence[float]) -> list[int]:
        return sorted(order, key=lambda number: -score[number])[:count]

    depths = [one.depth for one in rollouts]
    if rule == "all":
        return list(range(len(rollouts)))
    if rule == "random":
        return list(order[:count])
    if rule == "shallowest":
        return first([-depth for depth in depths])
    if rule == "phase":
        return first([depth >= threshold for depth in depths])
    if rule == "extremes":
        return first(values.abs().tolist())
    deepest = first(depths)
    if rule == "same_problems":
        wanted, kept = Counter(number // group for number in deepest), []
        for number in order:
            if wanted[number // group]:
                wanted[number // group] -= 1
                kept.append(number)
        return kept
    if rule == "random_tokens":
        tokens, kept = sum(sum(rollouts[number].written) for number in deepest), []
        for number in order:
            if tokens > 0:
                tokens -= sum(rollouts[number].written)
                kept.append(number)
        return kept
    return deepest


class KeptRollouts(OnRollouts):
    """Trains on ``keep`` of the B rollouts of a step, see `OnRollouts`; all of them are sampled and paid.

    Args:
        rule: which are kept. ``deepest``: those that asked the environment most often; ``phase``: random ones of at
            least the threshold's depth, filled up with random others: the threshold starts at 0 and rises by 1 before a
            choice where ``keep`` of the rollouts are deeper; ``shallowest``: least often; ``random``;
            ``same_problems``: random ones of the problems that ``deepest`` chose, as many of each; ``random_tokens``:
            random ones until they have as many tokens as those of ``deepest``; ``extremes``: of the greatest absolute
            advantage; ``all``.
        keep: how many.
        group: answers a problem.
        temperature: of sampling.
        after: steps of supervised training before, on whole batches.
        seed: of the run.
        total_steps: length of training; None where it is unknown.

    Raises:
        ValueError: a group of fewer than 2, no step left for rollouts.
    """

    @check_arguments
    def __init__(self, rule: Rule = "deepest", keep: Count = 32, group: Annotated[int, Field(ge=2)] = 8,
                 temperature: Positive = 1.0, after: Annotated[int, Field(ge=0)] = 0, *, seed: int,
                 total_steps: int | None = None):
        super().__init__(group, temperature, after, seed, total_steps)
        self.rule, self.keep = rule, keep
        # Of `phase`.
        self._threshold = 0

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `OnRollouts.loader`.

        Raises:
            ValueError: as there, more rollouts to keep than a batch has, or a rule of depth in a task without an
                environment.
        """
        loader = super().loader(loader, dataset)
        if self.keep > loader.batch_size:
            raise ValueError(f"keep={self.keep}: must be at most the {loader.batch_size} rollouts of a batch")
        if self.rule in OF_DEPTH and all(dataset.problems[0].written):
            raise ValueError(f"rule={self.rule}: reads how often an answer asks its environment, and here is none; "
                             "choose data=pointer_chase, or another rule")
        return loader

    def chosen(self, trainer: Trainer, rollouts: list[Rollout]) -> tuple[Sequence[Rollout], Tensor]:
        """See `OnRollouts.chosen`."""
        values = advantages(rollouts, self.group)
        order = torch.randperm(len(rollouts), generator=derived_generator(self.seed, KEPT, trainer.steps)).tolist()
        if self.rule == "phase":
            self._threshold += sum(one.depth > self._threshold for one in rollouts) >= self.keep
        kept = keep(self.rule, rollouts, values, self.group, self.keep, order, self._threshold)
        return [rollouts[number] for number in kept], values[kept]

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return super().state_dict() | {"threshold": self._threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        super().load_state_dict(state)
        # Checkpoints of versions without `phase` have none.
        self._threshold = state.get("threshold", 0)
