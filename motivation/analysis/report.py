"""What a page says about finished runs: their comparison, accuracy over FLOPs, fronts, verdicts, motivated intervals.

The tables are those of ``motivation compare``, the verdicts those of ``motivation diagnose``. Tables show every run;
figures and verdicts are limited (`GROUPS`, `RUNS_A_GROUP`), and the page says what they leave out.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from motivation.analysis.budgets import retained_gain
from motivation.analysis.calibration import calibration_table
from motivation.analysis.compare import comparison_table
from motivation.analysis.diagnose import diagnose
from motivation.analysis.figures import PALETTE, Line, accuracy_lines, draw_line
from motivation.analysis.page import WIDTH, Key, Picture, Section, Text, drawing
from motivation.analysis.pareto import COSTS, MARKERS, Point, draw_front, front_of, mean_points, network_points
from motivation.analysis.runs import group_runs
from motivation.analysis.timeline import timeline
from motivation.run_folder.read import Run

# Figures and verdicts are of so many groups of repetitions, the first ones; intervals and verdicts of so many runs of
# each. A figure of more groups than GROUPS_A_FIGURE has colours that cannot be told apart.
GROUPS, GROUPS_A_FIGURE, RUNS_A_GROUP = 12, 6, 3
MARKS = {"alone": "◆", "base": "●", "motivated": "■"}
ROLES = {"alone": "network trained alone", "base": "base of a pair", "motivated": "motivated network of a pair"}
GREY = "#8a8f96"


def report_runs(runs: list[Run]) -> list[Section]:
    """The sections of a page about finished runs.

    Args:
        runs: from `motivation.analysis.runs.read_runs`.
    """
    groups = group_runs(runs)
    pairs = {label: group for label, group in groups.items() if len(group[0].networks) > 1}
    sections = [Section("Comparison", _comparison(runs)),
                Section("Accuracy over training FLOPs", _accuracy(groups)),
                Section("Accuracy against cost", cost_pictures(network_points(runs)))]
    if pairs:
        shown = _first(pairs, GROUPS)
        with drawing():
            timelines = [timeline(label, group[:RUNS_A_GROUP]) for label, group in shown.items()]
        left_out = _left_out("figures and verdicts", shown, pairs, RUNS_A_GROUP)
        sections += [Section("Progress or noise?", [*left_out, _verdicts(shown)]),
                     Section("Motivated intervals", [*left_out, *timelines])]
    return sections


def _comparison(runs: list[Run]) -> list[Text]:
    texts = [Text(comparison_table(runs), ["Accuracy and cost"]), Text(retained_gain(runs))]
    calibration = calibration_table(runs)
    return [*texts, Text(calibration, ["Calibration"] if "\n|" in calibration else [])]


def _accuracy(groups: Mapping[str, list[Run]]) -> list[Text | Picture]:
    shown = _first(groups, GROUPS)
    labels = list(shown)
    parts = []
    for start in range(0, len(labels), GROUPS_A_FIGURE):
        chunk = {label: shown[label] for label in labels[start:start + GROUPS_A_FIGURE]}
        which = f", groups {start + 1} to {start + len(chunk)}" if len(labels) > GROUPS_A_FIGURE else ""
        parts.append((f"Test accuracy over cumulative training FLOPs{which}", accuracy_lines(chunk)))
    return [*_left_out("figures", shown, groups), *line_pictures(parts),
            Text("A line is the mean over seeds, its band goes from the lowest seed to the highest.")]


def line_pictures(parts: Sequence[tuple[str, list[Line]]]) -> list[Picture]:
    """Figures of lines with bands, all of one scale.

    Args:
        parts: title and lines of each; what has no line is left out.
    """
    from matplotlib.figure import Figure

    pictures, panels = [], []
    with drawing():
        for title, lines in parts:
            if not lines:
                continue
            figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
            axes = figure.subplots()
            for line in lines:
                draw_line(axes, line)
            axes.set(xlabel="training FLOPs", ylabel="test accuracy (%)")
            axes.grid(alpha=0.3)
            panels.append(axes)
            pictures.append(Picture(figure, title, f"{title}. " + " ".join(map(_line_in_words, lines)),
                                    [Key(f"{line.name}: {_range(line.accuracy[:, -1])}", line.colour,
                                         "line" if line.style == "-" else "dashes") for line in lines]))
        for which in ("xlim", "ylim"):
            limits = [getattr(axes, f"get_{which}")() for axes in panels]
            for axes in panels:
                axes.set(**{which: (min(low for low, _ in limits), max(high for _, high in limits))})
    return pictures


def _line_in_words(line: Line) -> str:
    first, last = (f"{line.accuracy[:, end].mean():.2f} % at {line.flops[end]:.3g} FLOPs" for end in (0, -1))
    way = last if len(line.flops) == 1 else f"from {first} to {last}"
    return f"{line.name}: {way} (n = {len(line.accuracy)})."


def _range(accuracy: np.ndarray) -> str:
    """Mean accuracy of a network, and where there are several seeds, their range and number."""
    if len(accuracy) == 1:
        return f"{accuracy[0]:.2f} % (n = 1)"
    return f"{np.mean(accuracy):.2f} % ({np.min(accuracy):.2f} to {np.max(accuracy):.2f}, n = {len(accuracy)})"


def cost_pictures(points: list[Point]) -> list[Picture]:
    """Test accuracy against training FLOPs and against inference FLOPs, with the front of the means.

    Args:
        points: every network of every run; of those without a cost nothing is shown.
    """
    with drawing():
        return [_cost_picture([point for point in points if not np.isnan(getattr(point, cost))], cost)
                for cost in COSTS if not np.isnan([getattr(point, cost) for point in points]).all()]


def _cost_picture(points: list[Point], cost: str) -> Picture:
    from matplotlib.figure import Figure

    seeds: dict[tuple[str, ...], list[float]] = {}
    for point in points:
        seeds.setdefault(point[:3], []).append(point.accuracy)
    means = mean_points(points)
    labels = list(dict.fromkeys(point.label for point in means))
    best = front_of(means, cost)
    few = len(labels) <= GROUPS_A_FIGURE
    colours = [PALETTE[labels.index(point.label)] if few else PALETTE[0] if point in best else GREY for point in means]
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.subplots()
    for role, marker in MARKERS.items():
        for colour in dict.fromkeys(colours):
            mine = [point for point, own in zip(means, colours, strict=True) if (point.role, own) == (role, colour)]
            places = [getattr(point, cost) for point in mine]
            axes.vlines(places, *([pick(seeds[point[:3]]) for point in mine] for pick in (min, max)), color=colour,
                        alpha=0.5)
            axes.plot(places, [point.accuracy for point in mine], marker, color=colour, markersize=7,
                      zorder=3 if colour != GREY else 2)
    draw_front(axes, best, cost)
    for place, point in enumerate(best, 1):
        axes.annotate(str(place), (getattr(point, cost), point.accuracy), (0, 7), textcoords="offset points",
                      ha="center", weight="bold")
    axes.margins(0.08, 0.12)
    axes.set(xlabel=COSTS[cost], ylabel="test accuracy (%)")
    axes.grid(alpha=0.3)
    texts = {point: f"{point.name}: {_range(np.array(seeds[point[:3]]))} at {getattr(point, cost):.3g} FLOPs"
             for point in means}
    texts |= {point: f"{place}. {texts[point]}" for place, point in enumerate(best, 1)}
    below = [point for point in means if point not in best]
    title = f"Test accuracy against {COSTS[cost]}"
    alternative = f"{title}. On the front of the means, by rising cost: {'; '.join(texts[point] for point in best)}."
    if below and few:
        alternative += f" Below it: {'; '.join(texts[point] for point in below)}."
    elif below:
        alternative += (f" Below it: {len(below)} other networks, from {min(point.accuracy for point in below):.2f} to "
                        f"{max(point.accuracy for point in below):.2f} %.")
    keys = [Key(texts[point], colours[means.index(point)], MARKS[point.role])
            for point in (*best, *(below if few else ()))]
    keys += [Key(f"below the front: {ROLES[role]}", GREY, mark) for role, mark in MARKS.items()
             if not few and any(point.role == role for point in below)]
    return Picture(figure, title, alternative, [
        *keys, Key("front of the means, numbered by rising cost; bars: lowest to highest seed", "#8a8f96", "dashes")])


def _verdicts(groups: Mapping[str, list[Run]]) -> Text:
    lines = ["Every run's share of motivated steps against the share that its monitor and schedule would have given "
             "had nothing been learned, as motivation diagnose judges it."]
    for label, group in groups.items():
        lines += ["", f"### {label}", "",
                  *(f"- Seed {run.summary['seed']}. {diagnose(run).verdict}" for run in group[:RUNS_A_GROUP])]
    return Text("\n".join(lines))


def _first(groups: Mapping[str, list[Run]], count: int) -> dict[str, list[Run]]:
    return {label: groups[label] for label in list(groups)[:count]}


def _left_out(what: str, shown: Mapping[str, list[Run]], groups: Mapping[str, list[Run]],
              runs: int | None = None) -> list[Text]:
    """What a section leaves out, in a sentence; nothing where it leaves out nothing."""
    said = []
    if len(shown) < len(groups):
        said.append(f"of the first {len(shown)} of {len(groups)} groups of runs")
    if runs and (most := max(map(len, shown.values()))) > runs:
        said.append(f"of the first {runs} runs of a group, where it has more (up to {most})")
    return [Text(f"Shown are {what} {' and '.join(said)}; the tables above have all.")] if said else []
