"""Pairs whose tensors are slices, trained beside the literal two-copy oracle, bit for bit."""

import pytest
import torch
from beside_oracle import OPTIMIZERS, train_beside_oracle
from conftest import mlp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import efficientnet, vits
from structure import logits_of_both
from torch import nn

from motivation import Pair
from motivation.pairing.map_weights import map_weights
from motivation.pairing.weights_map import tensor_of


def fused_rows(base_width, motivated_width):
    """By hand: q, k and v of the base are the first rows of the motivated network's q, k and v."""
    return [part * motivated_width + row for part in range(3) for row in range(base_width)]


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("weights_map", ["structural", "literal"])
def test_vision_transformer_equals_algorithm_1(optimizer, weights_map):
    """Every tensor a slice; the structural map keeps q, k, v and heads apart, the literal one takes leading rows."""
    base, motivated = vits(8, 16, (2, 2), (2, 4))
    names = list(base.state_dict())
    rows = {name: fused_rows(8, 16) for name in names if ".qkv." in name} if weights_map == "structural" else {}
    assert len(rows) == (4 if weights_map == "structural" else 0)
    phases = train_beside_oracle(base, motivated, [(name, name) for name in names], OPTIMIZERS[optimizer](), k=1,
                                 steps=60, weights_map=weights_map, rows=rows)
    assert phases.count("motivated") >= 10


@pytest.mark.parametrize("optimizer", ["momentum", "rmsprop"])
def test_efficientnet_equals_algorithm_1(optimizer):
    """Width and depth: slices of depthwise convolutions and squeeze-excite, BatchNorm statistics, and a block more."""
    base, motivated = efficientnet(1.0, 1.0), efficientnet(2.0, 2.0, seed=1)
    names = list(base.state_dict())
    assert len(motivated.state_dict()) > len(names)
    phases = train_beside_oracle(base, motivated, [(name, name) for name in names], OPTIMIZERS[optimizer](), k=1,
                                 steps=60)
    assert phases.count("motivated") >= 10


def test_switches_are_the_identity_on_base_tensors():
    """Expand and contract: the base bit-identical, and the motivated network holds it where the map says."""
    pair = Pair(*vits())
    with torch.no_grad():
        for parameter in pair.motivated.parameters():
            parameter.normal_()
    before = {name: tensor.clone() for name, tensor in pair.base.state_dict().items()}
    assert not pair.is_synchronized()
    assert pair.expand() == pair.contract() > 0
    assert pair.is_synchronized()
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.base.state_dict().items())
    for entry in pair.weights_map.entries:
        assert torch.equal(entry.slice_of(tensor_of(pair.motivated, entry.motivated)), before[entry.base])


class Block(nn.Module):
    """A grouped convolution with a skip."""

    def __init__(self, channels, groups):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


def convnet(channels, groups, depth):
    return nn.Sequential(nn.Conv2d(1, channels, 3), nn.Sequential(*(Block(channels, groups) for _ in range(depth))),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


@st.composite
def random_pairs(draw):
    """MLPs, small convnets and small ViTs; the larger at least as wide and as deep."""
    kind = draw(st.sampled_from(["mlp", "convnet", "vit"]))
    small, more = draw(st.integers(1, 4)), draw(st.integers(0, 4))
    depth, deeper = draw(st.integers(1, 2)), draw(st.integers(0, 2))
    if kind == "mlp":
        return mlp(small), mlp(small + more)
    if kind == "convnet":
        groups, width, wider = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 2))
        return convnet(groups * width, groups, depth), \
            convnet((groups + more) * (width + wider), groups + more, depth + deeper)
    return vits(4 * small, 4 * (small + more), (depth, depth + deeper), (small, small + more))


@settings(max_examples=40, deadline=None)
@given(random_pairs())
def test_random_pairs_nest_element_by_element(networks):
    """Every base element has one place, no two share one, and what is aliased is one storage."""
    pair = Pair(*networks)
    places = {}
    with torch.no_grad():
        for entry in pair.weights_map.entries:
            base, motivated = tensor_of(pair.base, entry.base), tensor_of(pair.motivated, entry.motivated)
            assert (base.data_ptr() == motivated.data_ptr()) == entry.aliased
            index = torch.arange(motivated.numel()).view(motivated.shape)
            taken = entry.slice_of(index).flatten().tolist()
            assert len(taken) == base.numel() == len(set(taken))
            assert entry.motivated not in places
            places[entry.motivated] = taken
        before = {name: tensor.clone() for name, tensor in pair.base.state_dict().items()}
        pair.expand()
        pair.contract()
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.base.state_dict().items())
    assert len(places) == len(pair.base.state_dict())


@settings(max_examples=40, deadline=None)
@given(random_pairs())
@example((convnet(2, 2, 1), convnet(4, 2, 1)))  # two groups of one channel in two of two
def test_random_pairs_compute_the_base(networks):
    """The structural map's definition: with every differential weight zero, the base's logits to rounding."""
    ours, theirs = logits_of_both(*networks, map_weights(*networks), (1, 8, 8))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10 * float(ours.abs().max()))


def test_one_fused_copy_a_direction(monkeypatch):
    """A switch of weights and of optimizer state is one call each, not one a tensor."""
    from motivation.pairing.copies import Copies
    from motivation.training.optimizer_state import SharedState, split_groups

    pair = Pair(*vits())
    optimizers = [torch.optim.SGD(groups, lr=0.1, momentum=0.9)
                  for groups in split_groups(pair, torch.nn.Module.parameters)]
    state = SharedState(pair, *optimizers)
    calls = []
    fused = torch._foreach_copy_
    monkeypatch.setattr(torch, "_foreach_copy_", lambda *lists: calls.append(len(lists[0])) or fused(*lists))
    for part in (pair, state):
        part.expand()
        part.contract()
    assert calls == [len(pair.weights_map.sliced)] * 4
    assert Copies([]).run() == 0
