"""Tables: the facts they carry, their plan, identity, controls, tests, rendering and the command."""

import functools
import json
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import motivation.conf
import pytest
import torch
from conftest import compose_config
from fabricated import fabricate, interrupted_in, write_finished

import motivation.run.model_choice
import motivation.tables.costs
import motivation.tables.train
import motivation.training.engine
from motivation.cli.main import main
from motivation.data import Digits
from motivation.models import create_model
from motivation.registry import build
from motivation.tables.cells import Archive, Cell
from motivation.tables.costs import DataSets, cost_of
from motivation.tables.plan import SCALES, plan_table
from motivation.tables.render import write_table
from motivation.tables.spec import list_tables, read_table
from motivation.tables.train import finish_table, list_states, train_cell
from motivation.training.ledger import forward_flops
from motivation.training.recipe import Recipe

QUICK = ("tracker=none", "engine.threads=1", "recipe.epochs=1", "recipe.batch_size=256")


def planned(composed, name, seeds=2, scale="smoke", overrides=QUICK):
    return plan_table(read_table(name), scale, seeds, composed, DataSets().fingerprint, overrides)


def test_every_table_plans_at_smoke_scale(composed):
    assert list_tables() == ["attempts", "budget", "context", "cusearch", "deploy_twice", "initialization", "k",
                             "prefix", "samples", "signals", "skills", *(f"table{n}" for n in range(1, 8)), "tiers",
                             "tokens"]
    for name in list_tables():
        plan = planned(composed, name)
        assert plan.rows
        assert not plan.missing
        assert len({cell.name for cell in plan.cells}) == len(plan.cells)
        order = [cell.identity for cell in plan.cells]
        assert all(order.index(cell.source.identity) < order.index(cell.identity) for cell in plan.cells if cell.source)


@pytest.mark.parametrize(("overrides", "group"), [((), "table7"), (("tracker.group=mine",), "mine"),
                                                  (("tracker=none",), None)])
def test_a_tables_runs_are_one_group(composed, tmp_path, monkeypatch, overrides, group):
    """As docs/wandb.md has it; and the group is no part of what a cell is."""
    trained = []
    monkeypatch.setattr(motivation.tables.train, "run", lambda config, path, resume: trained.append(config))
    plan = planned(composed, "7", seeds=1, overrides=(*QUICK[1:], *overrides))
    cell = next(cell for cell in plan.cells if cell.source is None)
    identity = cell.identity
    assert train_cell(cell, tmp_path, plan.name) is None
    assert trained[0]["tracker"].get("group") == group
    assert cell.identity == identity == planned(composed, "7", seeds=1).cells[plan.cells.index(cell)].identity


# Data sets whose loader is built elsewhere; a plan needs no more of them than that the config composes.
ELSEWHERE = {f"data={name}": "data=arrays" for name in ("imagenet", "flowers", "pets")
             if not (Path(motivation.conf.__path__[0]) / "data" / f"{name}.yaml").is_file()}


@functools.cache
def forward_of(name: str, options: str, shape: tuple[int, int, int]) -> int:
    """FLOPs of a network that is never made."""
    with torch.device("meta"):
        return forward_flops(create_model(name, 10, shape[0], **json.loads(options)), shape)


def recipe_of(config) -> Recipe:
    return build({"recipe": Recipe}, {"name": "recipe", **config["recipe"]}, "recipe")


@pytest.mark.parametrize(("name", "scale"), [
    (name, scale) if scale in ("smoke", "minute", "cpu") else pytest.param(name, scale, marks=pytest.mark.soak)
    for name in list_tables() for scale in read_table(name)["scales"]])
def test_every_row_composes_at_every_scale(composed, name, scale):
    """Its recipe holds, its schedule fits into its length, and its networks take the recipe's options and size."""
    assert scale in SCALES
    plan = plan_table(read_table(name), scale, 1, lambda overrides: composed(
        tuple(ELSEWHERE.get(override, override) for override in overrides)), lambda spec: "stub")
    for cell in plan.cells:
        recipe = recipe_of(cell.config)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        assert recipe.learning_rates([optimizer], steps_per_epoch=20)
        choice = build(motivation.run.model_choice.BY_NAME, cell.config["model"], "model")
        image = (1, 8, 8) if scale == "smoke" else (3, 32, 32)
        shape = recipe.train_shape((20,) if "gpt_" in str(cell.config["model"]) else image)
        for role in ("network", "base", "motivated"):
            if role in cell.config["model"]:
                options = recipe.network_options | choice.options | getattr(choice, f"{role}_options", {})
                assert forward_of(getattr(choice, role), json.dumps(options), shape) > 0
    # The lengths of table 3 at full scale are the paper's.
    if (name, scale) == ("table3", "paper"):
        lengths = {(row.label, row.dataset): row.cells[0].config["recipe"]["epochs"] for row in plan.rows}
        assert [lengths["Res-50-Mot", dataset] for dataset in ("cifar10", "cifar100", "flowers", "pets")] == [
            300, 300, 2000, 1000]


