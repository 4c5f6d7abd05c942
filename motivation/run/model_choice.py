"""What conf/model/ can choose: a pair, or one network alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motivation.models import check_name, create_model
from motivation.pairing.depth_rules import DepthRule
from motivation.pairing.initialization import Init
from motivation.pairing.map_weights import MapName
from motivation.pairing.pair import BatchNormPolicy, Pair
from motivation.phase import Phase
from motivation.randomness import MOTIVATED_WEIGHTS, derived_seed
from motivation.run_folder.checkpoints import load_checkpoint
from motivation.validation import Count, check_arguments


@check_arguments
@dataclass(frozen=True)
class PairModel:
    """A base and a motivated network that share weights.

    Args:
        base: name of the smaller network.
        motivated: name of the larger one.
        weights_map: see `motivation.Pair`.
        init: see `motivation.Pair`.
        depth_rule: see `motivation.Pair`; null for the family's.
        batch_norm: see `motivation.Pair`.
        recalibration_batches: training batches whose statistics ``batch_norm: recalibrate`` takes.
        image_shape: see `motivation.Pair`; null finds it out.
        options: further arguments of both networks, such as timm's ``img_size``.
        base_options: of the base alone, on top.
        motivated_options: of the motivated network alone, on top.

    Raises:
        ValueError: an unknown name, or no batches.
    """

    base: str
    motivated: str
    weights_map: MapName = "structural"
    init: Init = "identity"
    depth_rule: DepthRule | None = None
    batch_norm: BatchNormPolicy = "shared"
    recalibration_batches: Count = 50
    image_shape: tuple[int, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    base_options: dict[str, Any] = field(default_factory=dict)
    motivated_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _check_names(base=self.base, motivated=self.motivated)

    def build(self, num_classes: int, in_chans: int, seed: int) -> Pair:
        """The pair, its base with the very weights that classical training of this seed starts from."""
        base = ClassicalModel(self.base, self.options | self.base_options).build(num_classes, in_chans, seed)
        motivated = ClassicalModel(self.motivated, self.options | self.motivated_options).build(
            num_classes, in_chans, derived_seed(seed, MOTIVATED_WEIGHTS))
        return Pair(base, motivated, weights_map=self.weights_map, init=self.init, depth_rule=self.depth_rule,
                    batch_norm=self.batch_norm, image_shape=self.image_shape)


@check_arguments
@dataclass(frozen=True)
class ClassicalModel:
    """One network trained alone, with its native initialisation.

    Args:
        network: its name.
        options: further arguments of the network, such as timm's ``img_size``.

    Raises:
        ValueError: an unknown name.
    """

    network: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        _check_names(network=self.network)

    def build(self, num_classes: int, in_chans: int, seed: int) -> nn.Module:
        """The network; its initial weights depend on the seed alone."""
        torch.manual_seed(seed)
        return create_model(self.network, num_classes, in_chans, **self.options)


@check_arguments
@dataclass(frozen=True)
class TransferModel(ClassicalModel):
    """One network of a finished run, fine-tuned on other data (paper, table 3); its classifier is new.

    Args:
        network: its name.
        run: the finished run's folder.
        of: which of the run's networks.
        options: further arguments of the network.

    Raises:
        ValueError: an unknown name, or no finished run.
    """

    run: str | None = None
    of: Phase = "base"

    def __post_init__(self):
        super().__post_init__()
        if self.run is None or not (Path(self.run) / "checkpoints" / "final.pt").is_file():
            raise ValueError(f"run={self.run}: no finished run; give the folder of one")

    def build(self, num_classes: int, in_chans: int, seed: int) -> nn.Module:
        """The network with the run's weights; all but the classifier must fit."""
        network = super().build(num_classes, in_chans, seed)
        weights = load_checkpoint(Path(self.run) / "checkpoints" / "final.pt")
        # A pair's file holds both networks under their phases, a classical run's one network.
        prefix = f"{self.of}."
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()
                   if name.startswith(prefix)} or weights
        classifier = {f"{name}.{part}" for name, module in network.named_modules()
                      if isinstance(module, nn.Linear) and module.out_features == num_classes
                      for part in ("weight", "bias")}
        missing, unexpected = network.load_state_dict(
            {name: tensor for name, tensor in weights.items() if name not in classifier}, strict=False)
        if unexpected or not classifier.issuperset(missing):
            place = (unexpected or sorted(set(missing) - classifier))[0]
            raise ValueError(f"run={self.run}: its {self.of} network is no {self.network}: {place} differs")
        return network


def _check_names(**names: str) -> None:
    """Raise ValueError for an unknown network, by argument."""
    for argument, name in names.items():
        try:
            check_name(name)
        except ValueError as error:
            raise ValueError(f"{argument}={name}: {error}") from None


BY_NAME = {"pair": PairModel, "classical": ClassicalModel, "transfer": TransferModel}
