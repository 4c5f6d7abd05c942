"""Finished runs side by side: accuracy of each network, what it cost, and its test against classical training."""

import numpy as np

from motivation.analysis.markdown import NONE, markdown_table, mean_std, number
from motivation.analysis.nulls import footnotes, row_null
from motivation.analysis.runs import group_runs, same_training
from motivation.analysis.statistics import difference
from motivation.phase import Phase
from motivation.run_folder.identity import in_words
from motivation.run_folder.read import Run


def comparison_table(runs: list[Run]) -> str:
    """A Markdown table, a row a group of repetitions, and under it every difference to the classical control.

    Columns: runs, n, test accuracy in percent of each network (mean +- standard deviation), training FLOPs (2 per
    multiply-add, all runs' mean), share of motivated steps, and the null rate: the share that noise alone would
    give (`motivation.analysis.nulls`).
    """
    groups = group_runs(runs)
    networks = list(dict.fromkeys(name for group in groups.values() for name in group[0].networks.values()))
    rows = [["runs", "n", *(f"{name} top-1 %" for name in networks), "training FLOPs", "motivated steps", "null rate"]]
    nulls = {label: row_null(group) for label, group in groups.items()}
    for label, group in groups.items():
        cells = {name: mean_std(list(accuracies(group, phase).values())) for phase, name in group[0].networks.items()}
        rows.append([label, str(len(group)), *(cells.get(name, NONE) for name in networks),
                     f"{np.mean([run.summary['budget/flops'] for run in group]):.3g}",
                     _percent([run.motivated_share for run in group]),
                     str(nulls[label])])
    lines = markdown_table(rows)
    if notes := footnotes({label: nulls[label] for label in groups}):
        lines += ["", *notes]
    changes = [f"- {label}: {in_words(row)}" for label, group in groups.items()
               for row in group[0].identity.get("history", ())]
    if changes:
        lines += ["", "Resumed with another config:", *changes]
    if notes := _differences(groups):
        lines += ["", "Difference to the network trained alone, same data and recipe:", *notes]
    elif any(len(group[0].networks) == 2 for group in groups.values()):
        lines += ["", "No control: no run here trains a network of the pair alone with the same data and recipe."]
    return "\n".join(lines)


def accuracies(group: list[Run], phase: Phase) -> dict[int, float]:
    """Final test accuracy of a phase's network in percent, by seed."""
    return {run.summary["seed"]: run.summary[f"{phase}/top1"] for run in group}


def _differences(groups: dict[str, list[Run]]) -> list[str]:
    notes = []
    for label, group in groups.items():
        for phase, network in group[0].networks.items():
            if (control := classical_control(groups, group, phase)) is not None:
                words = difference_in_words(accuracies(group, phase), accuracies(control, "base"), "points", "+.2f")
                notes.append(f"- {network} of {label}: {words}")
    return notes


def difference_in_words(method: dict[int, float], control: dict[int, float], unit: str, form: str) -> str:
    """A difference with its unit, both n, and its test.

    Args:
        method: seed -> measure; not empty.
        control: seed -> measure of the control; not empty.
        unit: of the measure.
        form: format of the difference of means.
    """
    result = difference(method, control)
    test = result.test if result.p is None else f"p = {result.p:.3g}, {result.test}"
    interval = f" [{result.interval[0]:{form}}, {result.interval[1]:{form}}]" if result.interval else ""
    return f"{result.mean:{form}} {unit}{interval} (n = {len(method)} against {len(control)}; {test})"


def classical_control(groups: dict[str, list[Run]], group: list[Run], phase: Phase) -> list[Run] | None:
    """The classical runs of a pair's network with the same data, recipe and arithmetic; None for classical training."""
    if len(group[0].networks) == 1:
        return None
    return next((other for other in groups.values() if same_training(group, phase, other)), None)


def _percent(shares: list[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return number(np.mean(known) if known else None, ".1%")
