"""Weights on the loss of each unit: none is the plain step bit for bit, 1 is its value, 0 leaves a unit out."""

import pytest
import torch
import torch.nn.functional as F
from conftest import batches, mlp, snapshot
from torch import nn
from torch.optim import SGD

from motivation import Engine, Pair, Trainer, create_pair
from motivation.accuracy import IGNORED
from motivation.models import GPT
from motivation.monitors import Consecutive, Signal
from motivation.schedules import Threshold
from motivation.training.recipe import binary_cross_entropy, sequence_cross_entropy


def sgd(params):
    return SGD(params, lr=0.1, momentum=0.9)


def sequences(count=4, length=6):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(7, (count, length), generator=generator)
    targets = torch.randint(7, (count, length), generator=generator)
    for row in range(count):
        targets[row, :row] = IGNORED
    return tokens, targets


def trained(weights, loss=F.cross_entropy, engine=None, batch=None, network=None, steps=3):
    network = network or mlp(6)
    trainer = Trainer(network, sgd, loss, engine=engine)
    [(images, targets)] = [batch] if batch else batches(1)
    losses = [trainer.step(images, targets, *weights).loss for _ in range(steps)]
    return losses, snapshot(network)


def linear():
    """A network whose images know nothing of each other."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def gpt():
    torch.manual_seed(0)
    return GPT(1, 16, 7)


def test_without_weights_a_step_is_the_plain_loop_bit_for_bit():
    """As written before there were weights: forward, mean loss, backward, update."""
    network, [(images, targets)] = mlp(6), batches(1)
    optimizer = sgd(network.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(network(images), targets).backward()
        optimizer.step()
    expected = snapshot(network)
    for weights in ((), (None,)):
        assert all(torch.equal(value, expected[name]) for name, value in trained(weights)[1].items())


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.1)])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_weights_of_1_are_the_plain_step(loss, micro_batches):
    engine = Engine(device="cpu", accumulation=micro_batches)
    plain, weighted = (trained(weights, loss, engine) for weights in ((), (torch.ones(8),)))
    assert weighted[0] == pytest.approx(plain[0], rel=1e-5)
    assert all(torch.allclose(value, plain[1][name], atol=1e-6) for name, value in weighted[1].items())


def test_a_weight_of_0_leaves_a_unit_out_and_2_counts_it_twice():
    [(images, targets)] = batches(1)
    weights = torch.tensor([2.0, 0, 2, 0, 2, 0, 2, 0])
    half = trained((), batch=(images[::2], targets[::2]), network=linear())
    some = trained((weights,), batch=(images, targets), network=linear())
    assert some[0] == pytest.approx(half[0], rel=1e-5)
    assert all(torch.allclose(value, half[1][name], atol=1e-6) for name, value in some[1].items())


def test_a_negative_weight_raises_a_loss():
    signed, _ = trained((-torch.ones(8),), network=linear())
    assert -signed[0] < -signed[1] < -signed[2]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_tokens_have_weights_of_their_own(micro_batches):
    tokens, targets = sequences()
    engine = Engine(device="cpu", accumulation=micro_batches)
    plain, ones, each = (trained(weights, sequence_cross_entropy, engine, (tokens, targets), gpt())
                         for weights in ((), (torch.ones(4),), (torch.ones(4, 6),)))
    assert ones[0] == pytest.approx(plain[0], rel=1e-5)
    assert each[0] == pytest.approx(plain[0], rel=1e-5)
    # Weight 0 on the tokens of one sequence is weight 0 on the sequence.
    without = torch.ones(4)
    without[2] = 0
    rows, cells = (trained((weights,), sequence_cross_entropy, engine, (tokens, targets), gpt())
                   for weights in (without, without[:, None].expand(4, 6)))
    assert rows[0] == cells[0]


def test_a_sequence_counts_like_an_image():
    """The mean of each sequence's mean, so that parts of a batch average to the batch's loss."""
    tokens, targets = sequences()
    logits = gpt()(tokens)
    by_hand = torch.stack([F.cross_entropy(logits[row].T[row:], targets[row, row:]) for row in range(4)])
    assert torch.allclose(sequence_cross_entropy(logits, targets), by_hand.mean())
    halves = [sequence_cross_entropy(logits[part], targets[part]) for part in (slice(2), slice(2, 4))]
    assert torch.allclose(sum(halves) / 2, by_hand.mean())
    assert torch.allclose(sequence_cross_entropy(logits, targets, reduction="none").mean(1), by_hand)


class Before(Consecutive):
    """Sees the loss of the batch after the update too."""

    needs = frozenset({"after"})

    def observe(self, signal: Signal):
        self.seen = signal
        return super().observe(signal)


def test_the_loss_after_the_update_has_the_same_weights():
    monitor = Before()
    pair = create_pair("gpt_1x16", "gpt_2x16", 7)
    trainer = Trainer(pair, lambda params: SGD(params, lr=0.0), sequence_cross_entropy, monitor, Threshold(2))
    tokens, targets = sequences()
    trainer.step(tokens, targets, torch.tensor([1.0, -1.0, 0.0, 3.0]))
    assert monitor.seen.after == monitor.seen.loss
    assert isinstance(trainer.pair, Pair)


@pytest.mark.parametrize(("loss", "weights", "message"), [
    (F.cross_entropy, torch.ones(7), r"weights has shape \(7,\): must be one an input or target, \(8,\)"),
    (F.cross_entropy, torch.ones(8, 5), r"weights has shape \(8, 5\)"),
    (binary_cross_entropy, torch.ones(8), "which binary_cross_entropy does not give; take a loss with the")])
def test_weights_that_cannot_be_are_refused(loss, weights, message):
    with pytest.raises(ValueError, match=message):
        trained((weights,), loss)
