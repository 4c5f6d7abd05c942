"""Finished runs in groups of repetitions, each group with a label that tells it from the others."""

import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motivation.phase import Phase
from motivation.run_folder.identity import identity, in_words, without_seed
from motivation.run_folder.read import Run, finished_runs, read_run

logger = logging.getLogger(__name__)
ROLLBACK = ("rollbacks", "rollback_lr")
# Defaults of monitors, schedules and levers that a label leaves out.
DEFAULTS = (("lag", 0), ("epoch_edge", "contract"), ("k_off", None), ("pace", "spread"), ("reference", "last"),
            ("reverse", False), ("run", None), ("of", "base"), ("forget", 0))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run folders, sweeps and globs, see `finished_runs`; of runs equal in all and seed, the first.

    A repetition of one seed is no further observation, and would inflate n.
    """
    kept: dict[tuple[str, int], Run] = {}
    for run in map(read_run, finished_runs(paths)):
        first = kept.setdefault((repetition(run), run.summary["seed"]), run)
        if first is not run:
            logger.warning("%s is left out: the same run as %s, seed %d", run.path, first.path, run.summary["seed"])
    return list(kept.values())


def repetition(run: Run) -> str:
    """What runs share that are repetitions of one another: their identity without the seed."""
    return json.dumps(without_seed(run.identity), sort_keys=True)


def same_training(pair: list[Run], phase: Phase, alone: list[Run], apart: Sequence[str] = ()) -> bool:
    """Whether classical runs are of a pair's network, with the same data, recipe and arithmetic.

    Args:
        pair: repetitions of a pair.
        phase: which of its networks.
        alone: repetitions of classical training.
        apart: keys of the recipe in which they may differ.
    """
    if alone[0].config["model"]["name"] != "classical":
        return False
    # What follows a NaN is no part of runs that had none.
    if not any("rollback" in row for run in (*pair, *alone) for row in run.history):
        apart = (*apart, *ROLLBACK)
    return _training(pair[0], phase, tuple(apart)) == _training(alone[0], "base", tuple(apart))


# Every pair is compared with every classical run.
@functools.lru_cache(maxsize=10_000)
def _training(run: Run, phase: Phase, apart: tuple[str, ...]) -> str:
    """What trains one of a run's networks, as if alone, without the seed and some keys of the recipe."""
    network, options = run.network(phase)
    model = {"name": "classical", "network": network, "options": options}
    what = without_seed(identity(run.config | {"model": model}, run.fingerprint, run.history))
    what["recipe"] = {key: value for key, value in what["recipe"].items() if key not in apart}
    return json.dumps(what, sort_keys=True)


def group_runs(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that are repetitions of one another, by a label that tells each group from the others."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repetition(run), []).append(run)
    described: dict[str, list[list[Run]]] = {}
    for group in groups.values():
        described.setdefault(describe(group[0].config), []).append(group)
    labels = {id(group): label + differences for label, alike in described.items()
              for group, differences in zip(alike, _differences([group[0] for group in alike]), strict=True)}
    return {labels[id(group)]: group for group in groups.values()}


def describe(config: dict[str, Any]) -> str:
    """What a config trains, in words."""
    model = config["model"]
    lever = f", {_call(config['lever'])}" if config.get("lever") else ""
    if model["name"] == "classical":
        return f"{model['network']} alone{lever}"
    if model["name"] == "transfer":
        return f"{model['network']} from {Path(model['run']).name}{lever}"
    return f"{model['base']} + {model['motivated']}, {_call(config['monitor'])} -> {_call(config['schedule'])}{lever}"


def _call(spec: dict[str, Any]) -> str:
    """A monitor, schedule or lever with what is inside it, its numbers, and what else is not as by default."""
    inside = [_call(spec[key]) for key in ("monitor", "schedule") if key in spec]
    inside += [f"{_call(part)} at {level:g}" for part, level in spec.get("pairs", ())]
    for key, value in spec.items():
        if key in ("name", "monitor", "schedule", "pairs") or (key, value) in DEFAULTS:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        shown = f"{value:g}" if number else "null" if value is None else Path(str(value)).name
        inside.append(f"{key}={shown}")
    return f"{spec['name']}({', '.join(inside)})" if inside else spec["name"]


def _differences(twins: list[Run]) -> list[str]:
    """The values by which each of some groups of the same description, a run of each, differs from the others."""
    flat = [_flat(without_seed(twin.identity)) for twin in twins]
    keys = sorted(key for key in set().union(*flat) if any(one.get(key) != flat[0].get(key) for one in flat))
    return [" [" + ", ".join(_shown(key, mine.get(key)) for key in keys) + "]" if keys else "" for mine in flat]


def _shown(key: str, value: Any) -> str:
    if key == "history":
        return "; ".join(map(in_words, value)) if value else "not resumed with another config"
    return f"{key}={value[:8]}" if key == "data.fingerprint" and value else f"{key}={value}"


def _flat(config: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {f"{where}{key}": value}
    return flat
