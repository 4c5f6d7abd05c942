"""Expected calibration error against its definition, from predictions.npz; what is missing is said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from motivation.analysis.calibration import (
    calibration_table,
    calibrations,
    draw_calibration,
    reliability,
)
from motivation.analysis.runs import group_runs
from motivation.run_folder.read import read_predictions, read_run


def literal_ece(probabilities, labels, bins=15):
    """Guo et al. 2017, equation 3, image by image."""
    members = [[] for _ in range(bins)]
    for row, label in zip(probabilities, labels, strict=True):
        confidence = float(row.max())
        members[min(int(confidence * bins), bins - 1)].append((confidence, float(row.argmax() == label)))
    return sum(abs(np.mean([right for _, right in part]) - np.mean([sure for sure, _ in part])) * len(part)
               for part in members if part) / len(labels)


def predictions(seed, count=200, classes=7):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.3), count).astype(np.float32)
    return probabilities, rng.integers(0, classes, count)


@given(st.integers(0, 2 ** 32 - 1))
@settings(max_examples=30, deadline=None)
def test_ece_is_the_definitions(seed):
    probabilities, labels = predictions(seed)
    found = reliability(probabilities, labels)
    assert found.ece == pytest.approx(literal_ece(probabilities.astype(float), labels))
    assert found.count.sum() == len(labels)
    assert found.overconfidence == pytest.approx(
        probabilities.max(1).mean() - (probabilities.argmax(1) == labels).mean(), abs=1e-6)


def test_bins_are_scikit_learns():
    probabilities, labels = predictions(3)
    found = reliability(probabilities, labels)
    accuracy, confidence = calibration_curve(probabilities.argmax(1) == labels, probabilities.max(1), n_bins=15)
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence, rtol=1e-6)


def test_known_cases():
    sure = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]] * np.float32(1.0000001)
    assert reliability(sure, np.array([0, 1, 2, 3])).ece == 0
    wrong = reliability(sure, np.array([1, 2, 3, 0]))
    assert (wrong.ece, wrong.overconfidence) == (1, 1)
    half = np.full((10, 2), 0.5)
    assert reliability(half, np.array([0, 1] * 5)).ece == 0


def test_table_and_figure_show_both_networks_beside_their_control(finished):
    runs = [read_run(finished(*overrides)) for overrides in ((), ("seed=1",), ("model=resnet8",),
                                                              ("model=resnet8", "seed=1"))]
    table = calibration_table(runs)
    pair, alone = group_runs(runs)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[4:7]]
    assert [line[:3] for line in lines] == [[pair, "resnet8", "2"], [pair, "resnet14", "2"], [alone, "resnet8", "2"]]
    with np.load(runs[0].path / "predictions.npz") as file:
        first = 100 * literal_ece(file["motivated"].astype(float), file["labels"])
    second = 100 * reliability(read_predictions(runs[1])["motivated"], read_predictions(runs[1])["labels"]).ece
    assert lines[1][3] == f"{(first + second) / 2:.2f} ± {abs(first - second) / 2 ** 0.5:.2f}"
    assert lines[0][5].endswith("paired t)")
    assert "n = 2 against 2" in lines[0][5]
    assert lines[1][5] == lines[2][5] == "-"
    assert "Left out" not in table
    base, motivated = draw_calibration(runs).axes
    assert [base.get_title(), motivated.get_title()] == ["resnet8", "resnet14"]
    # The diagonal, the pair, and the control where there is one.
    assert (len(base.lines), len(motivated.lines)) == (3, 2)
    pooled = motivated.lines[1].get_xydata()
    both = [read_predictions(run) for run in runs[:2]]
    expected = reliability(np.concatenate([part["motivated"] for part in both]),
                           np.concatenate([part["labels"] for part in both]))
    filled = expected.count > 0
    np.testing.assert_allclose(pooled, np.stack([expected.confidence, expected.accuracy], 1)[filled])


def damaged(path, damage):
    file = path / "predictions.npz"
    if damage == "none":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "short":
        np.savez(file, labels=np.zeros(3, int), base=np.zeros((2, 10)), motivated=np.zeros((2, 10)))
    elif damage == "nan":
        np.savez(file, labels=np.zeros(2, int), base=np.full((2, 10), np.nan), motivated=np.zeros((2, 10)))
    else:
        np.savez(file, labels=np.array([{}], object), base=np.zeros((1, 2)), motivated=np.zeros((1, 2)))


@pytest.mark.parametrize("damage", ["none", "half", "short", "nan", "object"])
def test_missing_or_damaged_predictions_are_said(invented, damage):
    whole, broken = invented("a", 0, 90.0), invented("b", 1, 90.0)
    damaged(broken.path, damage)
    found, missing = calibrations([whole, broken])
    assert {len(by_seed) for by_seed in found.values()} == {1}
    assert len(missing) == 1
    assert str(broken.path) in missing[0]
    assert missing[0] in calibration_table([whole, broken])
    assert len(draw_calibration([whole, broken]).axes) == 2
    assert draw_calibration([broken]).axes[0].get_title() == "no predictions"
    assert "| runs" not in calibration_table([broken])
