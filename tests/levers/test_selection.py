"""Selection of samples and tokens: what is kept, what it costs, what is refused, and that resume is exact."""

import functools
import json

import pytest
import torch
from commands import refused
from conftest import QUICK, compose_config
from stopping import left, stopped
from torch.optim import SGD

import motivation.levers.selection
from motivation import Trainer, create_pair
from motivation.accuracy import IGNORED
from motivation.data import Digits, open_loader
from motivation.data.sources.problems import ChainProblems
from motivation.levers import Samples, Tokens
from motivation.levers.reference import read_reference
from motivation.levers.scores import losses
from motivation.models import create_model
from motivation.monitors import Consecutive
from motivation.run.run import run
from motivation.schedules import Always, Never
from motivation.training.recipe import sequence_cross_entropy

SMALL = ("data=noisy_chains", "data.train=320", "data.test=32", "recipe=chains", "recipe.batch_size=32",
         "recipe.epochs=null", "recipe.steps=14")
ALONE = ("model=classical", "model.network=gpt_1x16", *SMALL)
DATA = functools.cache(lambda: ChainProblems(train=320, test=32, noise=0.5).load())


@pytest.fixture
def reference(finished):
    """A finished run on other draws of the same corpus."""
    return finished(*ALONE, "data.skip=320", "recipe.steps=20")


def begun(lever, pair=False, schedule=None):
    """A lever with its loader, and a trainer of a small network or pair."""
    torch.manual_seed(0)
    data = DATA()
    loader = lever.loader(open_loader(data, 32), data)
    options = {"monitor": Consecutive(), "schedule": schedule or Never()} if pair else {}
    model = create_pair("gpt_1x16", "gpt_2x16", data.num_classes) if pair else create_model("gpt_1x16",
                                                                                           data.num_classes)
    trainer = Trainer(model, functools.partial(SGD, lr=0.1), sequence_cross_entropy, **options)
    lever.check(trainer)
    return trainer, loader


def stepped(lever, trainer, loader, steps=1):
    """The batches that were trained on."""
    seen = []
    for batch in [*loader.epoch(0)][:steps]:
        seen.append(lever.batch(trainer, *batch))
        trainer.step(*seen[-1])
    return seen


def excess(trainer, reference, tokens, targets):
    """Losses of the network that trains minus the reference's."""
    network = read_reference(str(reference), "base", DATA()).network
    return losses(trainer.model, tokens, targets, trainer.engine) - losses(network, tokens, targets, trainer.engine)


def highest(scores, units, share):
    """A literal threshold."""
    ranked = sorted(scores[units].tolist(), reverse=True)
    return units & (scores >= ranked[round(share * len(ranked)) - 1])


def test_the_mask_of_noise_is_the_verifiers():
    task = ChainProblems(train=50, test=5, noise=0.5)
    data = task.load()
    rejected = [not right for problem in task.problems("train", 50) for right in task.verify(problem, problem.answer)]
    assert data.train.noise[data.train.labels != IGNORED].tolist() == rejected
    assert not data.train.noise[data.train.labels == IGNORED].any()
    assert 0.3 < sum(rejected) / len(rejected) < 0.6
    assert not data.test.noise.any()
    assert data.train.take(slice(3, 9)).noise.tolist() == data.train.noise[3:9].tolist()


def test_skipped_problems_are_the_first_ones():
    whole, rest = (ChainProblems(train=train, test=5, skip=skip).load() for train, skip in ((30, None), (10, 20)))
    assert (whole.train.tokens[20:] == rest.train.tokens).all()
    assert (whole.test.tokens == rest.test.tokens).all()


def test_batches_are_of_the_samples_that_the_loader_says():
    loader = open_loader(DATA(), 32, seed=4)
    for epoch, start in ((0, 0), (3, 7)):
        for step, (tokens, _) in enumerate(loader.epoch(epoch, start), start):
            assert (DATA().train.tokens[loader.indices(epoch, step)] == tokens.numpy()).all()


