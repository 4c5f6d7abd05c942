"""The figure of a study: every tested comparison with its interval, and the curves where it has some."""

import numpy as np
import pytest

from motivation.tables.cells import Archive
from motivation.tables.comparisons import LEVEL
from motivation.tables.figures import draw_study
from motivation.tables.plan import plan_table
from motivation.tables.spec import read_table
from motivation.tables.studies import compare, measure


def test_every_comparison_is_a_line_with_its_mean_on_it(finished):
    plan, archive = finished("initialization")
    comparisons = [one for one in compare(plan, measure(plan, archive)) if one.tested and one.tested.interval]
    assert comparisons
    [axes] = draw_study(plan, archive).axes
    lines = [np.asarray(line.get_data(), float) for line in axes.lines if len(line.get_xdata()) == 2]
    intervals = {tuple(x) for x, y in lines if y[0] == y[1]}
    assert {one.tested.interval for one in comparisons} <= intervals
    means = {float(line.get_xdata()[0]): line.get_fillstyle() for line in axes.lines if len(line.get_xdata()) == 1}
    for one in comparisons:
        assert means[one.tested.mean] == ("full" if one.adjusted < LEVEL else "none")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert all(any(one.network.row in name for name in names) for one in comparisons)


def test_curves_are_means_over_seeds(finished):
    plan, archive = finished("budget")
    rows = {one.row.label: one for one in measure(plan, archive)}
    axes = draw_study(plan, archive).axes[-1]
    drawn = {line.get_label(): line for line in axes.lines}
    mean = [np.mean(list(rows[f"base alone, {epochs} epochs"].accuracies["base"].values()))
            for epochs in (5, 10, 20, 40)]
    assert drawn["base alone"].get_ydata() == pytest.approx(mean)


def test_what_cannot_be_drawn_is_named(composed, tmp_path):
    for name, message in (("table7", "table7 is a table of the paper; figures are of our own tables"),
                          ("initialization", "initialization at scale cpu has no comparison of two seeds or more yet")):
        plan = plan_table(read_table(name), "cpu", 1, composed, lambda spec: "stub")
        with pytest.raises(ValueError, match=message):
            draw_study(plan, Archive(tmp_path))
