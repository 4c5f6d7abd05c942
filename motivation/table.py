"""A table of the paper as runs: its cells, what they cost, which are finished, and the running of the rest.

A table is a file of experiments/: rows with the paper's figures, and three scales. A cell is one run, known by the hash
of everything that sets its result (resolved config, data, format version), so that tables share cells, and a finished
one is never trained again. A cell that depends on another (a matched-random control, a base of equal FLOPs) hashes its
source's identity, not its path.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from motivation.analysis.paper_table import Measured, TableRow
from motivation.analysis.runs import Run, read_run

FORMAT_VERSION = 1
# In place of the fingerprint of a data set that cannot be read.
UNREAD = "unread"
SCALES = ("smoke", "reduced", "paper")
# How a run is executed and mirrored, not what it is.
NOT_IDENTITY = ("engine", "tracker", "checkpoint")
# Where a data set is and how it is read; which one it is, its fingerprint says.
NOT_DATA = ("root", "path", "download", "workers")
NETWORKS = ("classical", "base", "motivated")
SOURCED = {"matched_random": "matched random moments", "equal_flops": "base of equal FLOPs"}
Compose = Callable[[tuple[str, ...]], dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Args:
        config: resolved; what depends on the source is filled in when the source is finished.
        data: fingerprint of its data set.
        source: the run it is a control of.
        control: how it depends on the source: ``matched_random``, ``equal_flops``, or ``transfer`` of its base network;
            None for a run of its own.
    """

    config: dict[str, Any]
    data: str
    source: "Cell | None" = None
    control: str | None = None

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that sets the result."""
        what = {"format": FORMAT_VERSION, "data": self.data, "control": self.control,
                "source": self.source.identity if self.source else None,
                "config": {key: value for key, value in self.config.items() if key not in NOT_IDENTITY} | {
                    "data": {key: value for key, value in self.config["data"].items() if key not in NOT_DATA}}}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Name of its run folder: what it is, its seed, and its identity."""
        model = self.config["model"]
        networks = [model[key] for key in ("network", "base", "motivated") if key in model]
        method = self.control or ("classical" if "network" in model else self.config["schedule"]["name"])
        return f"{'-'.join(networks)}_{method}_seed{self.config['seed']}_{self.identity[:12]}"

    def runnable(self, runs: Path) -> dict[str, Any]:
        """The config to train, with what its finished source says.

        Args:
            runs: the folder of all cells.
        """
        config = json.loads(json.dumps(self.config))
        if self.control == "matched_random":
            config["schedule"] = {"name": "matched_random", "run": str(runs / self.source.name)}
        elif self.control == "transfer":
            config["model"] |= {"name": "transfer", "run": str(runs / self.source.name), "of": "base"}
        elif self.control == "equal_flops":
            source = read_run(runs / self.source.name)
            forward = source.summary["base/forward_flops"]
            step = 3 * forward * config["recipe"]["batch_size"]
            config["recipe"] |= {"epochs": None, "steps": max(1, round(source.summary["budget/flops"] / step))}
        return config


@dataclass(frozen=True)
class PlannedRow:
    """A row of a table on one data set: which network of which cells it shows.

    Args:
        label: the paper's name of it, or a control's.
        dataset: name of the paper's data set.
        phase: the network whose accuracy it shows.
        cells: one a seed.
        reported: the paper's figures; empty for a control that the paper lacks.
        against: label of the classical row it is compared with; None for classical rows.
        method: for a control, the label of the row it controls.
        measure: ``top1`` (test), or ``val_top1`` for cross-validation.
    """

    label: str
    dataset: str
    phase: str
    cells: tuple[Cell, ...]
    reported: Mapping[str, Any] = field(default_factory=dict)
    against: str | None = None
    method: str | None = None
    measure: str = "top1"


