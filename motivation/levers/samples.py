"""Samples: of each batch of candidates only some are trained on."""

from torch import Tensor

from motivation.data import Dataset, EpochLoader
from motivation.levers.scores import of_samples, random_scores
from motivation.levers.select import kept, select
from motivation.levers.selection import Rule, Selection, Share, units_of
from motivation.phase import Phase
from motivation.training.trainer import Trainer
from motivation.validation import check_arguments


@check_arguments
class Samples(Selection):
    """The loader's batch are N candidates, of which the K with the highest scores are trained on.

    It costs 3 forwards of K, one of N where losses are scored, and one of N by the reference. A sequence's score is the
    mean of its tokens'.

    Args:
        rule: see `Selection`; ``oracle`` keeps those with the least noise.
        share: K / N.
        run: see `Selection`.
        of: see `Selection`.
        seed: of what is drawn.

    Raises:
        ValueError: see `Selection`.
    """

    def __init__(self, rule: Rule = "excess_loss", share: Share = 0.5, run: str | None = None, of: Phase = "base", *,
                 seed: int = 0):
        super().__init__(rule, share, run, of, seed)

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Selection.loader`.

        Raises:
            ValueError: a share that keeps none of a batch.
        """
        if round(self.share * loader.batch_size) < 1:
            raise ValueError(f"share={self.share:g}: keeps none of a batch of {loader.batch_size}; must be at least "
                             f"{1 / loader.batch_size:.3g}")
        return super().loader(loader, dataset)

    def selected(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None, indices: Tensor
                 ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Selection.selected`."""
        units = units_of(targets)
        if self.rule == "random":
            scores = random_scores((len(inputs),), self.seed, trainer.steps).to(inputs.device)
        elif self.rule == "oracle":
            scores = -of_samples(self.noise(indices).float(), units)
        elif self.rule == "static_excess_loss":
            scores = self.static(trainer, indices, of_samples)
        else:
            scores = of_samples(self.losses(trainer, inputs, targets), units)
        chosen = select(scores, self.share).nonzero()[:, 0]
        assert len(chosen) == kept(len(inputs), self.share)
        self.count(units[chosen], indices[chosen])
        return inputs[chosen], targets[chosen], None if weights is None else weights[chosen]
