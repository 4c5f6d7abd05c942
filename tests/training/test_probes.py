"""Probes: what they measure, that they change nothing, what they cost; decisions that lag behind their loss."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import batches, mlp, snapshot
from torch import nn
from torch.optim import SGD

from motivation import Pair, Trainer
from motivation.monitors import (
    AllOf,
    Bandit,
    Consecutive,
    GradientAgreement,
    GradientNorm,
    Heldout,
    Monitor,
    NoiseScale,
    PairedHeldout,
    PredictionGain,
)
from motivation.schedules import Never, Periodic, Threshold
from motivation.training.trainer import NonFiniteLoss

PROBING = {
    "heldout": Heldout, "gradient_norm": GradientNorm, "prediction_gain": PredictionGain,
    "gradient_agreement": lambda: GradientAgreement(every=2), "noise_scale": NoiseScale,
    "paired_heldout": lambda: PairedHeldout(3), "bandit": lambda: Bandit(3),
    "all": lambda: AllOf([(PredictionGain(), 0), (NoiseScale(), 0), (Heldout(), 1)]),
}


class Keep(Monitor):
    """Keeps every signal; asks for everything."""

    needs = frozenset({"heldout", "after", "gradient"})

    def __init__(self):
        self.signals = []

    def observe(self, signal):
        self.signals.append(signal)
        return 0.0


def sgd(params):
    return SGD(params, lr=0.05, momentum=0.9, weight_decay=5e-4)


def dropout_mlp(width, seed=0):
    network = mlp(width, seed)
    network.insert(4, nn.Dropout(0.3))
    return network


def heldout(size=6):
    return next(batches(1, size, seed=9))


def trainer_of(pair, monitor=None, schedule=None, **options):
    return Trainer(pair, sgd, F.cross_entropy, monitor, schedule, heldout=heldout(), **options)


def small_pair(seed=0, width=9):
    return Pair(dropout_mlp(6, seed), dropout_mlp(width, seed + 1), weights_map="literal", init="native")


@pytest.mark.parametrize("name", PROBING)
def test_probes_change_nothing(name):
    """Invariant 8: with Never, losses, weights, buffers, gradients and RNG are those of the plain loop, bit for bit."""
    pair = small_pair()
    twin = copy.deepcopy(pair.base)
    optimizer = sgd(twin.parameters())
    trainer = trainer_of(pair, PROBING[name](), Never())
    torch.manual_seed(5)
    losses = [trainer.step(*batch).loss for batch in batches(12)]
    generator = torch.get_rng_state()
    torch.manual_seed(5)
    expected = []
    for images, targets in batches(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(twin(images), targets)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert losses == expected
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(tensor, twin.state_dict()[key]) for key, tensor in pair.base.state_dict().items())
    assert all(torch.equal(ours.grad, theirs.grad)
               for ours, theirs in zip(pair.base.parameters(), twin.parameters(), strict=True))
    assert all(module.training for module in pair.base.modules())


@pytest.mark.parametrize("phase", ["base", "motivated"])
def test_signals_are_what_they_say(phase):
    """Held-out losses, loss after the update and mapped gradient, computed again by hand, for a sliced pair."""
    torch.manual_seed(0)
    pair = Pair(mlp(6), mlp(9, seed=1), weights_map="literal", init="native")
    monitor = Keep()
    trainer = trainer_of(pair, monitor, Periodic(2, 1))
    stream = list(batches(6))
    for images, targets in stream[:2 if phase == "base" else 3]:
        trainer.step(images, targets)
    images, targets = stream[4]
    assert trainer.phase == phase
    twin = copy.deepcopy(pair.network(phase)).train()
    twin.zero_grad()
    F.cross_entropy(twin(images), targets).backward()
    gradients = [parameter.grad for parameter in twin.parameters()]
    trainer.step(images, targets)
    signal = monitor.signals[-1]
    assert signal.phase == phase
    for ours, theirs, base in zip(signal.gradient, gradients, pair.base.parameters(), strict=True):
        assert torch.equal(ours, theirs[tuple(map(slice, base.shape))])
    now = copy.deepcopy(pair.network(phase))
    assert signal.after == F.cross_entropy(now.train()(images), targets).item()
    now = copy.deepcopy(pair.network(phase)).eval()
    held_images, held_targets = heldout()
    with torch.no_grad():
        expected = F.cross_entropy(now(held_images), held_targets, reduction="none")
    assert signal.heldout == pytest.approx(expected.tolist(), rel=1e-6)


def test_a_user_gets_the_gradient_before_the_optimizer_changes_it(resnets):
    class Clipping(SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad.zero_()
            return super().step(closure)

    monitor = Keep()
    trainer = Trainer(Pair(*resnets), lambda params: Clipping(params, lr=0.1), F.cross_entropy, monitor, Never(),
                      heldout=heldout())
    trainer.step(*next(batches(1)))
    assert all(gradient.abs().sum() > 0 for gradient in monitor.signals[0].gradient)


def test_gradients_of_both_networks_compare():
    """The mapped weights' gradient has one length in both phases, so that agreement goes on across a switch."""
    monitor = GradientAgreement()
    trainer = trainer_of(small_pair(), monitor, Periodic(2, 1))
    found = [trainer.step(*batch).score for batch in batches(8)]
    assert math.isnan(found[0])
    assert all(-1 <= score <= 1 for score in found[1:])
    assert monitor.reference.numel() == sum(parameter.numel() for parameter in trainer.pair.base.parameters())


