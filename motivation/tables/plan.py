"""A table of the paper as runs: its rows, and the cells behind them.

A table is a file of experiments/: rows with the paper's figures, and three scales. A cell is one run, see
`motivation.tables.cells`, so that tables share cells, and a finished one is never trained again. A cell that depends on
another (a matched-random control, a base of equal FLOPs) is known by its source, not by its source's path.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from typing import Any

import yaml

from motivation.tables.cells import NOT_DATA, NOT_IDENTITY, UNREAD, Archive, Cell
from motivation.tables.rows import PER, Measured, Row, TableRow

SCALES = ("smoke", "reduced", "paper")
NETWORKS = ("classical", "base", "motivated")
SOURCED = {"matched_random": "matched random moments", "equal_flops": "base of equal FLOPs"}
Compose = Callable[[tuple[str, ...]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PlannedRow(Row):
    """A row and the runs that it shows.

    Args:
        cells: one a seed, or one a fold.
        measure: ``top1`` (test), or ``val_top1`` for cross-validation.
    """

    cells: tuple[Cell, ...]
    measure: str = "top1"


@dataclass(frozen=True)
class Plan:
    """A table at one scale.

    Args:
        name: such as ``table7``.
        title: of the table.
        scale: ``smoke``, ``reduced`` or ``paper``.
        note: what this scale is, is not, and leaves out, and what of it the overrides change.
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

    def unfinished(self, archive: Archive) -> list[Cell]:
        """Cells without a finished run of their own."""
        return [cell for cell in self.cells if archive.state(cell).kind != "finished"]

    def trainable(self, archive: Archive) -> list[Cell]:
        """Unfinished cells whose data, and whose source's, can be read, and whose folder holds no other run."""
        return [cell for cell in self.unfinished(archive)
                if UNREAD not in cell.fingerprints and archive.state(cell).kind != "foreign"]

    def troubles(self, archive: Archive) -> list[tuple[str, str]]:
        """Folder and what is wrong with it, of every cell that is broken or holds another run."""
        states = [(archive.path(cell), archive.state(cell)) for cell in self.cells]
        return [(str(path), state.trouble) for path, state in states if state.trouble]

    def measured(self, archive: Archive) -> list[TableRow]:
        """The rows with what their finished runs say."""
        rows = []
        for row in self.rows:
            states = [archive.state(cell) for cell in row.cells]
            measured = Measured.of([state.run for state in states if state.run], f"{row.phase}/{row.measure}")
            rows.append(TableRow(**{known.name: getattr(row, known.name) for known in fields(Row)}, measured=measured,
                                 planned=len(states),
                                 troubled=tuple(state.kind for state in states if state.trouble)))
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
    """Raise ValueError where a printed figure is no number (YAML reads ``7e+8``, without a dot, as text) or of no unit.
    """
    for row in rows:
        if row.get("unit", "mac") not in PER:
            raise ValueError(f"{name}, row {row['row']}: unit: {row['unit']!r}; choose one of {', '.join(PER)}")
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
        overrides: of every cell, after the table's own; one of a data set's keys (``data.KEY``) of those cells whose
            data set has the key.

    Raises:
        ValueError: no such scale, no seeds, or an override that no cell takes.
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
    network = level.get("networks", {})
    unused = set(overrides)
    # A scale that maps networks to smaller ones leaves out those it has no smaller one for.
    unmapped = [row for row in table["rows"] if network and any(row[key] not in network for key in NETWORKS
                                                                if key in row)]
    for dataset, data in level["data"].items():
        for row in table["rows"]:
            if dataset not in row or row in unmapped:
                continue
            chosen = (*data, *level.get("overrides", ()), *level.get("recipes", {}).get(row.get("recipe"), ()),
                      *_model(row, network), *row.get("overrides", ()), *_threshold(row, dataset))
            taken = _taken(overrides, chosen, compose)
            unused -= set(taken)
            chosen = (*chosen, *taken)
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
            rows.append(PlannedRow(
                label=row["row"], dataset=dataset, phase=phase, cells=cells, against=row.get("against"),
                reported=row[dataset] | {key: row[key] for key in ("unit", "per") if key in row},
                large=_large(table["rows"], row, dataset), baseline="classical" in row and "control" not in row,
                measure="val_top1" if "folds" in row else "top1"))
            made = SOURCED if phase == "base" and "motivated" in row and "control" not in row else ()
            rows += [_control(control, rows[-1], row, compose, chosen, network)
                     for control in row.get("controls", made)]
    if unused:
        raise ValueError(f"{min(unused)}: no data set of {table['name']} at scale {scale} has this key")
    left_out = [*(row["row"] for row in unmapped if any(dataset in row for dataset in level["data"])),
                *(f"all of {dataset}" for dataset in datasets_of(table) if dataset not in level["data"])]
    execution = (*NOT_IDENTITY, *(f"data.{key}" for key in NOT_DATA))
    changed = [override for override in overrides if not override.lstrip("+~").startswith(execution)]
    note = (level["note"] + (f" Changed: {', '.join(changed)}." if changed else "")
            + (f" This scale leaves out {', '.join(left_out)}." if left_out else ""))
    return Plan(table["name"], table["title"], scale, note, tuple(rows), missing)


def _taken(overrides: tuple[str, ...], chosen: tuple[str, ...], compose: Compose) -> tuple[str, ...]:
    """Overrides that a row's data set can take: of a table's data sets some lie in memory, and some download."""
    def taken(override: str) -> bool:
        return not override.startswith("data.") or override.split("=")[0].split(".")[1] in compose(chosen)["data"]

    return tuple(filter(taken, overrides))


def datasets_of(table: Mapping[str, Any]) -> list[str]:
    """The paper's data sets of a table, in its order."""
    return list(dict.fromkeys(key for row in table["rows"] for key, value in row.items()
                              if isinstance(value, Mapping) and key != "k"))


def _large(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], dataset: str) -> str | None:
    """Label of the classical row of a pair's motivated network."""
    if row.get("of", "base") == "motivated" or "motivated" not in row:
        return None
    return next((other["row"] for other in rows if other.get("classical") == row["motivated"] and dataset in other
                 and "control" not in other), None)


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


def _control(control: str, method: PlannedRow, row: Mapping[str, Any], compose: Compose, chosen: tuple[str, ...],
             networks: Mapping[str, Any]) -> PlannedRow:
    """A control that the paper lacks: as many motivated steps at random moments, or as many FLOPs."""
    config = method.cells[0].config
    if control == "equal_flops":
        alone = [override for override in chosen
                 if not override.startswith(("model", "+model", "schedule", "monitor"))]
        config = compose((*alone, *_model({"classical": row["base"]}, networks)))
    cells = tuple(Cell(config | {"seed": cell.config["seed"]}, cell.data, cell, control) for cell in method.cells)
    return PlannedRow(label=f"{method.label}: {SOURCED[control]}", dataset=method.dataset, phase="base", cells=cells,
                      against=method.against, method=method.label,
                      reported={key: row[key] for key in ("unit", "per") if key in row})