def test_efficientnets_cost_what_they_do_at_224_pixels(composed):
    """paper.md, point 5: the printed F are of the native resolutions, the training's are these GMAC."""
    recipe = recipe_of(composed(("recipe=efficientnet_cifar",)))
    costs = [forward_of(f"efficientnet_b{n}", json.dumps(recipe.network_options), recipe.train_shape((3, 32, 32))) / 2e9
             for n in range(6)]
    assert costs == pytest.approx([0.385, 0.568, 0.658, 0.961, 1.502, 2.355], rel=0.01)


def test_identity_is_what_sets_the_result():
    config = {"seed": 0, "model": {"name": "classical", "network": "resnet20"}, "recipe": {"epochs": 2}, "engine": {},
              "tracker": {"name": "none"}, "schedule": {"name": "never"}, "data": {"name": "digits"}}
    cell = Cell(config, "a")
    assert cell.identity == Cell(config | {"tracker": {"name": "wandb"}, "engine": {"threads": 1}}, "a").identity
    others = [Cell(config | {"seed": 1}, "a"), Cell(config, "b"), Cell(config | {"recipe": {"epochs": 3}}, "a"),
              Cell(config, "a", cell, "matched_random"), Cell(config, "a", cell, "equal_flops"),
              Cell(config, "a", others_source := Cell(config | {"seed": 2}, "a"), "equal_flops")]
    assert others_source.identity != cell.identity
    assert len({cell.identity, *(other.identity for other in others)}) == 7


def test_tables_are_listed_with_what_they_lack(composed, tmp_path, monkeypatch):
    """Without CIFAR-10 too; a table that has no such scale says so."""
    monkeypatch.setattr(motivation.tables.train, "list_tables", lambda: ["initialization", "table2"])
    first, second = list_states(composed, "cpu", 1, tmp_path, tmp_path, QUICK).splitlines()
    assert first.startswith("initialization ")
    assert "0 of 11 runs finished at scale cpu; cifar10 cannot be read" in first
    assert second.endswith(": no scale cpu")


def test_another_precision_is_another_table(composed):
    half = planned(composed, "7", overrides=(*QUICK, "engine.precision=bfloat16", "engine.device=cpu"))
    assert not {cell.name for cell in half.cells} & {cell.name for cell in planned(composed, "7").cells}
    assert "engine.precision=bfloat16" in half.note
    assert "engine.device" not in half.note


def test_tables_share_cells(composed):
    """Table 6's experiment B is the matched-random control of table 7's and table 1's method."""
    six, seven = planned(composed, "6"), planned(composed, "7")
    [experiment] = [row for row in six.rows if row.label == "Res-20-32-B-EXP-B"]
    [control] = [row for row in seven.rows if row.label.startswith("Res-20-32-B-original: matched")]
    assert [cell.identity for cell in experiment.cells] == [cell.identity for cell in control.cells]


def test_folds_part_the_training_set():
    parts = [Digits(fold=fold).load() for fold in range(5)]
    assert sum(len(part.validation) for part in parts) == 1437
    images = {image.tobytes() for part in parts for image in part.validation.images}
    everything = {image.tobytes() for part in (parts[0].train, parts[0].validation) for image in part.images}
    assert images == everything
    with pytest.raises(ValueError, match=r"fold=5: with validation=0\.2 there are 5 folds"):
        Digits(fold=5)


def table(tmp_path, *arguments):
    return main(["table", *arguments, "--runs", str(tmp_path / "cells"), "--out", str(tmp_path / "tables")])


@pytest.mark.parametrize(("override", "message"), [
    ("engine.compile=turbo", "engine.compile='turbo': must be one of"),
    ("recipe.batch_size=0", "recipe.batch_size=0: must be at least 1")])
@pytest.mark.parametrize("what", ["--plan", "--jobs=2"])
def test_what_no_run_could_train_with_is_one_error(tmp_path, capsys, override, message, what):
    assert table(tmp_path, "initialization", "--seeds", "1", what, "tracker=none", override) == 1
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if "error" in line] == [captured.err.splitlines()[-1]]
    assert message in captured.err.splitlines()[-1]
    assert not (tmp_path / "cells").exists()


