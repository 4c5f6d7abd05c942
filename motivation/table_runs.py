"""Running a table: what its missing runs cost, the runs one after another or at once, and the table they make."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import motivation.data
import motivation.models.choice
from motivation.analysis.paper_table import to_csv, to_latex, to_markdown, with_tests
from motivation.config import build
from motivation.ledger import TRAINING_FORWARDS, forward_flops
from motivation.progress import clock
from motivation.recipes import Recipe
from motivation.stderr import say
from motivation.table import Cell, Compose, Plan, list_tables, plan_table, read_table
from motivation.train import prepare, run

TIMED_STEPS = 3
# What ends one run and not the others: a mistake in its config or data, a disk, or memory that is not there.
TROUBLE = (ValueError, OSError, MemoryError, torch.OutOfMemoryError)


class DataRoom:
    """Data sets that a plan asks about, each read once."""

    def __init__(self):
        self._known: dict[str, Any] = {}

    def dataset(self, spec: dict[str, Any]) -> motivation.data.Dataset:
        """The data set of a config's data group.

        Raises:
            ValueError: it cannot be read.
        """
        key = repr(spec)
        if key not in self._known:
            try:
                self._known[key] = build(motivation.data.BY_NAME, spec, "data").load()
            except ValueError as error:
                self._known[key] = error
        if isinstance(self._known[key], ValueError):
            raise self._known[key]
        return self._known[key]

    def fingerprint(self, spec: dict[str, Any]) -> str:
        """Fingerprint of the data set of a config's data group."""
        return self.dataset(spec).fingerprint


def show_plan(compose: Compose, name: str, scale: str, seeds: int | None, runs: Path, overrides: tuple[str, ...],
              timing: bool) -> Plan:
    """Plan a table, and say on stderr what is finished and what the rest costs.

    Args:
        compose: overrides -> resolved config.
        name: of the table.
        scale: smoke, reduced or paper.
        seeds: runs a cell; None for the scale's own.
        runs: folder of all cells.
        overrides: of every cell.
        timing: estimate the time from a few steps of the first missing run.
    """
    room = DataRoom()
    plan = plan_table(read_table(name), scale, seeds, compose, room.fingerprint, overrides)
    unfinished = plan.unfinished(runs)
    _say(f"{plan.name} at scale {scale}: {len(plan.cells)} runs, {len(plan.cells) - len(unfinished)} finished")
    for dataset, reason in plan.missing.items():
        _say(f"{dataset} cannot be read: {reason}")
    if trainable := plan.trainable(runs):
        # An estimate alone: what a run cannot do is that run's failure, when it is trained.
        try:
            flops = sum(cost_of(cell, room) for cell in trainable)
            line = f"{len(trainable)} runs to train: about {flops:.3g} FLOPs"
            if timing:
                rate = flops_per_second(trainable[0])
                line += f", {clock(flops / rate)} (h:mm:ss) one after another at {rate:.3g} FLOPs/s"
        except TROUBLE as error:
            line = f"{len(trainable)} runs to train; what they cost cannot be estimated: {_one_line(error)}"
        _say(line)
    return plan


