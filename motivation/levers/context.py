"""Context: batches of one width each, narrow to wide; tokens of a sequence, or pixels of an image's side."""

import functools
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from motivation.accuracy import IGNORED
from motivation.data import Dataset, EpochLoader, Sequences
from motivation.levers.lever import Lever
from motivation.randomness import BUCKETS, RUNGS, derived_generator
from motivation.training.ledger import forward_flops
from motivation.training.trainer import Trainer
from motivation.validation import Count, Positive, ShareBelowOne, check_arguments

Order = Literal["sequential", "reversed", "shuffled", "promoted"]


@check_arguments
class Context(Lever):
    """Every step trains on a batch of one rung, and is paid at its width.

    Rungs of sequences are buckets: a sequence is in the narrowest that holds its tokens, padding left out, and columns
    that are padding in all of a bucket are not there. Rungs of images are sizes: every image is averaged to each. A
    bucket is passed through again and again, each time in another order.

    Args:
        rungs: widths, ascending: tokens of a sequence, or pixels of a side.
        order: of the steps over the whole run: ``sequential`` narrow to wide, ``reversed``, ``shuffled``; or
            ``promoted``: from the narrowest on, the run's schedule climbs a rung in every motivated step.
        shares: how many steps of a fixed order each rung has, in relation to the others; null for as many as its bucket
            has sequences, and of image sizes for equally many.
        replay: share of the last stage's steps, of a sequential or reversed order, that are of the first stage's rung.
        seed: of shuffled orders, of replays and of the passes.
        total_steps: length of training.

    Attributes:
        rung: of the last batch, from 0.

    Raises:
        ValueError: widths that do not ascend, shares of other rungs, or a replay in an order that has no last stage.
    """

    rungs: list[int]

    def __init__(self, rungs: Annotated[list[Count], Field(min_length=2)], order: Order = "sequential",
                 shares: list[Positive] | None = None, replay: ShareBelowOne = 0.0, *, seed: int = 0,
                 total_steps: int | None = None):
        if rungs != sorted(set(rungs)):
            raise ValueError(f"rungs={rungs}: must be widths that ascend, such as [5,9,17]")
        if shares is not None and (order == "promoted" or len(shares) != len(rungs)):
            raise ValueError(f"shares={shares}: must be one a rung, of a fixed order; null for promoted")
        if replay and order not in ("sequential", "reversed"):
            raise ValueError(f"replay={replay}: is of the last stage, which the order {order} does not have; must be 0")
        self.rungs = rungs
        self.order = order
        self.shares = shares
        self.replay = replay
        self.seed = seed
        self.total_steps = total_steps
        self.rung: int | None = None
        self._buckets: list[tuple[Tensor, Tensor]] | None = None

    @property
    def climbs(self) -> bool:
        """See `Lever.climbs`."""
        return self.order == "promoted"

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """Sort the data into buckets, and plan the order; the loader stays as it is.

        Raises:
            ValueError: rungs that the data does not have.
        """
        shares = np.ones(len(self.rungs))
        if isinstance(dataset.train, Sequences):
            parts = buckets(dataset.train, self.rungs)
            shares = np.array([len(part) for part in parts])
            self._buckets = [(torch.from_numpy(part.tokens).to(loader.device),
                              torch.from_numpy(part.labels).to(loader.device)) for part in parts]
        elif self.rungs[-1] != min(loader.image_shape[1:]):
            raise ValueError(f"rungs={self.rungs}: images are trained at {min(loader.image_shape[1:])} pixels a side, "
                             "and the last rung must be that")
        self._loader = loader
        if not self.climbs:
            assert self.total_steps is not None
            self._plan = plan(np.array(self.shares or shares), self.total_steps, self.order, self.replay, self.seed)
            if missing := [self.rungs[rung] for rung in range(len(shares)) if not (self._plan == rung).any()]:
                raise ValueError(f"rungs={self.rungs}: {self.total_steps} steps give that of {missing[0]} none; train "
                                 "longer, or leave it out")
            self._places = np.zeros(len(self._plan), np.int64)
            for rung in range(len(shares)):
                here = self._plan == rung
                self._places[here] = np.arange(here.sum())
        return loader

    def check(self, trainer: Trainer) -> None:
        """Raise ValueError where the networks do not take every width as parts of one function."""
        for phase in ("base", "motivated"):
            network = trainer.network(phase)
            if self._buckets is not None and getattr(network, "layout", None) != "answers":
                raise ValueError(f"rungs={self.rungs}: {type(network).__name__} sees the padding that a narrow bucket "
                                 "has not; it needs the option layout=answers")
            if self._buckets is None:
                try:
                    for width in self.rungs:
                        forward_flops(network, (self._loader.image_shape[0], width, width))
                except ValueError as error:
                    raise ValueError(f"rungs={self.rungs}: {error}") from error

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """A batch of the step's rung: of its bucket, or the loader's images at its size. See `Lever.batch`."""
        step = trainer.steps
        rung = trainer.rung if self.climbs else int(self._plan[step])
        assert rung is not None
        self.rung = rung
        if self._buckets is None:
            width = self.rungs[rung]
            if width < min(inputs.shape[2:]):
                inputs = F.interpolate(inputs, size=(width, width), mode="area")
            return inputs, targets, weights
        place = step if self.climbs else int(self._places[step])
        tokens, labels = self._buckets[rung]
        indices = passes(len(tokens), place, self._loader.batch_size, self.seed, rung)[self._loader.share]
        indices = indices.to(tokens.device)
        return tokens[indices], labels[indices], weights