@pytest.mark.parametrize("rule", ["loss", "excess_loss"])
def test_tokens_with_the_highest_scores_are_kept(rule, reference):
    lever = Tokens(rule, 0.3, str(reference) if rule == "excess_loss" else None)
    trainer, loader = begun(lever)
    tokens, targets = next(loader.epoch(0))
    scores = (excess(trainer, reference, tokens, targets) if rule == "excess_loss" else
              losses(trainer.model, tokens, targets, trainer.engine))
    [(same, labels, weights)] = stepped(lever, trainer, loader)
    assert torch.equal(same, tokens)
    assert torch.equal(labels, targets)
    assert torch.equal(weights == 1, highest(scores, targets != IGNORED, 0.3))
    assert set(weights.flatten().tolist()) == {0.0, 1.0}


def test_samples_with_the_highest_scores_are_kept(reference):
    lever = Samples("excess_loss", 0.25, str(reference))
    trainer, loader = begun(lever)
    tokens, targets = next(loader.epoch(0))
    units = targets != IGNORED
    means = (excess(trainer, reference, tokens, targets) * units).sum(1) / units.sum(1)
    [(kept, labels, weights)] = stepped(lever, trainer, loader)
    chosen = means.topk(8).indices.sort().values
    assert torch.equal(kept, tokens[chosen])
    assert torch.equal(labels, targets[chosen])
    assert weights is None


@pytest.mark.parametrize("maker", [Tokens, Samples])
def test_scores_made_once_rank_the_whole_training_set(maker, reference):
    """Before the first step, by the networks of then."""
    lever = maker("static_excess_loss", 0.5, str(reference))
    trainer, loader = begun(lever)
    tokens, targets = (torch.from_numpy(array) for array in (DATA().train.tokens, DATA().train.labels))
    scores, units = excess(trainer, reference, tokens, targets), targets != IGNORED
    seen, order = stepped(lever, trainer, loader, 3), loader.indices(0, 2)
    if maker is Tokens:
        assert torch.equal(seen[2][2] == 1, highest(scores, units, 0.5)[order])
    else:
        means = ((scores * units).sum(1) / units.sum(1))[order]
        assert torch.equal(seen[2][0], tokens[order][means.topk(16).indices.sort().values])


def test_the_oracle_keeps_no_noise():
    for lever in (Tokens("oracle"), Samples("oracle", 0.25)):
        trainer, loader = begun(lever)
        [(_, targets, weights)] = stepped(lever, trainer, loader)
        noise = torch.from_numpy(DATA().train.noise)[loader.indices(0, 0)]
        if weights is not None:
            assert torch.equal(weights == 1, (targets != IGNORED) & ~noise)
            assert lever.totals() == {"lever/kept_noise": 0}
        else:
            assert lever.totals()["lever/kept_noise"] < 30


def test_the_noise_among_kept_tokens_is_counted():
    lever = Tokens("random", 0.5)
    trainer, loader = begun(lever)
    kept = noise = 0
    for step, (_, _, weights) in enumerate(stepped(lever, trainer, loader, 3)):
        kept += int((weights == 1).sum())
        noise += int(DATA().train.noise[loader.indices(0, step)][(weights == 1).numpy()].sum())
    assert lever.totals() == {"lever/kept_noise": pytest.approx(100 * noise / kept)}


def test_forgetting_rises_linearly_over_training():
    lever = Tokens("random", 0.5, forget=0.4, total_steps=4)
    trainer, loader = begun(lever)
    lowest = [weights.min().item() for _, _, weights in stepped(lever, trainer, loader, 4)]
    assert lowest == pytest.approx([0, -0.1, -0.2, -0.3])


@pytest.mark.parametrize(("maker", "rule", "share", "trained", "scored", "once"), [
    (Tokens, "random", 0.5, 32, 0, 0), (Tokens, "oracle", 0.5, 32, 0, 0), (Tokens, "loss", 0.5, 32, 32, 0),
    (Tokens, "excess_loss", 0.5, 32, 32, 0), (Tokens, "static_excess_loss", 0.5, 32, 0, 320),
    (Samples, "random", 0.25, 8, 0, 0), (Samples, "loss", 0.25, 8, 32, 0), (Samples, "excess_loss", 0.25, 8, 32, 0),
    (Samples, "static_excess_loss", 0.25, 8, 0, 320)])