def cost_of(cell: Cell, room: DataRoom) -> float:
    """Training FLOPs that a cell will take, evaluation apart; a pair at its base's cost and a sixth of the extra.

    A sixth is what the paper's rule takes on noise at k = 2; other schedules take less or say their share.
    """
    config = cell.config
    dataset = room.dataset(config["data"])
    choice = build(motivation.models.choice.BY_NAME, config["model"], "model")
    recipe = build({"recipe": Recipe}, {"name": "recipe", **config["recipe"]}, "recipe")
    shape = recipe.train_shape(dataset.image_shape)
    model = choice.build(dataset.num_classes, shape[0], 0)
    steps = recipe.total_steps(len(dataset.train) // recipe.batch_size)
    if hasattr(model, "pair") or hasattr(model, "motivated"):
        base, motivated = (forward_flops(network, shape) for network in (model.base, model.motivated))
        forward = base + (motivated - base) / 6
    else:
        forward = forward_flops(model, shape)
    return TRAINING_FORWARDS * forward * steps * recipe.batch_size


def flops_per_second(cell: Cell) -> float:
    """Speed of training here, from a few steps of a cell that depends on no other."""
    source = cell.source or cell
    session = prepare(source.config)
    steps = session.steps()
    next(steps)
    before, start = sum(session.trainer.ledger.flops.values()), perf_counter()
    for _, _ in zip(range(TIMED_STEPS), steps, strict=False):
        pass
    return max(1.0, (sum(session.trainer.ledger.flops.values()) - before)) / (perf_counter() - start)


def finish_table(plan: Plan, runs: Path, jobs: int = 1) -> list[tuple[str, str]]:
    """Train every cell that is missing, sources first; a failed one does not end the others.

    Args:
        plan: the table.
        runs: folder of all cells.
        jobs: runs at once, each in a process of its own; 1 trains in this one.

    Returns:
        Name and error of every cell that failed, and of every data set that cannot be read.

    Raises:
        ValueError: no data set that is still needed can be read.
        Interrupted: a signal came; the run it hit can be gone on with.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    unfinished = plan.trainable(runs)
    failed = [(dataset, f"cannot be read: {reason}") for dataset, reason in plan.missing.items()]
    if failed and not unfinished:
        raise ValueError(" ".join(failed[0]))
    waves = [[cell for cell in unfinished if cell.source is None], [cell for cell in unfinished if cell.source]]
    done = 0
    for wave in waves:
        for cell, error in _train_all(plan, wave, runs, jobs):
            done += 1
            _say(f"run {done} of {len(unfinished)}: {cell.name}: {error or 'finished'}")
            if error:
                failed.append((cell.name, error))
    return failed


def _train_all(plan: Plan, cells: Sequence[Cell], runs: Path, jobs: int):
    if jobs == 1:
        for cell in cells:
            yield cell, train_cell(cell, runs, plan.name)
        return
    # Not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from zip(cells, pool.map(train_cell, cells, [runs] * len(cells), [plan.name] * len(cells)),
                       strict=True)


def train_cell(cell: Cell, runs: Path, table: str) -> str | None:
    """Train a cell, or go on with it where it was broken off.

    Args:
        cell: what to train.
        runs: folder of all cells.
        table: name of the table, the run's group in its tracker where the config names none.

    Returns:
        Its error, if any.
    """
    path = runs / cell.name
    try:
        config = cell.runnable(runs)
        if config["tracker"].get("group", table) is None:
            config["tracker"]["group"] = table
        run(config, path, resume=(path / "config.yaml").is_file())
    except TROUBLE as error:
        return _one_line(error)
    return None


def write_table(plan: Plan, runs: Path, out: Path) -> tuple[str, list[Path]]:
    """The table of the runs there are: its Markdown, and the files it was written to (.md, .tex, .csv)."""
    rows = with_tests(plan.measured(runs))
    spent = sum(row.measured.flops * len(row.measured.accuracy) for row in rows if row.measured.flops)
    controls = sum(row.measured.flops * len(row.measured.accuracy) for row in rows if row.method and row.measured.flops)
    note = (f"Scale {plan.scale}: {plan.note} Training took {spent:.3g} FLOPs in all rows, {controls:.3g} of them in "
            "the controls that the paper lacks.")
    out.mkdir(parents=True, exist_ok=True)
    markdown = to_markdown(plan.title, note, rows)
    paths = []
    for suffix, text in ((".md", markdown + "\n"), (".tex", to_latex(plan.title, note, rows)), (".csv", to_csv(rows))):
        paths.append(out / f"{plan.name}-{plan.scale}{suffix}")
        paths[-1].write_text(text)
    return markdown, paths


def list_states(compose: Compose, scale: str, seeds: int | None, runs: Path, overrides: tuple[str, ...]) -> str:
    """All tables: title, and how many of their runs are finished at a scale."""
    room, lines = DataRoom(), []
    for name in list_tables():
        plan = plan_table(read_table(name), scale, seeds, compose, room.fingerprint, overrides)
        finished = len(plan.cells) - len(plan.unfinished(runs))
        missing = f"; {', '.join(plan.missing)} cannot be read" if plan.missing else ""
        lines.append(f"{name:8} {plan.title}: {finished} of {len(plan.cells)} runs finished at scale {scale}{missing}")
    return "\n".join(lines)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(line: str) -> None:
    say(f"motivation: {line}")
