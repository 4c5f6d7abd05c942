"""Context: buckets are the data, narrower; orders are kept; what a schedule climbs resumes, repeats, is diagnosed."""

import csv
import itertools
import json
from collections import Counter
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from commands import refused
from conftest import QUICK, compose_config, write_arrays
from processes import finish, launch
from stopping import left, stopped

import motivation.run.session
import motivation.training.probes
import motivation.training.trainer
from motivation.accuracy import IGNORED
from motivation.cli.main import main
from motivation.data.sources.problems import ChainProblems
from motivation.levers.context import Context, buckets, passes, plan
from motivation.models import GPT, create_model
from motivation.run.run import run
from motivation.run_folder.identity import identity
from motivation.run_folder.read import read_run
from motivation.training.ledger import forward_flops

BATCH, WIDTHS = 64, [5, 9, 13]
TOKENS = ("model=classical", "model.network=gpt_1x16", "+model.options={layout: answers}", "data=chains",
          "data.train=640", "data.test=48", "recipe=chains", "recipe.epochs=2", f"recipe.batch_size={BATCH}",
          "lever=context", f"lever.rungs={WIDTHS}".replace(" ", ""))
CLIMBED = ("lever.order=promoted", "monitor=consecutive", "schedule=cool_down", "schedule.steps=4")


def rows(folder):
    with open(folder / "steps.csv", newline="") as file:
        return list(csv.DictReader(file))


def rungs(folder):
    return [int(row["rung"]) for row in rows(folder)]


@pytest.fixture(scope="module")
def chains():
    return ChainProblems(train=300, test=20).load().train


def test_buckets_are_the_sequences_without_shared_padding(chains):
    """Each is in one bucket, with all tokens up to its last target, in their order, and with its targets."""
    parts = buckets(chains, WIDTHS)
    assert [part.tokens.shape[1] for part in parts] == WIDTHS
    assert sum(map(len, parts)) == len(chains)

    def read(part):
        for tokens, labels in zip(part.tokens, part.labels, strict=True):
            end = np.flatnonzero(labels != IGNORED)[-1] + 1
            yield tuple(token for token in tokens[:end] if token), tuple(label for label in labels if label != IGNORED)

    assert Counter(one for part in parts for one in read(part)) == Counter(read(chains))
    for low, width, part in zip([0, *WIDTHS], WIDTHS, parts, strict=False):
        assert all(low < len(tokens) <= width for tokens, _ in read(part))


def test_a_problem_has_the_logits_of_the_full_width_in_its_bucket(chains):
    """With the layout of answers; without it, a network sees the padding and another gap."""
    wide = {tuple(token for token in tokens[:np.flatnonzero(labels != IGNORED)[-1] + 1] if token): number
            for number, (tokens, labels) in enumerate(zip(chains.tokens, chains.labels, strict=True))}
    differences = {}
    for layout in ("answers", "columns"):
        torch.manual_seed(0)
        network, most = GPT(2, 32, 18 + 2, layout=layout).eval(), 0.0
        with torch.no_grad():
            full = network(torch.from_numpy(chains.tokens))
            for part in buckets(chains, WIDTHS):
                narrow = network(torch.from_numpy(part.tokens))
                for number, (tokens, labels) in enumerate(zip(part.tokens, part.labels, strict=True)):
                    asked = np.flatnonzero(labels != IGNORED)
                    same = wide[tuple(token for token in tokens[:asked[-1] + 1] if token)]
                    theirs = full[same][:, chains.labels[same] != IGNORED]
                    most = max(most, float((narrow[number][:, asked] - theirs).abs().max()))
        differences[layout] = most
    assert differences["answers"] < 1e-5
    assert differences["columns"] > 1e-3


