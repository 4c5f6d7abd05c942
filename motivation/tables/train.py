"""Running a table: what its missing runs cost, the runs one after another or at once, and the table they make."""

import functools
import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import motivation.data
import motivation.run.model_choice
from motivation.models import create_model
from motivation.registry import build
from motivation.run.progress import clock
from motivation.run.run import run
from motivation.run.session import prepare
from motivation.stderr import say
from motivation.tables.cells import Archive, Cell, set_aside
from motivation.tables.plan import Compose, Plan, list_tables, plan_table, read_table
from motivation.tables.render import to_csv, to_latex, to_markdown
from motivation.tables.rows import mean_accuracy, with_tests
from motivation.training.engine import Engine
from motivation.training.ledger import TRAINING_FORWARDS, forward_flops
from motivation.training.recipe import Recipe

TIMED_STEPS = 3
TIMED_FLOPS = 1e11
# Trains cells, at once or one after another; yields each with its error, if any.
Launch = Callable[[Sequence[Cell]], Iterable[tuple[Cell, str | None]]]
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


def show_plan(compose: Compose, name: str, scale: str, seeds: int | None, archive: Archive,
              overrides: tuple[str, ...], costs: bool) -> Plan:
    """Plan a table, and say on stderr what is finished and what the rest costs.

    Args:
        compose: overrides -> resolved config.
        name: of the table.
        scale: smoke, reduced or paper.
        seeds: runs a cell; None for the scale's own.
        archive: the folder of all cells.
        overrides: of every cell.
        costs: estimate FLOPs, and the time from a few steps of the first missing run.
    """
    room = DataRoom()
    plan = plan_table(read_table(name), scale, seeds, compose, room.fingerprint, overrides)
    unfinished = plan.unfinished(archive)
    _say(f"{plan.name} at scale {scale}: {len(plan.cells)} runs, {len(plan.cells) - len(unfinished)} finished")
    for dataset, reason in plan.missing.items():
        _say(f"{dataset} cannot be read: {reason}")
    trainable = plan.trainable(archive)
    if costs and trainable:
        # An estimate alone: what a run cannot do is that run's failure, when it is trained.
        try:
            flops = sum(cost_of(cell, room) for cell in trainable)
            rate = flops_per_second(trainable[0], room)
            line = (f"{len(trainable)} runs to train: about {flops:.3g} FLOPs, {clock(flops / rate)} (h:mm:ss) one "
                    f"after another at {rate:.3g} FLOPs/s")
        except TROUBLE as error:
            line = f"{len(trainable)} runs to train; what they cost cannot be estimated: {_one_line(error)}"
        _say(line)
    return plan


def cost_of(cell: Cell, room: DataRoom) -> float:
    """Training FLOPs that a cell will take, evaluation apart; an equal-FLOPs control costs what its source does."""
    cell = cell.source if cell.control == "equal_flops" else cell
    batch, steps, image = _measures(cell, room)
    return image * batch * steps


