"""A table as runs: its rows, and the cells behind them.

A table is a file of experiments/, see `motivation.tables.spec`. A cell is one run, see `motivation.tables.cells`:
tables share cells, and a finished one is never trained again. A cell that depends on another (a matched-random control,
a network of equal FLOPs) is identified by its source, not by its source's path.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from motivation.phase import PHASES
from motivation.run_folder.identity import sets_result
from motivation.tables.cells import OF_FLOPS, UNREAD, Archive, Cell
from motivation.tables.comparisons import Comparison, Network, Study, planned_comparisons, planned_curves
from motivation.tables.rows import Measured, Row, TableRow
from motivation.tables.spec import datasets_of, large_row

SCALES = ("smoke", "minute", "cpu", "reduced", "paper")
NETWORKS = ("classical", "base", "motivated")
# The control of equal FLOPs of a row of one network.
WITHOUT_LEVER = "without the lever, equal FLOPs"
SOURCED = {"matched_random": "matched random moments", "equal_flops": "base of equal FLOPs",
           "equal_flops_motivated": "motivated network of equal FLOPs", "split_flops": "base trained separately",
           "split_flops_motivated": "motivated network trained separately"}
# The controls of a row of the paper's tables, which the paper lacks, by the network that the row shows.
CONTROLS = {"base": ("matched_random", "equal_flops"), "motivated": ("matched_random", "equal_flops_motivated")}
# How the paper presumably makes a pair.
PAIR = {"weights_map": "literal", "init": "native"}
Compose = Callable[[tuple[str, ...]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PlannedRow(Row):
    """A row and its runs.

    Args:
        cells: one a seed, or one a fold.
        measure: ``top1`` (test), that of a further test split, such as ``longer_top1``, or ``val_top1`` for
            cross-validation.
    """

    cells: tuple[Cell, ...]
    measure: str = "top1"


@dataclass(frozen=True)
class Plan:
    """A table at one scale.

    Args:
        name: such as ``table7``.
        title: of the table.
        scale: one of `SCALES`.
        note: what this scale is and leaves out, and what the overrides change.
        rows: in the paper's order, controls after their methods.
        missing: data sets that could not be read, with the reason.
        study: what a table of ours compares; None for a table of the paper.
    """

    name: str
    title: str
    scale: str
    note: str
    rows: tuple[PlannedRow, ...]
    missing: Mapping[str, str]
    study: Study | None = None

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell once, sources before what depends on them."""
        found: dict[str, Cell] = {}
        for row in self.rows:
            for cell in row.cells:
                for one in (*reversed(cell.sources), cell):
                    found.setdefault(one.identity, one)
        return list(found.values())

    def unfinished(self, archive: Archive) -> list[Cell]:
        """Cells without a finished run of their own, here or in the file of results."""
        return [cell for cell in self.cells if archive.state(cell).kind not in ("finished", "recorded")]

    def trainable(self, archive: Archive) -> list[Cell]:
        """Unfinished cells whose data and source's data can be read, and whose folder holds no other run; and those of
        their sources that are recorded alone: a control reads its source's folder.
        """
        wanted = self.unfinished(archive)
        sources = {one.identity for cell in wanted for one in cell.sources
                   if archive.state(one).kind == "recorded"}
        wanted += [cell for cell in self.cells if cell.identity in sources]
        return [cell for cell in wanted if UNREAD not in cell.fingerprints and archive.state(cell).kind != "foreign"]

    def listing(self, archive: Archive) -> list[str]:
        """A line a cell: its state and name."""
        return [f"{archive.state(cell).kind:10} {cell.name}" for cell in self.cells]

    def troubles(self, archive: Archive) -> list[tuple[str, str]]:
        """Folder and error of every cell that is broken or holds another run."""
        states = [(archive.path(cell), archive.state(cell)) for cell in self.cells]
        return [(str(path), state.trouble) for path, state in states if state.trouble]

    def measured(self, archive: Archive) -> list[TableRow]:
        """The rows with the measures of their finished runs."""
        rows = []
        for row in self.rows:
            states = [archive.state(cell) for cell in row.cells]
            measured = Measured.of([state.run for state in states if state.run], f"{row.phase}/{row.measure}")
            rows.append(TableRow(**{known.name: getattr(row, known.name) for known in fields(Row)}, measured=measured,
                                 planned=len(states),
                                 troubled=tuple(state.kind for state in states if state.trouble)))
        return rows


