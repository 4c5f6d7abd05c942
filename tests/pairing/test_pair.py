"""A pair: one storage for what maps whole, the base's values first, identity where only the motivated network is."""

import copy

import pytest
import torch
from algorithm1 import resnet_mapping
from conftest import batches, mlp, snapshot
from torch import nn

from motivation import Pair, create_pair
from motivation.models import CifarResNet
from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError
from motivation.pairing.weights_map import tensor_of


def storages(network):
    return {name: tensor.data_ptr() for name, tensor in [*network.named_parameters(), *network.named_buffers()]}


def test_mapped_tensors_are_one_storage(resnets):
    """Invariant 2: every base tensor lies in the motivated network where the paper's rule says, without a copy."""
    mapping = resnet_mapping(*resnets)
    pair = Pair(*resnets)
    base, motivated = storages(pair.base), storages(pair.motivated)
    assert len(mapping) == len(base)
    assert all(base[small] == motivated[large] for small, large in mapping)
    assert len(set(motivated.values())) == len(motivated)
    assert pair.expand() == pair.contract() == 0
    parameters = sum(p.numel() for p in pair.parameters())
    assert parameters == sum(p.numel() for p in pair.motivated.parameters())


def test_base_values_win_and_native_leaves_the_rest(resnets):
    base, motivated = snapshot(resnets[0]), snapshot(resnets[1])
    pair = Pair(*resnets, init="native")
    mapping = {large: small for small, large in resnet_mapping(*resnets)}
    for name, tensor in pair.motivated.state_dict().items():
        assert torch.equal(tensor, base[mapping[name]] if name in mapping else motivated[name]), name
    assert all(torch.equal(tensor, base[name]) for name, tensor in pair.base.state_dict().items())


@pytest.mark.parametrize("names", [("resnet20", "resnet32"), ("resnet32", "resnet44"), ("resnet44", "resnet56"),
                                   ("resnet20", "resnet110")])
def test_identity_changes_no_logit(names):
    """The first expansion changes no logit, in training mode and in evaluation mode, bit for bit."""
    torch.manual_seed(1)
    pair = create_pair(*names, num_classes=5, in_chans=1)
    images, _ = next(batches(1))
    with torch.no_grad():
        for mode in (True, False):
            pair.train(mode)
            assert torch.equal(pair.base(images), pair.motivated(images))


def test_identity_block_learns(resnets):
    """A block that starts as the identity gets a gradient at once, so it does not stay one."""
    pair = Pair(*resnets)
    images, targets = next(batches(1))
    nn.functional.cross_entropy(pair.motivated(images), targets).backward()
    for name in pair.weights_map.differential_blocks:
        assert pair.motivated.get_submodule(name).bn2.weight.grad.any()


def test_sharing_survives_conversion_of_the_pair(resnets):
    """Invariant 2: `.to()` replaces buffers network by network; the pair ties them again."""
    pair = Pair(*resnets)
    for converted in (pair.to(torch.float64), pair.to(memory_format=torch.channels_last), pair.float()):
        converted.assert_tied()
    base, motivated = storages(pair.base), storages(pair.motivated)
    assert all(base[e.base] == motivated[e.motivated] for e in pair.weights_map.entries)


def test_conversion_of_one_network_is_noticed(resnets):
    pair = Pair(*resnets)
    pair.base.double().float()
    with pytest.raises(ValueError, match="no longer shared by the pair"):
        pair.assert_tied()
    pair.tie()
    pair.assert_tied()


@pytest.mark.parametrize("network", ["base", "motivated"])
def test_conversion_of_one_network_is_noticed_at_a_switch(network):
    """A slice would be copied out of, or into, memory that is no longer the network's."""
    pair = Pair(mlp(6), mlp(9))
    assert pair.expand() > 0
    getattr(pair, network).double().float()
    with pytest.raises(ValueError, match="moved or converted since the last switch"):
        pair.contract()
    pair.tie()
    assert pair.contract() == pair.double().float().expand() > 0


def test_loaded_tensors_are_shared(resnets):
    """`assign=True` gives each network the loaded tensors; the base's are then the motivated network's."""
    pair = Pair(*resnets)
    saved = {name: tensor.clone() + 1 for name, tensor in pair.state_dict().items()}
    nn.ModuleList([pair]).load_state_dict({f"0.{name}": tensor for name, tensor in saved.items()}, assign=True)
    pair.assert_tied()
    assert torch.equal(pair.motivated.conv1.weight, saved["base.conv1.weight"])


def test_copy_and_state_dict_keep_the_sharing(resnets):
    pair = Pair(*resnets)
    twin = copy.deepcopy(pair)
    twin.assert_tied()
    assert set(storages(twin.base).values()).isdisjoint(storages(pair.base).values())
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(1)
    twin.load_state_dict(pair.state_dict())
    twin.assert_tied()
    assert all(torch.equal(a, b) for a, b in zip(pair.state_dict().values(), twin.state_dict().values(), strict=True))


