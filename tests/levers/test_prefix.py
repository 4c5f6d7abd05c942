"""Lever prefix: which failures are cut where, who finishes them, what it costs; resumed and refused like any run."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from commands import refused
from conftest import QUICK, compose_config
from stopping import left, stopped
from torch.optim import SGD

import motivation.levers.rollouts
from motivation.accuracy import IGNORED
from motivation.data import ChainProblems, PointerChaseProblems, open_loader
from motivation.levers.prefix import Prefix, repair, solve
from motivation.levers.rollouts import Rollout
from motivation.models import create_model
from motivation.run.run import run
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops
from motivation.training.trainer import Trainer

CHAINS = ("data=chains", "data.values=4", "data.functions=3", "data.unseen_functions=1", "data.depth=[1,3]",
          "data.longer=4", "data.train=128", "data.test=32", "recipe.batch_size=32", "recipe.epochs=2",
          "recipe.optimizer.lr=0.003")
ALONE = (*CHAINS, "model=classical", "model.network=gpt_1x16")
PAIR = (*CHAINS, "model=gpt_pair", "model.base=gpt_1x16", "model.motivated=gpt_2x16")
LEVER = ("lever=prefix", "lever.group=4", "lever.after=3")
DATA = ChainProblems(values=4, functions=3, unseen_functions=1, depth=(1, 3), longer=4, train=64, test=8)


def failed(problem, right):
    """A rollout whose first wrong token is that after so many right ones; all of them for a success."""
    answer = [*problem.answer]
    if right < len(answer):
        answer[right] = "0" if answer[right] != "0" else "1"
    return Rollout.verified(DATA, problem, (tuple(answer), problem.written))


def lever_of(rule, dataset, group=4, **options):
    lever = Prefix(rule, group, seed=0, **options)
    lever.loader(open_loader(dataset, 16, seed=0, device="cpu"), dataset)
    return lever


def trainer_of(dataset, steps=0):
    torch.manual_seed(0)
    trainer = Trainer(create_model("gpt_1x16", dataset.num_classes), lambda params: SGD(params, lr=0.1),
                      F.cross_entropy)
    trainer.steps = steps
    return trainer


@pytest.fixture(scope="module")
def dataset():
    return DATA.load()


@pytest.fixture(scope="module")
def deep():
    """Problems of three steps."""
    return [one for one in DATA.problems("train", 64) if len(one.answer) == 3]


def test_a_repair_keeps_the_beginning_and_the_teacher_finishes(deep):
    """From any cut within what is right the answer is accepted; the teacher's tokens are those after it."""
    for right in range(3):
        failure = failed(deep[0], right)
        assert failure.first_wrong == right
        assert not failure.accepted
        for cut in range(right + 1):
            [repaired] = repair([failure], [cut], DATA, lambda begun: solve(DATA, begun))
            assert repaired.answer[:cut] == failure.answer[:cut]
            assert repaired.accepted
            assert (repaired.own, repaired.taught) == (cut, 3 - cut)


def test_a_repair_is_right_where_another_answer_was_shown():
    """Training's answer of one look-up is cut, and the teacher makes the three that the problem needs."""
    task = PointerChaseProblems(hops=(3, 3), longer=4, shown=(1, 1))
    [problem] = task.problems("train", 1)
    failure = Rollout.verified(task, problem, (problem.answer, problem.written))
    assert (failure.accepted, failure.first_wrong) == (False, 2)
    [repaired] = repair([failure], [2], task, lambda begun: solve(task, begun))
    assert repaired.accepted
    assert (repaired.depth, repaired.taught) == (3, 4)


def test_a_wrong_teacher_is_no_success(deep):
    [repaired] = repair([failed(deep[0], 1)], [1], DATA, lambda begun: [(("x", *answer), (True, *written))
                                                                       for _, (answer, written) in begun])
    assert not repaired.accepted
    assert repaired.first_wrong == 0


