"""The subcommands other than ``train``: each takes its parsed arguments and returns the exit status."""

import argparse
import functools
import sys

from motivation.cli.logs import LOGGER, start_worker


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
    from motivation.cli.compose import composing
    from motivation.cli.interruption import interrupted
    from motivation.cli.launch import cell_launcher
    from motivation.command_line import pasteable
    from motivation.run.signals import Interrupted
    from motivation.tables.cells import Archive
    from motivation.tables.render import write_table
    from motivation.tables.results import Results, committed
    from motivation.tables.spec import table_name
    from motivation.tables.train import finish_table, list_states, show_plan

    archive = Archive(options.runs)
    launcher = [override for override in options.overrides
                if override.startswith(("hydra/launcher=", "hydra.launcher."))]
    overrides = tuple(override for override in options.overrides if override not in launcher)
    if launcher and options.jobs != 1:
        raise ValueError(f"--jobs {options.jobs}: leave it out where hydra/launcher is given")
    with composing() as compose:
        if options.list or options.name is None:
            print(list_states(compose, options.scale, options.seeds, archive, overrides))
            return 0
        results = None
        if options.show or options.results:
            results = Results(options.results or committed(), table_name(options.name), options.scale)
            archive = Archive(options.runs, results)
        plan = show_plan(compose, options.name, options.scale, options.seeds, archive, overrides,
                         costs=not options.show, first_seed=options.first_seed)
        if results and (others := results.left_out(plan)):
            LOGGER.warning(f"{results.path}: {others} rows of these labels and seeds are of other configs or data, and "
                           "left out")
        if options.plan:
            print(*plan.listing(archive), sep="\n")
            return 0
    if options.show:
        failed = plan.troubles(archive)
    else:
        launch = cell_launcher(launcher, options.runs, plan) if launcher else None
        record = functools.partial(results.record, plan, archive) if results else None
        try:
            if record:
                record(plan.cells)
            failed = finish_table(plan, archive, options.jobs, launch, start_worker, record)
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


def bench(arguments: list[str]) -> int:
    """``motivation bench [NAME [OPTION ...]]``: without a name, list the benchmarks."""
    import ast
    import runpy
    from importlib import resources

    files = {file.name.removesuffix(".py"): file for file in resources.files("motivation.benchmarks").iterdir()
             if file.name.endswith(".py") and file.name != "__init__.py"}
    if not arguments:
        for known in sorted(files):
            print(f"{known:12} {ast.get_docstring(ast.parse(files[known].read_text())).splitlines()[0]}")
        return 0
    name, *options = arguments
    if name not in files:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(sorted(files))}")
    sys.argv = [f"motivation bench {name}", *options]
    try:
        runpy.run_module(f"motivation.benchmarks.{name}", run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    return 0