@pytest.fixture
def untrained(monkeypatch):
    """Runs of tables are neither trained nor timed: each leaves a finished run's folder at once."""
    monkeypatch.setattr(motivation.tables.train, "run", write_finished)
    monkeypatch.setattr(motivation.tables.train, "flops_per_second", lambda cell, datasets: 1e9)


def test_the_command_trains_what_is_missing_once(tmp_path, capsys, caplog, untrained):
    caplog.set_level("INFO", "motivation")
    assert table(tmp_path, "7", "--seeds", "1", "--plan", *QUICK) == 0
    assert "13 runs, 0 finished" in caplog.text
    assert not (tmp_path / "cells").exists()
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 13
    assert all(line.startswith("missing ") for line in listed)
    assert table(tmp_path, "7", "--seeds", "1", *QUICK) == 0
    first = capsys.readouterr()
    assert "unfinished" not in first.out
    assert first.out.splitlines()[-3:] == [str(tmp_path / f"tables/table7-smoke.{end}") for end in ("md", "tex", "csv")]
    cells = sorted((tmp_path / "cells").iterdir())
    before = [(cell / "summary.json").stat().st_mtime_ns for cell in cells]
    removed = next(cell for cell in cells if "equal_flops" in cell.name)
    shutil.rmtree(removed)
    assert table(tmp_path, "7", "--seeds", "1", "--show", *QUICK) == 0
    assert capsys.readouterr().out.count("unfinished") == 1
    assert table(tmp_path, "7", "--seeds", "1", *QUICK) == 0
    assert "13 runs, 12 finished" in caplog.text
    assert capsys.readouterr().out == first.out
    assert sum((cell / "summary.json").stat().st_mtime_ns == old for cell, old in zip(cells, before, strict=True)) == 12


def test_a_method_and_its_controls_are_trained(composed, tmp_path):
    """Real runs: a matched-random control has as many motivated steps as its source, equal FLOPs as many FLOPs."""
    seven = read_table("7")
    plan = plan_table(seven | {"rows": seven["rows"][:2]}, "smoke", 1, composed, DataSets().fingerprint, QUICK)
    archive = Archive(tmp_path / "cells")
    assert len(plan.cells) == 4
    assert finish_table(plan, archive) == []
    by_control = {cell.control: archive.state(cell).run.summary for cell in plan.cells if cell.source}
    [source] = {archive.path(cell.source) for cell in plan.cells if cell.source}
    source = json.loads((source / "summary.json").read_text())
    assert by_control["matched_random"]["steps/motivated"] == source["steps/motivated"] > 0
    step = by_control["equal_flops"]["budget/flops"] / by_control["equal_flops"]["steps/base"]
    assert by_control["equal_flops"]["budget/flops"] == pytest.approx(source["budget/flops"], abs=step / 2)


def test_a_signal_ends_a_table_and_its_line_resumes_it(tmp_path, capsys, monkeypatch, untrained):
    trained = []

    monkeypatch.setattr(motivation.tables.train, "run", interrupted_in(2, trained))
    assert table(tmp_path, "k", *QUICK) == 128 + signal.SIGINT
    assert len(trained) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("motivation: error")]
    what, _, command = line.partition("; resume it with: ")
    assert what.endswith("stopped by SIGINT")
    assert main(shlex.split(command)[1:]) == 0
    assert len(trained) == 2 + 20 - 1


def test_k_is_tuned_by_cross_validation(tmp_path, capsys, monkeypatch, untrained):
    def write_fold(config, path, resume):
        accuracy = 90 + config["data"]["fold"] / 10 - abs(config["schedule"]["k"] - 3)
        return write_finished(config, path, resume, accuracy)

    monkeypatch.setattr(motivation.tables.train, "run", write_fold)
    assert table(tmp_path, "k", *QUICK) == 0
    out = capsys.readouterr().out
    assert out.count("| 5/5 ") == 4
    assert "Chosen by mean validation accuracy: k = 3; the search cost all of these FLOPs." in out
    assert "Training took" in out


def test_transfer_starts_from_the_run_and_a_new_classifier(tmp_path, capsys):
    assert table(tmp_path, "3", "--seeds", "1", *QUICK) == 0
    assert "unfinished" not in capsys.readouterr().out


