"""The subcommands other than ``train``: each takes its parsed arguments and returns the exit status."""

import argparse
import functools
import glob
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from motivation.cli.logs import LOGGER, start_worker

if TYPE_CHECKING:
    from motivation.run.pool import Pool
    from motivation.tables.cells import Archive
    from motivation.tables.costs import DataSets
    from motivation.tables.plan import Plan
    from motivation.tables.results import Results

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
    if options.update:
        return update_pages(options.update)
    if options.against and not options.show:
        raise ValueError(f"--against {options.against}: only with --show")
    from motivation.analysis.figures import check_figure_path
    from motivation.run.machine import data_folder, thread_environment
    from motivation.run.pool import Pool

    if options.figure:
        check_figure_path(options.figure)
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
    from motivation.analysis.figures import save_figure
    from motivation.cli.compose import composing
    from motivation.cli.interruption import interrupted
    from motivation.command_line import pasteable
    from motivation.data.shared import shared_in
    from motivation.run.pool import Pool
    from motivation.run.signals import Interrupted
    from motivation.tables.costs import DataSets
    from motivation.tables.figures import draw_study
    from motivation.tables.render import write_table
    from motivation.tables.results import committed
    from motivation.tables.studies import against_table
    from motivation.tables.train import choose_jobs, finish_table, list_states

    datasets = DataSets()
    opened.enter_context(shared_in(data))
    overrides = tuple(override for override in options.overrides if override not in launcher)
    if options.list or options.name is None:
        with composing() as compose:
            print(list_states(compose, options.scale, options.seeds, options.runs, options.results or committed(),
                              overrides))
        return 0
    plan, archive, results = _planned(options, overrides, datasets)
    if options.plan:
        print(*plan.listing(archive), sep="\n")
        return 0
    if options.against:
        print(against_table(plan, archive, options.against))
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
    if options.figure:
        paths.append(save_figure(draw_study(plan, archive), options.figure))
    for path in paths:
        print(path)
    for name, message in failed:
        LOGGER.error(f"{name}: {message}")
    return 1 if failed else 0


def _planned(options: argparse.Namespace, overrides: tuple[str, ...],
             datasets: "DataSets") -> "tuple[Plan, Archive, Results | None]":
    """The plan of a table, the runs that there are, and the file of their results where one is asked for.

    Args:
        options: of the command line.
        overrides: of every run.
        datasets: that have been read; it keeps those that are read here.
    """
    from motivation.cli.compose import composing
    from motivation.tables.cells import Archive
    from motivation.tables.results import Results, committed
    from motivation.tables.spec import table_name
    from motivation.tables.train import show_plan

    results = None
    if options.show and options.results and not options.results.is_dir():
        raise ValueError(f"--results {options.results}: no such folder")
    if options.show or options.results:
        results = Results(options.results or committed(), table_name(options.name), options.scale)
    archive = Archive(options.runs, results)
    with composing() as compose:
        plan = show_plan(compose, options.name, options.scale, options.seeds, archive, overrides,
                         costs=not options.show, datasets=datasets, first_seed=options.first_seed)
    if results and (others := results.left_out(plan)):
        LOGGER.warning(f"{results.path}: {others} rows of these labels and seeds are of other configs or data, and "
                       "left out")
    return plan, archive, results


def report(options: argparse.Namespace) -> int:
    """``motivation report RUNS|TABLE``."""
    from motivation.analysis.page import check_page_path, write_page

    check_page_path(options.out)
    first = options.what[0]
    if glob.has_magic(first) or Path(first).exists():
        from motivation.analysis.report import report_runs
        from motivation.analysis.runs import read_runs

        runs = read_runs([Path(path) for path in options.what])
        title = f"{len(runs)} finished run{'s' * (len(runs) > 1)}"
        print(write_page(options.out, title, [f"From {', '.join(options.what)}."], report_runs(runs)))
        return 0
    from motivation.tables.costs import DataSets
    from motivation.tables.report import report_table
    from motivation.tables.spec import list_tables, table_name

    name, *overrides = options.what
    try:
        table_name(name)
    except ValueError:
        raise ValueError(f"{name}: no such run folder, and no table; there are {', '.join(list_tables())}") from None
    if others := [other for other in overrides if "=" not in other]:
        raise ValueError(f"{others[0]}: a page is of one table, here {name}; what follows must be KEY=VALUE")
    options.name, options.show = name, True
    plan, archive, _ = _planned(options, tuple(overrides), DataSets())
    print(write_page(options.out, plan.title, [], report_table(plan, archive)))
    for path, message in (failed := plan.troubles(archive)):
        LOGGER.error(f"{path}: {message}")
    return 1 if failed else 0


def update_pages(pages: list[Path]) -> int:
    """``motivation table --update PAGE...``: tables of pages from the results that come with the package alone."""
    from motivation.cli.compose import composing
    from motivation.cli.parser import parse_with_overrides
    from motivation.tables.cells import UNREAD, Archive
    from motivation.tables.page import fill
    from motivation.tables.plan import plan_table
    from motivation.tables.render import table_texts
    from motivation.tables.results import Results, committed
    from motivation.tables.spec import read_table
    from motivation.tables.studies import against_table

    with composing() as compose:
        def shown(command: str) -> str:
            asked = parse_with_overrides(["table", *shlex.split(command)])
            # The same page on every machine: neither data nor runs that lie there count.
            plan = plan_table(read_table(asked.name), asked.scale, asked.seeds, compose, lambda spec: UNREAD,
                              tuple(asked.overrides), asked.first_seed)
            archive = Archive(committed(), Results(committed(), plan.name, plan.scale))
            if asked.against:
                return against_table(plan, archive, asked.against)
            return table_texts(plan, archive)[".md"].rstrip()

        # All of them before any is written: an error leaves every page as it was.
        texts = {}
        for page in pages:
            if not page.is_file():
                raise ValueError(f"--update {page}: no such file")
            try:
                texts[page] = fill(page.read_text(), shown)
            except ValueError as error:
                raise ValueError(f"{page}: {error}") from error
    for page, text in texts.items():
        page.write_text(text)
        print(page)
    return 0


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
    return report.run(options.names, values, pasteable("motivation", *options.arguments), options.json, options.update)


def problems(options: argparse.Namespace) -> int:
    """``motivation problems NAME``."""
    import motivation.data
    from motivation.cli.compose import compose, plain
    from motivation.data.sources.problems import Problems
    from motivation.registry import build

    config = plain(compose([f"data={options.name}", *options.overrides]))["data"]
    data = motivation.data.BY_NAME.get(config["name"])
    if not (isinstance(data, type) and issubclass(data, Problems)):
        tasks = [name for name, source in motivation.data.BY_NAME.items() if issubclass(source, Problems)]
        raise ValueError(f"problems {options.name}: is no task; choose one of {', '.join(tasks)}")
    task = build(motivation.data.BY_NAME, config, "data")
    for split in task.splits:
        for problem in task.problems(split, options.n):
            print(f"{split:<16} {task.render(problem)}")
    return 0
