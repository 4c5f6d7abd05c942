"""Our own tables: their rows and controls, paired comparisons with Holm's correction, what n could show, curves."""

import csv
import io

import numpy as np
import pytest
from fabricated import fabricate
from latex_text import check_latex
from scipy import stats

import motivation.monitors
import motivation.schedules
from motivation.analysis.statistics import holm, minimum_effect
from motivation.models import create_pair
from motivation.registry import build
from motivation.run.prepare import FACTS, split_lag
from motivation.tables.cells import OF_PHASES, Archive
from motivation.tables.comparisons import Comparison, Network, crossing, planned_comparisons, power_note, with_tests
from motivation.tables.costs import DataSets, cost_of
from motivation.tables.plan import plan_table
from motivation.tables.render import write_table
from motivation.tables.spec import list_tables, read_table
from motivation.tables.train import finish_table

STUDIES = [name for name in list_tables() if read_table(name).get("study")]
# Of capacity, on images.
CAPACITY = [name for name in STUDIES if "cpu" in read_table(name)["scales"]]
MONITORS = {"consecutive", "ema", "heldout", "gradient_norm", "gradient_agreement", "noise_scale", "learning_progress",
            "prediction_gain", "paired_heldout", "trend", "change", "bandit", "smooth", "all_of", "any_of", "invert"}


def planned(composed, name, seeds=2, scale="cpu", **options):
    return plan_table(read_table(name), scale, seeds, composed, lambda spec: "stub", **options)


def fabricated(plan, archive):
    """Every cell finished, each with its own accuracy."""
    rng = np.random.default_rng(0)
    for cell in plan.cells:
        fabricate(archive, cell, accuracy=round(64 + rng.normal(), 2))


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in STUDIES for scale in ("smoke", "minute", "cpu")
                                             if scale in read_table(name)["scales"]])
def test_every_study_renders(composed, tmp_path, name, scale):
    plan, archive = planned(composed, name, 3, scale), Archive(tmp_path / "cells")
    fabricated(plan, archive)
    markdown, paths = write_table(plan, archive, tmp_path / "out")
    assert [path.name.removeprefix(f"{name}-{scale}") for path in paths] == [".md", ".tex", ".csv", "-comparisons.csv"]
    assert "unfinished" not in markdown
    check_latex(paths[1].read_text())
    rows, comparisons = (list(csv.DictReader(io.StringIO(path.read_text()))) for path in paths[2:])
    assert len(rows) == len(plan.rows)
    assert all(row["n"] == "3/3" for row in rows)
    assert len(comparisons) == len(plan.study.comparisons) > 0
    assert all(line["test"].endswith("paired t") and float(line["could show"]) > 0 for line in comparisons)
    assert f"after the correction for {len(comparisons)} tests" in markdown
    verdicts = [line["verdict"] for line in comparisons]
    for line in comparisons:
        low, high = map(float, line["difference"].split("[")[1].rstrip("]").split(","))
        assert line["verdict"] == ("differs" if float(line["Holm p"]) < 0.05 else
                                   "equal" if max(-low, high) < 1 else "open")
    assert (f"Of {len(comparisons)} comparisons {verdicts.count('differs')} differ (Holm p < 0.05), "
            f"{verdicts.count('equal')} are equal") in markdown
    assert {row["cost"] for row in rows if row["row"] == plan.study.reference} == {"1.000"}


def test_signals_holds_every_monitor_at_one_share(composed):
    plan = planned(composed, "signals", seeds=1)
    by_label = {row.label: row.cells[0].config for row in plan.rows}
    quota = {label for label, config in by_label.items()
             if "monitor" in config and config["schedule"]["name"] == "quota" and label in MONITORS}
    assert quota == MONITORS
    assert {by_label[label]["monitor"]["name"] for label in quota} == MONITORS
    assert {by_label[label]["schedule"]["share"] for label in (*quota, "early", "late")} == {0.1667}
    assert by_label["early"]["schedule"]["reverse"]
    assert not by_label["late"]["schedule"]["reverse"]
    assert by_label["periodic"]["schedule"] == {"name": "periodic", "period": 6, "length": 1}
    # All train on the same images, also those whose monitor needs none held out.
    assert len({str(config["data"]) for config in by_label.values()}) == 1
    assert by_label["consecutive"]["data"] | {"root": ""} == {
        "name": "cifar", "classes": 10, "root": "", "download": False, "validation": 0.0, "heldout": 0.0128,
        "split_seed": 0, "fold": None, "train_subset": 10000, "size": 16}
    against = {(one.network.row, one.network.phase) for one in plan.study.comparisons
               if one.against == "random moments"}
    assert against == {(label, phase) for label in (*MONITORS, "early", "late", "periodic", "replay")
                       for phase in ("base", "motivated")}


