"""Comparison of runs, from their folders alone: labels, table, tests against the control, figure."""

import inspect
import json
import shutil

import numpy as np
import pytest
from scipy import stats

from motivation import levers, monitors, schedules
from motivation.analysis.budgets import target_table
from motivation.analysis.compare import comparison_table
from motivation.analysis.figures import draw_comparison, intervals, save_figure
from motivation.analysis.runs import DEFAULTS, describe, group_runs, read_runs
from motivation.cli.main import main
from motivation.run_folder.read import identify_sources, read_run


def test_one_row_a_group_of_seeds(invented):
    runs = [invented("a", 0, 90.0), invented("b", 1, 92.0), invented("c", 0, 91.0, "classical"),
            invented("d", 2, 91.5, "classical")]
    table = comparison_table(runs).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[:4]]
    assert cells[0][:3] == ["runs", "n", "resnet8 top-1 %"]
    assert cells[2][:3] == ["resnet8 + resnet14, consecutive -> threshold(k=2)", "2", "91.00 ± 1.41"]
    assert cells[3][:2] == ["resnet8 alone", "2"]
    assert cells[3][3] == "-"
    test = stats.ttest_ind([90, 92], [91, 91.5], equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert table[-1] == ("- resnet8 of resnet8 + resnet14, consecutive -> threshold(k=2): -0.25 points "
                         f"[{low:+.2f}, {high:+.2f}] (n = 2 against 2; p = {test.pvalue:.3g}, Welch t)")


def test_null_rate_and_share_are_in_the_table(finished):
    run = read_run(finished())
    row = comparison_table([run]).splitlines()[2]
    assert f"{run.motivated_share:.1%}" in row
    assert f"{1 / 6 * 7 / 8:.1%}" in row
    assert f"{run.summary['budget/flops']:.3g}" in row


def test_a_control_needs_the_same_recipe(invented, finished):
    recipe = {**read_run(finished()).config["recipe"], "epochs": 9}
    table = comparison_table([invented("a", 0, 90.0), invented("b", 0, 91.0, "classical", recipe=recipe)])
    assert "Difference" not in table


def test_a_pair_of_one_name_shows_both_accuracies(invented):
    """Its networks differ in options alone; the control of each has the same options."""
    model = {**read_run(invented("x", 0, 0.0).path).config["model"], "motivated": "resnet8",
             "motivated_options": {"width": 2}}
    pairs = [invented(f"p{seed}", seed, 90.0 + seed, config={"model": model},
                      figures={"motivated/top1": 95.0 + seed}) for seed in (0, 1)]
    assert pairs[0].networks == {"base": "resnet8 (base)", "motivated": "resnet8 (motivated)"}
    alone = [invented(f"c{seed}", seed, 89.0 + 2 * seed, "classical") for seed in (0, 1)]
    wide = {"name": "classical", "network": "resnet8", "options": {"width": 2}}
    alone += [invented(f"w{seed}", seed, 94.0, "classical", config={"model": wide}) for seed in (0, 1)]
    lines = comparison_table([*pairs, *alone]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:3]]
    assert cells[0][2:5] == ["resnet8 (base) top-1 %", "resnet8 (motivated) top-1 %", "resnet8 top-1 %"]
    assert cells[2][2:5] == ["90.50 ± 0.71", "95.50 ± 0.71", "-"]
    assert [line.split(": ")[-1][:12] for line in lines[-2:]] == ["+0.50 points", "+1.50 points"]
    rows = target_table([*pairs, *alone], 50).splitlines()[4:6]
    assert [row.split("|")[2].strip() for row in rows] == ["resnet8 (base)", "resnet8 (motivated)"]


def test_groups_of_one_description_are_told_apart(invented):
    recipe = {"name": "digits", "epochs": 9}
    groups = group_runs([invented("a", 0, 90.0, recipe={**recipe, "epochs": 8}),
                         invented("b", 1, 90.0, recipe={**recipe, "epochs": 8}),
                         invented("c", 0, 90.0, recipe=recipe)])
    assert [(label.split("threshold(k=2)")[1], len(runs)) for label, runs in groups.items()] == [
        (" [recipe.epochs=8]", 2), (" [recipe.epochs=9]", 1)]


