"""The non-dominated front against its definition, and the picture of every network of every run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motivation.analysis.pareto import draw_pareto, front, mean_points, network_points
from motivation.run_folder.read import read_run

COORDINATES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(COORDINATES)
def test_front_is_what_nothing_dominates(points):
    costs, values = np.array(points, float).T
    found = {tuple(map(int, points[index])) for index in front(costs, values)}
    literal = {(cost, value) for cost, value in points
               if not any((c <= cost and v >= value) and (c, v) != (cost, value) for c, v in points)}
    assert found == literal
    assert (np.diff(costs[front(costs, values)]) > 0).all()


def test_a_cost_that_is_not_known_is_on_no_front():
    assert list(front(np.array([np.nan, 2.0]), np.array([99.0, 1.0]))) == [1]
    assert not len(front(np.array([np.nan]), np.array([1.0])))


def test_every_network_of_every_run_is_drawn(invented):
    runs = [invented("a", 0, 90.0), invented("b", 1, 92.0), invented("c", 0, 95.0, "classical")]
    points = network_points(runs)
    assert [(point.network, point.role) for point in points] == [
        ("resnet8", "base"), ("resnet14", "motivated"), ("resnet8", "base"), ("resnet14", "motivated"),
        ("resnet8", "alone")]
    assert points[0].inference == runs[0].summary["base/forward_flops"] < points[1].inference
    assert points[0].training == runs[0].summary["budget/flops"]
    means = mean_points(points)
    assert [point.accuracy for point in means if point.network == "resnet8"] == [91.0, 95.0]
    training, inference = draw_pareto(runs).axes
    for axes in (training, inference):
        # Five networks, three means, one front.
        assert len(axes.lines) == 9
        # The cheapest is the best of all here: it alone is the front.
        assert axes.lines[-1].get_ydata() == [95.0]
    assert training.lines[0].get_xdata() == [runs[0].summary["budget/flops"]]


def test_missing_forward_flops_are_said(invented):
    figure = draw_pareto([invented("a", 0, 90.0, "classical", figures={"base/forward_flops": None})])
    assert [text.get_text() for text in figure.axes[1].texts] == ["not recorded"]
    assert not figure.axes[0].texts


@pytest.mark.parametrize("model", ["resnet8", "resnet8_14"])
def test_a_single_run_is_enough(finished, model):
    run = read_run(finished() if model == "resnet8_14" else finished(f"model={model}"))
    assert len(network_points([run])) == len(run.networks)
    assert draw_pareto([run]).axes
