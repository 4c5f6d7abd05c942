"""Logits of a base, and of a motivated network whose differential weights are zero."""

import torch
from torch import nn

from motivation.pairing.tracing.example import example_input
from motivation.pairing.tracing.trace import mixes_channels
from motivation.pairing.weights_map import tensor_of


def spread_weights(network: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Weights at which every layer matters and no activation overflows; BatchNorm statistics of some images."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                fan_in = max(1, parameter[0].numel())
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.double) / fan_in**0.5)
            else:
                parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.double) / 2 + 0.25)
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
            norm.train()
        network(example_input(network, image_shape, 8, dtype=torch.double, seed=2))
    network.eval()


def without_channel_norms(network: nn.Module) -> None:
    for module in network.modules():
        if mixes_channels(module):
            module.forward = lambda x, *_: x


def logits_of_both(base: nn.Module, motivated: nn.Module, weights_map, image_shape):
    """Logits of the base, and of the motivated network with every differential weight zero."""
    base, motivated = base.double().eval(), motivated.double().eval()
    without_channel_norms(base)
    without_channel_norms(motivated)
    spread_weights(base, image_shape)
    with torch.no_grad():
        for parameter in motivated.parameters():
            parameter.zero_()
        for entry in weights_map.entries:
            for ours, theirs in entry.pieces(tensor_of(base, entry.base), tensor_of(motivated, entry.motivated)):
                theirs.copy_(ours)
        images = example_input(base, image_shape, 3, dtype=torch.double, seed=1)
        return base(images), motivated(images)
