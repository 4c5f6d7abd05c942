"""Running statistics of a pair: separate, or recomputed from batches."""

import copy

import pytest
import torch
from conftest import batches, snapshot
from torch import nn

from motivation import Pair
from motivation.pairing.weights_map import WeightsMap


def test_statistics_can_stay_each_networks_own(resnets):
    """`separate`: weights shared, BatchNorm statistics not; they start from the base's."""
    twins = copy.deepcopy(resnets)
    base_statistics = {name: b.clone() for name, b in resnets[0].named_buffers()}
    pair = Pair(*resnets, batch_norm="separate")
    assert all(torch.equal(b, base_statistics[name]) for name, b in pair.base.named_buffers())
    shared = {id(p) for p in pair.base.parameters()} & {id(p) for p in pair.motivated.parameters()}
    assert len(shared) == len(list(pair.base.parameters()))
    assert not {b.data_ptr() for b in pair.base.buffers()} & {b.data_ptr() for b in pair.motivated.buffers()}
    before = snapshot(pair.base)
    pair.motivated.train()(next(batches(1))[0])
    pair.contract()
    assert all(torch.equal(before[name], b) for name, b in pair.base.named_buffers())
    assert Pair(*twins, weights_map=WeightsMap.from_json(pair.weights_map.to_json())).batch_norm == "shared"
    with pytest.raises(ValueError, match="unknown batch_norm 'own'; choose one of shared, separate, recalibrate"):
        Pair(*resnets, batch_norm="own")


def test_recalibration_takes_the_mean_of_batch_statistics(resnets):
    """The statistics of a network over some batches, and no other change: no weight, no RNG, no other network."""
    pair = Pair(*resnets, batch_norm="recalibrate")
    before, rng = snapshot(pair), torch.get_rng_state()
    images = [images for images, _ in batches(3)]
    pair.recalibrate("motivated", images)
    with torch.no_grad():
        inputs = [pair.motivated.conv1(batch) for batch in images]
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
    assert torch.allclose(pair.motivated.bn1.running_mean, mean, atol=1e-6)
    assert torch.allclose(pair.motivated.bn1.running_var, variance, atol=1e-6)
    changed = {name for name, tensor in pair.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("motivated.") and name.rpartition(".")[2].startswith(("running", "num"))
               for name in changed)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(module.momentum == 0.1 for module in pair.modules() if isinstance(module, nn.BatchNorm2d))


def test_failed_recalibration_leaves_the_statistics(resnets):
    pair = Pair(*resnets, batch_norm="recalibrate")
    before = snapshot(pair)

    def failing():
        yield next(batches(1))[0]
        raise OSError("the disk is gone")

    for given, error, message in ((failing(), OSError, "disk"), ([], ValueError, "no batches to recompute")):
        with pytest.raises(error, match=message):
            pair.recalibrate("motivated", given)
        assert all(torch.equal(tensor, before[name]) for name, tensor in pair.state_dict().items())
        assert all(m.momentum == 0.1 and not m.training for m in pair.motivated.modules() if hasattr(m, "momentum"))
    Pair(nn.Linear(2, 2), nn.Linear(2, 2)).recalibrate("base", [])


def test_recalibration_runs_under_the_callers_autocast(resnets):
    pair = Pair(*resnets, batch_norm="recalibrate")
    dtypes = []
    pair.base.bn1.register_forward_pre_hook(lambda _, inputs: dtypes.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        pair.recalibrate("base", [images for images, _ in batches(2)])
    assert dtypes == [torch.bfloat16] * 2