@pytest.mark.parametrize(("monitor", "schedule", "label"), [
    ({"name": "consecutive", "lag": 0}, {"name": "threshold", "k": None, "k_off": None, "epoch_edge": "carry"},
     "consecutive -> threshold(k=null, epoch_edge=carry)"),
    ({"name": "smooth", "half_life": 20, "monitor": {"name": "trend", "window": 100}, "lag": 2},
     {"name": "cool_down", "steps": 5, "schedule": {"name": "min_interval", "steps": 3, "schedule": {
         "name": "threshold", "k": 1, "epoch_edge": "contract"}}},
     "smooth(trend(window=100), half_life=20, lag=2) -> cool_down(min_interval(threshold(k=1), steps=3), steps=5)"),
    ({"name": "all_of", "pairs": [[{"name": "consecutive"}, 1], [{"name": "gradient_agreement", "reference": "mean"},
                                                                 0.1]]},
     {"name": "replay", "run": "some/where/3"},
     "all_of(consecutive at 1, gradient_agreement(reference=mean) at 0.1) -> replay(run=3)"),
    ({"name": "trend", "window": 9}, {"name": "progressive", "share": 0.25, "reverse": True},
     "trend(window=9) -> progressive(share=0.25, reverse=True)"),
])
def test_a_label_holds_what_is_inside_and_not_by_default(monitor, schedule, label):
    config = {"model": {"name": "pair", "base": "a", "motivated": "b"}, "monitor": monitor, "schedule": schedule}
    assert describe(config) == f"a + b, {label}"


def test_a_label_names_the_lever():
    config = {"model": {"name": "classical", "network": "a"}, "lever": {
        "name": "tokens", "rule": "loss", "share": 0.5, "run": None, "of": "base", "forget": 0.0}}
    assert describe(config) == "a alone, tokens(rule=loss, share=0.5)"
    assert describe(config | {"lever": None}) == "a alone"


def test_labels_leave_out_defaults_only():
    known = [parameter for room in (monitors, schedules, levers) for maker in room.BY_NAME.values()
             for parameter in inspect.signature(maker).parameters.values()]
    for name, value in DEFAULTS[1:]:
        assert {parameter.default for parameter in known if parameter.name == name} == {value}


def test_execution_does_not_set_runs_apart(invented):
    other = {"device": "cpu", "precision": "float32", "channels_last": False, "deterministic": True, "threads": 2}
    assert len(group_runs([invented("a", 0, 90.0), invented("b", 1, 90.0, engine=other)])) == 1


def test_intervals_of_a_phase_column():
    assert intervals(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 1), (6, 1)]
    assert intervals(np.zeros(3, bool)) == []


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_figure_shows_every_network_and_the_intervals(finished, tmp_path, ending):
    runs = read_runs([finished("model=resnet8"), finished()])
    figure = draw_comparison(runs)
    loss, accuracy = figure.axes
    assert len(loss.collections[0].get_paths()) == runs[1].summary["intervals"]
    names = [line.get_label() for line in accuracy.lines]
    assert names == ["resnet8 alone", *(f"{network} of resnet8 + resnet14, consecutive -> threshold(k=2)"
                                         for network in ("resnet8", "resnet14"))]
    last = accuracy.lines[1].get_xydata()[-1]
    assert tuple(last) == (runs[1].summary["budget/flops"], runs[1].summary["base/top1"])
    assert save_figure(figure, tmp_path / "made" / f"f.{ending}").stat().st_size > 1000


def test_a_figure_that_cannot_be_written_is_named(finished, tmp_path):
    figure = draw_comparison(read_runs([finished()]))
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "x.doc", tmp_path / "file" / "x.png"):
        with pytest.raises(ValueError, match="cannot be written"):
            save_figure(figure, path)


