"""Finished runs in groups of repetitions, each group with a label that tells it from the others."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motivation.run_folder.read import ALONE, Run, finished_runs, read_run

logger = logging.getLogger(__name__)
# Where and how a run was executed, not what was run: runs that differ in these alone are repetitions.
EXECUTION_KEYS = ("seed", "evaluate_every", "tracker", "checkpoint")
READING_KEYS = ("download", "workers")
# What of the engine changes the arithmetic, and with it what was run; the default where a config has no such key.
ARITHMETIC = {"precision": "float32", "accumulation": 1}
# Defaults of monitors and schedules that a label leaves out.
DEFAULTS = (("lag", 0), ("epoch_edge", "contract"), ("k_off", None), ("pace", "spread"), ("reference", "last"),
            ("reverse", False))


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run folders, sweeps and globs, see `finished_runs`; of runs equal in all and seed, the first.

    A repetition of one seed is no further observation, and would inflate n.
    """
    kept: dict[tuple[str, int], Run] = {}
    for run in map(read_run, finished_runs(paths)):
        first = kept.setdefault((identity(run.config), run.summary["seed"]), run)
        if first is not run:
            logger.warning("%s is left out: the same run as %s, seed %d", run.path, first.path, run.summary["seed"])
    return list(kept.values())


def identity(config: dict[str, Any]) -> str:
    """What was run, without seed and execution: runs that share it are repetitions of one another."""
    return json.dumps(_identifying(config), sort_keys=True)


def _identifying(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that tells runs apart; training of one network has no monitor and schedule."""
    unused = ("monitor", "schedule") if config["model"]["name"] in ALONE else ()
    kept = {key: value for key, value in config.items() if key not in (*EXECUTION_KEYS, "engine", *unused)}
    kept["data"] = {key: value for key, value in config["data"].items() if key not in READING_KEYS}
    return kept | {"engine": arithmetic(config)}


def arithmetic(config: dict[str, Any]) -> dict[str, Any]:
    """What of a config's engine changes results."""
    engine = config.get("engine") or {}
    return {key: engine.get(key, default) for key, default in ARITHMETIC.items()}


def group_runs(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that are repetitions of one another, by a label that tells each group from the others."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(identity(run.config), []).append(run)
    described: dict[str, list[list[Run]]] = {}
    for group in groups.values():
        described.setdefault(describe(group[0].config), []).append(group)
    labels = {id(group): label + _differences(group[0], [twin[0] for twin in alike])
              for label, alike in described.items() for group in alike}
    return {labels[id(group)]: group for group in groups.values()}


def describe(config: dict[str, Any]) -> str:
    """What a config trains, in words."""
    model = config["model"]
    if model["name"] == "classical":
        return f"{model['network']} alone"
    if model["name"] == "transfer":
        return f"{model['network']} from {Path(model['run']).name}"
    return f"{model['base']} + {model['motivated']}, {_call(config['monitor'])} -> {_call(config['schedule'])}"


def _call(spec: dict[str, Any]) -> str:
    """A monitor or schedule with what is inside it, its numbers, and what else is not as by default."""
    inside = [_call(spec[key]) for key in ("monitor", "schedule") if key in spec]
    inside += [f"{_call(part)} at {level:g}" for part, level in spec.get("pairs", ())]
    for key, value in spec.items():
        if key in ("name", "monitor", "schedule", "pairs") or (key, value) in DEFAULTS:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        shown = f"{value:g}" if number else "null" if value is None else Path(str(value)).name
        inside.append(f"{key}={shown}")
    return f"{spec['name']}({', '.join(inside)})" if inside else spec["name"]


def _differences(run: Run, twins: list[Run]) -> str:
    """The values by which a group differs from others of the same description."""
    if len(twins) == 1:
        return ""
    flat = [_flat(_identifying(twin.config)) for twin in twins]
    mine = _flat(_identifying(run.config))
    keys = sorted({key for other in flat for key in other.keys() | mine.keys() if other.get(key) != mine.get(key)})
    return " [" + ", ".join(f"{key}={mine.get(key)}" for key in keys) + "]"


def _flat(config: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {f"{where}{key}": value}
    return flat
