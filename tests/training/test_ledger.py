"""FLOPs: what the literature gives, what the counter does not touch, and totals that add up."""

import pytest
import torch
from torch import nn

from motivation.models import create_model
from motivation.training.ledger import Ledger, forward_flops


@pytest.mark.parametrize(("name", "megaflops"), [("resnet20", 81.10), ("resnet32", 137.73)])
def test_forward_flops_of_the_cifar_resnets(name, megaflops):
    """The contract's own counts, 2 per multiply-add (the paper prints 82.82 and 140.13)."""
    assert forward_flops(create_model(name, 10), (3, 32, 32)) / 1e6 == pytest.approx(megaflops, abs=0.005)


def test_forward_flops_by_hand():
    """A convolution and a dense layer, counted by hand."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert forward_flops(network, (3, 6, 6)) == 2 * (4 * 36 * 27) + 2 * (4 * 36 * 5)


def test_counting_changes_nothing():
    """Neither weights nor statistics nor training mode, module by module, nor the random state."""
    network = create_model("resnet20", 10)
    network.layer2.eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.get_rng_state()
    forward_flops(network, (3, 8, 8))
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_totals_and_state_round_trip():
    ledger = Ledger()
    assert ledger.totals()["budget/forward_per_image"] == 0
    assert ledger.record("base", 10, 100, 0.5) == 3000
    assert ledger.record("motivated", 10, 300, 1.0) == 9000
    assert ledger.totals() == {"budget/flops": 12000, "budget/forward_per_image": 200.0, "budget/images": 20,
                               "budget/seconds": 1.5, "budget/bytes_copied": 0, "steps/base": 1, "steps/motivated": 1,
                               "intervals": 1}
    other = Ledger()
    other.load_state_dict(ledger.state_dict())
    ledger.record("motivated", 10, 300, 1.0)
    other.record("motivated", 10, 300, 1.0)
    assert other == ledger
    assert other.intervals == 1
