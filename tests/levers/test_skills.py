"""Lever skills: which skills are drawn when, what unlocks the last rung, what it costs; resumed and refused."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from commands import refused
from conftest import QUICK, compose_config
from stopping import left, stopped

import motivation.levers.rollouts
from motivation.accuracy import IGNORED
from motivation.data import TwoSourceProblems, open_loader
from motivation.levers.rollouts import Sampler
from motivation.levers.skills import Skills
from motivation.models import create_model
from motivation.run.run import run
from motivation.run_folder.identity import climbs
from motivation.tasks.two_source_chains import SKILLS
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops

ATOMS, COMPOSITES = (1.0, 1.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0)
CHAINS = ("data=two_source_chains", "data.values=3", "data.functions=4", "data.names=4", "data.unseen_functions=1",
          "data.train=256", "data.test=32", "recipe.batch_size=32", "recipe.epochs=1", "recipe.optimizer.lr=0.003",
          "recipe.schedule.name=constant")
ALONE = (*CHAINS, "model=classical", "model.network=gpt_1x16")
LEVER = ("lever=skills", "lever.group=4", "lever.heldout=8")
UNLOCKED = ("schedule=onset", "schedule.step=4")
MASTERED = ("monitor=mastery", "monitor.parts=3", "monitor.every=2", "schedule=warm_up", "schedule.steps=4",
            "schedule.schedule.k=0.0")
DATA = TwoSourceProblems(values=3, functions=4, names=4, unseen_functions=1, train=256, test=8)


def lever_of(dataset, rungs=(ATOMS, COMPOSITES), size=32, **options):
    lever = Skills([*rungs], True, 4, seed=0, **options)
    lever.loader(open_loader(dataset, size, seed=0, device="cpu"), dataset)
    return lever


def skills_of(dataset, inputs):
    return [DATA.skill(problem) for problem in Sampler(dataset).problems(inputs)]


def at(step, rung, rate=0.1):
    return SimpleNamespace(steps=step, rung=rung, optimizers=[SimpleNamespace(param_groups=[{"lr": rate}])])


@pytest.fixture(scope="module")
def dataset():
    return DATA.load()


def rows_of(folder):
    with open(folder / "steps.csv") as file:
        return list(csv.DictReader(file))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_batch_is_of_its_rungs_mixture(dataset):
    """Shares within four standard errors, none of a skill without a share; the same step draws the same."""
    lever = lever_of(dataset, size=256)
    drawn = [skill for step in range(8)
             for skill in skills_of(dataset, lever.batch(at(step, 0), None, None)[0])]
    assert drawn.count("composite") == 0
    for skill, share in (("facts", 0.25), ("memory", 0.25), ("context", 0.5)):
        assert drawn.count(skill) / len(drawn) == pytest.approx(share, abs=4 * 0.5 / len(drawn) ** 0.5)
    first, again = (lever.batch(at(3, 0), None, None) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert first[2] is None
    assert not torch.equal(first[0], lever.batch(at(4, 0), None, None)[0])


def test_the_last_rung_is_composites_and_supervised_ones_are_solutions(dataset):
    lever = Skills([ATOMS, COMPOSITES], rollouts=False, seed=0)
    lever.loader(open_loader(dataset, 32, seed=0, device="cpu"), dataset)
    inputs, targets, weights = lever.batch(at(0, 1), None, None)
    assert {*skills_of(dataset, inputs)} == {"composite"}
    assert weights is None
    assert ((targets != IGNORED).sum(1) == 2).all()
    assert lever.totals()["lever/unlock_step"] == 0


def test_held_out_problems_are_of_one_skill_after_another(dataset):
    """As many of each skill of the first rung, none of them a composite of a test split; the same for every run."""
    lever = lever_of(dataset, heldout=8)
    inputs, targets = lever.heldout()
    assert inputs.shape == targets.shape == (24, dataset.train.tokens.shape[1])
    answers = (targets != IGNORED).sum(1).tolist()
    assert answers == [1] * 8 + [2] * 16
    names = {number for number, token in enumerate(DATA.vocabulary) if token[0] == "n"}
    has_names = [bool(names & {*row.tolist()}) for row in inputs]
    assert has_names[8:] == [False] * 8 + [True] * 8
    assert torch.equal(inputs, lever.heldout()[0])


def test_held_out_composites_are_of_the_validation_split(dataset):
    """Where the first rung has composites: none that is trained on or tested."""
    inputs, _ = lever_of(dataset, [(1.0, 0.0, 0.0, 1.0), COMPOSITES], heldout=16).heldout()
    known = {row.tobytes() for part in (dataset.train, dataset.test, *dataset.further_tests.values())
             for row in part.tokens}
    names = {DATA.vocabulary.index(f"n{number}") for number in range(4)}
    assert len(inputs) == 32
    assert all(row.numpy().tobytes() not in known for row in inputs[16:])
    assert all(names & {*row.tolist()} for row in inputs[16:])


def test_the_ledger_is_what_was_computed(finished):
    """Steps at three forwards of every row; in the last rung a forward of every token written; probes every 2 steps."""
    folder = finished(*ALONE, *LEVER, *MASTERED)
    summary, network = summary_of(folder), create_model("gpt_1x16", len(DATA.vocabulary))
    # Prompts as of the longest, of three hops: two tables of 4 tokens, a start and the question. Of the answer's two
    # tokens the last is a target alone.
    prompt = 2 * 4 + 1 + 3 + 1
    width = forward_flops(network, (prompt + 1,))
    assert summary["base/forward_flops"] == width
    rollouts = 4 * 32 * sum(forward_flops(network, (prompt + place,)) for place in range(2))
    assert summary["budget/rollout_flops"] == rollouts
    assert summary["budget/probe_flops"] == 4 * 24 * width
    assert summary["budget/flops"] == TRAINING_FORWARDS * 8 * 32 * width + rollouts + 4 * 24 * width
    assert sum(int(row["flops"]) for row in rows_of(folder)) == summary["budget/flops"]
    assert summary["lever/unlock_step"] == 4
    assert summary["lever/rollouts"] == 4 * 32
    assert [row["rung"] for row in rows_of(folder)] == ["0"] * 4 + ["1"] * 4


def test_the_control_of_the_same_step_trains_the_same(finished, tmp_path):
    """Unlocked at a fixed step or as a finished run was: mastery's losses bit for bit, whatever it probed."""
    source = finished(*ALONE, *LEVER, *MASTERED)
    config = compose_config(*QUICK, *ALONE, *LEVER, "schedule=replay", f"schedule.run={source}")
    replayed = run(config, tmp_path / "run")
    losses = [[row["loss"] for row in rows_of(folder)]
              for folder in (source, replayed, finished(*ALONE, *LEVER, *UNLOCKED))]
    assert losses[0] == losses[1] == losses[2]
    assert "budget/probe_flops" not in summary_of(replayed)