def test_fixed_orders_have_the_same_steps():
    shares = np.array([84, 10, 5, 1])
    sequential, backward, shuffled = (plan(shares, 200, order, 0.0, 7) for order in ("sequential", "reversed",
                                                                                    "shuffled"))
    assert sequential.tolist() == [0] * 168 + [1] * 20 + [2] * 10 + [3] * 2
    assert backward.tolist() == sequential[::-1].tolist()
    assert sorted(shuffled) == sequential.tolist() != shuffled.tolist()
    assert plan(shares, 200, "shuffled", 0.0, 7).tolist() == shuffled.tolist() != plan(
        shares, 200, "shuffled", 0.0, 8).tolist()
    assert Counter(plan(shares, 10, "sequential", 0.0, 0).tolist()) == {0: 8, 1: 1, 2: 1}


def test_a_replay_is_in_the_last_stage_alone():
    replayed = plan(np.ones(3), 60, "reversed", 0.25, 0)
    assert replayed[:40].tolist() == [2] * 20 + [1] * 20
    assert Counter(replayed[40:].tolist()) == {0: 15, 2: 5}
    assert replayed[40:].tolist() != sorted(replayed[40:])


@pytest.mark.parametrize(("count", "size"), [(100, 32), (7, 32), (32, 32), (33, 32)])
def test_passes_take_every_sequence_equally_often(count, size):
    """All batches one after another are whole passes, each in an order of its own, however small the bucket."""
    stream = torch.cat([passes(count, place, size, 3, 1) for place in range(count)]).reshape(size, count)
    assert torch.equal(stream.sort().values, torch.arange(count).expand(size, count))
    assert not torch.equal(stream[0], stream[1])
    assert not torch.equal(stream[0], passes(count, 0, count, 3, 2))


@pytest.mark.parametrize("order", ["sequential", "reversed", "shuffled"])
def test_steps_are_of_their_rung_and_paid_at_its_width(finished, order):
    """steps.csv says the rung of every step; its FLOPs are those of the bucket, by hand."""
    folder = finished(*TOKENS, f"lever.order={order}")
    train = ChainProblems(train=640, test=48).load().train
    counts = [len(part) for part in buckets(train, WIDTHS)]
    got = rungs(folder)
    assert all(abs(got.count(rung) - 20 * counts[rung] / 640) < 1 for rung in range(3))
    assert (got == sorted(got), got == sorted(got, reverse=True)) == (order == "sequential", order == "reversed")
    # 2 per multiply-add: 12 width^2 a token, two products of attention, and the head; 3 forwards a step.
    forward = [2 * (12 * 16**2 * width + 2 * width**2 * 16 + 20 * 16 * width) for width in WIDTHS]
    assert [int(row["flops"]) for row in rows(folder)] == [3 * BATCH * forward[rung] for rung in got]
    assert forward == [forward_flops(GPT(1, 16, 20), (width,)) for width in WIDTHS]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["budget/flops"] == sum(3 * BATCH * forward[rung] for rung in got)
    assert (summary["steps/motivated"], summary["null_rate"]) == (0, None)
    assert read_run(folder).motivated_share is None


def test_shares_say_how_many_steps_a_rung_has(finished):
    """In place of how many sequences its bucket has, and with the same passes through it."""
    got = rungs(finished(*TOKENS, "lever.order=shuffled", "lever.shares=[5,3,2]"))
    assert Counter(got) == {0: 10, 1: 6, 2: 4}


def test_without_rungs_there_is_no_column(finished):
    assert "rung" not in rows(finished())[0]
    assert "rung" not in read_run(finished()).steps


def test_a_schedule_climbs_and_its_phases_say_when(finished, capsys):
    folder = finished(*TOKENS, *CLIMBED)
    steps, got = rows(folder), rungs(folder)
    assert got == np.cumsum([row["phase"] == "motivated" for row in steps]).tolist()
    assert (got[0], got[-1]) == (0, 2)
    climbs = [step for step in range(20) if steps[step]["phase"] == "motivated"]
    assert np.diff(climbs).min() > 4
    assert all(float(steps[step - 1]["score"]) >= 2 for step in climbs)
    summary, found = json.loads((folder / "summary.json").read_text()), read_run(folder)
    assert summary["steps/motivated"] == 2
    assert summary["null_kind"] in ("permute", "analytic")
    assert found.motivated_share == 0.1
    assert found.steps["rung"].tolist() == got
    assert main(["diagnose", str(folder)]) == 0
    assert f"rungs: 0 from step 0 on, 1 from step {climbs[0]} on, 2 from step {climbs[1]} on" in capsys.readouterr().out


