"""Rollouts: advantages, the policy gradient that their weights make, and answers against a literal decoder."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD

from motivation.accuracy import IGNORED
from motivation.data import ChainProblems, Digits, PointerChaseProblems
from motivation.levers.rollouts import Rollout, Sampler, advantages, drawn, likeliest, per_token
from motivation.models import create_model
from motivation.training.compiled import per_unit, weighted_loss
from motivation.training.engine import Engine
from motivation.training.ledger import forward_flops
from motivation.training.trainer import Trainer

DATA = {"chains": ChainProblems(values=4, functions=3, unseen_functions=1, depth=(1, 3), longer=4, train=64, test=8),
        "pointer chase": PointerChaseProblems(values=4, hops=(1, 3), longer=4, train=64, test=8)}


@pytest.fixture(params=DATA)
def dataset(request):
    return DATA[request.param].load()


def network_of(dataset, seed=0):
    torch.manual_seed(seed)
    return create_model("gpt_1x16", dataset.num_classes)


def test_advantages_are_standard_scores_of_a_group():
    found = advantages([SimpleNamespace(accepted=bool(one)) for one in (1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0)], 4)
    assert torch.allclose(found[:4], torch.tensor([3.0, -1, -1, -1]) / 3**0.5)
    assert not found[4:].any()


def test_a_weighted_step_is_the_policy_gradient(dataset):
    """Cross-entropy with the advantages as weights against - sum of A log p over all learned tokens, by hand."""
    sampler, network = Sampler(dataset), network_of(dataset)
    problems = dataset.task.problems("train", 6)
    rollouts = [Rollout.verified(dataset.task, one, (one.answer, one.written)) for one in problems]
    inputs, targets, _ = sampler.batch(rollouts, torch.device("cpu"))
    values, learned = torch.tensor([1.5, -0.5, -1.0, 2.0, 0.0, 0.3]), targets != IGNORED
    weighted_loss(network, inputs, per_unit(F.cross_entropy), targets, per_token(values, learned)).backward()
    found = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    total, count = 0.0, 0
    for value, tokens, labels in zip(values, inputs, targets, strict=True):
        logs = network(tokens[None])[0].log_softmax(0)
        for place, label in enumerate(labels.tolist()):
            if label != IGNORED:
                total, count = total - value * logs[label, place], count + 1
    (total / count).backward()
    for gradient, parameter in zip(found, network.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-6)


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6))
def test_draws_follow_the_shares(logits):
    uniforms = torch.arange(1000) / 1000
    counts = drawn(torch.tensor(logits).expand(1000, -1), uniforms).bincount(minlength=len(logits))
    assert torch.allclose(counts / 1000, torch.tensor(logits).softmax(0), atol=0.0021)


def test_a_draw_of_almost_one_is_a_token():
    assert drawn(torch.zeros(1, 3), torch.tensor([1 - 2**-24])).tolist() == [2]


@functools.cache
def flops_of(network, length):
    return forward_flops(network, (length,))


def literal(network, dataset, problem, begun, prompt):
    """One answer, a token at a time: written greedily, the environment's entries read from the table."""
    task, answer, flops = dataset.task, list(begun), 0
    ids = [*map(task.vocabulary.index, problem.prompt[:-1]), *[0] * (prompt - len(problem.prompt)), 1]
    longest = dataset.train.tokens.shape[1] + 1 - prompt
    chase = hasattr(task, "hops")
    while len(answer) < (longest if chase else len(problem.answer)):
        if chase and len(answer) > 1 and answer[-2] == "A":
            break
        if chase and answer[-1:] == ["S"]:
            value = int(problem.prompt[1])
            for _ in range(answer.count("S")):
                value = problem.hidden[value]
            answer.append(str(value))
            continue
        seen = torch.tensor([*ids, *map(task.vocabulary.index, answer)])[None]
        flops += flops_of(network, seen.shape[1])
        with torch.no_grad():
            answer.append(task.vocabulary[int(network(seen)[0, :, -1].argmax())])
    return tuple(answer), flops


def test_answers_are_those_of_a_literal_decoder(dataset):
    """From no token, and from beginnings of several lengths; FLOPs by hand: a forward of every row a written token."""
    sampler, network = Sampler(dataset), network_of(dataset, 3)
    prompt = int((dataset.train.tokens[0] == 1).argmax()) + 1
    problems = dataset.task.problems("train", 6)
    for cut in (0, 1, 2):
        cuts = [min(len(one.answer), cut + number % 2) for number, one in enumerate(problems)]
        begun = [(one, (one.answer[:length], one.written[:length]))
                 for one, length in zip(problems, cuts, strict=True)]
        written, flops = sampler.write(network, Engine(), begun, likeliest)
        wanted = [literal(network, dataset, one, answer, prompt) for one, (answer, _) in begun]
        assert [answer for answer, _ in written] == [answer for answer, _ in wanted]
        assert flops == sum(cost for _, cost in wanted)
        for (answer, by_solver), one in zip(written, problems, strict=True):
            assert len(answer) == len(by_solver)
            assert [not mine for mine in by_solver] == [
                hasattr(dataset.task, "hops") and place > 0 and answer[place - 1] == "S"
                for place in range(len(answer))], one


def test_solutions_as_a_batch_are_the_training_rows(dataset):
    problems = dataset.task.problems("train", len(dataset.train))
    sampler = Sampler(dataset)
    assert sampler.problems(torch.from_numpy(dataset.train.tokens)) == problems or hasattr(dataset.task, "hops")
    rollouts = [Rollout.verified(dataset.task, one, (one.answer, one.written), own=1) for one in problems]
    inputs, targets, taught = sampler.batch(rollouts, torch.device("cpu"))
    assert np.array_equal(inputs, dataset.train.tokens)
    assert np.array_equal(targets, dataset.train.labels)
    assert all(one.accepted and one.first_wrong == len(one.answer) for one in rollouts)
    assert taught.sum(1).tolist() == [one.taught for one in rollouts] == [sum(one.written[1:]) for one in problems]


def test_draws_are_of_the_seed_and_the_step(dataset):
    """Two trainers at one step draw alike, another step and another seed do not; the ledger has the FLOPs."""
    sampler, inputs, network = Sampler(dataset), torch.from_numpy(dataset.train.tokens[:4]), network_of(dataset)

    def answers(seed, steps):
        trainer = Trainer(network, lambda params: SGD(params, lr=0.1), F.cross_entropy)
        trainer.steps = steps
        rollouts = sampler.sample(trainer, inputs, 8, 1.0, seed)
        assert trainer.ledger.charges == {"rollout": trainer.ledger.pending}
        assert [one.problem for one in rollouts[::8]] == sampler.problems(inputs)
        return [one.answer for one in rollouts]

    assert answers(0, 5) == answers(0, 5)
    assert answers(0, 5) != answers(0, 6)
    assert answers(0, 5) != answers(1, 5)
    assert len(set(answers(0, 5)[:8])) > 1


def test_data_without_a_verifier_is_refused():
    with pytest.raises(ValueError, match="rollouts need problems and their verifier"):
        Sampler(Digits().load())
