"""The subcommands other than ``train``: each takes its parsed arguments and returns the exit status."""

import argparse
import functools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from motivation.cli.logs import LOGGER, start_worker

if TYPE_CHECKING:
    from motivation.run.pool import Pool

# Of a process that trains runs of a table: all that its first run needs.
IMPORTS = ("motivation.tables.train", "timm.optim", "timm.scheduler")


def compare(options: argparse.Namespace) -> int:
    """``motivation compare RUNS...``."""
    from motivation.analysis.budgets import retained_gain, target_table
    from motivation.analysis.calibration import calibration_table, draw_calibration
    from motivation.analysis.compare import comparison_table
    from motivation.analysis.figures import check_figure_path, draw_comparison, save_figure
    from motivation.analysis.pareto import draw_pareto
    from motivation.analysis.runs import read_runs

    check_figure_path(options.figure)
    runs = read_runs(options.runs)
    sections = [comparison_table(runs), retained_gain(runs), calibration_table(runs)]
    if options.target is not None:
        sections.insert(1, target_table(runs, options.target))
    name = options.figure
    figures = [(draw_pareto, name.with_stem(f"{name.stem}_pareto")),
               (draw_calibration, name.with_stem(f"{name.stem}_calibration")), (draw_comparison, name)]
    paths = [save_figure(draw(runs), path) for draw, path in figures]
    print("\n\n".join(filter(None, sections)))
    print()
    print(*paths, sep="\n")
    return 0


def table(options: argparse.Namespace) -> int:
    """``motivation table N``."""
    from motivation.run.machine import data_folder, thread_environment
    from motivation.run.pool import Pool

    launcher = [override for override in options.overrides
                if override.startswith(("hydra/launcher=", "hydra.launcher."))]
    if options.jobs != "auto" and options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: must be at least 1")
    if launcher and options.jobs != 1:
        raise ValueError(f"--jobs {options.jobs}: leave it out where hydra/launcher is given")
    trains = options.name is not None and not (options.list or options.plan or options.show)
    with ExitStack() as opened:
        pool, data = None, opened.enter_context(data_folder()) if trains else None
        if trains and options.jobs != 1:
            # Of this process too: it measures while the others import.
            opened.enter_context(thread_environment(None))
        if trains and options.jobs not in (1, "auto"):
            # Before anything heavy is imported here: they import meanwhile.
            pool = opened.enter_context(Pool(options.jobs, start_worker, IMPORTS))
            pool.start_all()
        return _table(options, launcher, pool, data, opened)


def _table(options: argparse.Namespace, launcher: list[str], pool: "Pool | None", data: Path | None,
           opened: ExitStack) -> int:
    """The same.

    Args:
        options: of the command line.
        launcher: overrides that choose a launcher.
        pool: processes that have been started; None without any.
        data: folder in which they share data sets; None where nothing is trained.
        opened: ends with the command.
    """
    from motivation.cli.compose import composing
    from motivation.cli.interruption import interrupted
    from motivation.command_line import pasteable
    from motivation.data.shared import shared_in
    from motivation.run.pool import Pool
    from motivation.run.signals import Interrupted
    from motivation.tables.cells import Archive
    from motivation.tables.costs import DataSets
    from motivation.tables.render import write_table
    from motivation.tables.results import Results, committed
    from motivation.tables.spec import table_name
    from motivation.tables.train import choose_jobs, finish_table, list_states, show_plan

    archive, datasets = Archive(options.runs), DataSets()
    opened.enter_context(shared_in(data))
    overrides = tuple(override for override in options.overrides if override not in launcher)
    with composing() as compose:
        if options.list or options.name is None:
            print(list_states(compose, options.scale, options.seeds, archive, overrides))
            return 0
        results = None
        if options.show or options.results:
            results = Results(options.results or committed(), table_name(options.name), options.scale)
            archive = Archive(options.runs, results)
        plan = show_plan(compose, options.name, options.scale, options.seeds, archive, overrides,
                         costs=not options.show, datasets=datasets, first_seed=options.first_seed)
        if results and (others := results.left_out(plan)):
            LOGGER.warning(f"{results.path}: {others} rows of these labels and seeds are of other configs or data, and "
                           "left out")
        if options.plan:
            print(*plan.listing(archive), sep="\n")
            return 0
    if options.show:
        failed = plan.troubles(archive)
    else:
        launch = None
        if launcher:
            from motivation.cli.launch import cell_launcher

            launch = cell_launcher(launcher, options.runs, plan, data)
        elif options.jobs == "auto" and (jobs := choose_jobs(plan, archive, datasets)) > 1:
            pool = opened.enter_context(Pool(jobs, start_worker, IMPORTS))
        record = functools.partial(results.record, plan, archive) if results else None
        try:
            if record:
                record(plan.cells)
            failed = finish_table(plan, archive, pool, launch, data, record)
        except Interrupted as error:
            raise interrupted(error, pasteable("motivation", *options.arguments)) from None
    text, paths = write_table(plan, archive, options.out)
    print(text)
    for path in paths:
        print(path)
    for name, message in failed:
        LOGGER.error(f"{name}: {message}")
    return 1 if failed else 0


def diagnose(options: argparse.Namespace) -> int:
    """``motivation diagnose RUNS...``."""
    import motivation.analysis.diagnose as room
    from motivation.analysis.figures import check_figure_path, draw_diagnoses, save_figure
    from motivation.analysis.runs import read_runs

    check_figure_path(options.figure)
    diagnoses = room.diagnose_all(read_runs(options.runs))
    figure = save_figure(draw_diagnoses(diagnoses), options.figure)
    print("\n\n".join(map(room.report, diagnoses)))
    print(figure)
    return 0


def pair(options: argparse.Namespace) -> int:
    """``motivation pair A B``."""
    from motivation.models import create_pair
    from motivation.pairing.describe import map_table

    made = create_pair(options.base, options.motivated, options.classes, weights_map=options.map, init=options.init,
                       depth_rule=options.depth_rule)
    print(map_table(made))
    if options.json:
        options.json.write_text(made.weights_map.to_json())
    return 0


def export(options: argparse.Namespace) -> int:
    """``motivation export RUN``."""
    from motivation.run.export import export_run

    print(*export_run(options.run, options.out, options.network, options.format), sep="\n")
    return 0


def wandb_panels(options: argparse.Namespace) -> int:
    """``motivation wandb-panels PROJECT``."""
    from motivation.run.panels import save_panels

    print(save_panels(options.project, options.entity))
    return 0


def bench(options: argparse.Namespace) -> int:
    """``motivation bench [NAME ...]``."""
    from omegaconf import OmegaConf

    from motivation.benchmarks import report
    from motivation.command_line import pasteable

    if options.list:
        print(*report.listing(), sep="\n")
        return 0
    values = OmegaConf.to_container(OmegaConf.from_dotlist(options.overrides))
    return report.run(options.names, values, pasteable("motivation", *options.arguments), options.json, options.into)