def _measures(cell: Cell, room: DataRoom) -> tuple[int, int, float]:
    """Batch size, steps, and training FLOPs an image; of a pair its base's cost and a sixth of the extra.

    A sixth is what the paper's rule takes on noise at k = 2; other schedules take less or say their share.
    """
    config = cell.config
    dataset = room.dataset(config["data"])
    choice = build(motivation.run.model_choice.BY_NAME, config["model"], "model")
    recipe = build({"recipe": Recipe}, {"name": "recipe", **config["recipe"]}, "recipe")

    def forward(role: str) -> int:
        options = recipe.network_options | choice.options | getattr(choice, f"{role}_options", {})
        return _forward_flops(getattr(choice, role), json.dumps(options, sort_keys=True), dataset.num_classes,
                              recipe.train_shape(dataset.image_shape))

    if hasattr(choice, "motivated"):
        image = forward("base") + (forward("motivated") - forward("base")) / 6
    else:
        image = forward("network")
    return recipe.batch_size, recipe.total_steps(len(dataset.train) // recipe.batch_size), TRAINING_FORWARDS * image


@functools.cache
def _forward_flops(name: str, options: str, num_classes: int, shape: tuple[int, ...]) -> int:
    """Forward FLOPs of one image, of a network that is never made: no weights are drawn."""
    with torch.device("meta"):
        return forward_flops(create_model(name, num_classes, shape[0], **json.loads(options)), shape)


def flops_per_second(cell: Cell, room: DataRoom) -> float:
    """Speed of training here, from a few steps of a cell that depends on no other.

    On a CPU, whose speed hardly depends on the batch, of no more images than take some seconds.
    """
    cell = cell.source or cell
    config = cell.config
    batch, _, image = _measures(cell, room)
    if build({"engine": Engine}, {"name": "engine", **config["engine"]}, "engine").torch_device.type == "cpu":
        # An even number, which Mixup needs.
        batch = min(batch, max(2, int(TIMED_FLOPS / image / (TIMED_STEPS + 1)) // 2 * 2))
        config = config | {"recipe": config["recipe"] | {"batch_size": batch}}
    session = prepare(config)
    with closing(session.loader):
        batches = session.batches()
        session.step(*next(batches))
        before, start = sum(session.trainer.ledger.flops.values()), perf_counter()
        for images, targets in itertools.islice(batches, TIMED_STEPS):
            session.step(images, targets)
        seconds = perf_counter() - start
    return max(1.0, (sum(session.trainer.ledger.flops.values()) - before)) / seconds


def finish_table(plan: Plan, archive: Archive, jobs: int = 1, launch: Launch | None = None) -> list[tuple[str, str]]:
    """Train every cell that is missing, sources first; a failed one does not end the others.

    Args:
        plan: the table.
        archive: the folder of all cells.
        jobs: runs at once, each in a process of its own; 1 trains in this one.
        launch: trains cells somewhere else, in place of ``jobs``.

    Returns:
        Name and error of every cell that failed or whose folder holds another run, and of every data set that cannot be
        read.

    Raises:
        ValueError: no data set that is still needed can be read.
        Interrupted: a signal came; the run it hit can be gone on with.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: must be at least 1")
    trainable = plan.trainable(archive)
    failed = [(dataset, f"cannot be read: {reason}") for dataset, reason in plan.missing.items()]
    foreign = [cell for cell in plan.cells if archive.state(cell).kind == "foreign"]
    if failed and not trainable and not foreign:
        raise ValueError(" ".join(failed[0]))
    errors = {cell.identity: str(archive.state(cell).trouble) for cell in foreign}
    failed += [(cell.name, errors[cell.identity]) for cell in foreign]
    done = 0
    for wave in ([cell for cell in trainable if cell.source is None], [cell for cell in trainable if cell.source]):
        orphans = [(cell, f"its source failed: {cell.source.name}") for cell in wave
                   if cell.source and cell.source.identity in errors]
        ready = [cell for cell in wave if cell.source is None or cell.source.identity not in errors]
        trained = launch(ready) if launch else _train_all(plan, ready, archive, jobs)
        for cell, error in itertools.chain(orphans, trained):
            done += 1
            _say(f"run {done} of {len(trainable)}: {cell.name}: {error or 'finished'}")
            if error:
                errors[cell.identity] = error
                failed.append((cell.name, error))
    return failed


def _train_all(plan: Plan, cells: Sequence[Cell], archive: Archive, jobs: int) -> Iterator[tuple[Cell, str | None]]:
    if jobs == 1 or len(cells) < 2:
        for cell in cells:
            yield cell, train_cell(cell, archive.folder, plan.name)
        return
    # Not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(train_cell, cell, archive.folder, plan.name) for cell in cells]
        for cell, future in zip(cells, futures, strict=True):
            try:
                yield cell, future.result()
            except BrokenProcessPool:
                yield cell, "a process was killed, and the others with it; the same command goes on with them"


def train_cell(cell: Cell, runs: Path, table: str) -> str | None:
    """Train a cell, or go on with it where it was broken off; what is broken is set aside first.

    Args:
        cell: what to train.
        runs: folder of all cells.
        table: name of the table, the run's group in its tracker where the config names none.

    Returns:
        Its error, if any.
    """
    archive = Archive(runs)
    path = archive.path(cell)
    try:
        state = archive.state(cell)
        config = archive.runnable(cell)
        if state.kind == "broken":
            _say(f"{path} is broken ({state.trouble}): set aside as {set_aside(path).name}, and trained again")
        if config["tracker"].get("group", table) is None:
            config["tracker"]["group"] = table
        run(config, path, resume=state.kind == "unfinished")
    except TROUBLE as error:
        return _one_line(error)
    return None


def write_table(plan: Plan, archive: Archive, out: Path) -> tuple[str, list[Path]]:
    """The table of the runs there are: its Markdown, and the files it was written to (.md, .tex, .csv)."""
    rows = with_tests(plan.measured(archive))
    note = f"Scale {plan.scale}: {plan.note} {_spent(plan, archive)}{_chosen(plan, archive)}"
    out.mkdir(parents=True, exist_ok=True)
    markdown = to_markdown(plan.title, note, rows)
    paths = []
    for suffix, text in ((".md", markdown + "\n"), (".tex", to_latex(plan.title, note, rows)), (".csv", to_csv(rows))):
        paths.append(out / f"{plan.name}-{plan.scale}{suffix}")
        paths[-1].write_text(text)
    return markdown, paths


def _spent(plan: Plan, archive: Archive) -> str:
    """What training took, each run once, and what of it the controls that the paper lacks."""
    def flops(cells: Sequence[Cell]) -> float:
        runs = [archive.state(cell).run for cell in cells]
        return sum(run.summary["budget/flops"] for run in runs if run)

    theirs = {one.identity for row in plan.rows if not row.method for cell in row.cells for one in (cell, cell.source)
              if one}
    controls = flops([cell for cell in plan.cells if cell.identity not in theirs])
    return (f"Training took {flops(plan.cells):.3g} FLOPs, {controls:.3g} of them in the controls that the paper "
            "lacks.")


def _chosen(plan: Plan, archive: Archive) -> str:
    """Which row cross-validation chooses; the search is not over before all of its folds are finished."""
    rows = [row for row in plan.measured(archive) if row.measured.accuracy]
    folds = [row for row in plan.rows if row.measure == "val_top1"]
    if not folds:
        return ""
    if len(rows) < len(folds) or any(len(row.measured.accuracy) < row.planned for row in rows):
        return " The search is not finished: no row is chosen yet."
    best = max(rows, key=lambda row: mean_accuracy(row.measured))
    return f" Chosen by mean validation accuracy: {best.label}; the search cost all of these FLOPs."


def list_states(compose: Compose, scale: str, seeds: int | None, archive: Archive, overrides: tuple[str, ...]) -> str:
    """All tables: title, and how many of their runs are finished at a scale."""
    room, lines = DataRoom(), []
    for name in list_tables():
        plan = plan_table(read_table(name), scale, seeds, compose, room.fingerprint, overrides)
        finished = len(plan.cells) - len(plan.unfinished(archive))
        missing = f"; {', '.join(plan.missing)} cannot be read" if plan.missing else ""
        lines.append(f"{name:8} {plan.title}: {finished} of {len(plan.cells)} runs finished at scale {scale}{missing}")
    return "\n".join(lines)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(line: str) -> None:
    say(f"motivation: {line}")
