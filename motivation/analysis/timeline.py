"""When a run's motivated network trained: loss over steps, and the motivated intervals of several runs below it.

However long a run is, its figure is of a few hundred bins of equal length, so that a page of many stays small.
"""

from collections.abc import Sequence

import numpy as np

from motivation.analysis.diagnose import tenths
from motivation.analysis.figures import PALETTE, SHADE, SMOOTHING_SHARE, intervals
from motivation.analysis.page import WIDTH, Key, Picture
from motivation.run_folder.read import Run

BINS = 400


def timeline(label: str, runs: Sequence[Run]) -> Picture:
    """Loss of the first of some runs, and the motivated intervals of all.

    Args:
        label: of the group of repetitions that they are.
        runs: of a pair, one or more.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.7 + 0.25 * len(runs)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(9, 1 + len(runs)))
    width = _draw_loss(above, runs[0].steps["loss"])
    for place, run in enumerate(runs):
        _draw_intervals(below, run.steps["motivated"], place)
    longest = max(len(run.steps["loss"]) for run in runs)
    below.set(xlabel="step", yticks=range(len(runs)), yticklabels=[f"seed {run.summary['seed']}" for run in runs],
              xlim=(-0.5, longest - 0.5), ylim=(len(runs) - 0.5, -0.5))
    below.tick_params(axis="y", length=0)
    first = f"seed {runs[0].summary['seed']}"
    keys = [Key(f"batch loss of {first}" + f", lowest to highest of every {width} steps" * (width > 1), "#888888",
                "area"),
            Key(f"its mean over {_window(runs[0].steps['loss'])} steps", PALETTE[0]),
            *(Key(f"seed {run.summary['seed']}: {_share_in_words(run)}", SHADE, "area") for run in runs)]
    return Picture(figure, label, " ".join([f"Loss of {first} over {len(runs[0].steps['loss'])} steps: "
                                            f"{_loss_in_words(runs[0].steps['loss'])}.",
                                            *(f"Seed {run.summary['seed']}: {_share_in_words(run)}; by tenth of "
                                              f"training {_tenths_in_words(run)}." for run in runs)]), keys)


def _draw_loss(axes, loss: np.ndarray) -> int:
    """Draw the range of every bin and a moving mean; returns the steps of a bin."""
    bins = _bins(loss)
    places = np.arange(len(bins)) * bins.shape[1] + (bins.shape[1] - 1) / 2
    axes.fill_between(places, np.nanmin(bins, 1, initial=np.inf, where=~np.isnan(bins)),
                      np.nanmax(bins, 1, initial=-np.inf, where=~np.isnan(bins)), color="#888888", alpha=0.5,
                      linewidth=0.6)
    window = _window(loss)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")[::bins.shape[1]]
    axes.plot(np.arange(len(smooth)) * bins.shape[1] + (window - 1) / 2, smooth, color=PALETTE[0])
    if (loss > 0).all():
        axes.set_yscale("log")
    axes.set(ylabel="training loss")
    return bins.shape[1]


def _draw_intervals(axes, motivated: np.ndarray, place: int) -> None:
    """Draw a strip whose shade is the share of motivated steps of every bin."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    bins = _bins(motivated.astype(float))
    clear = LinearSegmentedColormap.from_list("share", [to_rgba(SHADE, 0), to_rgba(SHADE, 1)])
    axes.imshow(np.nanmean(bins, 1)[None], cmap=clear, vmin=0, vmax=1, aspect="auto", interpolation="none",
                extent=(-0.5, bins.size - 0.5, place + 0.4, place - 0.4))


def _bins(values: np.ndarray) -> np.ndarray:
    """Values in at most `BINS` rows of equal length, the last one filled with NaN."""
    width = -(-len(values) // BINS)
    return np.append(values, np.full(-len(values) % width, np.nan)).reshape(-1, width)


def _window(loss: np.ndarray) -> int:
    return max(1, round(SMOOTHING_SHARE * len(loss)))


def _loss_in_words(loss: np.ndarray) -> str:
    window = _window(loss)
    return f"{loss[:window].mean():.3g} over the first {window}, {loss[-window:].mean():.3g} over the last"


def _share_in_words(run: Run) -> str:
    motivated = run.steps["motivated"]
    found = intervals(motivated)
    if not found:
        return f"none of {len(motivated)} steps is motivated"
    return (f"{motivated.mean():.1%} of {len(motivated)} steps are motivated, in {len(found)} intervals, the longest "
            f"of {max(length for _, length in found)}")


def _tenths_in_words(run: Run) -> str:
    return ", ".join(f"{share:.0%}" for share in tenths(run.steps["motivated"]) if not np.isnan(share))