def test_the_scale_cpu_is_what_it_says(composed):
    for name in ("table1", "table6", "table7", *CAPACITY):
        for row in planned(composed, name, 1).rows:
            config = row.cells[0].config
            assert (config["data"]["train_subset"], config["data"]["size"]) == (10000, 16)
            assert config["evaluate_every"] == 5
            recipe = config["recipe"]
            assert (recipe["batch_size"], recipe["crop_padding"], recipe["flip"]) == (128, 2, True)
            assert (recipe["optimizer"]["name"], recipe["schedule"]["name"]) == ("sgd", "cosine")
            assert name == "budget" or recipe["epochs"] == 20
    # What it has no recipe for is left out, and said.
    six, one = planned(composed, "table6", 1), planned(composed, "table1", 1)
    assert not [row for row in (*six.rows, *one.rows) if row.label.startswith(("Eff", "ViT"))]
    assert six.note.endswith("This scale leaves out all of cifar100.")
    assert "leaves out ViT-tiny-C, ViT-tiny-small-B, ViT-small-C, all of cifar100." in one.note


def test_a_replay_is_of_another_seed_however_many_there_are(composed):
    few, many = (planned(composed, "signals", seeds) for seeds in (3, 4))
    replays = [next(row for row in plan.rows if row.label == "replay").cells for plan in (few, many)]
    assert [cell.source.config["seed"] for cell in replays[1]] == [1, 0, 3, 2]
    assert [cell.identity for cell in replays[0]] == [cell.identity for cell in replays[1][:3]]
    consecutive = next(row for row in many.rows if row.label == "consecutive").cells
    assert {cell.source.identity for cell in replays[1]} == {cell.identity for cell in consecutive}
    # Of an odd number the last one's source is a run of its own.
    assert replays[0][2].source.identity in {cell.identity for cell in few.cells}


def test_fresh_seeds_are_other_runs(composed):
    first, fresh = planned(composed, "deploy_twice", 2), planned(composed, "deploy_twice", 2, first_seed=2)
    assert not {cell.identity for cell in first.cells} & {cell.identity for cell in fresh.cells}
    assert {cell.config["seed"] for cell in fresh.cells} == {2, 3}
    assert len(first.cells) == len(fresh.cells)


def test_every_motivated_row_of_the_paper_has_its_network_at_equal_flops(composed):
    plan = plan_table(read_table("5"), "paper", 1, composed, lambda spec: "stub")
    for row in plan.rows:
        kinds = [other.cells[0].control for other in plan.rows if other.method == row.label]
        if row.method or "network" in row.cells[0].config["model"]:
            assert not kinds
            continue
        assert kinds == ["matched_random", "equal_flops_motivated" if row.phase == "motivated" else "equal_flops"]
        control = next(other for other in plan.rows if other.method == row.label and "equal" in other.label)
        assert control.cells[0].config["model"]["network"] == row.cells[0].config["model"][row.phase]
        matched = next(other for other in plan.rows if other.method == row.label and "matched" in other.label)
        assert matched.phase == row.phase


@pytest.mark.parametrize("name", CAPACITY)
def test_both_networks_of_a_pair_meet_the_base_of_its_flops(composed, name):
    plan = planned(composed, name, seeds=1)
    controls = [row for row in plan.rows if row.cells[0].control == "equal_flops"]
    assert controls
    for control in controls:
        assert {one.network.phase for one in plan.study.comparisons
                if one.control.row == control.label and one.network.row == control.method} == {"base", "motivated"}


def test_two_separate_trainings_cost_what_the_pair_does(composed):
    """Estimated, as the plan prints it; `test_cells` holds that they do cost it."""
    plan, datasets = planned(composed, "deploy_twice", 1, "smoke"), DataSets()
    costs = {row.label: cost_of(row.cells[0], datasets) for row in plan.rows}
    for label in ("k = 2", "quota 1/6", "quota 1/3", "quota 1/2"):
        parts = [costs[f"{label}: {network} trained separately"] for network in ("base", "motivated network")]
        assert sum(parts) == pytest.approx(costs[label])
        assert parts[0] < parts[1]
        assert costs[f"{label}: base of equal FLOPs"] == costs[label]
    assert costs["base alone"] < costs["quota 1/6"] < costs["quota 1/3"] < costs["quota 1/2"] < costs["motivated alone"]
    assert costs["progressive 1/2"] == costs["quota 1/2"]


def test_both_maps_of_cifar_resnets_are_one():
    """So that `initialization` has no rows of the literal map: they would be the same runs."""
    maps = [create_pair("resnet20", "resnet32", num_classes=10, weights_map=kind, init="native").weights_map
            for kind in ("literal", "structural")]
    assert maps[0].to_json() == maps[1].to_json()


