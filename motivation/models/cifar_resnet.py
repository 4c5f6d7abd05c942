"""The CIFAR ResNets of He et al. 2016 ("Deep Residual Learning for Image Recognition", section 4.2)."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)
# 8 and 14 are not in the paper: small networks for quick experiments.
DEPTHS = (8, 14, 20, 32, 44, 56, 110)
MINIMUM_SIZE = 8


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut: subsample in space, pad new channels with zeros (no parameters).

    Args:
        width_in: channels in.
        width: channels out.
        stride: 2 halves height and width.
    """

    def __init__(self, width_in: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.new_channels = width - width_in

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width_in, H, W)`` -> ``(N, width, H / stride, W / stride)``."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.new_channels:
            x = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(out + x, inplace=True)


class CifarResNet(nn.Module):
    """ResNet-(6n + 2): a 3x3 stem, three stages of n blocks at 16, 32 and 64 channels, mean pooling, a classifier.

    Args:
        depth: 6n + 2; the literature has 20, 32, 44, 56 and 110.
        num_classes: number of logits.
        in_chans: channels of the images.

    Raises:
        ValueError: a depth that is not 6n + 2.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_chans: int = 3):
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth={depth}: a CIFAR ResNet has 6n + 2 layers: 8, 14, 20, 26, 32, ...")
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        width_in = WIDTHS[0]
        stages = []
        for width in WIDTHS:
            stride = 1 if width == WIDTHS[0] else 2
            stages.append(nn.Sequential(BasicBlock(width_in, width, stride),
                                        *(BasicBlock(width, width) for _ in range(blocks - 1))))
            width_in = width
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(width_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_chans, H, W)`` with H, W >= 8 -> logits ``(N, num_classes)``."""
        if min(x.shape[-2:]) < MINIMUM_SIZE:
            raise ValueError(f"images of {x.shape[-2]} x {x.shape[-1]} are too small for a CIFAR ResNet; "
                             f"it needs at least {MINIMUM_SIZE} x {MINIMUM_SIZE}")
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


CIFAR_RESNETS: dict[str, Callable[..., CifarResNet]] = {
    f"resnet{depth}": partial(CifarResNet, depth) for depth in DEPTHS}
