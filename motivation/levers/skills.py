"""Skills: atomic ones first, what they compose to once it is unlocked, supervised or by rollouts (arXiv 2512.01970)."""

import random
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from motivation.data import Dataset, EpochLoader, Sequences
from motivation.data.sequences import encode, prompt_length
from motivation.levers.on_rollouts import OnRollouts
from motivation.levers.rollouts import Rollout, advantages
from motivation.randomness import SKILL_PROBLEMS, SKILLS_DRAWN, derived_generator, derived_seed
from motivation.tasks.two_source_chains import SKILLS, TwoSourceChains
from motivation.training.trainer import Trainer
from motivation.validation import Count, NotNegative, Positive, check_arguments

Mixture = tuple[NotNegative, NotNegative, NotNegative, NotNegative]


class Skills(OnRollouts):
    """Every step trains on problems of its rung's mixture of skills; the run's schedule climbs from rung to rung.

    All rungs draw from the same training set, each problem of a skill alike likely, so that runs of other rungs differ
    in what is drawn and when. With rollouts the last rung trains by GRPO, see `OnRollouts`: its batches of B problems
    are B / group problems with ``group`` sampled answers each, the verifier's verdict is the reward.

    Args:
        rungs: a mixture each: how often problems are ``facts``, ``memory``, ``context`` and ``composite``, in relation
            to one another. A single one is trained from start to end, whatever the schedule.
        rollouts: whether the last rung trains by rollouts; otherwise it is supervised.
        group: answers a problem.
        temperature: of sampling.
        rate: factor on the learning rate in the last rung of several.
        heldout: problems of each skill of the first rung for monitors that ask for held-out ones. They are drawn
            anew, with new tables in their prompts; of what is stored in weights there are no other problems than those
            trained on. Composites are of the data's split ``validation``.
        seed: of the run.

    Attributes:
        rung: of the last batch, from 0.

    Raises:
        ValueError: a mixture of nothing, or a group of fewer than 2.
    """

    rungs: list[Mixture]

    @check_arguments
    def __init__(self, rungs: Annotated[list[Mixture], Field(min_length=1)], rollouts: bool = True,
                 group: Annotated[int, Field(ge=2)] = 8, temperature: Positive = 1.0, rate: Positive = 1.0,
                 heldout: Count = 64, *, seed: int):
        for number, mixture in enumerate(rungs):
            if not any(mixture):
                raise ValueError(f"rungs[{number}]={list(mixture)}: must have a share above 0 of {', '.join(SKILLS)}")
        super().__init__(group, temperature, 0, seed)
        self.rungs, self.rollouts, self.rate, self.held = rungs, rollouts, rate, heldout
        self.rung: int | None = None
        self._unlocked: int | None = None

    @property
    def climbs(self) -> bool:
        """See `Lever.climbs`."""
        return len(self.rungs) > 1

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Lever.loader`.

        Raises:
            ValueError: a task without skills, a mixture of problems that the data does not have, and with rollouts as
                of `OnRollouts.loader`.
        """
        task = dataset.task
        if not isinstance(task, TwoSourceChains) or not isinstance(dataset.train, Sequences):
            raise ValueError("the data has no skills; choose data=two_source_chains")
        if self.rollouts:
            super().loader(loader, dataset)
        skills = np.array([SKILLS.index(task.skill(problem)) for problem in dataset.problems])
        counts = np.bincount(skills, minlength=len(SKILLS))
        for number, mixture in enumerate(self.rungs):
            for skill, share, count in zip(SKILLS, mixture, counts, strict=True):
                if share and not count:
                    raise ValueError(f"rungs[{number}]={list(mixture)}: asks for {skill}, and no training problem is "
                                     f"of that skill; give it a share of the data's mixture={list(task.mixture)}")
        self._weights = [torch.from_numpy((np.array(mixture) / np.maximum(counts, 1))[skills])
                         for mixture in self.rungs]
        self._loader, self._task, self._prompt = loader, task, prompt_length(task, dataset.train)
        self._tokens = torch.from_numpy(dataset.train.tokens).to(loader.device)
        self._labels = torch.from_numpy(dataset.train.labels).to(loader.device)
        return loader

    def heldout(self) -> tuple[Tensor, Tensor]:
        """See `Lever.heldout`: one skill of the first rung after another, as many of each."""
        problems = []
        for number, share in enumerate(self.rungs[0]):
            if share:
                facts, memory, context, composite = np.eye(len(SKILLS))[number].tolist()
                alone = replace(self._task, mixture=(facts, memory, context, composite))
                rng = random.Random(derived_seed(self.seed, SKILL_PROBLEMS, number))
                split = "validation" if SKILLS[number] == "composite" else "train"
                problems += [alone.draw(split, rng) for _ in range(self.held)]
        part = encode(self._task, problems, self._prompt, self._tokens.shape[1] + 1 - self._prompt)
        return (torch.from_numpy(part.tokens).to(self._loader.device),
                torch.from_numpy(part.labels).to(self._loader.device))

    def check(self, trainer: Trainer) -> None:
        """Raise ValueError where a monitor of mastery takes the held-out problems apart into other skills."""
        skills = sum(share > 0 for share in self.rungs[0])
        parts = getattr(trainer.monitor, "parts", skills)
        if parts != skills:
            raise ValueError(f"rungs[0]={list(self.rungs[0])}: trains {skills} skills, and the monitor has "
                             f"parts={parts}; must be parts={skills}")

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`: drawn from the step's rung, with replacement."""
        self.rung = trainer.rung if self.climbs else 0
        assert self.rung is not None
        last = self.rung == len(self.rungs) - 1
        if last and self.climbs:
            if self._unlocked is None:
                self._unlocked = trainer.steps
            # The run sets the learning rate of every step anew.
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= self.rate
        indices = torch.multinomial(self._weights[self.rung], self._loader.batch_size, replacement=True,
                                    generator=derived_generator(self.seed, SKILLS_DRAWN, trainer.steps))
        indices = indices[self._loader.share].to(self._tokens.device)
        inputs, targets = self._tokens[indices], self._labels[indices]
        if last and self.rollouts:
            return super().batch(trainer, inputs, targets, weights)
        return inputs, targets, weights

    def chosen(self, trainer: Trainer, rollouts: list[Rollout]) -> tuple[list[Rollout], Tensor]:
        """See `OnRollouts.chosen`: all."""
        return rollouts, advantages(rollouts, self.group)

    def totals(self) -> dict[str, float]:
        """See `Lever.totals`: also ``lever/unlock_step``, the first step of the last rung of several."""
        return super().totals() | ({} if self._unlocked is None else {"lever/unlock_step": self._unlocked})

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return super().state_dict() | {"unlocked": self._unlocked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        super().load_state_dict(state)
        self._unlocked = state["unlocked"]
