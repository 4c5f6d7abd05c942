"""Calibration, does confidence match accuracy: expected calibration error and reliability, from predictions.

The expected calibration error is that of Guo et al. 2017 ("On Calibration of Modern Neural Networks", equation 3): the
mean over 15 bins of equal width of |accuracy - confidence|, each bin weighted by its share of the images.
"""

from typing import NamedTuple

import numpy as np

from motivation.accuracy import each_prediction
from motivation.analysis.compare import classical_control, difference_in_words
from motivation.analysis.figures import LINES, PALETTE
from motivation.analysis.markdown import NONE, markdown_table, mean_std
from motivation.analysis.runs import group_runs
from motivation.phase import Phase
from motivation.run_folder.read import Run, read_predictions

BINS = 15
COLUMNS = 3


class Reliability(NamedTuple):
    """Confidence against accuracy, bin by bin of confidence.

    Attributes:
        confidence: ``(bins,)`` mean confidence, 0 to 1; NaN in an empty bin.
        accuracy: ``(bins,)`` share of right answers, 0 to 1; NaN in an empty bin.
        count: ``(bins,)`` images.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gaps * self.count) / self.count.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy, -1 to 1: above 0 the network is surer than it is right."""
        return float(np.nansum((self.confidence - self.accuracy) * self.count) / self.count.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Bin predictions by confidence, the largest probability, in bins of equal width.

    Args:
        probabilities: ``(N, classes)``, or ``(N, classes, T)`` of tokens, each of which is a prediction.
        labels: ``(N,)`` class indices, or ``(N, T)``.
        bins: number of bins between 0 and 1.
    """
    from scipy.stats import binned_statistic

    probabilities, labels = each_prediction(probabilities, labels)
    # float32 probabilities may exceed 1 by a rounding.
    confidence = np.clip(probabilities.max(1).astype(float), 0, 1)
    correct = (probabilities.argmax(1) == labels).astype(float)
    means = binned_statistic(confidence, [confidence, correct], "mean", bins, (0, 1)).statistic
    return Reliability(means[0], means[1], binned_statistic(confidence, None, "count", bins, (0, 1)).statistic)


def calibrations(runs: list[Run]) -> tuple[dict[tuple[str, Phase], dict[int, Reliability]], list[str]]:
    """Every network's reliability by group label and phase, then seed; and for each run without one, why."""
    found: dict[tuple[str, Phase], dict[int, Reliability]] = {}
    missing = []
    for label, group in group_runs(runs).items():
        for run in group:
            try:
                arrays = read_predictions(run)
            except ValueError as error:
                missing.append(str(error))
                continue
            for phase in run.networks:
                found.setdefault((label, phase), {})[run.summary["seed"]] = reliability(arrays[phase], arrays["labels"])
    return found, missing


def calibration_table(runs: list[Run]) -> str:
    """Markdown: expected calibration error and over-confidence of every network, tested against classical training."""
    groups = group_runs(runs)
    found, missing = calibrations(runs)
    labels = {id(group): label for label, group in groups.items()}
    rows = [["runs", "network", "n", "ECE %", "confidence - accuracy", "ECE against the network alone"]]
    for (label, phase), by_seed in found.items():
        control = classical_control(groups, groups[label], phase)
        reference = found.get((labels[id(control)], "base")) if control else None
        against = difference_in_words(_errors(by_seed), _errors(reference), "points", "+.2f") if reference else NONE
        rows.append([label, groups[label][0].networks[phase], str(len(by_seed)), mean_std([*_errors(by_seed).values()]),
                     mean_std([100 * each.overconfidence for each in by_seed.values()], "+.2f"), against])
    lines = [f"Calibration on the test set (expected calibration error, {BINS} bins of equal width):"]
    if found:
        lines += ["", *markdown_table(rows, text_columns=2)]
    if missing:
        lines += ["", "Left out:", *(f"- {reason}" for reason in missing)]
    return "\n".join(lines)


def draw_calibration(runs: list[Run]):
    """Reliability: confidence against accuracy, a panel a network, a line a group, the area of a mark its images.

    A group's line pools the test predictions of its seeds; a calibrated network is on the diagonal, an over-confident
    one below it.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    found, _ = calibrations(runs)
    groups = group_runs(runs)
    names = {(label, phase): groups[label][0].networks[phase] for label, phase in found}
    networks = list(dict.fromkeys(names.values())) or ["no predictions"]
    columns = min(COLUMNS, len(networks))
    rows = -(-len(networks) // columns)
    figure = Figure(figsize=(max(6, 4.5 * columns), (4.5 + 0.3 * len(groups)) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(networks):]:
        axes.set_visible(False)
    for axes, network in zip(panels, networks, strict=False):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
        for (label, phase), by_seed in found.items():
            if names[label, phase] != network:
                continue
            colour = PALETTE[list(groups).index(label) % len(PALETTE)]
            pooled = _pooled(list(by_seed.values()))
            filled = pooled.count > 0
            style = LINES["base"] if len(groups[label][0].networks) == 2 else LINES["motivated"]
            axes.plot(pooled.confidence[filled], pooled.accuracy[filled], style, color=colour,
                      label=f"{label}: ECE {mean_std([*_errors(by_seed).values()])} % (n = {len(by_seed)})")
            axes.scatter(pooled.confidence[filled], pooled.accuracy[filled], color=colour,
                         s=5 + 150 * pooled.count[filled] / pooled.count.sum())
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
        axes.set_title(network, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    return figure


def _pooled(parts: list[Reliability]) -> Reliability:
    """All predictions of several seeds in one."""
    count = np.sum([part.count for part in parts], axis=0)
    weight = np.where(count > 0, count, np.nan)
    return Reliability(np.nansum([part.confidence * part.count for part in parts], axis=0) / weight,
                       np.nansum([part.accuracy * part.count for part in parts], axis=0) / weight, count)


def _errors(by_seed: dict[int, Reliability]) -> dict[int, float]:
    """Expected calibration error in percent, by seed."""
    return {seed: 100 * each.ece for seed, each in by_seed.items()}