def test_a_sweep_folder_stands_for_its_runs(finished, tmp_path):
    for name in ("1", "0"):
        shutil.copytree(finished(f"seed={name}"), tmp_path / "sweep" / name)
    assert [run.path.name for run in read_runs([tmp_path / "sweep"])] == ["0", "1"]


def test_one_run_counts_once(finished, tmp_path, caplog):
    """The same folder twice, or a repetition of one seed, is no further observation."""
    copy = shutil.copytree(finished(), tmp_path / "copy")
    assert len(read_runs([finished(), finished() / "."])) == 1
    assert len(read_runs([finished(), copy])) == 1
    assert f"{copy} is left out: the same run as {finished()}, seed 0" in caplog.text


def test_other_arithmetic_is_another_run(invented):
    engine = read_run(invented("x", 0, 90.0).path).config["engine"]
    runs = [invented("a", 0, 90.0), invented("b", 0, 91.0, engine=engine | {"precision": "bfloat16"}),
            invented("c", 1, 92.0, engine=engine | {"threads": 2})]
    assert [len(group) for group in group_runs(runs).values()] == [2, 1]


def test_controls_of_several_seeds_are_repetitions_though_each_has_its_own_source(invented):
    """A matched-random control names the folder of its seed's run."""
    runs = [invented(f"control{seed}", seed, 91.0,
                     schedule={"name": "matched_random", "run": str(invented(f"source{seed}", seed, 90.0).path)})
            for seed in (0, 1)]
    for run in runs:
        data = json.loads((run.path / "data.json").read_text()) | {"sources": identify_sources(run.config)}
        (run.path / "data.json").write_text(json.dumps(data))
    assert [len(group) for group in group_runs([read_run(run.path) for run in runs]).values()] == [2]


def test_an_unfinished_job_of_a_sweep_is_left_out_and_named(finished, tmp_path, caplog):
    for name in ("10", "9"):
        shutil.copytree(finished("seed=1") if name == "9" else finished(), tmp_path / "sweep" / name)
    broken = shutil.copytree(finished(), tmp_path / "sweep" / "11")
    (broken / "summary.json").unlink()
    assert [run.path.name for run in read_runs([tmp_path / "sweep"])] == ["9", "10"]
    assert f"{broken} is left out" in caplog.text


@pytest.mark.parametrize("figure", ["folder", "noext", "a.xyz"])
def test_a_figure_needs_a_name_and_a_format(finished, tmp_path, capsys, figure):
    (tmp_path / "folder").mkdir()
    assert main(["compare", str(finished()), "--figure", str(tmp_path / figure)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--figure" in captured.err


def test_no_control_of_another_precision(invented):
    """A difference of arithmetic is no difference of method."""
    engine = read_run(invented("x", 0, 90.0).path).config["engine"] | {"precision": "bfloat16"}
    runs = [invented("a", 0, 90.0), invented("b", 0, 91.0, "classical", engine=engine)]
    assert "Difference" not in comparison_table(runs)
    assert "Difference" in comparison_table([*runs, invented("c", 0, 91.0, "classical")])


def test_a_control_stays_where_only_execution_or_the_pairs_keys_differ(invented):
    config = read_run(invented("x", 0, 90.0).path).config
    data = config["data"] | {"workers": 3, "root": "B"}
    recipe = config["recipe"] | {"state": "reset", "differential_lr": 0.5, "rollbacks": 2}
    table = comparison_table([invented("a", 0, 90.0, data=data, recipe=recipe), invented("b", 0, 91.0, "classical")])
    assert "- resnet8 of resnet8 + resnet14, consecutive -> threshold(k=2): -1.00 points" in table


def test_seeds_that_read_one_data_set_in_several_places_are_one_row(invented):
    data = read_run(invented("x", 0, 90.0).path).config["data"]
    runs = [invented(f"s{seed}", seed, 90.0, data=data | {"path": f"scratch.{seed}"}) for seed in range(3)]
    assert [len(group) for group in group_runs(runs).values()] == [3]
