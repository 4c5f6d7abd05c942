"""What selection of samples and of tokens share: the rules, the reference, scores made once, and what is kept."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from motivation.accuracy import IGNORED
from motivation.data import Dataset, EpochLoader
from motivation.levers.lever import Lever
from motivation.levers.reference import Reference, read_reference
from motivation.levers.scores import losses
from motivation.phase import Phase
from motivation.training.distributed import processes
from motivation.training.trainer import Trainer

Rule = Literal["random", "loss", "excess_loss", "static_excess_loss", "oracle"]
WITH_REFERENCE = ("excess_loss", "static_excess_loss")
Share = Annotated[float, Field(gt=0, le=1)]


class Selection(Lever):
    """Trains on the units of a batch with the highest scores.

    A reference is a network of a finished run, which saw other data of the same kind. All FLOPs of that run are
    charged at the first step, and its forwards as they come, both as ``reference``; forwards of the network that trains
    are charged as ``scoring``. They are forwards of their own, in evaluation mode.

    Args:
        rule: ``random``; ``loss``, the highest losses; ``excess_loss``, loss minus the reference's (RHO-LOSS,
            Mindermann et al. 2022; Rho-1, Lin et al. 2024); ``static_excess_loss``, that of the whole training set
            scored once before training; ``oracle``, what the data knows to be no noise.
        share: of the units of a batch that is kept.
        run: folder of the reference's run, for rules that have a reference.
        of: which of its networks. ``motivated`` without ``run`` is the motivated network of the pair that trains: it
            scores base steps, and motivated steps select nothing.
        seed: of what is drawn.

    Raises:
        ValueError: a run that the rule does not read, or none that it needs.
    """

    def __init__(self, rule: Rule, share: float, run: str | None, of: Phase, seed: int):
        self.rule, self.share, self.run, self.of, self.seed = rule, share, run, of, seed
        if run is not None and rule not in WITH_REFERENCE:
            raise ValueError(f"run={run}: rule={rule} has no reference; leave it out, or choose one of "
                             f"{', '.join(WITH_REFERENCE)}")
        if run is None and rule in WITH_REFERENCE and (of == "base" or rule == "static_excess_loss"):
            raise ValueError(f"run is missing: rule={rule} scores with a reference; give the folder of a finished run"
                             + (", or of=motivated for the pair's own" if rule == "excess_loss" else ""))
        self._reference: Reference | None = None
        self._static: Tensor | None = None
        # Units kept, and those of them that are planted noise.
        self._kept: list[Tensor | int] = [0, 0]
        self._noise: Tensor | None = None

    def loader(self, loader: EpochLoader, dataset: Dataset) -> EpochLoader:
        """See `Lever.loader`; the loader itself.

        Raises:
            ValueError: several processes, no planted noise for the oracle, or a run that is no reference of this data.
        """
        if processes() > 1:
            raise ValueError(f"units are ranked within a whole batch, which {processes()} processes share; train in "
                             "one process")
        noise = getattr(dataset.train, "noise", None)
        self._noise = torch.from_numpy(noise).to(loader.device) if noise is not None and noise.any() else None
        if self.rule == "oracle" and self._noise is None:
            raise ValueError("rule=oracle: the training data has no planted noise; choose data that has some, such as "
                             "data=noisy_chains")
        if self.run is not None:
            self._reference = read_reference(self.run, self.of, dataset, loader.image_shape)
        self._loader, self._train = loader, dataset.train
        return loader

    def check(self, trainer: Trainer) -> None:
        """See `Lever.check`.

        Raises:
            ValueError: a reference that is the pair's own, without a pair.
        """
        if self._reference is not None:
            trainer.engine.place(self._reference.network)
        elif self.rule in WITH_REFERENCE and trainer.pair is None:
            raise ValueError("of=motivated: one network alone has no motivated one; give the folder of a finished run "
                             "as run=FOLDER")

    def batch(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None = None
              ) -> tuple[Tensor, Tensor, Tensor | None]:
        """See `Lever.batch`: what is due is charged, and units are selected where there is something to score with."""
        if self._reference is not None:
            self._reference.charge_training(trainer)
        elif self.rule in WITH_REFERENCE and trainer.phase == "motivated":
            return inputs, targets, weights
        indices = self._loader.indices(*divmod(trainer.steps, len(self._loader))).to(self._loader.device)
        return self.selected(trainer, inputs, targets, weights, indices)

    def selected(self, trainer: Trainer, inputs: Tensor, targets: Tensor, weights: Tensor | None, indices: Tensor
                 ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The batch as it is trained on; arguments as of `Lever.batch`.

        Args:
            indices: which training samples these are, on the device.
        """
        raise NotImplementedError

    def losses(self, trainer: Trainer, inputs: Tensor, targets: Tensor) -> Tensor:
        """Losses of the network that trains, minus the reference's where the rule has one: ``(N,)`` or ``(N, T)``."""
        engine, phase = trainer.engine, trainer.phase
        trainer.ledger.charge("scoring", len(inputs) * trainer.forward_flops(phase, inputs))
        found = losses(trainer.network(phase), inputs, targets, engine)
        if self._reference is not None:
            trainer.ledger.charge("reference", len(inputs) * self._reference.forward)
            return found - losses(self._reference.network, inputs, targets, engine)
        if self.rule in WITH_REFERENCE:
            trainer.synchronize()
            trainer.ledger.charge("reference", len(inputs) * trainer.forward_flops("motivated", inputs))
            return found - losses(trainer.network("motivated"), inputs, targets, engine)
        return found

    def static(self, trainer: Trainer, indices: Tensor, finish: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What was made of the training set's scores before the first step, for these samples.

        Args:
            trainer: before its first step where nothing was made yet.
            indices: of the samples.
            finish: scores and the mask of units -> what is kept of them.
        """
        if self._static is None:
            device, first, parts = self._loader.device, 0, []
            labels = torch.from_numpy(self._train.labels).to(device)
            for inputs in self._loader.evaluation_batches(self._train, trainer.engine.evaluation_batch):
                parts.append(self.losses(trainer, inputs, labels[first:first + len(inputs)]))
                first += len(inputs)
            self._static = finish(torch.cat(parts), units_of(labels))
        return self._static[indices]

    def noise(self, indices: Tensor) -> Tensor:
        """Where the targets of these samples are planted noise: bool, of the targets' shape."""
        assert self._noise is not None
        return self._noise[indices]

    def count(self, kept: Tensor, indices: Tensor) -> None:
        """Add to what was kept, and how much of it is planted noise: bool ``(N,)`` or ``(N, T)``."""
        if self._noise is not None:
            self._kept = [self._kept[0] + kept.sum(), self._kept[1] + (kept & self.noise(indices)).sum()]

    def totals(self) -> dict[str, float]:
        """``lever/kept_noise``: percent of the units trained on so far that are planted noise."""
        kept, noise = map(int, self._kept)
        return {"lever/kept_noise": 100 * noise / kept} if kept else {}

    def state_dict(self) -> dict[str, Any]:
        """See `Lever.state_dict`."""
        return {"static": self._static, "kept": list(map(int, self._kept))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Lever.load_state_dict`."""
        self._static = None if state["static"] is None else state["static"].to(self._loader.device)
        self._kept = list(state["kept"])


def units_of(targets: Tensor) -> Tensor:
    """Where there is something to learn: bool ``(N,)``, of tokens ``(N, T)``."""
    if targets.is_floating_point():
        return torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    return targets != IGNORED
