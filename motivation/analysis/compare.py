"""Finished runs side by side: accuracy of each network, what it cost, and its test against classical training."""

import numpy as np

from motivation.analysis.runs import ALONE, Run, group_runs
from motivation.analysis.statistics import difference

NONE = "-"


def comparison_table(runs: list[Run]) -> str:
    """A Markdown table, a row a group of repetitions, and under it every difference to the classical control.

    Columns: runs, n, test accuracy in percent of each network (mean +- standard deviation), training FLOPs (2 per
    multiply-add, all runs' mean), share of motivated steps, and the share that noise alone would give.
    """
    groups = group_runs(runs)
    networks = list(dict.fromkeys(name for group in groups.values() for name in group[0].networks.values()))
    header = ["runs", "n", *(f"{name} top-1 %" for name in networks), "training FLOPs", "motivated steps", "null rate"]
    rows = [[label, str(len(group)), *(_accuracy_cell(group, name) for name in networks),
             f"{np.mean([run.summary['budget/flops'] for run in group]):.3g}",
             _percent([run.motivated_share for run in group]), _percent([run.summary["null_rate"] for run in group])]
            for label, group in groups.items()]
    lines = markdown_table([header, *rows])
    if notes := _differences(groups):
        lines += ["", "Difference to the network trained alone, same data and recipe:", *notes]
    elif any(len(group[0].networks) == 2 for group in groups.values()):
        lines += ["", "No control: no run here trains a network of the pair alone with the same data and recipe."]
    return "\n".join(lines)


def accuracies(group: list[Run], network: str) -> dict[int, float]:
    """Final test accuracy of a network in percent, by seed; empty where no run trained it."""
    return {run.summary["seed"]: run.summary[f"{phase}/top1"] for run in group
            for phase, name in run.networks.items() if name == network}


def _differences(groups: dict[str, list[Run]]) -> list[str]:
    notes = []
    for label, group in groups.items():
        for network in group[0].networks.values():
            control = classical_control(groups, group, network)
            if control is None:
                continue
            words = difference_in_words(accuracies(group, network), accuracies(control, network), "points", "+.2f")
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
    return f"{result.mean:{form}} {unit} (n = {len(method)} against {len(control)}; {test})"


def classical_control(groups: dict[str, list[Run]], group: list[Run], network: str) -> list[Run] | None:
    """The classical runs of a network with the same data and recipe as a pair's; None for classical training."""
    config = group[0].config
    if config["model"]["name"] in ALONE:
        return None
    for other in groups.values():
        theirs = other[0].config
        if theirs["model"]["name"] == "classical" and theirs["model"]["network"] == network \
                and all(theirs[key] == config[key] for key in ("data", "recipe")):
            return other
    return None


def _accuracy_cell(group: list[Run], network: str) -> str:
    values = list(accuracies(group, network).values())
    if not values:
        return NONE
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def _percent(shares: list[float | None]) -> str:
    known = [share for share in shares if share is not None]
    return f"{np.mean(known):.1%}" if known else NONE


def markdown_table(rows: list[list[str]], text_columns: int = 1) -> list[str]:
    """Lines of a Markdown table.

    Args:
        rows: cells, the header's first.
        text_columns: so many first columns are flush left, the others flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) if index < text_columns else cell.rjust(width)
                               for index, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
             for row in rows]
    rule = "|" + "|".join("-" * (width + 2) if index < text_columns else "-" * (width + 1) + ":"
                          for index, width in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]
