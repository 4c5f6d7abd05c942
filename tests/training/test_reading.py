"""Losses of a GPU: sent when the step is launched, waited for as late as the decisions allow; the values stay."""

import math

import pytest
import torch
from conftest import batches, mlp
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from motivation import Pair, Trainer
from motivation.monitors import Consecutive
from motivation.schedules import Threshold
from motivation.training import probes, trainer
from motivation.training.engine import Engine
from motivation.training.trainer import NonFiniteLoss


def sgd(params):
    return SGD(params, lr=0.05, momentum=0.9)


def classical(engine=None):
    return Trainer(mlp(6), sgd, cross_entropy, engine=engine)


def pair(lag=0):
    return Trainer(Pair(mlp(6), mlp(9, 1)), sgd, cross_entropy, Consecutive(), Threshold(1), lag=lag)


@pytest.fixture
def log(monkeypatch):
    """What happens to the events of a fake GPU, in order: (what, number of the event)."""
    happened, made = [], iter(range(1000))

    class Event:
        def __init__(self):
            self.number = next(made)

        def record(self, stream):
            assert stream == "stream"
            happened.append(("sent", self.number))

        def synchronize(self):
            happened.append(("read", self.number))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    for module in (probes, trainer):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)
    return happened


@pytest.mark.parametrize(("make", "late"), [(pair, 0), (lambda: pair(2), 2), (classical, 1)],
                         ids=["monitor", "lag", "no monitor"])
def test_a_loss_is_read_as_late_as_decisions_allow(log, make, late):
    """At lag 0 right after what can be done meanwhile; without a monitor while the next step runs."""
    training = make()
    for batch in batches(4):
        training.step(*batch, meanwhile=lambda: log.append("meanwhile"))
    expected = []
    for step in range(4):
        expected += [("sent", step), "meanwhile", *([("read", step - late)] if step >= late else [])]
    assert log == expected
    assert training.unread == late


@pytest.mark.parametrize("make", [pair, lambda: pair(2), classical], ids=["monitor", "lag", "no monitor"])
def test_what_is_recorded_is_the_same(request, make):
    training = make()
    plain = [(result.loss, result.phase, result.flops, repr(result.score))
             for result in [training.step(*batch) for batch in batches(8)]]
    request.getfixturevalue("log")
    training = make()
    results = [training.step(*batch, meanwhile=lambda: None) for batch in batches(8)]
    assert [(result.loss, result.phase, result.flops, repr(result.score)) for result in results] == plain
    assert math.isfinite(plain[-1][0])


def test_without_a_monitor_a_nan_is_noticed_a_step_later(log):
    training = classical()
    images, targets = next(batches(1))
    training.step(images * math.nan, targets)
    with pytest.raises(NonFiniteLoss, match="loss is nan at step 0"):
        training.step(images, targets)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
def test_a_gpus_losses_are_those_read_at_once():
    losses = []
    for at_once in (True, False):
        training = classical(Engine(device="cuda"))
        training.model.cuda()
        results = []
        for images, targets in batches(20):
            results.append(training.step(images.cuda(), targets.cuda()))
            if at_once:
                assert math.isfinite(results[-1].loss)
        losses.append([result.loss for result in results])
    assert losses[0] == losses[1]