def plan_table(table: Mapping[str, Any], scale: str, seeds: int | None, compose: Compose,
               fingerprint: Callable[[dict[str, Any]], str], overrides: tuple[str, ...] = (),
               first_seed: int = 0) -> Plan:
    """Plan a table: its rows, and a cell for every run.

    Args:
        table: from `read_table`.
        scale: one of `SCALES`.
        seeds: runs a cell; None for the scale's own number.
        compose: overrides -> resolved config.
        fingerprint: a config's data group -> fingerprint of the data set; ValueError where it cannot be read.
        overrides: of every cell, after the table's own; ``data.KEY`` of those cells whose data set has the key.
        first_seed: the seeds count up from it.

    Raises:
        ValueError: no such scale, no seeds, or an override that no data set takes.
    """
    if scale not in table["scales"]:
        raise ValueError(f"--scale {scale}: choose one of {', '.join(SCALES)}" if scale not in SCALES else
                         f"--scale {scale}: {table['name']} has {', '.join(table['scales'])}")
    level = table["scales"][scale]
    if seeds is None:
        seeds = level["seeds"]
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}: must be at least 1")
    if first_seed < 0:
        raise ValueError(f"--first-seed {first_seed}: must be at least 0")
    numbers = range(first_seed, first_seed + seeds)
    rows: list[PlannedRow] = []
    missing: dict[str, str] = {}
    cells_of: dict[tuple[str, str], tuple[Cell, ...]] = {}
    networks = level.get("networks", {})
    unused = set(overrides)
    recipes = level.get("recipes", {})
    # A scale that maps networks to smaller ones leaves out those it has no smaller one for, and recipes it has not.
    unmapped = [row for row in table["rows"] if row.get("recipe") not in (None, *recipes)
                or (networks and any(row[key] not in networks for key in NETWORKS if key in row))]
    for dataset, data in level["data"].items():
        for row in table["rows"]:
            if dataset not in row or row in unmapped:
                continue
            pair = PAIR | table.get("pair", {}) | row.get("pair", {})
            chosen = (*data, *level.get("engine", ()), *level.get("execution", ()), *level.get("overrides", ()),
                      *recipes.get(row.get("recipe"), ()), *_model(row, networks, pair), *row.get("overrides", ()),
                      *_threshold(row, dataset))
            taken = _applicable(overrides, chosen, compose)
            unused -= set(taken)
            chosen = (*chosen, *taken)
            config = compose(chosen)
            try:
                known = fingerprint(config["data"])
            except ValueError as error:
                missing[dataset] = str(error)
                known = UNREAD
            if row.get("control") in ("matched_random", "replay"):
                # Equal to the cells that are this source's control in other tables.
                config = cells_of[row["source"], dataset][0].config
            sources: Sequence[Cell | None] = cells_of.get((row.get("source"), row.get("from", dataset)),
                                                          (None,) * seeds)
            if row.get("control") == "replay":
                # Another seed's moments: 0 and 1 have each other's, 2 and 3, and so on, however many seeds there are.
                sources = [Cell(config | {"seed": seed ^ 1}, known) for seed in numbers]
            if "folds" in row:
                # Cross-validation: a cell a fold, all of one seed; accuracy is that of the validation part.
                cells = tuple(Cell(config | {"data": config["data"] | {"fold": fold}}, known)
                              for fold in range(row["folds"]))
            else:
                cells = tuple(Cell(config | {"seed": seed}, known, source, row.get("control"))
                              for seed, source in zip(numbers, sources, strict=True))
            cells_of[row["row"], dataset] = cells
            phase = row.get("of", "base")
            rows.append(PlannedRow(
                label=row["row"], dataset=dataset, phase=phase, cells=cells, against=row.get("against"),
                reported=row[dataset] | {key: row[key] for key in ("unit", "per") if key in row},
                large=large_row(table["rows"], row, dataset), baseline="classical" in row and "control" not in row,
                measure="val_top1" if "folds" in row else table.get("measures", {}).get(dataset, "top1")))
            controls = CONTROLS[phase] if "motivated" in row and "control" not in row and not table.get("study") else ()
            method = rows[-1]
            rows += [_control(control, method, row, compose, chosen, networks)
                     for control in row.get("controls", controls)]
    if unused:
        raise ValueError(f"{min(unused)}: no data set of {table['name']} at scale {scale} has this key")
    left_out = [*(row["row"] for row in unmapped if any(dataset in row for dataset in level["data"])),
                *(f"all of {dataset}" for dataset in datasets_of(table) if dataset not in level["data"])]
    changed = [override for override in overrides if sets_result(override.lstrip("+~").partition("=")[0])]
    note = (level["note"] + (f" Changed: {', '.join(changed)}." if changed else "")
            + (f" This scale leaves out {', '.join(left_out)}." if left_out else ""))
    study = _study(table, tuple(level["data"]), rows) if table.get("study") else None
    return Plan(table["name"], table["title"], scale, note, tuple(rows), missing, study)


