"""Figures of finished runs; colour-blind safe (Okabe and Ito's palette) and readable in print."""

import itertools
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from motivation.analysis.runs import describe, group_runs
from motivation.run_folder.read import Run

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHADE = "#E69F00"
LINES = {"base": "-", "motivated": "--"}
SMOOTHING_SHARE = 0.02
LABEL_WIDTH = 90
FORMATS = (".png", ".svg", ".pdf")


class Line(NamedTuple):
    """A network's test accuracy at several costs.

    Attributes:
        name: of the network and its runs.
        colour: to draw it in.
        style: matplotlib's, solid or dashed.
        flops: ``(points,)`` training FLOPs, means over seeds.
        accuracy: ``(seeds, points)`` in percent.
    """

    name: str
    colour: str
    style: str
    flops: np.ndarray
    accuracy: np.ndarray


def draw_comparison(runs: list[Run]):
    """Loss over steps with the motivated intervals shaded, and test accuracy over cumulative training FLOPs.

    The loss panel shows the first run that has motivated steps, or the first run; the accuracy panel every network of
    every group, its mean over seeds and, from two seeds on, the band from lowest to highest.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = next((run for run in runs if run.steps["motivated"].any()), runs[0])
    _draw_loss(left, shown, next(label for label, group in group_runs(runs).items() if shown in group))
    _draw_accuracy(right, runs)
    return figure


def check_figure_path(path: Path) -> None:
    """Raise ValueError where no figure can be written: a folder, or a file name without a known format."""
    if path.is_dir():
        raise ValueError(f"--figure {path} is a folder; name a file in it, such as {path / 'compare.png'}")
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--figure {path}: the name must end in {', '.join(FORMATS)}")


def draw_diagnoses(diagnoses: list):
    """A row a run: share of motivated steps by tenth of training, and interval lengths, each against noise.

    Args:
        diagnoses: one `motivation.analysis.diagnose.Diagnosis` or more.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8 * len(diagnoses)), layout="constrained")
    for (left, right), diagnosis in zip(figure.subplots(len(diagnoses), 2, squeeze=False), diagnoses, strict=True):
        places, null = np.arange(1, len(diagnosis.by_tenth) + 1), diagnosis.noise.null
        left.bar(places, 100 * diagnosis.by_tenth, color=SHADE, label="this run")
        left.plot(places, 100 * diagnosis.noise.by_tenth, "o--", color=PALETTE[0], label="on noise")
        left.set(xlabel="tenth of training", ylabel="motivated steps (%)", xticks=places)
        left.set_title(describe(diagnosis.run.config), fontsize="medium")
        left.legend(fontsize="small")
        longest = max([10, *diagnosis.lengths])
        bins = np.unique(np.geomspace(1, longest + 1, 13).round())
        for lengths, style in ((diagnosis.lengths, {"color": SHADE, "label": "this run"}),
                               (diagnosis.noise.lengths, {"histtype": "step", "color": PALETTE[0],
                                                          "linewidth": 2, "label": "on noise"})):
            if len(lengths):
                right.hist(np.minimum(lengths, longest), bins, weights=np.full(len(lengths), 100 / len(lengths)),
                           **style)
        right.set(xlabel="steps of an interval", ylabel="intervals (%)", xscale="log")
        right.set_title(f"{diagnosis.observed:.1%} of steps motivated, on noise "
                        + ("unknown" if np.isnan(null.rate) else f"{null.rate:.1%}"),
                        fontsize="medium")
        if right.get_legend_handles_labels()[0]:
            right.legend(fontsize="small")
    return figure


def save_figure(figure, path: Path) -> Path:
    """Write a figure; the ending of the name chooses the format.

    Raises:
        ValueError: a format matplotlib does not write, or a folder that cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise ValueError(f"figure {path} cannot be written: {error}") from error
    return path


def intervals(motivated: np.ndarray) -> list[tuple[int, int]]:
    """Intervals: unbroken runs of motivated steps.

    Args:
        motivated: bool ``(steps,)``.

    Returns:
        ``(first step, number of steps)`` of each.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], motivated, [False]]).astype(int)))
    return [(int(start), int(stop - start)) for start, stop in edges.reshape(-1, 2)]


def _draw_loss(axes, run: Run, label: str) -> None:
    loss, motivated = run.steps["loss"], run.steps["motivated"]
    spans = [(start - 0.5, length) for start, length in intervals(motivated)]
    axes.broken_barh(spans, (0, 1), transform=axes.get_xaxis_transform(), color=SHADE, alpha=0.45, linewidth=0,
                     label=f"motivated ({motivated.mean():.1%} of steps)")
    axes.plot(loss, color="0.6", linewidth=0.6, label="batch loss")
    window = max(1, round(SMOOTHING_SHARE * len(loss)))
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
    axes.plot(np.arange(len(smooth)) + (window - 1) / 2, smooth, color=PALETTE[0], label=f"mean over {window} steps")
    if (loss > 0).all():
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="training loss", xlim=(-0.5, len(loss) - 0.5))
    axes.set_title(_short(label), fontsize="medium")
    _legend_below(axes)


def _draw_accuracy(axes, runs: list[Run]) -> None:
    for line in accuracy_lines(group_runs(runs)):
        draw_line(axes, line, _short(line.name))
    axes.set(xlabel="cumulative training FLOPs", ylabel="test accuracy (%)")
    axes.set_title("accuracy over compute", fontsize="medium")
    axes.grid(alpha=0.3)
    _legend_below(axes)


def accuracy_lines(groups: Mapping[str, list[Run]]) -> list[Line]:
    """Test accuracy over cumulative training FLOPs of every network of every group, up to its shortest run's end."""
    lines = []
    for colour, (label, group) in zip(itertools.cycle(PALETTE), groups.items(), strict=False):
        for phase, network in group[0].networks.items():
            curves = [_curve(run, phase) for run in group]
            length = min(map(len, curves))
            if length:
                flops, accuracy = np.stack([curve[:length] for curve in curves]).transpose(2, 0, 1)
                name = label if len(group[0].networks) == 1 else f"{network} of {label}"
                lines.append(Line(name, colour, LINES[phase], flops.mean(0), accuracy))
    return lines


def draw_line(axes, line: Line, label: str | None = None) -> None:
    """Draw a line's mean and its band; a single point as one, with its range as a bar."""
    flops, accuracy = line.flops, line.accuracy
    single = len(flops) == 1
    axes.plot(flops, accuracy.mean(0), line.style, color=line.colour, label=label, marker="o" if single else None)
    if len(accuracy) > 1 and single:
        axes.vlines(flops, accuracy.min(0), accuracy.max(0), color=line.colour, alpha=0.5)
    elif len(accuracy) > 1:
        axes.fill_between(flops, accuracy.min(0), accuracy.max(0), color=line.colour, alpha=0.2, linewidth=0)


def _short(label: str) -> str:
    """A label that leaves room for the curves; tables have it whole."""
    return textwrap.fill(textwrap.shorten(label, 2 * LABEL_WIDTH, placeholder=" ..."), LABEL_WIDTH)


def _legend_below(axes) -> None:
    """Below the axes, where it hides no curve."""
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _curve(run: Run, phase: str) -> np.ndarray:
    """``(evaluations, 2)``: cumulative FLOPs and test accuracy of a network."""
    return np.array([(row["budget/flops"], row[f"{phase}/top1"]) for row in run.epochs
                     if row[f"{phase}/top1"] is not None]).reshape(-1, 2)
