"""The missing runs of a table: what is planned, and the training of it, one after another or several at once."""

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from motivation.run.jobs import Jobs
from motivation.run.pool import Pool
from motivation.run.progress import clock
from motivation.run.run import run
from motivation.tables.cells import Archive, Cell, set_aside
from motivation.tables.costs import DataSets, cost_of, flops_per_second
from motivation.tables.plan import SCALES, Compose, Plan, plan_table
from motivation.tables.spec import list_tables, read_table

logger = logging.getLogger(__name__)
# Trains cells, at once or one after another; yields each with its error, if any.
Launch = Callable[[Sequence[Cell]], Iterable[tuple[Cell, str | None]]]
# What ends one run and not the others: a mistake in its config or data, a disk error, or too little memory.
RUN_ERRORS = (ValueError, OSError, MemoryError, torch.OutOfMemoryError)


def show_plan(compose: Compose, name: str, scale: str, seeds: int | None, archive: Archive,
              overrides: tuple[str, ...], costs: bool, first_seed: int = 0) -> Plan:
    """Plan a table, and log what is finished and what the rest costs.

    Args:
        compose: overrides -> resolved config.
        name: of the table.
        scale: smoke, cpu, reduced or paper.
        seeds: runs a cell; None for the scale's own.
        archive: the folder of all cells.
        overrides: of every cell.
        costs: estimate FLOPs, and the time from a few steps of the first missing run.
        first_seed: see `plan_table`.
    """
    datasets = DataSets()
    plan = plan_table(read_table(name), scale, seeds, compose, datasets.fingerprint, overrides, first_seed)
    unfinished = plan.unfinished(archive)
    logger.info("%s at scale %s: %d runs, %d finished", plan.name, scale, len(plan.cells),
                len(plan.cells) - len(unfinished))
    for dataset, reason in plan.missing.items():
        logger.warning("%s cannot be read: %s", dataset, reason)
    trainable = plan.trainable(archive)
    if costs and trainable:
        # An estimate alone: an error here is that run's error when it is trained.
        try:
            flops = sum(cost_of(cell, datasets) for cell in trainable)
            rate = flops_per_second(trainable[0], datasets)
            logger.info("%d runs to train: about %.3g FLOPs, %s (h:mm:ss) one after another at %.3g FLOPs/s",
                        len(trainable), flops, clock(flops / rate), rate)
        except RUN_ERRORS as error:
            logger.warning("%d runs to train; what they cost cannot be estimated: %s", len(trainable), _one_line(error))
    return plan


def list_states(compose: Compose, scale: str, seeds: int | None, archive: Archive, overrides: tuple[str, ...]) -> str:
    """All tables: title, and how many of their runs are finished at a scale."""
    datasets, lines = DataSets(), []
    for name in list_tables():
        table = read_table(name)
        if scale in SCALES and scale not in table["scales"]:
            lines.append(f"{name:14} {table['title']}: no scale {scale}")
            continue
        plan = plan_table(table, scale, seeds, compose, datasets.fingerprint, overrides)
        finished = len(plan.cells) - len(plan.unfinished(archive))
        missing = f"; {', '.join(plan.missing)} cannot be read" if plan.missing else ""
        lines.append(f"{name:14} {plan.title}: {finished} of {len(plan.cells)} runs finished at scale {scale}{missing}")
    return "\n".join(lines)


def finish_table(plan: Plan, archive: Archive, jobs: int = 1, launch: Launch | None = None,
                 start_worker: Callable[[], None] | None = None,
                 record: Callable[[Sequence[Cell]], None] | None = None) -> list[tuple[str, str]]:
    """Train every cell that is missing, sources first; a failed one does not end the others.

    Args:
        plan: the table.
        archive: the folder of all cells.
        jobs: runs at once, each in its own process; 1 trains in this one.
        launch: trains cells somewhere else, in place of ``jobs``.
        start_worker: called first in each of those processes, such as to set logging up.
        record: called with what finished, after every run, such as to keep its figures.

    Returns:
        Name and error of every cell that failed or whose folder holds another run, and of every data set that cannot be
        read.

    Raises:
        ValueError: no data set that is still needed can be read.
        Interrupted: a signal came; the run it stopped can be resumed.
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
    train = functools.partial(train_cell, runs=archive.folder, table=plan.name)
    with _launching(launch, train, min(jobs, len(trainable)), start_worker) as train_all:
        for wave in ([cell for cell in trainable if cell.source is None], [cell for cell in trainable if cell.source]):
            orphans = [(cell, f"its source failed: {cell.source.name}") for cell in wave
                       if cell.source and cell.source.identity in errors]
            ready = [cell for cell in wave if cell.source is None or cell.source.identity not in errors]
            for cell, error in itertools.chain(orphans, train_all(ready)):
                done += 1
                logger.info("run %d of %d: %s: %s", done, len(trainable), cell.name, error or "finished")
                if error:
                    errors[cell.identity] = error
                    failed.append((cell.name, error))
                elif record:
                    record([cell])
    return failed


@contextmanager
def _launching(launch: Launch | None, train: Callable[[Cell], str | None], jobs: int,
               start_worker: Callable[[], None] | None) -> Iterator[Launch]:
    """Context of what trains cells: a launcher, this process, or processes of its own."""
    with ExitStack() as opened:
        if launch is not None:
            yield launch
            return
        stop = opened.enter_context(Jobs())
        if jobs > 1:
            yield opened.enter_context(Pool(stop, jobs, train, start_worker)).do_all
        else:
            yield lambda cells: ((cell, train(cell)) for cell in cells)


def train_cell(cell: Cell, runs: Path, table: str) -> str | None:
    """Train a cell, or resume it; a broken run is moved out of the way first.

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
            logger.warning("%s is broken (%s): set aside as %s, and trained again", path, state.trouble,
                           set_aside(path).name)
        if config["tracker"].get("group", table) is None:
            config["tracker"]["group"] = table
        run(config, path, resume=state.kind == "unfinished")
    except RUN_ERRORS as error:
        return _one_line(error)
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