def test_the_ledger_by_hand(maker, rule, share, trained, scored, once, reference):
    """N + 3K forwards for samples; 3N for tokens, however few are kept; the reference's run once, its forwards too."""
    has = rule.endswith("excess_loss")
    lever = maker(rule, share, str(reference) if has else None)
    trainer, loader = begun(lever)
    stepped(lever, trainer, loader, 3)
    forward = trainer.forward_flops("base", DATA().train.tokens[:1])
    spent = json.loads((reference / "summary.json").read_text())["budget/flops"]
    totals = trainer.ledger.totals()
    assert totals.get("budget/scoring_flops", 0) == (3 * scored + once) * forward
    assert totals.get("budget/reference_flops", 0) == has * (spent + (3 * scored + once) * forward)
    assert totals["budget/images"] == 3 * trained
    assert totals["budget/flops"] == 3 * 3 * trained * forward + totals.get("budget/scoring_flops", 0) + totals.get(
        "budget/reference_flops", 0)
    # Two networks of one name.
    assert spent == 20 * 32 * 3 * forward


def test_a_pairs_motivated_network_is_a_reference_of_base_steps():
    lever = Tokens("excess_loss", 0.5, of="motivated")
    trainer, loader = begun(lever, pair=True)
    tokens, targets = next(loader.epoch(0))
    own, other = (losses(trainer.network(phase), tokens, targets, trainer.engine) for phase in ("base", "motivated"))
    [(_, _, weights)] = stepped(lever, trainer, loader)
    assert weights.sum() == round(0.5 * (targets != IGNORED).sum().item())
    assert (own - other)[weights == 1].min() >= (own - other)[(weights == 0) & (targets != IGNORED)].max()
    totals, forward = trainer.ledger.totals(), trainer.forward_flops("motivated", tokens)
    assert totals["budget/reference_flops"] == 32 * forward
    lever = Tokens("excess_loss", 0.5, of="motivated")
    trainer, loader = begun(lever, pair=True, schedule=Always())
    assert stepped(lever, trainer, loader)[0][2] is None
    assert trainer.ledger.charges == {}


@pytest.mark.parametrize("overrides", [
    ("lever=tokens", "lever.rule=random"), ("lever=tokens",), ("lever=samples",),
    ("lever=tokens", "lever.rule=static_excess_loss", "lever.forget=0.2"),
    ("lever=samples", "lever.rule=static_excess_loss")], ids=" ".join)
def test_stop_and_resume_is_exact(overrides, tmp_path, monkeypatch, reference):
    """In the second epoch, whose batches and draws the first resumed step needs."""
    if "lever.rule=random" not in overrides:
        overrides = (*overrides, f"lever.run={reference}")
    config = compose_config(*QUICK, *ALONE, *overrides)
    whole = run(config, tmp_path / "whole")
    folder = stopped(config, tmp_path / "run", monkeypatch, 11)
    run(config, folder, resume=True)
    assert left(folder) == left(whole)
    summary = json.loads((whole / "summary.json").read_text())
    assert 0 < summary["lever/kept_noise"] < 60


def test_all_units_are_the_plain_run(tmp_path, finished):
    """A share of 1 weighs every token 1: the same losses up to rounding, and no FLOPs more."""
    config = compose_config(*QUICK, *ALONE, "lever=tokens", "lever.rule=random", "lever.share=1.0")
    folder = run(config, tmp_path / "run")
    ours, plain = ([[float(row.split(",")[column]) for row in (path / "steps.csv").read_text().splitlines()[1:]]
                    for column in (3, 6)] for path in (folder, finished(*ALONE)))
    assert ours[0] == pytest.approx(plain[0], rel=1e-4)
    assert ours[1] == plain[1]


def test_images_are_selected_too(tmp_path, finished):
    """By a reference on images, with the network's running statistics untouched by the scores."""
    images = ("model=classical", "model.network=resnet8", "recipe.epochs=null", "recipe.steps=2")
    folder = run(compose_config(*QUICK, *images, "lever=samples", "lever.share=0.25",
                                f"lever.run={finished(*images, 'seed=5')}"), tmp_path / "run")
    summary, source = (json.loads((path / "summary.json").read_text()) for path in (
        folder, finished(*images, "seed=5")))
    steps, forward = summary["steps/base"], summary["base/forward_flops"]
    assert summary["budget/images"] == steps * 32
    assert summary["budget/flops"] == steps * (3 * 32 + 2 * 128) * forward + source["budget/flops"]
    assert "lever/kept_noise" not in summary


