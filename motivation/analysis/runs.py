"""Finished runs, read from their folders alone."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# Where and how a run was executed, not what was run: these do not set two runs apart.
EXECUTION_KEYS = ("seed", "evaluate_every", "engine", "tracker")


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
        if model["name"] == "classical":
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
        """Columns ``loss`` (float) and ``motivated`` (bool) of steps.csv, each ``(steps,)``."""
        with open(self.path / "steps.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return {"loss": np.array([float(row["loss"]) for row in rows]),
                "motivated": np.array([row["phase"] == "motivated" for row in rows], dtype=bool)}


def _what(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that sets runs apart; classical training has no monitor and schedule."""
    unused = ("monitor", "schedule") if config["model"]["name"] == "classical" else ()
    return {key: value for key, value in config.items() if key not in (*EXECUTION_KEYS, *unused)}


def read_run(path: Path) -> Run:
    """Read one run folder.

    Raises:
        ValueError: it is no run folder, the run has not finished, or a file in it is damaged.
    """
    for name in ("config.yaml", "steps.csv", "epochs.jsonl"):
        if not (path / name).is_file():
            raise ValueError(f"{path} is no run folder: it has no {name}")
    if not (path / "summary.json").is_file():
        raise ValueError(f"{path} has no summary.json: its run did not finish")
    try:
        run = Run(path, yaml.safe_load((path / "config.yaml").read_text()),
                  json.loads((path / "summary.json").read_text()),
                  [json.loads(line) for line in (path / "epochs.jsonl").read_text().splitlines()])
        # Touch what every comparison needs, so that a foreign file fails here and by name.
        _ = run.networks, run.motivated_share, run.epochs[-1]["base/top1"], run.summary["budget/flops"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a run folder: {type(error).__name__} {error}") from error
    return run


def read_runs(paths: list[Path]) -> list[Run]:
    """Read run folders; a folder of run folders (a sweep) stands for all of them, in order of their names.

    Raises:
        ValueError: a folder that holds no finished run.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such run folder")
        inside = sorted(child for child in path.iterdir() if (child / "config.yaml").is_file())
        found += inside if inside and not (path / "config.yaml").exists() else [path]
    return [read_run(path) for path in found]


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
    parts = [_call(config["monitor"]), _call(config["schedule"])]
    return f"{model['base']} + {model['motivated']}, {' -> '.join(parts)}"


def _call(spec: dict[str, Any]) -> str:
    """A monitor or schedule with its numbers; what else sets runs apart is added where it does."""
    values = [f"{key}={value:g}" for key, value in spec.items()
              if isinstance(value, int | float) and not isinstance(value, bool)]
    return f"{spec['name']}({', '.join(values)})" if values else spec["name"]


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
