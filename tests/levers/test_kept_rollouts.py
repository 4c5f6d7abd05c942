"""Kept rollouts: which ones each rule keeps against literal choices, what that costs; resumed and refused by name."""

import json
import random
from collections import Counter
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from commands import refused
from conftest import QUICK, compose_config
from hypothesis import given
from hypothesis import strategies as st
from stopping import left, stopped

from motivation.levers.kept_rollouts import KeptRollouts, Rule, keep
from motivation.models import create_model
from motivation.run.run import run
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops

CHASE = ("data=pointer_chase", "data.values=4", "data.hops=[1,2]", "data.longer=3", "data.train=128", "data.test=32",
         "recipe.batch_size=32", "recipe.epochs=2", "model=classical", "model.network=gpt_1x16")
LEVER = ("lever=rollouts", "lever.group=4", "lever.after=3", "lever.keep=8")


def rollout(depth, written):
    return SimpleNamespace(depth=depth, written=(True,) * written + (False,) * depth)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.floats(-3, 3)), min_size=16, max_size=16),
       st.integers(1, 16), st.integers(0, 9), st.integers(0, 5))
def test_every_rule_keeps_what_it_says(drawn, count, seed, threshold):
    rollouts = [rollout(depth, written) for depth, written, _ in drawn]
    values, order = torch.tensor([value for *_, value in drawn]), random.Random(seed).sample(range(16), 16)
    kept = {rule: keep(rule, rollouts, values, 4, count, order, threshold) for rule in get_args(Rule)}
    for rule, numbers in kept.items():
        assert len({*numbers}) == len(numbers)
        if rule not in ("all", "random_tokens"):
            assert len(numbers) == count
    assert kept["all"] == list(range(16))
    assert kept["random"] == order[:count]
    enough = [number for number in order if rollouts[number].depth >= threshold]
    assert kept["phase"] == [*enough, *(number for number in order if number not in enough)][:count]
    for rule, score in (("deepest", [one.depth for one in rollouts]), ("shallowest", [-one.depth for one in rollouts]),
                        ("extremes", values.abs().tolist())):
        assert sum(score[number] for number in kept[rule]) == pytest.approx(sum(sorted(score)[-count:]))
    problems = {rule: Counter(number // 4 for number in kept[rule]) for rule in ("deepest", "same_problems")}
    assert problems["deepest"] == problems["same_problems"]
    wanted, *tokens = (sum(sum(rollouts[number].written) for number in numbers)
                       for numbers in (kept["deepest"], kept["random_tokens"], kept["random_tokens"][:-1]))
    assert tokens[1] < wanted <= tokens[0]
    assert kept["random_tokens"] == order[:len(kept["random_tokens"])]


def test_ties_are_broken_by_the_order():
    rollouts = [rollout(1, 2)] * 8
    assert keep("deepest", rollouts, torch.zeros(8), 4, 3, [5, 2, 7, 0, 1, 3, 4, 6]) == [5, 2, 7]


def test_the_threshold_rises_by_one_where_enough_are_deeper_and_never_falls():
    """What is kept is of the threshold that was just raised, filled up where fewer are that deep."""
    lever, trainer = KeptRollouts("phase", keep=2, group=2, seed=0), SimpleNamespace(steps=0)
    seen = []
    for depths in ([0, 0, 0, 4], [0, 0, 4, 4], [3, 3, 0, 0], [3, 1, 1, 1], [2, 2, 2, 2], [9, 9, 9, 0]):
        kept, values = lever.chosen(trainer, [SimpleNamespace(depth=depth, accepted=False) for depth in depths])
        seen.append((lever.state_dict()["threshold"], sum(one.depth for one in kept)))
        assert len(kept) == len(values) == 2
        trainer.steps += 1
    assert [threshold for threshold, _ in seen] == [0, 1, 2, 2, 2, 3]
    assert [total for _, total in seen][1:] == [8, 6, 4, 4, 18]


def test_all_are_sampled_and_paid_and_the_kept_ones_trained_on(finished):
    summary = json.loads((finished(*CHASE, *LEVER) / "summary.json").read_text())
    width = forward_flops(create_model("gpt_1x16", 11), (8,))
    assert summary["base/forward_flops"] == width
    assert summary["budget/images"] == 3 * 32 + 5 * 8
    assert summary["budget/flops"] == TRAINING_FORWARDS * width * summary["budget/images"] + summary[
        "budget/rollout_flops"]
    assert summary["lever/rollouts"] == 5 * 32
    assert summary["lever/teacher_tokens"] == 0
    assert 5 * 8 <= summary["lever/update_tokens"] <= 5 * 8 * 6


@pytest.mark.parametrize("overrides", [(), ("lever.rule=phase", "data.shown=[1,3]")])
def test_stop_and_resume_is_exact(overrides, tmp_path, monkeypatch, finished):
    folder, config = tmp_path / "run", compose_config(*QUICK, *CHASE, *LEVER, *overrides)
    stopped(config, folder, monkeypatch, 5)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*CHASE, *LEVER, *overrides))


def test_the_threshold_of_a_phase_is_saved():
    """And a checkpoint of a version without one is of a threshold of 0."""
    lever, other = (KeptRollouts("phase", keep=1, group=2, seed=0) for _ in range(2))
    lever.chosen(SimpleNamespace(steps=0), [SimpleNamespace(depth=1, accepted=False)] * 2)
    other.load_state_dict(lever.state_dict())
    assert other.state_dict() == lever.state_dict()
    assert other.state_dict()["threshold"] == 1
    other.load_state_dict({"counted": {}})
    assert other.state_dict()["threshold"] == 0


@pytest.mark.parametrize(("overrides", "message"), [
    (("lever.keep=33",), "lever.keep=33: must be at most the 32 rollouts of a batch"),
    (("lever.keep=0",), "lever.keep=0: must be at least 1"),
    (("lever.group=1",), "lever.group=1: must be at least 2"),
    (("lever.after=8",), "lever.after=8: must be below the 8 steps of training"),
    (("data=chains", "recipe.epochs=1"), "lever.rule=deepest: reads how often an answer asks its environment")])
def test_what_cannot_be_is_one_line_that_names_the_key(overrides, message, capsys, tmp_path):
    chase = CHASE if overrides[0] != "data=chains" else CHASE[6:]
    assert message in refused(capsys, "train", *QUICK[1:2], *chase, *LEVER, *overrides, "engine.threads=1",
                              f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
