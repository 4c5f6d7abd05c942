"""Pairs whose tensors are slices, trained beside the literal two-copy oracle, to the bit."""

import pytest
import torch
from networks import efficientnet, vits
from test_trainer import OPTIMIZERS, train_beside_oracle

from motivation import Pair
from motivation.weights_map import tensor_of


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
    """Expand and contract: the base unchanged to the bit, and the motivated network holds it where the map says."""
    pair = Pair(*vits())
    with torch.no_grad():
        for parameter in pair.motivated.parameters():
            parameter.normal_()
    before = {name: tensor.clone() for name, tensor in pair.base.state_dict().items()}
    assert pair.expand() == pair.contract() > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.base.state_dict().items())
    for entry in pair.weights_map.entries:
        assert torch.equal(entry.slice_of(tensor_of(pair.motivated, entry.motivated)), before[entry.base])


def test_one_fused_copy_a_direction(monkeypatch):
    """A switch of weights and of optimizer state is one call each, not one a tensor."""
    from motivation.copies import Copies
    from motivation.optimizer_state import SharedState, split_groups

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