def buckets(part: Sequences, widths: list[int]) -> list[Sequences]:
    """Sequences by width, each bucket without the columns in which all of it is padding.

    Args:
        part: all of them; padding is token 0.
        widths: most tokens of each bucket, ascending.

    Raises:
        ValueError: a sequence that is wider than all, or a bucket without one.
    """
    # What follows a sequence's last target is asked of nobody.
    last = part.labels.shape[1] - (part.labels != IGNORED)[:, ::-1].argmax(1)
    used = (part.tokens != 0) & (np.arange(part.labels.shape[1]) < last[:, None])
    lengths = used.sum(1)
    if lengths.max() > widths[-1]:
        raise ValueError(f"rungs={widths}: a sequence has {lengths.max()} tokens, and the last rung must hold it")
    found = []
    for low, width in zip([0, *widths], widths, strict=False):
        here = (lengths > low) & (lengths <= width)
        if not here.any():
            raise ValueError(f"rungs={widths}: no sequence has {low + 1} to {width} tokens; they have "
                             f"{', '.join(map(str, np.unique(lengths)))}")
        columns = used[here].any(0)
        found.append(Sequences(part.tokens[here][:, columns], part.labels[here][:, columns]))
    return found


def plan(shares: np.ndarray, steps: int, order: Order, replay: float, seed: int) -> np.ndarray:
    """The rung of every step ``(steps,)``, in a fixed order.

    Args:
        shares: how often each rung is, in relation to the others; rounded by largest remainders.
        steps: of the whole run.
        order: see `Context`.
        replay: see `Context`.
        seed: of what is drawn.
    """
    exact = shares / shares.sum() * steps
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[:steps - counts.sum()]] += 1
    stages = range(len(shares))[::-1 if order == "reversed" else 1]
    rungs = np.concatenate([np.full(counts[rung], rung) for rung in stages])
    generator = derived_generator(seed, RUNGS)
    if order == "shuffled":
        return rungs[torch.randperm(steps, generator=generator).numpy()]
    last = np.flatnonzero(rungs == stages[-1])
    drawn = last[torch.randperm(len(last), generator=generator).numpy()]
    rungs[drawn[:round(replay * len(last))]] = stages[0]
    return rungs


def passes(count: int, place: int, size: int, seed: int, rung: int) -> Tensor:
    """Indices ``(size,)`` of a batch out of endless passes through a bucket, each in an order of its own.

    Args:
        count: sequences of the bucket.
        place: which batch of them, from 0.
        size: of a batch.
        seed: of the orders.
        rung: of the bucket.
    """
    first, last = place * size // count, ((place + 1) * size - 1) // count
    orders = [_order(count, seed, rung, number) for number in range(first, last + 1)]
    start = place * size - first * count
    return torch.cat(orders)[start:start + size]


@functools.lru_cache(maxsize=16)
def _order(count: int, seed: int, rung: int, number: int) -> Tensor:
    """One pass's order; kept, since many batches are of one pass."""
    return torch.randperm(count, generator=derived_generator(seed, BUCKETS, rung, number))
