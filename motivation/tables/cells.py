"""Cells: the runs of tables, each identified by what determines its result, and the folder that holds them."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from motivation.analysis.budgets import LENGTH
from motivation.phase import PHASES, Phase
from motivation.run_folder.config import read_config
from motivation.run_folder.identity import differences, digest, identity, in_words
from motivation.run_folder.read import Run, read_figures, read_history
from motivation.training.ledger import TRAINING_FORWARDS

FORMAT_VERSION = 4
# Stands for the fingerprint of a data set that cannot be read.
UNREAD = "unread"
Kind = Literal["missing", "unfinished", "finished", "recorded", "broken", "foreign"]
# Controls of one network that train as long as a part of their source's FLOPs lasts: which network, and the part from
# the source's forward FLOPs of (it, the other one). Two networks trained in proportion take as many steps.
OF_FLOPS: Mapping[str, tuple[Phase, Callable[[float, float], float]]] = {
    "equal_flops": ("base", lambda own, other: 1.0),
    "equal_flops_motivated": ("motivated", lambda own, other: 1.0),
    "split_flops": ("base", lambda own, other: own / (own + other)),
    "split_flops_motivated": ("motivated", lambda own, other: own / (own + other))}
# Controls whose schedule reads the source's phases.
OF_PHASES = ("matched_random", "replay")


@dataclass(frozen=True)
class Cell:
    """One run of a table.

    Args:
        config: resolved; `Archive.runnable` fills in what depends on the source.
        data: fingerprint of its data set.
        source: the run it is a control of.
        control: how it depends on the source: one of `OF_PHASES`, whose phases are made of the source's; one of
            `OF_FLOPS`, whose length is; ``transfer`` of its base network; or ``reference``, whose lever has the source
            as its reference. None without a source.
    """

    config: dict[str, Any]
    data: str
    source: "Cell | None" = None
    control: str | None = None

    @cached_property
    def setting(self) -> str:
        """SHA-256 of everything that determines the result except the data's fingerprints."""
        return digest({"format": FORMAT_VERSION, "control": self.control,
                       "config": _without_nulls(identity(self.config, "")),
                       "source": self.source.setting if self.source else None})

    @property
    def sources(self) -> list["Cell"]:
        """Its source, that one's source, and so on."""
        return [] if self.source is None else [self.source, *self.source.sources]

    @property
    def fingerprints(self) -> list[str]:
        """Of its data set, and of its sources'."""
        return [self.data, *(self.source.fingerprints if self.source else ())]

    @cached_property
    def identity(self) -> str:
        """SHA-256 of everything that determines the result."""
        return digest([self.setting, self.fingerprints])

    @cached_property
    def kind(self) -> str:
        """What it is, and its seed."""
        model = self.config["model"]
        networks = [model[key] for key in ("network", "base", "motivated") if key in model]
        method = self.control or ("classical" if "network" in model else self.config["schedule"]["name"])
        return f"{'-'.join(networks)}_{method}_seed{self.config['seed']}"

    @property
    def stem(self) -> str:
        """What it is, its seed, and its setting."""
        return f"{self.kind}_{self.setting[:12]}"

    @property
    def name(self) -> str:
        """Name of its run folder: its stem, and its data."""
        return f"{self.stem}-{digest(self.fingerprints)[:8]}"


def _without_nulls(what: Any) -> Any:
    """A config without its keys that are null: one that a later version adds as null changes no setting."""
    if isinstance(what, Mapping):
        return {key: _without_nulls(value) for key, value in what.items() if value is not None}
    return what


@dataclass(frozen=True)
class State:
    """State of a cell's run folder.

    Args:
        kind: ``missing``; ``unfinished``, which can be resumed; ``finished``; ``recorded``, which has no finished run
            here and a row in the file of results; ``broken``, which cannot be resumed; ``foreign``, a run of another
            config.
        run: config and summary of a finished or recorded one.
        trouble: what is wrong with a broken or foreign one.
    """

    kind: Kind
    run: Run | None = None
    trouble: str | None = None