@pytest.mark.parametrize(("monitor", "extra"), [
    (Consecutive(), [0, 0, 0, 0]), (GradientNorm(), [0, 0, 0, 0]), (PredictionGain(), [8, 8, 8, 8]),
    (Heldout(every=2), [6, 0, 6, 0]), (AllOf([(PredictionGain(), 0), (Heldout(), 1)]), [14, 14, 14, 14])])
def test_probes_are_on_the_ledger(monitor, extra):
    """A forward an image: 8 of a batch, 6 held-out; the paper's F leaves them out."""
    pair = small_pair()
    trainer = trainer_of(pair, monitor, Never())
    results = [trainer.step(*batch) for batch in batches(4)]
    forward = trainer.ledger.forward_flops["base"]
    assert [result.flops for result in results] == [forward * (3 * 8 + images) for images in extra]
    assert trainer.ledger.totals()["budget/flops"] == sum(result.flops for result in results)
    assert trainer.ledger.totals()["budget/forward_per_image"] == forward
    assert trainer.ledger.charges == ({"probe": forward * sum(extra)} if any(extra) else {})


@pytest.mark.parametrize("name", ["heldout", "noise_scale", "all"])
def test_a_step_reads_the_device_once(name, monkeypatch):
    trainer = trainer_of(small_pair(), PROBING[name](), Threshold(None) if name != "all" else Threshold(1))
    stream = list(batches(5))
    trainer.step(*stream[0])
    reads = []
    for reader in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
        original = getattr(torch.Tensor, reader)
        monkeypatch.setattr(torch.Tensor, reader,
                            lambda tensor, *a, original=original, reader=reader: reads.append(reader) or original(
                                tensor, *a))
    for batch in stream[1:]:
        reads.clear()
        trainer.step(*batch)
        assert reads == ["tolist"]


def test_heldout_batch_and_known_needs_are_required():
    class Odd(Monitor):
        needs = frozenset({"temperature"})

    for monitor, message in ((PairedHeldout(), "PairedHeldout needs heldout images"), (Odd(), "Odd needs temperature")):
        with pytest.raises(ValueError, match=message):
            Trainer(small_pair(), sgd, F.cross_entropy, monitor, Never())
    with pytest.raises(ValueError, match="lag=-1"):
        trainer_of(small_pair(), Consecutive(), Never(), lag=-1)
    with pytest.raises(ValueError, match="k=0: must be at least 1"):
        trainer_of(small_pair(), Consecutive(), Threshold(0))


@pytest.mark.parametrize("lag", [1, 3])
def test_a_lag_decides_on_older_losses(lag):
    """The phases are those that the monitor and schedule give on the losses of `lag` steps ago; 0 is the paper."""
    monitor, schedule = Consecutive(), Threshold(1)
    trainer = trainer_of(small_pair(), monitor, schedule, lag=lag)
    results = [trainer.step(*batch) for batch in batches(40)]
    losses = [result.loss for result in results]
    again, decided = Consecutive(), ["base"] * (lag + 1)
    decided += ["motivated" if again.observe(loss) >= 1 else "base" for loss in losses]
    assert [result.phase for result in results] == decided[:40]
    assert {"base", "motivated"} == set(decided[:40])
    assert all(math.isnan(result.score) for result in results[:lag])
    assert trainer.ledger.totals()["budget/flops"] == sum(result.flops for result in results)


@pytest.mark.parametrize("name", PROBING)
@pytest.mark.parametrize("lag", [0, 2])
def test_restored_trainer_resumes_bit_identical(name, lag):
    """Saved in mid-window with losses still unread, loaded into other networks: the same losses, scores and phases."""
    def make(seed):
        torch.manual_seed(seed)
        pair = Pair(mlp(6, seed), mlp(9, seed + 1), weights_map="literal", init="native")
        return trainer_of(pair, PROBING[name](), Periodic(5, 2), lag=lag)

    whole, resumed, stream = make(0), make(7), list(batches(30))
    for batch in stream[:13]:
        whole.step(*batch)
    state = copy.deepcopy(whole.state_dict())
    json.dumps(state["unread"])
    resumed.load_state_dict(state)
    for batch in stream[13:]:
        a, b = whole.step(*batch), resumed.step(*batch)
        assert (a.loss, a.phase, a.flops) == (b.loss, b.phase, b.flops)
        assert a.score == b.score or (math.isnan(a.score) and math.isnan(b.score))
    assert all(torch.equal(tensor, snapshot(resumed.model)[key]) for key, tensor in snapshot(whole.model).items())


def test_a_nan_is_noticed_with_a_lag_too():
    trainer = trainer_of(small_pair(), Consecutive(), Never(), lag=2)
    images, targets = next(batches(1))
    late = trainer.step(images * math.nan, targets)
    trainer.step(images, targets)
    with pytest.raises(NonFiniteLoss, match="loss is nan at step 0"):
        trainer.step(images, targets)
    with pytest.raises(NonFiniteLoss):
        _ = late.loss