def test_sliced_tensors_are_copied_both_ways():
    pair = Pair(mlp(6), mlp(9, seed=1), weights_map="literal", init="native")
    before = snapshot(pair.base)
    assert pair.expand() == pair.contract() > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.base.state_dict().items())
    with torch.no_grad():
        pair.motivated[1].weight.zero_()
    pair.contract()
    assert not pair.base[1].weight.any()
    twin = copy.deepcopy(pair)
    with torch.no_grad():
        twin.motivated[1].weight.fill_(2)
    twin.contract()
    assert (twin.base[1].weight == 2).all()
    assert not pair.base[1].weight.any()


def test_refused_pairs_leave_both_networks_unchanged(resnets):
    base, motivated = resnets
    before = snapshot(base), snapshot(motivated)
    pointers = storages(base), storages(motivated)
    with pytest.raises(NestingError, match="layer1: 3 blocks in the base, only 2"):
        Pair(motivated, base)
    with pytest.raises(ValueError, match="unknown init 'zero'; choose one of identity"):
        Pair(base, motivated, init="zero")
    with pytest.raises(ValueError, match="unknown weights map"):
        Pair(base, motivated, weights_map="width")
    with pytest.raises(ValueError, match="one and the same network"):
        Pair(base, base)
    with pytest.raises(ValueError, match="motivated=2: must be a network"):
        Pair(base, 2)
    with pytest.raises(NestingError, match=r"fc.weight"):
        Pair(base, CifarResNet(20, num_classes=4, in_chans=1))
    with pytest.raises(ValueError, match="unknown depth rule 'bogus'"):
        Pair(base, copy.deepcopy(base), depth_rule="bogus")
    with pytest.raises(NestingError, match=r"^conv1\.weight: torch\.float32 in the base, torch\.float64 in the"):
        Pair(base, copy.deepcopy(motivated).double())
    with pytest.raises(NestingError, match=r"^conv1\.weight: cpu in the base, meta in the motivated network;"):
        Pair(base, copy.deepcopy(motivated).to("meta"), weights_map=map_weights(base, motivated))
    assert (storages(base), storages(motivated)) == pointers
    for network, saved in zip(resnets, before, strict=True):
        assert all(torch.equal(saved[name], tensor) for name, tensor in network.state_dict().items())


def test_tensors_by_name(resnets):
    assert tensor_of(resnets[0], "layer2.0.bn1.running_mean") is resnets[0].layer2[0].bn1.running_mean


@pytest.mark.parametrize("frozen", ["base", "motivated"])
@pytest.mark.parametrize("width", [6, 9])
def test_frozen_weights_stay_frozen_in_both(frozen, width):
    """Aliased or sliced, whichever network's the user froze: no training changes it, and all others train."""
    networks = {"base": mlp(6), "motivated": mlp(width, seed=1)}
    networks[frozen][1].weight.requires_grad_(False)
    pair = Pair(networks["base"], networks["motivated"])
    before = snapshot(pair.base)
    assert [name for name, parameter in pair.base.named_parameters() if not parameter.requires_grad] == ["1.weight"]
    assert [name for name, parameter in pair.motivated.named_parameters() if not parameter.requires_grad] == [
        "1.weight"]
    images, targets = next(batches(1))
    for phase in ("motivated", "base", "motivated"):
        optimizer = torch.optim.SGD(pair.network(phase).parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        nn.functional.cross_entropy(pair.network(phase)(images), targets).backward()
        optimizer.step()
        pair.expand() if phase == "base" else pair.contract()
    after = snapshot(pair.base)
    assert [name for name in before if torch.equal(before[name], after[name])] == ["1.weight"]


def test_a_map_of_ones_own_is_used_and_checked(resnets):
    weights_map = map_weights(*resnets, depth_rule="first")
    assert Pair(*copy.deepcopy(resnets), weights_map=weights_map).weights_map is weights_map
    with pytest.raises(NestingError, match=r"shape .* in the map"):
        Pair(CifarResNet(14, 4, 1), CifarResNet(20, 4, 1), weights_map=weights_map)


def test_networks_that_share_already_are_refused(resnets):
    resnets[1].fc = resnets[0].fc
    with pytest.raises(NestingError, match=r"fc\.weight of the motivated network is already fc\.weight of the base"):
        Pair(*resnets)


def test_networks_in_one_memory_are_refused(resnets):
    """Two parameters that are views of one storage, or overlap in part, are one weight."""
    base, motivated = resnets
    memory = torch.zeros(100)
    base.fc.bias = nn.Parameter(memory[:5])
    motivated.fc.bias = nn.Parameter(memory[4:9])
    with pytest.raises(NestingError, match=r"fc\.bias of the base and fc\.bias of the motivated network share memory"):
        Pair(base, motivated)
    motivated.fc.bias = nn.Parameter(memory[5:10])
    Pair(base, motivated)