class Archive:
    """The folder of all cells, shared by all tables; a finished run is read once.

    Args:
        folder: need not exist.
        recorded: finds a cell's figures in the file of results, see `motivation.tables.results`; None for no file.
    """

    def __init__(self, folder: Path, recorded: Callable[[Cell], dict[str, Any] | None] | None = None):
        self.folder = folder
        self.recorded = recorded
        self._finished: dict[str, State] = {}

    def path(self, cell: Cell) -> Path:
        """A cell's run folder; where its data cannot be read, that of a finished run of the same setting, if any."""
        if UNREAD in cell.fingerprints:
            for path in sorted(self.folder.glob(f"{cell.stem}-????????")):
                if (path / "summary.json").is_file():
                    return path
        path = self.folder / cell.name
        return path if path.exists() else self._of_earlier_format(cell) or path

    def _of_earlier_format(self, cell: Cell) -> Path | None:
        """The finished run of a cell whose folder has the name that an earlier version gave it; never of a control,
        whose config alone does not say which source it belongs to.
        """
        if cell.source is not None:
            return None
        data = "????????" if UNREAD in cell.fingerprints else digest(cell.fingerprints)[:8]
        for path in sorted(self.folder.glob(f"{cell.kind}_????????????-{data}")):
            try:
                if (path / "summary.json").is_file() and not list(differences(
                        self._compared(read_config(path), cell), self._compared(cell.config, cell))):
                    return path
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return None

    def state(self, cell: Cell) -> State:
        """State of a cell's run folder."""
        if cell.identity not in self._finished:
            state = self._read(cell)
            if state.kind in ("missing", "unfinished") and self.recorded is not None \
                    and (figures := self.recorded(cell)):
                state = State("recorded", Run(self.path(cell), cell.config, figures, []))
            if state.kind != "finished":
                return state
            self._finished[cell.identity] = state
        return self._finished[cell.identity]

    def _read(self, cell: Cell) -> State:
        path = self.path(cell)
        try:
            if not any(path.iterdir()):
                return State("missing")
        except FileNotFoundError:
            return State("missing")
        except NotADirectoryError:
            return State("broken", trouble="it is a file")
        try:
            run = self._figures(path) if (path / "summary.json").is_file() else None
            saved = run.config if run else read_config(path)
            changed = list(differences(self._compared(saved, cell), self._compared(self._linked(cell), cell)))
            resumed = [row for row in read_history(path) if "changed" in row]
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            return State("broken", trouble=" ".join(str(error).split()).removeprefix(f"{path} "))
        if changed:
            what = "; ".join(f"{key} is {found!r}, not {right!r}" for key, found, right in changed[:3])
            return State("foreign", trouble=f"it holds a run of another config: {what}")
        if resumed:
            return State("foreign", trouble=f"it holds a run that was resumed with another config: "
                         f"{in_words(resumed[0])}")
        return State("finished", run) if run else State("unfinished")

    @staticmethod
    def _figures(path: Path) -> Run:
        """A finished run with every figure that tables show; a fold is measured on its validation part."""
        run = read_figures(path)
        measure = ["base/val_top1"] if run.config["data"].get("fold") is not None else []
        for key in ("budget/forward_per_image", "base/forward_flops", *measure):
            if not isinstance(run.summary[key], int | float):
                raise ValueError(f"summary.json: {key} is {run.summary[key]!r}, no number")
        return run

    def runnable(self, cell: Cell) -> dict[str, Any]:
        """The config to train, completed from its finished source.

        Raises:
            ValueError: the source is not finished.
        """
        config = self._linked(cell)
        if cell.control in OF_FLOPS:
            summary = read_figures(self.path(cell.source)).summary
            phase, part = OF_FLOPS[cell.control]
            alone = "network" in cell.source.config["model"]
            forward = {one: summary.get(f"{one}/forward_flops") for one in PHASES}
            if not all(isinstance(forward[one], int | float) for one in (PHASES[:1] if alone else PHASES)):
                raise ValueError(f"{self.path(cell.source)}: summary.json has no forward FLOPs of "
                                 f"{'its network' if alone else 'both networks'}")
            own, other = forward.pop(phase), *forward.values()
            flops = part(own, other) * summary["budget/flops"]
            steps = flops / (TRAINING_FORWARDS * own * config["recipe"]["batch_size"])
            config["recipe"] |= {"epochs": None, "steps": max(1, round(steps))}
        return config

    def _linked(self, cell: Cell) -> dict[str, Any]:
        """A copy of its config that names the source's folder."""
        config = json.loads(json.dumps(cell.config))
        if cell.control in OF_PHASES:
            config["schedule"] = {"name": cell.control, "run": str(self.path(cell.source))}
        elif cell.control == "transfer":
            config["model"] |= {"name": "transfer", "run": str(self.path(cell.source)), "of": "base"}
        elif cell.control == "reference":
            config["lever"] |= {"run": str(self.path(cell.source))}
        return config

    @staticmethod
    def _compared(config: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
        """What distinguishes a cell's run: a source by its name; without the length where the source sets it."""
        what = identity(config, "")
        if cell.control in OF_FLOPS:
            what["recipe"] = {key: value for key, value in what["recipe"].items() if key not in LENGTH}
        for group in ("model", "schedule", "lever"):
            if what.get(group, {}).get("run"):
                what[group] = what[group] | {"run": Path(what[group]["run"]).name}
        return what


def set_aside(path: Path) -> Path:
    """Rename a broken run to the first of ``NAME.broken-1``, ``NAME.broken-2``, ... that is free."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    # A folder that the file system does not rename is copied.
    shutil.move(path, aside)
    return aside