@dataclass(frozen=True)
class Plan:
    """A table at one scale.

    Args:
        name: such as ``table7``.
        title: of the table.
        scale: ``smoke``, ``reduced`` or ``paper``.
        note: what this scale is, and is not.
        rows: in the paper's order, controls after their methods.
        missing: data sets that could not be read, with the reason.
    """

    name: str
    title: str
    scale: str
    note: str
    rows: tuple[PlannedRow, ...]
    missing: Mapping[str, str]

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, sources before what depends on them."""
        found: dict[str, Cell] = {}
        for row in self.rows:
            for cell in row.cells:
                for one in (cell.source, cell):
                    if one is not None:
                        found.setdefault(one.identity, one)
        return list(found.values())

    def unfinished(self, runs: Path) -> list[Cell]:
        """Cells that have no summary yet."""
        return [cell for cell in self.cells if not (runs / cell.name / "summary.json").is_file()]

    def trainable(self, runs: Path) -> list[Cell]:
        """Unfinished cells whose data, and whose source's, can be read."""
        return [cell for cell in self.unfinished(runs)
                if UNREAD not in (cell.data, cell.source.data if cell.source else None)]

    def measured(self, runs: Path) -> list[TableRow]:
        """The rows with what their finished runs say."""
        read: dict[str, Run] = {}

        def finished(cell: Cell) -> Run | None:
            folder = runs / cell.name
            if cell.identity not in read and (folder / "summary.json").is_file():
                read[cell.identity] = read_run(folder)
            return read.get(cell.identity)

        rows = []
        for row in self.rows:
            done = [run for run in map(finished, row.cells) if run is not None]
            rows.append(TableRow(row.label, row.dataset, row.phase, row.reported, row.against, row.method,
                                 Measured.of(done, f"{row.phase}/{row.measure}"), planned=len(row.cells)))
        return rows


def list_tables() -> list[str]:
    """Names of the tables in experiments/."""
    return sorted(path.name.removesuffix(".yaml") for path in resources.files("motivation.experiments").iterdir()
                  if path.name.endswith(".yaml"))


def read_table(name: str) -> dict[str, Any]:
    """A table's file by its name or number.

    Raises:
        ValueError: there is no such table, or a figure in it is no number.
    """
    name = f"table{name}" if name.isdecimal() else name
    if name not in list_tables():
        raise ValueError(f"no table {name!r}; there are {', '.join(list_tables())}")
    table = yaml.safe_load((resources.files("motivation.experiments") / f"{name}.yaml").read_text())
    check_figures(name, table["rows"])
    return {"name": name} | table


