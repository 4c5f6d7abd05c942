"""Every probe's value, on a network with BatchNorm, dropout and drop path that an update of rate 0 leaves as it was."""

import copy
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn

from motivation import Pair, Trainer
from motivation.monitors import Consecutive, Monitor
from motivation.schedules import Always, MaxInterval, Never, Quota, Threshold, WarmUp
from motivation.training.engine import Engine


class Seen(Monitor):
    """Keeps all signals."""

    needs = frozenset({"after", "heldout", "gradient"})

    def __init__(self):
        self.signals = []

    def observe(self, signal):
        self.signals.append(signal)
        return math.nan


def convnet():
    """BatchNorm, dropout and stochastic depth."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.3), DropPath(0.4),
                         nn.Conv2d(8, 8, 3, 4), nn.BatchNorm2d(8), nn.Flatten(), nn.Dropout(0.5), nn.Linear(392, 3))


def transformer():
    """Dropout of activations and attention, and stochastic depth."""
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, embed_dim=32, depth=3, num_heads=2,
                             drop_rate=0.2, attn_drop_rate=0.2, proj_drop_rate=0.2, drop_path_rate=0.3)


@pytest.mark.parametrize("schedule", [Never, Always])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("network", [convnet, transformer])
def test_without_an_update_every_probe_shows_what_the_step_did(network, parts, schedule):
    torch.manual_seed(0)
    pair = Pair(network(), network(), image_shape=(3, 32, 32))
    images, targets = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    heldout = (torch.randn(5, 3, 32, 32), torch.tensor([2, 1, 0, 0, 1]))
    monitor = Seen()
    trainer = Trainer(pair, lambda params: torch.optim.SGD(params, lr=0.0), F.cross_entropy, monitor, schedule(),
                      heldout=heldout, engine=Engine(device="cpu", accumulation=parts))
    losses = []
    for _ in range(3):
        active = pair.network(trainer.phase)
        result = trainer.step(images, targets)
        signal = monitor.signals[-1]
        assert signal.after == signal.loss == result.loss, "the same masks on the same weights: a gain of exactly 0"
        losses.append(signal.loss)
        twin = copy.deepcopy(active).eval()
        with torch.no_grad():
            assert torch.tensor(signal.heldout).equal(F.cross_entropy(twin(heldout[0]), heldout[1], reduction="none"))
        norms = [parameter.grad.norm().item() for parameter in active.parameters()]
        assert sorted(part.norm().item() for part in signal.gradient) == sorted(norms)
    assert len(set(losses)) == 3, "each step draws masks of its own"


@pytest.mark.parametrize("schedule", [lambda: Threshold(2), lambda: Quota(0.2), lambda: WarmUp(Threshold(2), 3),
                                      lambda: MaxInterval(WarmUp(Quota(0.2), 3), 2)])
def test_a_schedule_that_decides_by_scores_needs_a_monitor(schedule):
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2)]
    pair = Pair(*networks, image_shape=(1, 2, 2))
    with pytest.raises(ValueError, match=r"^monitor is missing: \w+ decides by a monitor's scores"):
        Trainer(pair, lambda params: torch.optim.SGD(params, lr=0.1), F.cross_entropy, schedule=schedule())
    Trainer(pair, lambda params: torch.optim.SGD(params, lr=0.1), F.cross_entropy, Consecutive(), Threshold(2))
    Trainer(pair, lambda params: torch.optim.SGD(params, lr=0.1), F.cross_entropy, schedule=WarmUp(Always(), 3))