@pytest.mark.parametrize(("rule", "cut"), [("first_wrong", 2), ("dagger", 2), ("whole", 0), ("grpo", None)])
def test_the_best_failure_of_a_group_that_failed_is_repaired(dataset, deep, rule, cut):
    """The longest right beginning, the first of equals; no group with more successes; nothing else changes."""
    lever = lever_of(rule, dataset, successes=1)
    rights = [0, 2, 2, 1, 3, 3, 0, 1, 3, 0, 1, 1, 3, 3, 3, 3]
    before = [failed(deep[number // 4], right) for number, right in enumerate(rights)]
    after = [*before]
    lever._repair(trainer_of(dataset), after)
    changed = [number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old is not new]
    assert changed == ([] if cut is None else [1, 10])
    if cut is not None:
        assert after[1].own == cut
        assert after[1].accepted
        assert after[10].own == min(cut, 1)


def test_with_one_right_answer_the_cut_changes_who_writes_and_not_what(finished):
    """A task with one solution: whatever is kept of a right beginning, the repaired answer is that solution, so that
    these rules train bit-identically; the teacher's tokens are fewest from the first wrong step on.
    """
    rows, tokens = {}, {}
    for rule in ("first_wrong", "random_cut", "whole"):
        folder = finished(*ALONE, *LEVER, f"lever.rule={rule}")
        rows[rule] = (folder / "steps.csv").read_text()
        tokens[rule] = json.loads((folder / "summary.json").read_text())["lever/teacher_tokens"]
    assert rows["first_wrong"] == rows["random_cut"] == rows["whole"]
    assert 0 < tokens["first_wrong"] < tokens["random_cut"] < tokens["whole"]


def test_random_cuts_are_within_what_is_right_and_reach_both_ends(dataset, deep):
    lever = lever_of("random_cut", dataset)
    cuts = [lever._cut(failed(deep[0], 2), place) for place in range(300)]
    assert {*cuts} == {0, 1, 2}
    assert min(cuts.count(cut) for cut in (0, 1, 2)) > 70
    assert cuts == [lever._cut(failed(deep[0], 2), place) for place in range(300)]


def test_matched_tokens_are_those_of_the_first_wrong_step(dataset, deep):
    """Whatever fails where: never ahead of what `first_wrong` would have spent, and less than an answer behind."""
    lever, would, spent = lever_of("whole_matched", dataset), 0, 0
    for number in range(200):
        failure = failed(deep[number % len(deep)], number * number % 7 % 3)
        would += 3 - failure.first_wrong
        spent += 0 if lever._cut(failure, number) is None else 3
        assert 0 <= would - spent < 3


def test_rows_and_weights(dataset):
    """As many rows as the batch; the teacher's tokens alone for dagger, every written token otherwise, and the
    weights of a group add up to nothing where its answers are equally long.
    """
    loader = open_loader(dataset, 16, seed=0, device="cpu")
    inputs, targets = next(loader.epoch(0))
    for rule in ("grpo", "first_wrong", "dagger"):
        trainer, lever = trainer_of(dataset), lever_of(rule, dataset, successes=4)
        rows, labels, weights = lever.batch(trainer, inputs, targets)
        assert rows.shape == labels.shape == weights.shape == inputs.shape
        prompt = int((inputs[0] == 1).int().argmax()) + 1
        assert torch.equal(rows[::4, :prompt], inputs[:4, :prompt])
        assert not weights[labels == IGNORED].any()
        totals = lever.totals()
        assert totals["lever/rollouts"] == 16
        if rule == "dagger":
            [weight] = {*weights[weights != 0].tolist()}
            assert weight == pytest.approx(weights.numel() / totals["lever/teacher_tokens"])
            assert (weights != 0).sum() == totals["lever/teacher_tokens"] == totals["lever/update_tokens"] > 0
        else:
            assert (totals["lever/teacher_tokens"] > 0) == (rule == "first_wrong")
            assert totals["lever/update_tokens"] == (labels != IGNORED).sum()
            assert weights.view(4, -1).sum(1).abs().max() < 1e-4


def test_the_ledger_is_what_was_computed(finished):
    """Steps at three forwards of every row; rollouts at a forward of every token, counted by hand from the answers."""
    folder = finished(*ALONE, *LEVER, "lever.after=0", "recipe.epochs=1")
    summary = json.loads((folder / "summary.json").read_text())
    network = create_model("gpt_1x16", 9)
    width = forward_flops(network, (8,))
    assert summary["base/forward_flops"] == width
    # Prompts are padded to those of the longest problems: a start, four functions and the question.
    prompt = 4 + 2
    task = ChainProblems(values=4, functions=3, unseen_functions=1, depth=(1, 3), longer=4, train=128, test=32)
    rows = {row.tobytes(): problem for row, problem in zip(task.load().train.tokens, task.problems("train", 128),
                                                           strict=True)}
    loader = open_loader(task.load(), 32, seed=0, device="cpu")
    depths = [len(rows[row.tobytes()].answer) for inputs, _ in loader.epoch(0) for row in inputs.numpy()[:8]]
    costs = [forward_flops(network, (prompt + place,)) for place in range(3)]
    tokens = sum(4 * sum(costs[:depth]) for depth in depths)
    assert summary["budget/rollout_flops"] == tokens
    assert summary["budget/flops"] == TRAINING_FORWARDS * width * 32 * 4 + tokens
    assert summary["lever/rollouts"] == 128
    with open(folder / "steps.csv") as file:
        assert sum(int(row["flops"]) for row in csv.DictReader(file)) == summary["budget/flops"]


def test_before_the_rollouts_training_is_supervised(finished):
    """The first steps are bit-identical to those of the run without the lever; then they are not."""
    plain, lever = ((finished(*ALONE, *more) / "steps.csv").read_text().splitlines() for more in ((), LEVER))
    assert plain[:4] == lever[:4]
    assert plain[4] != lever[4]


@pytest.mark.parametrize("overrides", [(*ALONE, *LEVER, "lever.rule=whole_matched"),
                                       (*PAIR, *LEVER, "lever.teacher=motivated", "schedule=periodic",
                                        "schedule.period=3", "schedule.length=1")], ids=["matched", "pair"])
def test_stop_and_resume_is_exact(overrides, tmp_path, monkeypatch, finished):
    """Inside an epoch, among the steps of rollouts, with what the lever carries from one to the next."""
    folder, config = tmp_path / "run", compose_config(*QUICK, *overrides)
    stopped(config, folder, monkeypatch, 5)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*overrides))


def test_teachers_are_paid(finished, tmp_path):
    """A finished run's training once and its tokens; the pair's own network its tokens; the verifier nothing."""
    source = finished(*ALONE)
    lever = (*LEVER, "lever.successes=4")
    verifier, taught, pair = (json.loads((folder / "summary.json").read_text()) for folder in (
        finished(*ALONE, *lever),
        run(compose_config(*QUICK, *ALONE, *lever, "lever.teacher=run", f"lever.run={source}"), tmp_path / "run"),
        finished(*PAIR, *lever, "lever.teacher=motivated")))
    assert "budget/teacher_flops" not in verifier
    assert verifier["lever/teacher_tokens"] > 0
    assert taught["budget/reference_flops"] == json.loads((source / "summary.json").read_text())["budget/flops"]
    for one in (taught, pair):
        longest, shortest = (forward_flops(create_model("gpt_2x16" if one is pair else "gpt_1x16", 9), (length,))
                             for length in (8, 6))
        assert shortest <= one["budget/teacher_flops"] / one["lever/teacher_tokens"] <= longest
    assert "budget/reference_flops" not in pair


@pytest.mark.parametrize(("overrides", "message"), [
    ((*ALONE, "lever.group=1"), "lever.group=1: must be at least 2"),
    ((*ALONE, "lever.group=5"), "lever.group=5: must divide the batch of 32"),
    ((*ALONE, "lever.rule=scope"), "lever.rule='scope': must be one of grpo, first_wrong"),
    ((*ALONE, "lever.temperature=0"), "lever.temperature=0: must be above 0"),
    ((*ALONE, "lever.teacher=motivated"), "lever.teacher=motivated: is a pair's motivated network, and there is one"),
    ((*ALONE, "lever.teacher=run"), "lever.run is missing: teacher=run takes a network of a finished run"),
    ((*ALONE, "lever.run=nowhere"), "lever.run=nowhere: is for teacher=run, and teacher=verifier"),
    ((*ALONE, "lever.teacher=run", "lever.run=nowhere"), "lever.run=nowhere: no finished run"),
    (("model=resnet8",), "lever: rollouts need problems and their verifier, and the data has none")])
def test_what_cannot_be_is_one_line_that_names_the_key(overrides, message, capsys, tmp_path):
    assert message in refused(capsys, "train", *QUICK[1:2], *overrides, "lever=prefix", "engine.threads=1",
                              f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_vocabulary_is_refused(capsys, tmp_path, finished):
    source = finished(*ALONE)
    line = refused(capsys, "train", *QUICK[1:2], *ALONE, "data.values=5", *LEVER, "lever.teacher=run",
                   f"lever.run={source}", f"hydra.run.dir={tmp_path / 'run'}")
    assert f"lever.run={source}: it has 9 tokens" in line


def test_several_processes_are_refused_by_name(dataset, monkeypatch):
    monkeypatch.setattr(motivation.levers.rollouts, "processes", lambda: 2)
    with pytest.raises(ValueError, match="rollouts are sampled in one process, and 2 train together; run it without"):
        Prefix(seed=0).loader(SimpleNamespace(batch_size=16), dataset)