def test_atoms_are_the_same_whatever_follows(finished):
    """Before the unlock runs of other last rungs are bit-identical, then they are not."""
    rollouts, supervised = ([row["loss"] for row in rows_of(finished(*ALONE, *LEVER, *UNLOCKED, *more))]
                            for more in ((), ("lever.rollouts=false",)))
    assert rollouts[:4] == supervised[:4]
    assert rollouts[4] != supervised[4]


def test_the_rate_is_of_the_last_rung(finished):
    rows = rows_of(finished(*ALONE, *LEVER, *UNLOCKED, "lever.rate=0.1"))
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.003] * 4 + [0.0003] * 4)


@pytest.mark.parametrize("stop", [2, 3, 4, 6], ids=["before", "just before", "at", "after"])
@pytest.mark.parametrize("unlock", [UNLOCKED, MASTERED], ids=["step", "mastery"])
def test_stop_and_resume_is_exact(unlock, stop, tmp_path, monkeypatch, finished):
    """Before, at and after the unlock: rungs, rollouts, probes and what was counted."""
    overrides = (*ALONE, *LEVER, *unlock, "lever.rate=0.1")
    folder, config = tmp_path / "run", compose_config(*QUICK, *overrides)
    stopped(config, folder, monkeypatch, stop)
    run(config, folder, resume=True)
    assert left(folder) == left(finished(*overrides))


def test_a_single_rung_is_trained_from_start_to_end(finished):
    """No schedule unlocks anything: monitor and schedule are no part of what the run is."""
    overrides = (*ALONE, *LEVER, "lever.rungs=[[1,0,0,1]]", "lever.rollouts=false")
    folder = finished(*overrides)
    assert {row["rung"] for row in rows_of(folder)} == {"0"}
    assert {row["phase"] for row in rows_of(folder)} == {"base"}
    assert "lever/unlock_step" not in summary_of(folder)
    assert not climbs(compose_config(*overrides))
    assert climbs(compose_config(*ALONE, *LEVER))
    assert not climbs(compose_config("lever=context"))
    assert climbs(compose_config("lever=context", "lever.order=promoted"))


@pytest.mark.parametrize(("overrides", "message"), [
    ((*ALONE, "lever.rungs=[[0,0,0,0]]"), "lever.rungs[0]=[0.0, 0.0, 0.0, 0.0]: must have a share above 0 of facts"),
    ((*ALONE, "lever.rungs=[[1,1,1]]"), "lever.rungs[0]=[1, 1, 1]: must be a list of at least 4"),
    ((*ALONE, "lever.rungs=[]"), "lever.rungs=[]: must be a list of at least 1"),
    ((*ALONE, "data.mixture=[1,1,1,0]"), "lever.rungs[1]=[0.0, 0.0, 0.0, 1.0]: asks for composite, and no training"),
    ((*ALONE, "lever.group=5"), "lever.group=5: must divide the batch of 32"),
    ((*ALONE, "lever.rate=0"), "lever.rate=0: must be above 0"),
    ((*ALONE, "schedule.step=8"), "schedule.step=8: must be below the 8 steps of training"),
    ((*ALONE, "schedule=never"), "schedule: Never is motivated in 0 of 8 steps, so that the last of 2 rungs"),
    ((*ALONE, "monitor=mastery", "monitor.every=2"), "lever.rungs[0]=[1.0, 1.0, 1.0, 0.0]: trains 3 skills, and the"),
    ((*CHAINS, "model=gpt_pair", "model.base=gpt_1x16", "model.motivated=gpt_2x16"),
     "lever: the schedule of a pair switches its networks, and climbs no rungs"),
    (("data=chains", "model=classical", "model.network=gpt_1x16"), "lever: the data has no skills; choose data=two_"),
    (("model=resnet8",), "lever: the data has no skills; choose data=two_source_chains")])
def test_what_cannot_be_is_one_line_that_names_the_key(overrides, message, capsys, tmp_path):
    assert message in refused(capsys, "train", *QUICK[1:2], "schedule=onset", *overrides, *LEVER[:1], "lever.heldout=8",
                              "engine.threads=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused_by_name(dataset, monkeypatch):
    monkeypatch.setattr(motivation.levers.rollouts, "processes", lambda: 2)
    with pytest.raises(ValueError, match="rollouts are sampled in one process, and 2 train together; run it without"):
        lever_of(dataset)


def test_every_problem_has_its_skill():
    for number, skill in enumerate(SKILLS):
        task = replace(DATA, mixture=tuple(float(other == number) for other in range(4)))
        assert {task.skill(problem) for problem in task.problems("train", 50)} == {skill}
