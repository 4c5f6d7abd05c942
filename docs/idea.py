"""Draw docs/idea.svg: python docs/idea.py. Monitor and schedule are the package's; the 36 losses are made up."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from motivation.analysis.figures import PALETTE, SHADE, intervals
from motivation.monitors import Consecutive
from motivation.schedules import Threshold

EPOCHS, STEPS = 2, 18
BLUE, GREY = PALETTE[0], "0.35"


def train_on(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and phases of every step, ``(steps,)`` each, under the paper's rule at k = 2."""
    monitor, schedule = Consecutive(), Threshold(2, epoch_edge="contract")
    scores, motivated, phase = [], [], schedule.start()
    for step, loss in enumerate(losses, start=1):
        motivated.append(phase == "motivated")
        scores.append(monitor.observe(float(loss)))
        phase = schedule.decide(scores[-1])
        if step % STEPS == 0:
            phase = schedule.end_epoch(phase)
    return np.array(scores), np.array(motivated)


def draw() -> Figure:
    """Three rows over the same steps: the loss, the score, and which network each step trains."""
    steps = np.arange(EPOCHS * STEPS)
    losses = 1 + 1.3 * np.exp(-steps / 14) + np.random.default_rng(9).normal(0, 0.13, len(steps))
    scores, motivated = train_on(losses)
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    loss, score, networks = figure.subplots(3, 1, sharex=True, height_ratios=[1.2, 0.8, 1.5])
    loss.plot(steps, losses, "o-", color=GREY, markersize=3, linewidth=1)
    loss.set_ylabel("batch loss")
    score.bar(steps, scores, width=0.7, color=[BLUE if value >= 2 else "0.75" for value in scores])
    score.axhline(2, color=BLUE, linewidth=0.8, linestyle="--")
    score.text(len(steps) - 0.4, 2, "k = 2", color=BLUE, va="center", fontsize="small")
    score.set(ylabel="score:\ndecreases\nin a row", yticks=[0, 1, 2, 3])
    for axes in (loss, score, networks):
        for start, length in intervals(motivated):
            axes.axvspan(start - 0.5, start + length - 0.5, color=SHADE, alpha=0.2, linewidth=0, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvline(STEPS - 0.5, color="0.5", linewidth=0.8, linestyle=":")
    # The base is part of the motivated network, so it is drawn in both lanes.
    networks.broken_barh([(step - 0.42, 0.84) for step in steps[~motivated]], (0, 0.6), color=BLUE)
    networks.broken_barh([(step - 0.42, 0.84) for step in steps[motivated]], (0, 0.6), color=BLUE)
    networks.broken_barh([(step - 0.42, 0.84) for step in steps[motivated]], (0.65, 0.75), color=SHADE)
    networks.set(ylim=(-0.1, 1.5), yticks=[0.3, 1.02], yticklabels=["base", "differential\nweights"],
                 xlim=(-0.6, len(steps) - 0.4), xlabel="training step")
    networks.text(STEPS - 0.35, 1.45, "epoch edge: contract", fontsize="small", color=GREY, va="top")
    networks.set_ylabel("weights that\nthe step trains")
    networks.tick_params(axis="y", length=0)
    figure.suptitle("A larger network takes over while the monitor sees progress (shaded)", fontsize="medium")
    return figure


if __name__ == "__main__":
    # A fixed salt and no date: drawing it again changes no byte.
    mpl.rcParams["svg.hashsalt"] = "motivation"
    draw().savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})
