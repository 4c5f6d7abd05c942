"""Tokens: of each batch of sequences only some next tokens are learned; what is left out may be forgotten instead."""

from torch import Tensor

from motivation.data import Dataset, EpochLoader, Sequences
from motivation.levers.scores import random_scores
from motivation.levers.select import forget, select
from motivation.levers.selection import Rule, Selection, Share, units_of
from motivation.phase import Phase
from motivation.training.trainer import Trainer
from motivation.validation import NotNegative, check_arguments


@check_arguments
class Tokens(Selection):
    """Of all tokens of a batch the share with the highest scores is learned; the others weigh nothing, or less.

    A step costs what it costs without: the whole sequences run through the network. ``static_excess_loss`` ranks the
    tokens of the whole training set at once (arXiv 2508.04329, "ignoring"; with ``forget`` its forgetting).

    Args:
        rule: see `Selection`; ``oracle`` keeps all that is no noise, whatever the share.
        share: of the tokens.
        run: see `Selection`.
        of: see `Selection`.
        forget: minus the weight that tokens which are not kept have at the end of training; it rises linearly from 0 at
            its start. With half of the tokens kept it is that paper's factor between the two mean losses.
        seed: of what is drawn.
        total_steps: steps of training.

    Raises:
        ValueError: see `Selection`.
    """

    def __init__(self, rule: Rule = "excess_loss", share: Share = 0.5, run: str | None = None, of: Phase = "base",
                 forget: NotNegative = 0.0, *, seed: int = 0, total_steps: int = 1):
        super().__init__(rule, share, run, of, seed)
        self.forget = forget
        self.total_steps = total_steps

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Selection.loader`.

        Raises:
            ValueError: the data has no tokens.
        """
        if not isinstance(dataset.train, Sequences):
            raise ValueError("the data has images, and no tokens; choose lever=samples, or data of tokens such as "
                             "data=chains")
        return super().loader(loader, dataset)

    def selected(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None, indices: Tensor
                 ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Selection.selected`."""
        units = units_of(targets)
        if self.rule == "random":
            kept = select(random_scores(targets.shape, self.seed, trainer.steps).to(inputs.device), self.share, units)
        elif self.rule == "oracle":
            kept = (units & ~self.noise(indices)).float()
        elif self.rule == "static_excess_loss":
            kept = self.static(trainer, indices, lambda scores, units: select(scores, self.share, units))
        else:
            kept = select(self.losses(trainer, inputs, targets), self.share, units)
        self.count(kept > 0, indices)
        kept = forget(kept, units, self.forget * trainer.steps / self.total_steps)
        return inputs, targets, kept if weights is None else kept * weights
