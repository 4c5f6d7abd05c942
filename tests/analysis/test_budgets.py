"""Cost of a target accuracy and gain at equal training FLOPs, from invented run folders with known answers."""

import json

import pytest
from scipy import stats

from motivation.analysis.budgets import cost_to_target, equal_flops_control, retained_gain, target_table
from motivation.cli.main import main
from motivation.run_folder.read import read_run


@pytest.fixture
def trained(invented):
    """`trained(name, seed, curve, model)`: a run whose evaluations are (FLOPs, test accuracy)."""
    def train(name, seed, curve, model=None, **changes):
        run = invented(name, seed, curve[-1][1], model, figures={"budget/flops": curve[-1][0]}, **changes)
        row = run.epochs[0]
        rows = [row | {"budget/flops": flops, "budget/seconds": flops / 10, "base/top1": accuracy}
                for flops, accuracy in curve]
        (run.path / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_run(run.path)
    return train


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_cost_is_of_the_first_evaluation_that_reached_the_target(trained):
    run = trained("a", 0, [(100, 50.0), (200, None), (300, 80.0), (400, 70.0), (500, 90.0)])
    assert cost_to_target(run, "base", 80) == (300, 30)
    assert cost_to_target(run, "base", 50) == (100, 10)
    assert cost_to_target(run, "base", 90.1) is None


def test_target_table_has_n_and_its_test(trained):
    pairs = [trained("a", 0, [(100, 50.0), (300, 80.0)]), trained("b", 1, [(100, 82.0), (310, 83.0)])]
    alone = [trained(f"c{seed}", seed, [(90 + seed, 85.0)], "classical") for seed in (0, 1)]
    lines = target_table([*pairs, *alone], 80).splitlines()
    assert "80 %" in lines[0]
    test = stats.ttest_rel([300, 100], [90, 91])
    low, high = test.confidence_interval(0.95)
    assert cells(lines[4])[1:] == ["resnet8", "2 of 2", "200 ± 141", "20.0 ± 14.1",
                                   f"+110 FLOPs [{low:+.3g}, {high:+.3g}] (n = 2 against 2; p = {test.pvalue:.3g}, "
                                   "paired t)"]
    assert cells(lines[6])[1:] == ["resnet8", "2 of 2", "90.5 ± 0.707", "9.1 ± 0.1", "-"]


def test_a_group_that_did_not_all_reach_it_is_not_tested(trained):
    pairs = [trained("a", 0, [(100, 50.0)]), trained("b", 1, [(100, 82.0)])]
    alone = [trained(f"c{seed}", seed, [(90, 85.0)], "classical") for seed in (0, 1)]
    line = target_table([*pairs, *alone], 80).splitlines()[4]
    assert cells(line)[2:] == ["1 of 2", "100", "10.0", "no test: not all runs reached it"]
    assert cells(target_table(pairs, 99).splitlines()[4])[2:] == ["0 of 2", "-", "-", "-"]


def test_retained_gain_is_against_equal_flops_alone(trained, finished):
    """The short base is no control, nor one of another recipe; a longer run of the same recipe is, to within 2 %."""
    recipe = {**read_run(finished()).config["recipe"], "epochs": None, "steps": 99}
    pairs = [trained("a", 0, [(1000, 90.0)]), trained("b", 1, [(1100, 91.0)])]
    short = [trained(f"s{seed}", seed, [(900, 89.0)], "classical") for seed in (0, 1)]
    equal = [trained("e0", 0, [(1019, 92.0)], "classical", recipe=recipe),
             trained("e1", 1, [(1079, 92.5)], "classical", recipe=recipe)]
    other = trained("o", 0, [(1000, 99.0)], "classical", recipe=recipe | {"label_smoothing": 0.1})
    assert equal_flops_control([*short, *equal, other, *pairs], pairs) == equal
    line = retained_gain([*short, *equal, other, *pairs]).splitlines()[-1]
    test = stats.ttest_rel([90, 91], [92, 92.5])
    low, high = test.confidence_interval(0.95)
    assert line.endswith(f"-1.75 points [{low:+.2f}, {high:+.2f}] (n = 2 against 2; p = {test.pvalue:.3g}, paired t)")
    # Each seed is compared with the pair of that very seed.
    far = trained("f", 1, [(1000, 92.5)], "classical", recipe=recipe | {"steps": 98})
    assert equal_flops_control([equal[0], far], pairs) == equal[:1]


def test_a_missing_control_is_said_with_its_length(finished):
    run = read_run(finished())
    exact = run.summary["budget/flops"] / (3 * run.summary["base/forward_flops"] * 128)
    steps = round(exact)
    said = retained_gain([run])
    assert f"resnet8 alone with the same data and recipe but recipe.epochs=null recipe.steps={steps}" in said
    # A step more or less is much of so short a run.
    assert said.endswith("no whole number of steps is within 2%") is bool(abs(steps - exact) / exact > 0.02)
    assert steps > 16
    assert retained_gain([read_run(finished("model=resnet8"))]) == ""


def test_the_named_control_is_one(finished):
    """Trained with the length that is said, the control is found."""
    run = read_run(finished("recipe.epochs=4"))
    steps = retained_gain([run]).rpartition("=")[2]
    control = read_run(finished("model=resnet8", "recipe.epochs=null", f"recipe.steps={steps}"))
    assert equal_flops_control([run, control], [run]) == [control]
    assert "no test below n = 2" in retained_gain([run, control])


def test_compare_says_it_all_and_writes_three_figures(finished, tmp_path, capsys):
    runs = [str(finished()), str(finished("model=resnet8"))]
    assert main(["compare", *runs, "--target", "5", "--figure", str(tmp_path / "f.svg")]) == 0
    out = capsys.readouterr().out
    for part in ("| runs", "Cost of 5 %", "Retained gain", "Calibration"):
        assert part in out
    names = ["f_pareto.svg", "f_calibration.svg", "f.svg"]
    assert out.splitlines()[-3:] == [str(tmp_path / name) for name in names]
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)
    assert main(["compare", *runs, "--figure", str(tmp_path / "f.png")]) == 0
    assert "Cost of" not in capsys.readouterr().out


@pytest.mark.parametrize("target", ["ninety", "101", "nan"])
def test_a_target_is_a_percentage(finished, capsys, target):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(finished()), "--target", target])
    assert "--target" in capsys.readouterr().err
