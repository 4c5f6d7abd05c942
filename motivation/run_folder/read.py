"""Reads the files of a run folder, which somebody else may have written: every error names the folder or the file."""

import csv
import glob
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from motivation.phase import PHASES, Phase
from motivation.run_folder.config import read_config
from motivation.run_folder.identity import ALONE, climbs, digest, identity, named_runs, without_seed

logger = logging.getLogger(__name__)
CONFIG_GROUPS = ("model", "data", "recipe")
# What numpy and zipfile raise for an .npz that is damaged, or holds objects.
DAMAGED_ARRAYS = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile)


class StepRow(NamedTuple):
    """A row of steps.csv."""

    step: int
    epoch: int
    phase: Phase
    loss: float
    score: float
    lr: float
    flops: int
    rung: int | None = None


@dataclass(frozen=True, eq=False)
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
    def networks(self) -> dict[Phase, str]:
        """Name of each network by phase, one for classical training; ``NAME (base)`` where a pair is of one name."""
        model = self.config["model"]
        if model["name"] in ALONE:
            return {"base": model["network"]}
        if model["base"] == model["motivated"]:
            return {phase: f"{model[phase]} ({phase})" for phase in PHASES}
        return {phase: model[phase] for phase in PHASES}

    def network(self, phase: Phase) -> tuple[str, dict[str, Any]]:
        """Name and options of a network: runs that train the same one have both in common."""
        model = self.config["model"]
        role = "network" if model["name"] in ALONE else phase
        return model[role], {**(model.get("options") or {}), **(model.get(f"{role}_options") or {})}

    @property
    def expands(self) -> bool:
        """Whether a monitor and a schedule decided something: which network trains, or when a rung is climbed."""
        return len(self.networks) > 1 or climbs(self.config)

    @property
    def motivated_share(self) -> float | None:
        """Share of motivated steps; None for classical training, unless a lever's rungs are climbed."""
        if not self.expands:
            return None
        steps = self.summary["steps/base"], self.summary["steps/motivated"]
        return steps[1] / sum(steps)

    @cached_property
    def fingerprint(self) -> str | None:
        """Fingerprint of its data, from data.json; None where that is missing."""
        return read_fingerprint(self.path)

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Rows of history.jsonl: changes of the config on resume, and rollbacks."""
        return read_history(self.path)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What set its result, see `motivation.run_folder.identity`."""
        return identity(self.config, self.fingerprint, self.history, read_sources(self.path))

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Columns of steps.csv, see `read_steps`."""
        return read_steps(self.path)


def read_fingerprint(folder: Path) -> str | None:
    """Fingerprint of a run's data, from data.json; None where that is missing or damaged."""
    try:
        fingerprint = json.loads((folder / "data.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return fingerprint if isinstance(fingerprint, str) else None


def read_sources(folder: Path) -> dict[str, str]:
    """Digests of the runs that a run's config names, from data.json, see `identify_sources`."""
    try:
        sources = json.loads((folder / "data.json").read_text())["sources"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return sources if isinstance(sources, dict) else {}


def identify_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Digest of the identity, but for the seed, of each run that a config names, by dotted key; those that can be read.

    But for the seed: repetitions whose sources are repetitions are repetitions.
    """
    found = {}
    for key, path in named_runs(config).items():
        folder = Path(path)
        try:
            what = identity(read_config(folder), read_fingerprint(folder), read_history(folder), read_sources(folder))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        found[key] = digest(without_seed(what))
    return found


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Rows of history.jsonl, see `motivation.run_folder.identity`; none where it is missing.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / "history.jsonl"
    if not path.is_file():
        return []
    try:
        rows = [json.loads(row) for row in path.read_text().splitlines()]
        for row in rows:
            if not isinstance(row["step"], int):
                raise ValueError(f"step is {row['step']!r}, no number")
            for before_and_after in row.get("changed", {}).values():
                _, _ = before_and_after
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from error
    return rows


def read_steps(folder: Path) -> dict[str, np.ndarray]:
    """Columns ``loss`` (float), ``motivated`` (bool), ``epoch`` and, where there is one, ``rung`` (int) of steps.csv,
    each ``(steps,)``.
    """
    with open(folder / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and None in rows[-1].values():
        raise ValueError(f"steps.csv: its last row, {len(rows)}, is cut short")
    return {"loss": np.array([float(row["loss"]) for row in rows]),
            "motivated": np.array([row["phase"] == "motivated" for row in rows], dtype=bool),
            "epoch": np.array([int(row["epoch"]) for row in rows], dtype=int),
            **({"rung": np.array([int(row["rung"]) for row in rows], dtype=int)} if rows and "rung" in rows[0] else {})}


def read_step_rows(folder: Path) -> Iterator[StepRow]:
    """Rows of steps.csv, one at a time; a last one that is cut short is left out."""
    with open(folder / "steps.csv", newline="") as file:
        next(file, None)
        for line in file:
            if line.endswith("\n"):
                step, epoch, phase, loss, score, lr, flops, *rung = line.rstrip().split(",")
                yield StepRow(int(step), int(epoch), phase, float(loss), float(score), float(lr), int(flops),
                              *map(int, rung))


def read_readings(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the monitor read: steps ``(n,)`` and readings ``(n, numbers)``, from signals.csv or the losses of steps.csv.
    """
    path = folder / "signals.csv"
    if not path.is_file():
        losses = read_steps(folder)["loss"]
        return np.arange(len(losses)), losses[:, None]
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error
    return table[:, 0].astype(int), table[:, 1:]


def read_predictions(run: Run) -> dict[str, np.ndarray]:
    """Labels and each network's probabilities from predictions.npz: ``labels (N,)``, ``base``, ``motivated``.

    Of tokens the labels are ``(N, T)`` and the probabilities ``(N, classes, T)``.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = run.path / "predictions.npz"
    if not path.is_file():
        raise ValueError(f"{run.path} has no predictions.npz")
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("labels", *run.networks)}
    except DAMAGED_ARRAYS as error:
        raise ValueError(f"{path} cannot be read: {_one_line(error)[:200]}") from error
    labels = arrays["labels"]
    for phase in run.networks:
        probabilities = arrays[phase]
        if probabilities.ndim not in (2, 3) or labels.shape != probabilities.shape[:1] + probabilities.shape[2:] \
                or not len(labels) or not np.isfinite(probabilities).all():
            raise ValueError(f"{path}: {phase} is {probabilities.shape} and labels {labels.shape}; expected finite "
                             "(N, classes) and (N,), or of tokens (N, classes, T) and (N, T)")
    return arrays


def read_run(path: Path) -> Run:
    """Read one run folder.

    Raises:
        ValueError: it is no run folder, the run has not finished, or a file in it is damaged.
    """
    return _read(path, whole=True)


def read_figures(path: Path) -> Run:
    """Read config and summary of a finished run, all that a table shows; ``epochs`` is empty.

    Raises:
        ValueError: as for `read_run`, of these two files.
    """
    return _read(path, whole=False)


def _read(path: Path, whole: bool) -> Run:
    for name in ("config.yaml", "steps.csv", "epochs.jsonl") if whole else ("config.yaml",):
        if not (path / name).is_file():
            raise ValueError(f"{path} is no run folder: it has no {name}")
    if not (path / "summary.json").is_file():
        raise ValueError(f"{path} has no summary.json: its run did not finish")
    try:
        rows = (path / "epochs.jsonl").read_text().splitlines() if whole else ()
        run = Run(path, read_config(path), json.loads((path / "summary.json").read_text()),
                  [json.loads(row) for row in rows])
        _check_figures(run)
        if whole:
            _check_rows(run)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, csv.Error) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else _one_line(error)
        raise ValueError(f"{path} cannot be read as a run folder: {reason.removeprefix(f'{path}/')}") from error
    return run


def _check_figures(run: Run) -> None:
    """Raise where config or summary lack what a comparison reads, or it has another type."""
    for group in CONFIG_GROUPS:
        if not isinstance(run.config[group], dict):
            raise ValueError(f"config.yaml: {group} is no mapping")
    for phase in run.networks:
        name, _ = run.network(phase)
        if not isinstance(name, str):
            raise ValueError(f"config.yaml: model: {name!r} is no name of a network")
    if run.config["model"]["name"] == "transfer":
        Path(run.config["model"]["run"])
    for group in ("monitor", "schedule") if run.expands else ():
        _check_spec(run.config[group], group)
    _check_row(run, "summary.json", run.summary)
    if not isinstance(run.summary["null_rate"], int | float | None) or not isinstance(run.summary["seed"], int):
        raise ValueError("summary.json: null_rate and seed must be numbers")
    if not isinstance(run.summary.get("null_rate_independent"), int | float | None):
        raise ValueError("summary.json: null_rate_independent must be a number")
    if not run.summary["steps/base"] + run.summary["steps/motivated"]:
        raise ValueError("summary.json says 0 steps")


def _check_spec(spec: Any, where: str) -> None:
    """Raise where a monitor or schedule, or one inside it, is no mapping with a name."""
    if not isinstance(spec, dict) or not isinstance(spec["name"], str):
        raise ValueError(f"config.yaml: {where} is no mapping with a name")
    for key in {"monitor", "schedule"} & spec.keys():
        _check_spec(spec[key], f"{where}.{key}")
    for part, level in spec.get("pairs", ()):
        _check_spec(part, f"{where}.pairs")
        if not isinstance(level, int | float):
            raise ValueError(f"config.yaml: {where}.pairs: {level!r} is no number")


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


def finished_runs(paths: Sequence[Path]) -> list[Path]:
    """Run folders among these paths, each once; a sweep gives its finished runs, in order of their numbers.

    Args:
        paths: run folders, folders of them, or globs (``runs/*/3``), of which what is no run folder is ignored.

    Raises:
        ValueError: a path that is no folder, a glob without a match, or no finished run at all.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        is_glob = glob.has_magic(str(path)) and not path.exists()
        if not is_glob and not path.is_dir():
            raise ValueError(f"{path}: no such run folder")
        matches = map(Path, glob.glob(str(path), recursive=True)) if is_glob else [path]
        runs = [run for match in sorted(matches, key=_number_or_name) for run in _runs_of(match)]
        if is_glob and not runs:
            raise ValueError(f"{path}: no run folder matches")
        for run in runs or [path]:
            # A run that was named itself is read, and so refused, without its summary.
            if run != path and not (run / "summary.json").is_file():
                logger.warning("%s is left out: its run did not finish", run)
            else:
                found.setdefault(run.resolve(), run)
    if not found:
        raise ValueError(f"no finished run in {', '.join(map(str, paths))}")
    return list(found.values())


def _runs_of(folder: Path) -> list[Path]:
    """The folder itself where it is a run's, or else the run folders in it."""
    if (folder / "config.yaml").is_file():
        return [folder]
    return sorted((config.parent for config in folder.glob("*/config.yaml")), key=_number_or_name)


def _number_or_name(path: Path) -> tuple:
    return (0, int(path.name), "") if path.name.isdecimal() else (1, 0, path.name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