def check_figures(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError where a printed figure is no number: YAML reads ``7e+8``, without a dot, as text."""
    for row in rows:
        for dataset, figures in row.items():
            for key, value in figures.items() if isinstance(figures, Mapping) else ():
                values = value if isinstance(value, list) else [value]
                if wrong := [one for one in values if not isinstance(one, int | float | None)]:
                    raise ValueError(f"{name}, row {row['row']}, {dataset}.{key}: {wrong[0]!r} is no number; write "
                                     "7.0e+8, with a dot, not 7e+8")


def plan_table(table: Mapping[str, Any], scale: str, seeds: int | None, compose: Compose,
               fingerprint: Callable[[dict[str, Any]], str], overrides: tuple[str, ...] = ()) -> Plan:
    """Lay a table out as cells.

    Args:
        table: from `read_table`.
        scale: one of `SCALES`.
        seeds: runs a cell; None for the scale's own number.
        compose: overrides -> resolved config.
        fingerprint: a config's data group -> fingerprint of the data set; ValueError where it cannot be read.
        overrides: of every cell, after the table's own.
    """
    if scale not in SCALES:
        raise ValueError(f"--scale {scale}: choose one of {', '.join(SCALES)}")
    level = table["scales"][scale]
    if seeds is None:
        seeds = level["seeds"]
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}: must be at least 1")
    rows: list[PlannedRow] = []
    missing: dict[str, str] = {}
    of_label: dict[tuple[str, str], tuple[Cell, ...]] = {}
    for dataset, data in level["data"].items():
        if not any(dataset in row for row in table["rows"]):
            continue
        for row in table["rows"]:
            network = level.get("networks", {})
            # A scale that maps networks to smaller ones leaves out those it has no smaller one for.
            if dataset not in row or (network and any(row[key] not in network for key in NETWORKS if key in row)):
                continue
            chosen = (*data, *level.get("overrides", ()), *level.get("recipes", {}).get(row.get("recipe"), ()),
                      *_model(row, network), *row.get("overrides", ()), *_threshold(row, dataset), *overrides)
            config = compose(chosen)
            try:
                known = fingerprint(config["data"])
            except ValueError as error:
                missing[dataset] = str(error)
                known = UNREAD
            if row.get("control") == "matched_random":
                # The very cells that are this source's control in any table.
                config = of_label[row["source"], dataset][0].config
            source = of_label.get((row.get("source"), row.get("from", dataset)), (None,) * seeds)
            if "folds" in row:
                # Cross-validation: a cell a fold, all of one seed; accuracy is that of the validation part.
                cells = tuple(Cell(config | {"data": config["data"] | {"fold": fold}}, known)
                              for fold in range(row["folds"]))
            else:
                cells = tuple(Cell(config | {"seed": seed}, known, source[seed], row.get("control"))
                              for seed in range(seeds))
            of_label[row["row"], dataset] = cells
            phase = row.get("of", "base")
            rows.append(PlannedRow(row["row"], dataset, phase, cells, row[dataset] | {"unit": row.get("unit", "mac")},
                                   row.get("against"), measure="val_top1" if "folds" in row else "top1"))
            if row.get("controls", phase == "base" and "motivated" in row and "control" not in row):
                rows += _controls(row, dataset, cells, compose, chosen, network)
    return Plan(table["name"], table["title"], scale, level["note"], tuple(rows), missing)


def _model(row: Mapping[str, Any], networks: Mapping[str, Any]) -> list[str]:
    """Overrides that choose a row's networks, at this scale; pairs as the paper's: leading slices, native values."""
    def named(role: str, name: str) -> list[str]:
        smaller = networks.get(name, name)
        if isinstance(smaller, str):
            return [f"model.{role}={smaller}"]
        options = "options" if role == "network" else f"{role}_options"
        return [f"model.{role}={smaller['name']}", f"+model.{options}={_inline(smaller['options'])}"]

    if "classical" in row:
        return ["model=classical", *named("network", row["classical"])]
    return ["model=timm", "model.weights_map=literal", "model.init=native", *named("base", row["base"]),
            *named("motivated", row["motivated"])]


def _inline(options: Mapping[str, Any]) -> str:
    return json.dumps(options).replace('"', "").replace(" ", "")


def _threshold(row: Mapping[str, Any], dataset: str) -> list[str]:
    k = row.get("k")
    if k is None:
        return []
    return [f"schedule.k={k[dataset] if isinstance(k, Mapping) else k}"]


def _controls(row: Mapping[str, Any], dataset: str, cells: tuple[Cell, ...], compose: Compose,
              chosen: tuple[str, ...], networks: Mapping[str, Any]) -> list[PlannedRow]:
    """The two controls that the paper lacks: as many motivated steps at random moments, and as many FLOPs."""
    alone = [override for override in chosen if not override.startswith(("model", "+model", "schedule", "monitor"))]
    classical = compose((*alone, *_model({"classical": row["base"]}, networks)))
    made = []
    for control, name in SOURCED.items():
        config = classical if control == "equal_flops" else cells[0].config
        controls = tuple(Cell(config | {"seed": cell.config["seed"]}, cell.data, cell, control) for cell in cells)
        made.append(PlannedRow(f"{row['row']}: {name}", dataset, "base", controls, {}, row.get("against"), row["row"]))
    return made