def test_a_cell_without_memory_fails_alone(tmp_path, capsys, monkeypatch):
    """One line says which network did not fit; the runs that need less are trained, the rest shows as unfinished."""
    gradients = motivation.training.engine.Engine.gradients

    def bounded(self, network, *arguments):
        if sum(parameter.numel() for parameter in network.parameters()) > 100_000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nMore lines of torch's.")
        return gradients(self, network, *arguments)

    monkeypatch.setattr(motivation.training.engine.Engine, "gradients", bounded)
    # ResNet-8 has 78,000 parameters, ResNet-14 175,000.
    assert table(tmp_path, "7", "--seeds", "1", *QUICK) == 1
    said = capsys.readouterr()
    failures = [line for line in said.err.splitlines() if "out of memory: the motivated network" in line]
    assert any("lower recipe.batch_size or set engine.accumulation=2" in line for line in failures)
    finished = [path.parent.name for path in (tmp_path / "cells").glob("*/summary.json")]
    assert len(finished) == 1
    assert finished[0].startswith("resnet8_classical")
    assert "unfinished" in said.out
    # A control of a run that failed is not tried.
    orphans = [line for line in said.err.splitlines() if line.startswith("motivation: error") and "seed0" in line
               and "its source failed: resnet8-resnet14_threshold_seed0" in line]
    assert len(orphans) == 8


def test_a_broken_and_a_foreign_run_leave_the_others(tmp_path, capsys, caplog, untrained):
    """Shown as such; the broken one is trained again, the foreign one is an error and left as it is."""
    short = ("2", "--seeds", "1", "tracker=none", "engine.threads=1", "recipe.epochs=1", "recipe.batch_size=512")
    assert table(tmp_path, *short) == 0
    cells = sorted((tmp_path / "cells").iterdir())
    [broken] = [cell for cell in cells if "equal_flops" in cell.name]
    [foreign] = [cell for cell in cells if cell.name.startswith("resnet101_")]
    (broken / "summary.json").write_text('{"base/')
    (foreign / "config.yaml").write_text((foreign / "config.yaml").read_text().replace("seed: 0", "seed: 3"))
    capsys.readouterr()
    assert table(tmp_path, *short, "--show") == 1
    shown = capsys.readouterr()
    assert shown.out.count("0/1 (1 broken)") == shown.out.count("0/1 (1 foreign)") == 1
    assert "seed is 3, not 0" in shown.err
    assert table(tmp_path, *short) == 1
    again = capsys.readouterr()
    assert f"set aside as {broken.name}.broken-1, and trained again" in caplog.text
    assert "0/1 (1 broken)" not in again.out
    assert "0/1 (1 foreign)" in again.out
    assert [line for line in again.err.splitlines() if line.startswith("motivation: error")] == [
        f"motivation: error: {foreign.name}: it holds a run of another config: seed is 3, not 0"]


def test_a_scale_says_what_it_leaves_out(composed):
    notes = {name: planned(composed, name, seeds=1).note for name in ("table2", "table4", "table6")}
    assert "leaves out" not in planned(composed, "table4", 1, "paper").note
    # And what of it the command changed: a table of one epoch is not one of the recipe.
    assert notes["table2"].endswith("paper. Changed: recipe.epochs=1, recipe.batch_size=256.")
    assert notes["table4"].endswith("This scale leaves out Eff-4-5B, EfficientNet-B5-C.")
    assert notes["table6"].endswith("This scale leaves out all of cifar100.")


def test_a_missing_data_set_leaves_the_others(composed, tmp_path, untrained):
    """Its rows stay unfinished, and so do those that start from a network trained on it."""
    three = read_table("3")
    three["scales"]["smoke"] = three["scales"]["smoke"] | {"data": {
        "imagenet": ["data=cifar10", "data.root=nowhere"], "cifar10": ["data=digits"]}}
    three["rows"].append({"row": "alone", "classical": "resnet50", "recipe": "transfer", "cifar10": {}})
    plan = plan_table(three, "smoke", 1, composed, DataSets().fingerprint, QUICK)
    [(dataset, reason)] = finish_table(plan, Archive(tmp_path))
    assert dataset == "imagenet"
    assert re.search("cannot be read: .*CIFAR-10", reason)
    assert [row.label for row in plan.measured(Archive(tmp_path)) if row.measured.accuracy] == ["alone"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["9"], "no table 'table9'; there are attempts, budget, context, cusearch, deploy_twice, initialization, k"),
    (["7", "--scale", "huge"], "--scale huge: choose one of smoke, minute, cpu, reduced, paper"),
    (["2", "--scale", "cpu"], "--scale cpu: table2 has smoke, reduced, paper"),
    (["signals", "--first-seed", "-1"], "--first-seed -1: must be at least 0"),
    (["7", "--seeds", "0"], "--seeds 0: must be at least 1"),
    (["7", "--jobs", "0"], "--jobs 0: must be at least 1"),
    (["7", "hydra.run.dir=x"], "a table names its own run folders"),
    (["7", "recpie.epochs=1"], "recpie"),
    (["7", "data.workers=3"], "data.workers=3: no data set of table7 at scale smoke has this key"),
    (["7", "--scale", "paper"], "cifar10 cannot be read: .*download=true"),
])
def test_mistakes(tmp_path, capsys, arguments, said):
    assert table(tmp_path, *arguments) == 1
    assert re.search(said, capsys.readouterr().err.splitlines()[-1])
    assert not list(tmp_path.iterdir())