def test_controls_of_a_climbed_run(finished, tmp_path):
    """Replay climbs at the same steps; matched random moments are as many an epoch, and all are runs of their own."""
    source = finished(*TOKENS, *CLIMBED)
    replay = run(compose_config(*QUICK, *TOKENS, "lever.order=promoted", "schedule=replay", f"schedule.run={source}"),
                 tmp_path / "replay")
    assert rungs(replay) == rungs(source)
    matched = run(compose_config(*QUICK, *TOKENS, "lever.order=promoted", "schedule=matched_random",
                                 f"schedule.run={source}", "seed=3"), tmp_path / "matched")
    assert rungs(matched) != rungs(source)
    assert [max(rungs(folder)[:10]) for folder in (matched, source)] == [max(rungs(source)[:10])] * 2
    assert read_run(replay).identity != read_run(source).identity


def test_a_fixed_order_reads_no_monitor():
    """A run of one network has none of its own, unless its schedule climbs."""
    for order, same in (("sequential", True), ("promoted", False)):
        config = compose_config(*TOKENS, f"lever.order={order}")
        assert (identity(config, "f") == identity(config | {"monitor": {"name": "trend"}}, "f")) is same


@pytest.mark.parametrize("overrides", [CLIMBED, ("lever.order=shuffled",),
                                       (*CLIMBED, "monitor=gradient_norm", "schedule.schedule.k=1.0")],
                         ids=["climbed", "shuffled", "gradient"])
def test_stop_and_resume_inside_a_rung_is_exact(overrides, tmp_path, monkeypatch, finished):
    whole, config = finished(*TOKENS, *overrides), compose_config(*QUICK, *TOKENS, *overrides)
    got = rungs(whole)
    step = next(step for step in range(1, 19) if got[step] and got[step] == got[step + 1])
    folder = stopped(config, tmp_path / "run", monkeypatch, step)
    run(config, folder, resume=True)
    assert left(folder) == left(whole)


def test_batches_made_ahead_are_of_the_rung_that_was_decided(tmp_path, monkeypatch, finished):
    """On a GPU the loader's next batch is made before a step has decided."""
    whole = finished(*TOKENS, *CLIMBED)
    monkeypatch.setattr(torch.cuda, "Event", Mock)
    monkeypatch.setattr(torch.cuda, "current_stream", Mock())
    for module in (motivation.training.probes, motivation.training.trainer, motivation.run.session):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)
    assert left(run(compose_config(*QUICK, *TOKENS, *CLIMBED), tmp_path / "ahead")) == left(whole)


def test_two_processes_climb_as_one(tmp_path, finished):
    alone = finished(*TOKENS, *CLIMBED)
    command = ["train", f"hydra.run.dir={tmp_path / 'two'}", *QUICK, *TOKENS, *CLIMBED]
    assert [finish(process, 100) for process in launch(command, tmp_path)] == [0, 0]
    for two, one in itertools.zip_longest(rows(tmp_path / "two"), rows(alone)):
        assert [two[key] for key in ("phase", "flops", "rung")] == [one[key] for key in ("phase", "flops", "rung")]
        assert float(two["loss"]) == pytest.approx(float(one["loss"]), abs=1e-4)


