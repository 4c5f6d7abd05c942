"""One run of benchmarks: what `motivation bench` prints and writes."""

import importlib
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from motivation.registry import build, check
from motivation.run.hardware import cpu_name
from motivation.run.machine import cores

from . import ELSEWHERE, SPEED
from .table import UNMEASURED, Table

# The lines of a Markdown file between which the report goes.
BEGIN, END = "<!-- motivation bench -->", "<!-- end of bench -->"
PACKAGES = ("motivation", "torch", "torchvision", "timm", "numpy", "wandb")


def listing() -> Iterator[str]:
    """Two lines a benchmark: its name and subject, and its keys with their defaults."""
    for name in (*SPEED, *ELSEWHERE):
        measure = _measure(name)
        keys = " ".join(f"{key}={json.dumps(parameter.default)}".replace('"', "")
                        for key, parameter in inspect.signature(measure).parameters.items())
        yield f"{name:13} {_about(measure)[0]}\n{'':13} {keys}"


def run(names: Sequence[str], values: Mapping[str, Any], command: str, json_file: Path | None = None,
        update: Path | None = None) -> int:
    """Run benchmarks and print their tables as Markdown.

    Args:
        names: of benchmarks; none for all of `SPEED`.
        values: keyword arguments of each of them.
        command: that asked for them, for the report.
        json_file: where the same goes as JSON, after every benchmark: what is measured stays if a later one fails.
        update: a Markdown file; what is between its lines `BEGIN` and `END` is replaced by the report.

    Returns:
        1 where a bound was missed, else 0.

    Raises:
        ValueError: an unknown name or key, a value that cannot be right, or a file without those lines; nothing ran.
    """
    for name in names:
        if name not in (*SPEED, *ELSEWHERE):
            raise ValueError(f"no benchmark {name!r}; there are {', '.join((*SPEED, *ELSEWHERE))}")
    measures = {name: _measure(name) for name in names or SPEED}
    for name, measure in measures.items():
        check({name: measure}, {**values, "name": name}, name)
    page = None if update is None else _around_report(update)
    if json_file is not None:
        if json_file.is_dir():
            raise ValueError(f"--json {json_file}: is a folder; give a file in it")
        json_file.parent.mkdir(parents=True, exist_ok=True)

    here, load, start = machine(), os.getloadavg()[0], perf_counter()
    parts = [f"`{command}`, {date.today()}. {describe(here)}"]
    print(parts[0], flush=True)
    found: dict[str, list[Table]] = {}
    seconds: dict[str, float] = {}
    for name, measure in measures.items():
        begun = perf_counter()
        found[name] = build({name: measure}, {**values, "name": name}, name)
        seconds[name] = perf_counter() - begun
        for table in found[name]:
            parts.append(table.markdown())
            print(f"\n{parts[-1]}", flush=True)
        if about := _about(measure)[1]:
            parts.append(about)
            print(f"\n{about}", flush=True)
        missed = [text for tables in found.values() for table in tables for text in table.missed]
        ended = {"seconds": perf_counter() - start, "load before": load, "load after": os.getloadavg()[0]}
        if json_file is not None:
            json_file.write_text(json.dumps({
                "command": command, "date": str(date.today()), "machine": here, **ended, "missed": missed,
                "benchmarks": {name: {"seconds": seconds[name], "about": _about(measures[name])[1],
                                      "tables": [table.as_json() for table in tables]}
                               for name, tables in found.items()},
            }, indent=2, allow_nan=False) + "\n")
    parts.append(f"{ended['seconds']:.0f} seconds; load {load:.1f} before, {ended['load after']:.1f} after.")
    print(f"\n{parts[-1]}")
    if page is not None:
        update.write_text("\n\n".join((page[0], *parts, page[1])))
    return 1 if missed else 0


def machine() -> dict[str, Any]:
    """What was measured on: processor, GPU, versions."""
    return {"cpu": cpu_name(), "cores": cores(), "threads": torch.get_num_threads(),
            "instructions": torch.backends.cpu.get_cpu_capability(), "amx": torch.cpu._is_amx_tile_supported(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(), "versions": {name: metadata.version(name) for name in PACKAGES}}


def describe(here: Mapping[str, Any]) -> str:
    """The machine in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return (f"{here['cpu']}, {here['cores']} cores, {here['threads']} threads, {here['instructions']}, AMX: "
            f"{'yes' if here['amx'] else 'no'}. GPU: {here['gpu'] or f'none, {UNMEASURED}'}. Python {here['python']}, "
            f"{versions}.")


def _measure(name: str) -> Callable[..., list[Table]]:
    return importlib.import_module(f"motivation.benchmarks.{name}").measure


def _about(measure: Callable) -> tuple[str, str]:
    """The first line of what a benchmark's file says of itself, and the rest."""
    first, _, rest = inspect.getdoc(inspect.getmodule(measure)).partition("\n\n")
    return first, rest


def _around_report(path: Path) -> tuple[str, str]:
    """A file's text up to the report and from its end on."""
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{path}: has no lines {BEGIN} and {END}, between which the report goes")
    return before + begin, end + after
