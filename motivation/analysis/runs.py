"""Finished runs, read from their folders alone."""

import csv
import glob
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from motivation.run_folder.config import read_config

# Where and how a run was executed, not what was run: these do not set two runs apart.
EXECUTION_KEYS = ("seed", "evaluate_every", "tracker", "checkpoint")
READING_KEYS = ("download", "workers")
# What of the engine changes the arithmetic, and with it what was run; the default where a config has no such key.
ARITHMETIC = {"precision": "float32", "accumulation": 1}
# Models of one network, that no monitor and no schedule touches.
ALONE = ("classical", "transfer")
# Defaults of monitors and schedules that a label leaves out.
DEFAULTS = (("lag", 0), ("epoch_edge", "contract"), ("k_off", None), ("pace", "spread"), ("reference", "last"),
            ("reverse", False))
CONFIG_GROUPS = ("model", "data", "recipe")


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        path: its folder.
        config: the resolved config.
        summary: summary.json.
        epochs: rows of epochs.jsonl.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    epochs: list[dict[str, Any]]

    @property
    def networks(self) -> dict[str, str]:
        """Name of the network that trained, by phase: one for classical training, two for a pair."""
        model = self.config["model"]
        if model["name"] in ALONE:
            return {"base": model["network"]}
        return {"base": model["base"], "motivated": model["motivated"]}

    @property
    def motivated_share(self) -> float | None:
        """Share of motivated steps; None for classical training."""
        if len(self.networks) == 1:
            return None
        steps = self.summary["steps/base"], self.summary["steps/motivated"]
        return steps[1] / sum(steps)

    @property
    def identity(self) -> str:
        """What was run, without seed and execution: runs that share it are repetitions of one another."""
        return json.dumps(_what(self.config), sort_keys=True)

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Columns of steps.csv, see `read_steps`."""
        return read_steps(self.path)


def read_steps(folder: Path) -> dict[str, np.ndarray]:
    """Columns ``loss`` (float), ``motivated`` (bool) and ``epoch`` (int) of steps.csv, each ``(steps,)``."""
    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and None in rows[-1].values():
        raise ValueError(f"steps.csv: its last row, {len(rows)}, is cut short")
    return {"loss": np.array([float(row["loss"]) for row in rows]),
            "motivated": np.array([row["phase"] == "motivated" for row in rows], dtype=bool),
            "epoch": np.array([int(row["epoch"]) for row in rows], dtype=int)}


def read_signals(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps ``(n,)`` and what the monitor read in them ``(n, numbers)``, from signals.csv; None without one."""
    path = folder / "signals.csv"
    if not path.is_file():
        return None
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    return table[:, 0].astype(int), table[:, 1:]