def test_images_are_averaged_to_their_size(tmp_path):
    """Sizes share the steps evenly; a narrow image costs what its pixels do."""
    arrays = write_arrays(tmp_path / "images.npz", count=90, size=16)
    folder = run(compose_config(*QUICK, "model=resnet8", "data=arrays", f"data.path={arrays}", "recipe.batch_size=16",
                                "lever=context", "lever.rungs=[8,12,16]"), tmp_path / "run")
    got, steps = rungs(folder), rows(folder)
    assert got == sorted(got)
    assert max(Counter(got).values()) - min(Counter(got).values()) <= 1
    flops = [int(steps[got.index(rung)]["flops"]) for rung in range(3)]
    network = create_model("resnet8", 3)
    assert flops == [3 * 16 * forward_flops(network, (3, size, size)) for size in (8, 12, 16)]
    lever, trainer = Context([4, 8], total_steps=2), Mock(steps=0)
    lever.loader(Mock(image_shape=(1, 8, 8)), Mock(train=None))
    images = torch.arange(64.0).reshape(1, 1, 8, 8)
    small, _, weights = lever.batch(trainer, images, torch.zeros(1))
    assert torch.equal(small, images.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1)))
    assert weights is None
    trainer.steps = 1
    assert lever.batch(trainer, images, torch.zeros(1))[0] is images


def test_a_last_rung_that_no_score_reached_is_said(tmp_path, caplog):
    run(compose_config(*QUICK, *TOKENS, "lever.order=promoted", "schedule=threshold", "schedule.k=30"),
        tmp_path / "run")
    assert "the last rung was never reached: training ended on rung 0 of 0 to 2" in caplog.text


@pytest.mark.parametrize(("overrides", "message"), [
    (("lever.rungs=[5,5,13]",), "lever.rungs=[5, 5, 13]: must be widths that ascend"),
    (("lever.rungs=[13]",), "lever.rungs=[13]: must be a list of at least 2"),
    (("lever.rungs=[5,9]",), "lever.rungs=[5, 9]: a sequence has 13 tokens, and the last rung must hold it"),
    (("lever.rungs=[5,6,13]",), "lever.rungs=[5, 6, 13]: no sequence has 6 to 6 tokens; they have 3, 5, 7, 9, 11, 13"),
    (("lever.shares=[1,2]",), "lever.shares=[1.0, 2.0]: must be one a rung"),
    (("lever.order=promoted", "lever.shares=[1,2,3]"), "lever.shares=[1.0, 2.0, 3.0]: must be one a rung, of a fixed"),
    (("lever.order=random",), "lever.order='random': must be one of"),
    (("lever.order=shuffled", "lever.replay=0.5"), "lever.replay=0.5: is of the last stage, which the order"),
    (("recipe.epochs=null", "recipe.steps=1"), "lever.rungs=[5, 9, 13]: 1 steps give that of"),
    (("lever.order=promoted", "schedule=never"), "schedule: Never is motivated in 0 of 20 steps, so that the last"),
    (("lever.order=promoted", "schedule=periodic", "schedule.period=12"), "schedule: Periodic is motivated in 1 of"),
    (("~model.options",), "lever.rungs=[5, 9, 13]: GPT sees the padding that a narrow bucket has not; it needs the"),
    (("lever.order=promoted", "model=gpt_pair", "model.base=gpt_1x16", "model.motivated=gpt_2x16"),
     "lever: the schedule of a pair switches its networks, and climbs no rungs; choose one network"),
])
def test_what_cannot_be_is_one_line_that_names_the_key(overrides, message, capsys, tmp_path):
    tokens = [part for part in TOKENS if not (overrides[-1].startswith("model") and "model" in part)]
    if overrides[0].startswith("~"):
        tokens, overrides = [part for part in TOKENS if "options" not in part], ()
    base = [part for part in QUICK if not part.startswith(("model", "recipe"))]
    assert message in refused(capsys, "train", *base, *tokens, *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_images_of_another_size_are_refused(capsys, tmp_path):
    options = (*QUICK, "model=resnet8", "lever=context", f"hydra.run.dir={tmp_path / 'run'}")
    assert "lever.rungs=[5, 9, 13]: images are trained at 8 pixels a side, and the last rung must be that" in refused(
        capsys, "train", *options)
    assert "lever.rungs=[4, 8]: CifarResNet cannot take an image of (C, H, W) = (1, 4, 4)" in refused(
        capsys, "train", *options, "lever.rungs=[4,8]")