@pytest.mark.parametrize(("overrides", "message"), [
    (("lever=tokens", "lever.rule=random", "lever.share=0"), "lever.share=0: must be above 0"),
    (("lever=tokens", "lever.rule=random", "lever.share=1.5"), "lever.share=1.5: must be at most 1"),
    (("lever=samples", "lever.rule=random", "lever.share=0.01"),
     "lever.share=0.01: keeps none of a batch of 32; must be at least 0.0312"),
    (("lever=tokens",), "lever.run is missing: rule=excess_loss scores with a reference"),
    (("lever=tokens", "lever.run=nowhere"), "lever.run=nowhere: no finished run"),
    (("lever=tokens", "lever.rule=loss", "lever.run=nowhere"), "lever.run=nowhere: rule=loss has no reference"),
    (("lever=tokens", "lever.of=motivated"), "lever.of=motivated: one network alone has no motivated one"),
    (("lever=tokens", "lever.rule=best"), "lever.rule='best': must be one of"),
    (("lever=tokens", "lever.rule=oracle", "data.noise=0"),
     "lever.rule=oracle: the training data has no planted noise"),
    (("lever=tokens", "lever.rule=random", "data=digits", "recipe=digits", "model.network=resnet8"),
     "lever: the data has images, and no tokens")])
def test_what_cannot_be_is_one_line_that_names_the_key(overrides, message, capsys, tmp_path):
    base = ALONE if "data=digits" not in overrides else ("model=classical", "model.network=resnet8")
    said = refused(capsys, "train", *QUICK, *base, *overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert said.startswith(f"motivation: error: {message}"), said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("source", "of", "message"), [
    (("data.values=7",), "base", "it has 17 tokens, the last f7, and the data 20, the last f7; give a run with"),
    (("data.functions=7", "data.values=11"), "base", "it has 20 tokens, the last f6, and the data 20, the last f7"),
    (("data=digits", "recipe=digits", "model.network=resnet8", "recipe.steps=1"), "base",
     "is of images, and the data has tokens"),
    ((), "motivated", "of=motivated: run=.* is of gpt_1x16 alone; use of=base")])
def test_another_kind_of_reference_is_refused(source, of, message, finished):
    base = ALONE if "data=digits" not in source else ("model=classical", "recipe.epochs=null")
    folder = finished(*base, *source)
    with pytest.raises(ValueError, match=message):
        read_reference(str(folder), of, DATA())


def test_a_reference_of_other_functions_is_refused(reference):
    """Equal vocabularies do not make a task."""
    with pytest.raises(ValueError, match=r"its task has task_seed=0, and the data's 5: other functions"):
        read_reference(str(reference), "base", ChainProblems(train=320, test=32, noise=0.5, task_seed=5).load())


def test_a_reference_of_images_of_another_size_is_refused(finished):
    folder = finished("model=classical", "model.network=resnet8", "recipe.epochs=null", "recipe.steps=2", "seed=5")
    with pytest.raises(ValueError, match=r"its images are \(1, 8, 8\), and those of the data \(1, 6, 6\)"):
        read_reference(str(folder), "base", Digits().load(), (1, 6, 6))


def test_a_reference_of_a_pair_is_the_network_that_is_asked_for(finished):
    pair = finished("model=gpt_pair", "model.base=gpt_1x16", "model.motivated=gpt_2x16", *SMALL)
    base, motivated = (read_reference(str(pair), of, DATA()) for of in ("base", "motivated"))
    assert base.forward < motivated.forward
    assert base.training == motivated.training == json.loads((pair / "summary.json").read_text())["budget/flops"]
    assert not any(weight.requires_grad for weight in motivated.network.parameters())


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(motivation.levers.selection, "processes", lambda: 2)
    for lever in (Tokens("random"), Samples("random")):
        with pytest.raises(ValueError, match="units are ranked within a whole batch, which 2 processes share"):
            begun(lever)
