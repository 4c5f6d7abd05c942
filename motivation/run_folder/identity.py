"""What a run is: the part of its config that sets its result, with its data known by fingerprint.

=====================  =====================================================================================
sets the result        the networks and their options, the data (fingerprint, splits, normalisation), recipe, monitor,
                       schedule, seed, and ``engine.precision``, ``.matmul_precision``, ``.compile``, ``.accumulation``
sets none              tracker, checkpoint, evaluate_every, the rest of engine (device, threads, layout), data.workers,
                       data.download, and where the data is: data.root, data.path
another run            a run that is started from, whose moments are replayed or that is a reference (model.run,
                       schedule.run, lever.run) is known by its own identity, wherever its folder is
only a pair reads      monitor, schedule, recipe.state, recipe.differential_lr, recipe.differential_weight_decay: no
                       part of a run of one network; but where its schedule climbs a lever's rungs, it reads them all
=====================  =====================================================================================

The number of threads changes the order of sums: runs that differ in it differ by rounding, as on another machine.

Runs that differ in their seed alone are repetitions of one another.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from types import MappingProxyType
from typing import Any

# Models of one network, which no monitor and no schedule touches.
ALONE = ("classical", "transfer")
# How a run is executed, mirrored and saved.
EXECUTION = ("tracker", "checkpoint", "evaluate_every")
# What of the engine changes the arithmetic; the default where a config has no such key.
ARITHMETIC = {"precision": "float32", "matmul_precision": "highest", "compile": None, "accumulation": 1}
LATER = ("matmul_precision", "compile")
READING = ("download", "workers")
# Where the data is: its fingerprint says which one it is.
PLACES = ("root", "path")
PAIR_GROUPS = ("monitor", "schedule")
PAIR_RECIPE = ("state", "differential_lr", "differential_weight_decay")


def identity(config: Mapping[str, Any], data_fingerprint: str | None,
             history: Sequence[Mapping[str, Any]] = (), sources: Mapping[str, str] = MappingProxyType({})
             ) -> dict[str, Any]:
    """What sets a run's result, as plain mappings; see the list above.

    Args:
        config: resolved.
        data_fingerprint: of its data set; None where it is unknown: the data is then known by its place.
        history: rows of its history.jsonl. A run that was resumed with another config is another one than a run with
            its last config from the start.
        sources: digests of the runs that the config names, by dotted key, see `digest`; one that is missing is known
            by its place.
    """
    data, model = config["data"], config["model"]
    alone = model["name"] in ALONE and not climbs(config)
    # A lever that is null is none: configs of versions that lacked it are of the same run.
    kept = {key: value for key, value in config.items()
            if key not in EXECUTION and not (alone and key in PAIR_GROUPS) and not (key == "lever" and value is None)}
    unread = READING if data_fingerprint is None else READING + PLACES
    # An option of the data that is null is none: configs of versions that lacked it are of the same run.
    kept["data"] = {key: value for key, value in data.items() if key not in unread and value is not None}
    if data_fingerprint is not None:
        kept["data"]["fingerprint"] = data_fingerprint
    # Options that are absent are none.
    kept["model"] = {key: value for key, value in model.items() if not (key.endswith("options") and not value)}
    kept["recipe"] = {key: value for key, value in config["recipe"].items() if not (alone and key in PAIR_RECIPE)}
    engine = {key: (config.get("engine") or {}).get(key, default) for key, default in ARITHMETIC.items()}
    # A table's folders are named by this, also those of versions that did not have these keys.
    kept["engine"] = {key: value for key, value in engine.items() if key not in LATER or value != ARITHMETIC[key]}
    if changes := [dict(row) for row in history if "changed" in row]:
        kept["history"] = changes
    for key, source in sources.items():
        *groups, last = key.split(".")
        if groups[0] in kept:
            kept[groups[0]] = json.loads(json.dumps(kept[groups[0]]))
            reduce(getitem, groups, kept)[last] = source
    return kept


def has_rungs(config: Mapping[str, Any]) -> bool:
    """Whether a config's lever has rungs."""
    return bool((config.get("lever") or {}).get("rungs"))


def climbs(config: Mapping[str, Any]) -> bool:
    """Whether a config's monitor and schedule climb a lever's rungs, with one network or two."""
    return (has_rungs(config) and config["lever"].get("order", "promoted") == "promoted"
            and len(config["lever"]["rungs"]) > 1)


def digest(what: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def without_seed(what: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as repetitions with other seeds share it."""
    return {key: value for key, value in what.items() if key != "seed"}


def named_runs(config: Mapping[str, Any]) -> dict[str, str]:
    """Folders of the runs that a config names, by dotted key: ``model.run``, ``schedule.run``, also inside a gate,
    ``lever.run``.
    """
    def walk(part: Any, where: str) -> Iterator[tuple[str, str]]:
        for key, value in part.items() if isinstance(part, Mapping) else ():
            if key == "run" and isinstance(value, str):
                yield f"{where}.{key}", value
            yield from walk(value, f"{where}.{key}")

    return {key: value for group in ("model", "schedule", "lever") for key, value in walk(config.get(group), group)}


def sets_result(key: str) -> bool:
    """Whether a config's dotted key sets the result of a run, such as ``engine.precision``."""
    group, _, inner = key.partition(".")
    if group in EXECUTION:
        return False
    if group == "engine":
        return not inner or inner in ARITHMETIC
    return not (group == "data" and inner in READING + PLACES)


def differences(saved: Any, config: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys at which two configs differ, with both values."""
    if isinstance(saved, Mapping) and isinstance(config, Mapping):
        for key in dict.fromkeys([*saved, *config]):
            yield from differences(saved.get(key), config.get(key), f"{where}.{key}" if where else str(key))
    elif saved != config or type(saved) is not type(config):
        yield where, saved, config


def with_changes(history: Sequence[Mapping[str, Any]], step: int, saved: Mapping[str, Any],
                 config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A history, and what a resume changes of what sets the result.

    Args:
        history: rows so far: ``step``, and ``changed``, a dotted key -> value before and after.
        step: training steps done; no row is of a later one.
        saved: the config until here.
        config: the config from here on.
    """
    rows = [dict(row) for row in history]
    before, after = identity(saved, ""), identity(config, "")
    changed = {key: [_or_default(key, old), _or_default(key, new)] for key, old, new in differences(before, after)}
    if rows and rows[-1]["step"] == step and "changed" in rows[-1]:
        # Nothing was trained since the last change.
        last = rows.pop()["changed"]
        changed = last | {key: [last.get(key, values)[0], values[1]] for key, values in changed.items()}
        changed = {key: [old, new] for key, (old, new) in changed.items() if old != new}
    return rows + ([{"step": step, "changed": changed}] if changed else [])


def _or_default(key: str, value: Any) -> Any:
    """The value of an engine's key that an identity leaves out."""
    return ARITHMETIC.get(key.removeprefix("engine.")) if value is None else value


def in_words(row: Mapping[str, Any]) -> str:
    """A row of a history with a change, such as ``from step 8 on with engine.precision float32 -> bfloat16``."""
    changed = ", ".join(f"{key} {before} -> {after}" for key, (before, after) in row["changed"].items())
    return f"from step {row['step']} on with {changed}"