def _study(table: Mapping[str, Any], datasets: Sequence[str], rows: Sequence[PlannedRow]) -> Study:
    """What a table of ours compares: rows with what they name, and methods with their controls."""
    made: list[Comparison] = []
    curves = []
    for dataset in datasets:
        section = [row for row in rows if row.dataset == dataset]
        pairs = {row.label: "network" not in row.cells[0].config["model"] for row in section}
        for row in table["rows"]:
            if row["row"] in pairs:
                made += planned_comparisons(table["name"], dataset, row, pairs)
            for control in section:
                if control.method != row["row"]:
                    continue
                kind = control.cells[0].control
                # Where each network has its control, both have the small one's: a pair's FLOPs could train it alone.
                both = kind not in OF_FLOPS or (kind == "equal_flops"
                                                and "equal_flops_motivated" in row.get("controls", ()))
                for phase in PHASES if both else (OF_FLOPS[kind][0],):
                    against = Network(control.label, phase if pairs[control.label] else "base")
                    made.append(Comparison(dataset, Network(row["row"], phase), against))
        curves += planned_curves(table["name"], dataset, table)
    return Study(tuple(made), tuple(curves), table.get("reference"), table.get("delta", Study.delta),
                 table.get("figures", {}))


def _applicable(overrides: tuple[str, ...], chosen: tuple[str, ...], compose: Compose) -> tuple[str, ...]:
    """Overrides without those of a data set's key that this row's does not have, such as ``data.workers``."""
    return tuple(override for override in overrides if not override.startswith("data.")
                 or override.split("=")[0].split(".")[1] in compose(chosen)["data"])


def _model(row: Mapping[str, Any], networks: Mapping[str, Any], pair: Mapping[str, Any] = PAIR) -> list[str]:
    """Overrides that choose a row's networks at this scale, and how a pair shares weights."""
    def named(role: str, name: str) -> list[str]:
        smaller = networks.get(name, name)
        if isinstance(smaller, str):
            return [f"model.{role}={smaller}"]
        key = "options" if role == "network" else f"{role}_options"
        options = json.dumps(smaller["options"]).replace('"', "").replace(" ", "")
        return [f"model.{role}={smaller['name']}", f"+model.{key}={options}"]

    if "classical" in row:
        return ["model=classical", *named("network", row["classical"])]
    return ["model=timm", *(f"model.{key}={value}" for key, value in pair.items()), *named("base", row["base"]),
            *named("motivated", row["motivated"])]


def _threshold(row: Mapping[str, Any], dataset: str) -> list[str]:
    k = row.get("k")
    return [] if k is None else [f"schedule.k={k[dataset] if isinstance(k, Mapping) else k}"]


def _control(control: str, method: PlannedRow, row: Mapping[str, Any], compose: Compose, chosen: tuple[str, ...],
             networks: Mapping[str, Any]) -> PlannedRow:
    """A control that the paper lacks: as many motivated steps at random moments, or one network of as many FLOPs,
    without the row's lever.
    """
    config, phase, text = method.cells[0].config, method.phase, SOURCED[control]
    if control in OF_FLOPS:
        phase = "base"
        alone = [override for override in chosen
                 if not override.startswith(("model", "+model", "schedule", "monitor", "lever"))]
        network = row.get("classical") or row[OF_FLOPS[control][0]]
        config = compose((*alone, *_model({"classical": network}, networks)))
        text = WITHOUT_LEVER if "classical" in row else text
    cells = tuple(Cell(config | {"seed": cell.config["seed"]}, cell.data, cell, control) for cell in method.cells)
    return PlannedRow(label=f"{method.label}: {text}", dataset=method.dataset, phase=phase, cells=cells,
                      against=method.against, method=method.label, measure=method.measure,
                      reported={key: row[key] for key in ("unit", "per") if key in row})