def _what(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that sets runs apart; classical training has no monitor and schedule."""
    unused = ("monitor", "schedule") if config["model"]["name"] in ALONE else ()
    what = {key: value for key, value in config.items() if key not in (*EXECUTION_KEYS, "engine", *unused)}
    what["data"] = {key: value for key, value in config["data"].items() if key not in READING_KEYS}
    engine = config.get("engine") or {}
    return what | {"engine": {key: engine.get(key, default) for key, default in ARITHMETIC.items()}}


def read_run(path: Path) -> Run:
    """Read one run folder.

    Raises:
        ValueError: it is no run folder, the run has not finished, or a file in it is damaged.
    """
    def rows() -> list[dict[str, Any]]:
        return [json.loads(line) for line in (path / "epochs.jsonl").read_text().splitlines()]

    return _read(path, ("config.yaml", "steps.csv", "epochs.jsonl"), rows, _check_rows)


def read_figures(path: Path) -> Run:
    """Read config and summary of a finished run, all that a table shows; ``epochs`` is empty.

    Raises:
        ValueError: as for `read_run`, of these two files.
    """
    return _read(path, ("config.yaml",), list, lambda run: None)


def _read(path: Path, needed: tuple[str, ...], rows: Callable[[], list], check: Callable[[Run], None]) -> Run:
    for name in needed:
        if not (path / name).is_file():
            raise ValueError(f"{path} is no run folder: it has no {name}")
    if not (path / "summary.json").is_file():
        raise ValueError(f"{path} has no summary.json: its run did not finish")
    try:
        run = Run(path, read_config(path),
                  json.loads((path / "summary.json").read_text()), rows())
        _check_figures(run)
        check(run)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, yaml.YAMLError,
            csv.Error) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a run folder: {reason}") from error
    return run


def _check_figures(run: Run) -> None:
    """Raise where config or summary lack what a comparison reads, or have another type: a foreign file fails by name.
    """
    for group in CONFIG_GROUPS if len(run.networks) == 1 else (*CONFIG_GROUPS, "monitor", "schedule"):
        if not isinstance(run.config[group], dict):
            raise ValueError(f"config.yaml: {group} is no mapping")
    describe(run.config)
    _check_row(run, "summary.json", run.summary)
    if not isinstance(run.summary["null_rate"], int | float | None) or not isinstance(run.summary["seed"], int):
        raise ValueError("summary.json: null_rate and seed must be numbers")
    if not run.summary["steps/base"] + run.summary["steps/motivated"]:
        raise ValueError("summary.json says 0 steps")


def _check_rows(run: Run) -> None:
    """Raise where epochs.jsonl or steps.csv are not what the summary says."""
    for row in run.epochs:
        _check_row(run, "epochs.jsonl", row)
    if not run.epochs:
        raise ValueError("epochs.jsonl is empty")
    counted = run.summary["steps/base"] + run.summary["steps/motivated"]
    if len(run.steps["loss"]) != counted:
        raise ValueError(f"steps.csv has {len(run.steps['loss'])} rows, summary.json says {counted} steps")


def _check_row(run: Run, name: str, row: dict[str, Any]) -> None:
    for key in ("budget/flops", "steps/base", "steps/motivated"):
        if not isinstance(row[key], int | float):
            raise ValueError(f"{name}: {key} is {row[key]!r}, no number")
    for phase in run.networks:
        accuracy = row[f"{phase}/top1"]
        if not isinstance(accuracy, int | float) and (accuracy is not None or name == "summary.json"):
            raise ValueError(f"{name}: {phase}/top1 is {accuracy!r}, no number")


def read_runs(paths: list[Path]) -> list[Run]:
    """Read run folders; a folder of run folders (a sweep) stands for all of them, in order of their names.

    Args:
        paths: run folders, folders of them, or globs (``runs/*/3``); what a glob finds beside run folders is passed by.

    Raises:
        ValueError: a folder that holds no finished run.
    """
    found: dict[Path, Path] = {}
    for path in [match for pattern in paths for match in _expanded(pattern)]:
        if not path.is_dir():
            raise ValueError(f"{path}: no such run folder")
        inside = sorted((child for child in path.iterdir() if (child / "config.yaml").is_file()), key=_number_or_name)
        for run in inside if inside and not (path / "config.yaml").exists() else [path]:
            if run != path and not (run / "summary.json").is_file():
                print(f"motivation: {run} is left out: its run did not finish", file=sys.stderr)
            else:
                found.setdefault(run.resolve(), run)
    if not found:
        raise ValueError(f"no finished run in {', '.join(map(str, paths))}")
    return _without_twins([read_run(path) for path in found.values()])


def _expanded(path: Path) -> list[Path]:
    """The finished runs and sweeps that a glob finds; anything but a glob as it is."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matches = sorted((Path(match) for match in glob.glob(str(path), recursive=True)), key=_number_or_name)
    kept = []
    for match in matches:
        if (match / "config.yaml").is_file() and not (match / "summary.json").is_file():
            print(f"motivation: {match} is left out: its run did not finish", file=sys.stderr)
        elif (match / "config.yaml").is_file() or any(match.glob("*/config.yaml")):
            kept.append(match)
    if not kept:
        raise ValueError(f"{path}: no run folder matches")
    return kept


def _number_or_name(path: Path) -> tuple:
    """Jobs of a sweep in the order of their numbers."""
    return (0, int(path.name), "") if path.name.isdecimal() else (1, 0, path.name)


def _without_twins(runs: list[Run]) -> list[Run]:
    """One run a seed: a repetition of one seed is no further observation, and would inflate n."""
    kept: dict[tuple[str, int], Run] = {}
    for run in runs:
        first = kept.setdefault((run.identity, run.summary["seed"]), run)
        if first is not run:
            print(f"motivation: {run.path} is left out: the same run as {first.path}, seed {run.summary['seed']}",
                  file=sys.stderr)
    return list(kept.values())


def group_runs(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs that are repetitions of one another, under a label that sets each group apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.identity, []).append(run)
    labels = [describe(group[0].config) for group in groups.values()]
    labelled = {}
    for label, (_, group) in zip(labels, groups.items(), strict=True):
        twins = [other[0] for name, other in zip(labels, groups.values(), strict=True) if name == label]
        labelled[label + _differences(group[0], twins)] = group
    return labelled


def describe(config: dict[str, Any]) -> str:
    """What a config trains, in words."""
    model = config["model"]
    if model["name"] == "classical":
        return f"{model['network']} alone"
    if model["name"] == "transfer":
        return f"{model['network']} from {Path(model['run']).name}"
    parts = [_call(config["monitor"]), _call(config["schedule"])]
    return f"{model['base']} + {model['motivated']}, {' -> '.join(parts)}"


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
    flat = [_flat(_what(twin.config)) for twin in twins]
    mine = _flat(_what(run.config))
    keys = sorted({key for other in flat for key in other.keys() | mine.keys() if other.get(key) != mine.get(key)})
    return " [" + ", ".join(f"{key}={mine.get(key)}" for key in keys) + "]"


def _flat(config: dict[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{where}{key}.")
        else:
            flat[f"{where}{key}"] = value
    return flat
