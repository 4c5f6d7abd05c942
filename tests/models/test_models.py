"""The CIFAR ResNets, and networks by name."""

import pytest
import torch
from torch import nn

from motivation.models import CifarResNet, check_name, create_model, create_pair
from motivation.run.model_choice import ClassicalModel, PairModel


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_parameter_counts_of_the_literature(depth, millions):
    """He et al. 2016, table 6, for ten classes; every layer counted."""
    network = create_model(f"resnet{depth}", 10)
    digits = 1 if millions >= 1 else 2
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, digits) == millions
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == depth


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 9), (5, 17), (3, 32)])
def test_any_size_from_8_and_any_channels(channels, size):
    assert CifarResNet(8, 7, channels)(torch.randn(2, channels, size, size)).shape == (2, 7)


def test_shortcut_has_no_parameters():
    """Option A: subsample, pad with zeros."""
    block = CifarResNet(8).layer2[0]
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_impossible_networks_are_refused():
    with pytest.raises(ValueError, match="6n \\+ 2"):
        CifarResNet(21)
    with pytest.raises(ValueError, match="at least 8 x 8"):
        CifarResNet(8)(torch.zeros(1, 3, 7, 7))
    with pytest.raises(ValueError, match="unknown model 'resnet21'; did you mean"):
        check_name("resnet21")
    with pytest.raises(ValueError, match="unknown model 'qqqq'"):
        PairModel("resnet20", "qqqq")
    with pytest.raises(ValueError, match="only 3 in the motivated"):
        create_pair("resnet32", "resnet20", num_classes=10)


def test_timm_networks_by_name():
    network = create_model("resnet18", num_classes=7, in_chans=1)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def test_pair_and_classical_start_from_the_same_base():
    """The same seed gives a pair's base the weights of classical training, and its motivated network others."""
    pair = PairModel("resnet20", "resnet32", init="native").build(10, 3, seed=4)
    classical = ClassicalModel("resnet20").build(10, 3, seed=4)
    assert all(torch.equal(tensor, classical.state_dict()[name]) for name, tensor in pair.base.state_dict().items())
    alone = ClassicalModel("resnet32").build(10, 3, seed=4)
    assert not torch.equal(pair.motivated.layer1[2].conv1.weight, alone.layer1[2].conv1.weight)