def test_five_hundred_runs_are_planned_and_rendered_in_seconds(composed, tmp_path):
    """Config and summary are all that is read: the folders hold no steps.csv."""
    archive = Archive(tmp_path / "cells")
    plan = planned(composed, "1", seeds=60)
    assert len(plan.cells) >= 500
    for cell in plan.cells:
        fabricate(archive, cell)
    begin = time.process_time()
    again = planned(composed, "1", seeds=60)
    fresh = Archive(tmp_path / "cells")
    assert not again.unfinished(fresh)
    text, _ = write_table(again, fresh, tmp_path / "out")
    seconds = time.process_time() - begin
    print(f"{len(plan.cells)} finished runs planned and rendered in {seconds:.2f} s")
    assert seconds < 5
    assert text.count("60/60") == len(again.rows)


def test_showing_a_table_makes_no_network(composed, tmp_path, caplog, monkeypatch):
    """And an estimate of costs counts each network once, however many runs train it, without drawing its weights."""
    made = []
    create = motivation.tables.costs.create_model
    monkeypatch.setattr(motivation.tables.costs, "create_model",
                        lambda name, *arguments, **options: made.append(name) or create(name, *arguments, **options))
    motivation.tables.costs._forward_flops.cache_clear()
    caplog.set_level("INFO", "motivation")
    assert table(tmp_path, "7", "--show", *QUICK) == 0
    assert "runs to train" not in caplog.text
    assert made == []
    datasets = DataSets()
    costs = [cost_of(cell, datasets) for cell in planned(composed, "7", seeds=3).cells]
    assert sorted(made) == ["resnet14", "resnet8"]
    plain = forward_of("resnet8", "{}", (1, 8, 8))
    assert costs[0] == 3 * plain * 256 * (1150 // 256)


def test_a_plan_times_no_large_batch_on_a_cpu(monkeypatch):
    """A batch of 2,048 ImageNet images would take a CPU an hour, and a plan must stay quick."""
    timed = []
    prepare = motivation.tables.costs.prepare
    monkeypatch.setattr(motivation.tables.costs, "prepare", lambda config: timed.append(config) or prepare(config))
    cell = Cell(compose_config("model=resnet56", "engine.device=cpu", "engine.threads=1", "recipe.batch_size=512"), "d")
    image = 3 * forward_of("resnet56", "{}", (1, 8, 8))
    monkeypatch.setattr(motivation.tables.costs, "TIMED_FLOPS", 4 * 7 * image)
    assert motivation.tables.costs.flops_per_second(cell, DataSets()) > 0
    assert [config["recipe"]["batch_size"] for config in timed] == [6]
    assert cell.config["recipe"]["batch_size"] == 512


def test_a_cell_is_its_data_not_the_place_of_it():
    """Moved data, or another number of workers, must not train a table again; other data must."""
    config = compose_config("data=image_folder", "data.root=A")
    moved = compose_config("data=image_folder", "data.root=B", "data.workers=3")
    assert Cell(config, "known").identity == Cell(moved, "known").identity != Cell(config, "other").identity
    split = compose_config("data=image_folder", "data.root=A", "data.validation=0.1")
    assert Cell(split, "known").identity != Cell(config, "known").identity


def test_an_override_of_data_goes_where_it_can(composed):
    """Table 3 reads some data sets from files and some into memory; only the latter are downloaded or have no workers.
    """
    plan = plan_table(read_table("3"), "paper", 1, composed, lambda spec: "stub",
                      ("data.workers=3", "data.download=true"))
    data = {row.dataset: row.cells[0].config["data"] for row in plan.rows}
    assert [data[name].get("workers") for name in ("imagenet", "pets", "cifar10")] == [3, 3, None]
    assert [data[name].get("download") for name in ("imagenet", "cifar10")] == [None, True]


def test_one_root_serves_every_data_set_of_table_3():
    for option in read_table("3")["scales"]["paper"]["data"].values():
        assert compose_config(*option, "data.root=PARENT")["data"]["root"] == "PARENT"