@pytest.mark.parametrize(("scale", "images"), [("smoke", 1078), ("cpu", 9872)])
@pytest.mark.parametrize("name", CAPACITY)
def test_every_trigger_fits_into_its_training(composed, name, scale, images):
    """A window that is longer than the shortest training would be an error of that run alone, hours later."""
    for cell in planned(composed, name, 1, scale).cells:
        config = cell.config
        if "network" in config["model"] or cell.control in OF_PHASES:
            continue
        epoch = images // config["recipe"]["batch_size"]
        facts = dict(zip(FACTS, (0, epoch * config["recipe"]["epochs"], epoch, 100, 170), strict=True))
        monitor = build(motivation.monitors.BY_NAME, split_lag(config["monitor"])[0], "monitor", **facts)
        build(motivation.schedules.BY_NAME, config["schedule"], "schedule", **facts).bind(monitor)


def test_replays_and_separate_trainings_are_trained(composed, tmp_path):
    """Real runs: a replay has the phases of the other seed; two separate trainings take the pair's FLOPs."""
    table = read_table("signals")
    method, replay = (row for row in table["rows"] if row["row"] in ("consecutive", "replay"))
    table["rows"] = [method | {"controls": ["split_flops", "split_flops_motivated"], "versus": []},
                     replay | {"versus": ["consecutive"]}]
    plan = plan_table(table, "smoke", 1, composed, DataSets().fingerprint,
                      ("tracker=none", "engine.threads=1", "recipe.epochs=2"))
    archive = Archive(tmp_path / "cells")
    assert finish_table(plan, archive) == []
    first, base, motivated, again = (archive.state(row.cells[0]).run for row in plan.rows)
    other = archive.state(plan.rows[-1].cells[0].source).run
    assert other.summary["seed"] == 1
    assert again.steps["motivated"].tolist() == other.steps["motivated"].tolist()
    assert again.steps["motivated"].any()
    assert first.steps["motivated"].tolist() != again.steps["motivated"].tolist()
    spent, steps = zip(*((run.summary["budget/flops"], run.summary["steps/base"]) for run in (base, motivated)),
                       strict=True)
    assert steps[0] == steps[1]
    step = sum(spent) / steps[0]
    assert sum(spent) == pytest.approx(first.summary["budget/flops"], abs=step / 2)


A, B, C = (Network(row, phase) for row, phase in (("pair", "base"), ("random", "base"), ("pair", "motivated")))


def test_comparisons_are_paired_by_the_seeds_that_both_have():
    values = {A: {0: 64.0, 1: 65.5, 2: 66.0, 3: 64.5}, B: {3: 64.0, 2: 65.0, 1: 64.0}, C: {0: 66.0, 1: 67.0}}
    accuracies = {("cifar10", network): by_seed for network, by_seed in values.items()}
    first, second, none = with_tests([Comparison("cifar10", A, B), Comparison("cifar10", C, A),
                                      Comparison("cifar10", C, B)], accuracies)
    assert (first.n, second.n, none.n) == (3, 2, 1)
    expected = stats.ttest_rel([65.5, 66.0, 64.5], [64.0, 65.0, 64.0])
    assert first.tested.mean == pytest.approx(1.0)
    assert first.tested.p == pytest.approx(expected.pvalue)
    assert first.tested.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    # Below two pairs there is no test, which is not of the family either.
    assert none.tested.p is none.adjusted is None
    assert [first.adjusted, second.adjusted] == pytest.approx(holm([first.tested.p, second.tested.p]))
    assert first.detectable == pytest.approx(minimum_effect(0.5, 3, 0.05 / 2))
    assert first.uncorrected == pytest.approx(minimum_effect(0.5, 3))
    assert second.detectable is None
    note = power_note([first, second, none])
    assert f"{first.detectable:.2f}" in note
    assert "n = 3 " in note
    assert power_note([none]) == ""


def test_curves_cross_where_their_lines_do():
    first, second = [(1e12, 60.0), (1e14, 70.0)], [(1e11, 56.0), (1e13, 66.0), (1e15, 66.0)]
    found = crossing(first, second)
    assert (found.low, found.high) == pytest.approx((1e12, 1e14))
    assert (found.first, found.last) == pytest.approx((-1.0, 4.0))
    assert found.at == pytest.approx((10 ** 12.999999,), rel=1.0)
    # At 1e13 the first is at 65, a point below; from there on it gains 5 points a decade.
    assert found.at == pytest.approx((10 ** 13.2,))
    assert crossing(second, first).at == pytest.approx(found.at)
    assert crossing(first, [(1e15, 1.0), (1e16, 2.0)]) is None
    assert crossing(first[:1], second) is None
    assert crossing(first, [(1e12, 50.0), (1e14, 51.0)]).at == ()


@pytest.mark.parametrize(("versus", "said"), [
    (["nothing"], "t, row pair: versus: there is no row 'nothing'"),
    ({"large": ["alone"]}, "t, row pair: versus: it has no network 'large', only base, motivated")])
def test_a_comparison_with_nothing_is_refused(versus, said):
    with pytest.raises(ValueError, match=said):
        planned_comparisons("t", "cifar10", {"row": "pair", "versus": versus}, {"pair": True, "alone": False})
