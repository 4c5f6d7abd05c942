"""Scores: losses by hand, and asking for them changes nothing."""

import pytest
import torch
import torch.nn.functional as F
from conftest import batches, mlp, snapshot

from motivation import Engine
from motivation.accuracy import IGNORED
from motivation.levers.scores import losses, of_samples, random_scores
from motivation.models import GPT


def test_losses_are_those_of_each_target_in_evaluation_mode():
    torch.manual_seed(0)
    network = GPT(1, 16, 7)
    tokens = torch.randint(7, (4, 5))
    targets = torch.randint(7, (4, 5))
    targets[:, 0] = IGNORED
    found = losses(network, tokens, targets, Engine())
    log = network(tokens).log_softmax(1)
    for row in range(4):
        assert found[row, 0] == 0
        for place in range(1, 5):
            assert found[row, place] == pytest.approx(-log[row, targets[row, place], place].item(), abs=1e-6)


def test_asking_changes_nothing():
    network = mlp(6)
    network.train()
    network[2].eval()
    before, state = snapshot(network), torch.get_rng_state()
    [(images, targets)] = batches(1)
    found = losses(network, images, targets, Engine())
    assert not found.requires_grad
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in network] == [module is not network[2] for module in network]
    network.eval()
    assert torch.allclose(found, F.cross_entropy(network(images), targets, reduction="none"))


def test_a_samples_score_is_the_mean_of_its_tokens():
    units = torch.tensor([[True, True, False], [False, False, True], [False, False, False]])
    assert of_samples(torch.tensor([[1.0, 2.0, 9.0], [9.0, 9.0, 5.0], [1.0, 1.0, 1.0]]), units).tolist() == [1.5, 5, 0]
    assert of_samples(torch.tensor([1.0, 2.0]), torch.ones(2, dtype=torch.bool)).tolist() == [1, 2]


def test_random_scores_are_of_seed_and_step():
    assert torch.equal(random_scores((5,), 3, 7), random_scores((5,), 3, 7))
    assert not torch.equal(random_scores((5,), 3, 7), random_scores((5,), 3, 8))
    assert not torch.equal(random_scores((5,), 3, 7), random_scores((5,), 4, 7))
