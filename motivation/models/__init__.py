"""Networks by name: our CIFAR ResNets and decoders of tokens, everything else from timm."""

import difflib
import re

from torch import nn

from motivation.models import gpt
from motivation.models.cifar_resnet import CIFAR_RESNETS, CifarResNet
from motivation.models.gpt import GPT
from motivation.pairing.depth_rules import DepthRule
from motivation.pairing.initialization import Init
from motivation.pairing.map_weights import MapName
from motivation.pairing.pair import BatchNormPolicy, Pair
from motivation.pairing.weights_map import WeightsMap
from motivation.validation import Count, check_arguments

__all__ = ["CIFAR_RESNETS", "GPT", "CifarResNet", "check_name", "create_model", "create_pair"]


@check_arguments
def create_model(name: str, num_classes: Count, in_chans: Count = 3, **options) -> nn.Module:
    """A network by name.

    Args:
        name: ``resnet20``, ``resnet32``, ``resnet44``, ``resnet56``, ``resnet110``, and the small
            ``resnet8``, ``resnet14`` (CIFAR ResNets); ``gpt_2x64``, a decoder of tokens with 2 blocks of width 64, or
            other such numbers; or any timm model.
        num_classes: number of logits, for tokens the vocabulary's.
        in_chans: channels of the images; tokens have none.
        options: further arguments of the network, such as timm's ``img_size``.

    Raises:
        ValueError: unknown name, or no class or channel.
    """
    check_name(name)
    if name in CIFAR_RESNETS:
        return CIFAR_RESNETS[name](num_classes=num_classes, in_chans=in_chans, **options)
    if match := gpt.NAME.fullmatch(name):
        blocks, width = map(int, match.groups())
        return GPT(blocks, width, num_classes=num_classes, **options)
    import timm

    return timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **options)


def check_name(name: str) -> None:
    """Raise ValueError for a name that is neither ours nor timm's."""
    if name in CIFAR_RESNETS or gpt.NAME.fullmatch(name):
        return
    import timm

    if not timm.is_model(name):
        known = [*CIFAR_RESNETS, *timm.list_models()]
        spelled = re.sub(r"[^a-z0-9.]+", "_", name.lower())
        close = [other for other in known if other.startswith(f"{spelled}_")][:3] \
            or difflib.get_close_matches(spelled, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else \
            f"choose {', '.join(CIFAR_RESNETS)}, gpt_2x64 (depth x width) or a timm model"
        raise ValueError(f"unknown model {name!r}; {hint}")


def create_pair(base: str, motivated: str, num_classes: int, in_chans: int = 3, *,
                weights_map: MapName | WeightsMap = "structural", init: Init = "identity",
                depth_rule: DepthRule | None = None, batch_norm: BatchNormPolicy = "shared",
                image_shape: tuple[int, ...] | None = None, **options) -> Pair:
    """Two networks by name, as a `Pair`.

    Args:
        base: name of the smaller network, see `create_model`.
        motivated: name of the larger one.
        num_classes: number of logits of both.
        in_chans: channels of the images.
        weights_map, init, depth_rule, batch_norm, image_shape: see `Pair`.
        options: further arguments of both networks.

    Raises:
        ValueError: unknown name, or a base that does not nest in the motivated network.
    """
    small = create_model(base, num_classes, in_chans, **options)
    large = create_model(motivated, num_classes, in_chans, **options)
    return Pair(small, large, weights_map=weights_map, init=init, depth_rule=depth_rule, batch_norm=batch_norm,
                image_shape=image_shape)
