"""What an accuracy costs: FLOPs and seconds to a target, and the gain that remains at equal training FLOPs."""

from typing import NamedTuple

import numpy as np

from motivation.analysis.compare import accuracies, classical_control, difference_in_words
from motivation.analysis.markdown import NONE, markdown_table, mean_std
from motivation.analysis.runs import group_runs, same_training
from motivation.phase import Phase
from motivation.run_folder.read import Run

EQUAL_FLOPS = 0.02
# How long a recipe trains is what an equal-FLOPs control changes.
LENGTH = ("epochs", "steps")


class Cost(NamedTuple):
    """Training up to the first evaluation at which a network reached a target.

    Attributes:
        flops: cumulative training FLOPs.
        seconds: inside training steps; NaN where the run did not record them.
    """

    flops: float
    seconds: float


def cost_to_target(run: Run, phase: Phase, target: float) -> Cost | None:
    """Training up to the first evaluation with this test accuracy; None where the run never reached it.

    Nothing is interpolated: the resolution is the run's ``evaluate_every``.

    Args:
        run: the run.
        phase: which network.
        target: test accuracy in percent.
    """
    for row in run.epochs:
        accuracy = row[f"{phase}/top1"]
        if accuracy is not None and accuracy >= target:
            return Cost(row["budget/flops"], float(row.get("budget/seconds") or np.nan))
    return None


def target_table(runs: list[Run], target: float) -> str:
    """Markdown: FLOPs and seconds to a target test accuracy, a row a network of every group, tested against classical.

    Means are over the runs that reached it. A group in which some runs did not reach it is not tested: the mean of the
    others is biased.

    Args:
        runs: finished runs.
        target: test accuracy in percent.
    """
    groups = group_runs(runs)
    rows = [["runs", "network", "reached", "training FLOPs", "seconds", "FLOPs against the network alone"]]
    for label, group in groups.items():
        for phase, network in group[0].networks.items():
            costs = _costs(group, phase, target)
            rows.append([label, network, f"{len(costs)} of {len(group)}",
                         mean_std([cost.flops for cost in costs.values()], ".3g"),
                         mean_std([cost.seconds for cost in costs.values()], ".1f"),
                         _against_control(groups, group, phase, target)])
    return "\n".join([f"Cost of {target:g} % test accuracy, up to the first evaluation that reached it:", "",
                      *markdown_table(rows, text_columns=2)])


def _costs(group: list[Run], phase: Phase, target: float) -> dict[int, Cost]:
    costs = {run.summary["seed"]: cost_to_target(run, phase, target) for run in group}
    return {seed: cost for seed, cost in costs.items() if cost is not None}


def _against_control(groups: dict[str, list[Run]], group: list[Run], phase: Phase, target: float) -> str:
    control = classical_control(groups, group, phase)
    if control is None:
        return NONE
    method, reference = _costs(group, phase, target), _costs(control, "base", target)
    if len(method) < len(group) or len(reference) < len(control):
        return "no test: not all runs reached it"
    flops, reference_flops = ({seed: cost.flops for seed, cost in costs.items()} for costs in (method, reference))
    return difference_in_words(flops, reference_flops, "FLOPs", "+.3g")


def retained_gain(runs: list[Run]) -> str:
    """Base accuracy after dual training minus that of the base given the same total training FLOPs, group by group.

    The control of a group is every classical run of the same network, data, recipe except its length, and arithmetic,
    whose ``budget/flops`` is within 2 % of the pair's: of the pair's run with the same seed, or of the group's mean
    where no seed matches. For a group without a control, the length that the control needs is printed.
    """
    lines = []
    for label, group in group_runs(runs).items():
        if len(group[0].networks) == 1:
            continue
        network = group[0].networks["base"]
        control = equal_flops_control(runs, group)
        if control:
            gain = difference_in_words(accuracies(group, "base"), accuracies(control, "base"), "points", "+.2f")
            lines.append(f"- {network} of {label}: {gain}")
        else:
            lines.append(f"- {network} of {label}: no control here; it is {_missing_control(group)}")
    if not lines:
        return ""
    return "\n".join(["Retained gain: the base after dual training minus the base alone at equal training FLOPs "
                      f"(within {EQUAL_FLOPS:.0%}):", *lines])


def equal_flops_control(runs: list[Run], group: list[Run]) -> list[Run]:
    """Classical runs of a pair's base that cost as much as the pair, at most one a seed; see `retained_gain`."""
    spent = {run.summary["seed"]: run.summary["budget/flops"] for run in group}
    mean = float(np.mean(list(spent.values())))
    chosen: dict[int, tuple[float, Run]] = {}
    for run in runs:
        if not same_training(group, "base", [run], LENGTH):
            continue
        seed = run.summary["seed"]
        budget = spent.get(seed, mean)
        distance = abs(run.summary["budget/flops"] - budget) / budget
        if distance <= EQUAL_FLOPS and (seed not in chosen or distance < chosen[seed][0]):
            chosen[seed] = distance, run
    return [run for _, run in chosen.values()]


def _missing_control(group: list[Run]) -> str:
    """The classical run that a group lacks, from its first run's ledger."""
    summary, (base, _) = group[0].summary, group[0].network("base")
    control = f"{base} alone with the same data and recipe"
    forward, images = summary.get("base/forward_flops"), summary.get("budget/images")
    if not forward or not images:
        return control
    batch = images / (summary["steps/base"] + summary["steps/motivated"])
    mean = np.mean([run.summary["budget/flops"] for run in group])
    step = 3 * forward * batch
    steps = max(1, round(mean / step))
    far = abs(steps * step - mean) / mean > EQUAL_FLOPS
    short = f"; of so short a run no whole number of steps is within {EQUAL_FLOPS:.0%}" if far else ""
    return f"{control} but recipe.epochs=null recipe.steps={steps}{short}"
