"""What the ``motivation`` command accepts."""

import argparse
from pathlib import Path
from typing import NoReturn

DESCRIPTION = "Training that switches model capacity on learning progress (arXiv 2602.21064)."


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"motivation: error: {message}; see {self.prog} --help\n")


def command_parser() -> Parser:
    """The parser of every subcommand but ``train``, of which it only knows that it exists."""
    parser = Parser(prog="motivation", description=DESCRIPTION)
    # `main` takes it out of the arguments, wherever it is; here it is for --help.
    parser.add_argument("--traceback", action="store_true", help="show the traceback of every error, as the "
                        "environment variable MOTIVATION_TRACEBACK=1 does; accepted after COMMAND too")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("train", help="train one run, or a sweep with -m; see `motivation train --help`",
                        add_help=False)
    comparison = commands.add_parser(
        "compare", help="tables and figures from finished runs",
        description="Compare finished runs by what they reach and what they cost. Standard output: accuracies and "
        "their tests; the base's gain against a base given the same training FLOPs; calibration; with --target, FLOPs "
        "and seconds to that accuracy; then the paths of three figures: NAME_pareto (test accuracy against training "
        "and inference FLOPs), NAME_calibration (confidence against accuracy) and NAME (loss with the motivated "
        "intervals shaded; accuracy over training FLOPs).")
    comparison.add_argument("runs", nargs="+", metavar="RUN", type=Path,
                            help="run folder, folder of run folders (a sweep), or a glob of either")
    comparison.add_argument("--target", type=_percentage, metavar="PERCENT",
                            help="test accuracy to give the cost of, such as 90")
    comparison.add_argument("--figure", type=Path, default=Path("compare.png"), metavar="FILE",
                            help="where to write the figures, .png, .svg or .pdf; NAME above is this without its "
                            "ending (default: %(default)s)")
    diagnosis = commands.add_parser("diagnose", help="whether a run's expansions followed progress or noise",
                                    description="Compare the expansions of finished runs with those that noise would "
                                    "give: a table and one plain sentence a run, then the path of a figure.")
    diagnosis.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="run folder")
    diagnosis.add_argument("--figure", type=Path, default=Path("diagnose.png"), metavar="FILE",
                           help="where to write the figure, .png, .svg or .pdf (default: %(default)s)")
    pairing = commands.add_parser("pair", help="how two networks share weights",
                                  description="Print the weights map of two networks: which slice of which tensor of "
                                  "B each tensor of A is, what a switch copies, and whether the first expansion "
                                  "changes the logits.")
    pairing.add_argument("base", metavar="A", help="the smaller network: resnet20, ..., or any timm model")
    pairing.add_argument("motivated", metavar="B", help="the larger network of the same family")
    pairing.add_argument("--map", default="structural", help="structural or literal (default: %(default)s)")
    pairing.add_argument("--init", default="identity", help="identity, native or copy (default: %(default)s)")
    pairing.add_argument("--depth-rule", help="last-to-last, first or spread (default: the family's)")
    pairing.add_argument("--classes", type=int, default=1000, help="number of classes (default: %(default)s)")
    pairing.add_argument("--json", type=Path, metavar="FILE", help="also write the map, to edit and pass to Pair")
    tables = commands.add_parser("table", help="run and show a table: the paper's, reported beside measured, or ours",
                                 description="Plan the runs of a table, say what they cost, train those that are "
                                 "missing (interrupted runs are resumed, damaged ones set aside and trained again), "
                                 "and print the table: the paper's figures beside measured, or differences to "
                                 "named controls. "
                                 "Further arguments are overrides of every run, as `motivation train` takes them: "
                                 "tracker=none, data.root=PATH, engine.threads=1.")
    tables.add_argument("name", nargs="?", metavar="N", help="1 to 7, or a name that --list shows")
    tables.add_argument("--list", action="store_true", help="all tables and how much of each is finished")
    _choose_runs(tables)
    tables.add_argument("--out", type=Path, default=Path("runs/tables"), metavar="DIR",
                        help="where the table goes as .md, .tex and .csv (default: %(default)s)")
    tables.add_argument("--plan", action="store_true", help="print what would run and what it costs, and stop")
    tables.add_argument("--show", action="store_true", help="print the table from the finished runs and the results' "
                        "file, and stop")
    tables.add_argument("--against", metavar="ROW", help="with --show: a line for every row that is compared with "
                        "this one, both networks side by side")
    tables.add_argument("--figure", type=Path, metavar="FILE", help="of a table of ours: draw its comparisons with "
                        "their intervals, and its curves (.png, .svg or .pdf)")
    tables.add_argument("--update", type=Path, nargs="+", metavar="PAGE", help="write the tables of Markdown pages "
                        "anew from the results that come with the package: what stands between a comment "
                        "<!-- motivation table ... --> and a comment <!-- end of table -->")
    tables.add_argument("--results", type=Path, metavar="DIR", help="keep a row for every finished run in "
                        "DIR/NAME_SCALE.csv; runs that have a row there count as finished (default: keep none, and "
                        "--show reads the results that come with the package, experiments/results)")
    tables.add_argument("--jobs", type=_jobs, default=1, metavar="N", help="runs at once, each in its own process with "
                        "its share of the cores, or auto: as many as a measurement says are fastest and memory holds "
                        "(default: %(default)s); or choose a launcher with overrides: hydra/launcher=joblib "
                        "hydra.launcher.n_jobs=4, or hydra/launcher=slurm hydra.launcher.partition=NAME, a job a run")
    tables.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides of every run")
    reporting = commands.add_parser(
        "report", help="one page of HTML from finished runs, or of a table",
        description="Write one page of HTML that opens in any browser without a server or network. Of finished runs: "
        "the tables of compare, accuracy over training FLOPs, accuracy against training and inference FLOPs, the "
        "verdicts of diagnose, and the motivated intervals. Of a table: what `motivation table NAME --show` prints, "
        "and accuracy over FLOPs; the options but -o are those of a table, and so are overrides: KEY=VALUE. Print the "
        "path of the page.")
    reporting.add_argument("what", nargs="+", metavar="RUN|TABLE", help="run folders, folders of run folders (a sweep) "
                           "or globs of either; or the name or number of one table")
    reporting.add_argument("-o", "--out", type=Path, default=Path("report.html"), metavar="FILE",
                           help="where to write the page (default: %(default)s)")
    _choose_runs(reporting)
    reporting.add_argument("--results", type=Path, metavar="DIR", help="folder of the results' file (default: that of "
                           "the results that come with the package)")
    exporting = commands.add_parser(
        "export", help="the networks of a finished run as safetensors or ONNX",
        description="Write the final networks of a finished run, each to its own folder with model.safetensors and "
        "config.json (architecture, options, classes, normalisation), and print the folders. "
        "motivation.run.export.load_network reads such a folder; timm.create_model('local-dir:FOLDER', "
        "pretrained=True) reads it where the network is one of timm's. With --format onnx: a file model.onnx in each "
        "folder, for batches of any size, checked with onnxruntime; its metadata has classes and normalisation.")
    exporting.add_argument("run", metavar="RUN", type=Path, help="run folder")
    exporting.add_argument("--network", choices=("base", "motivated"), help="only this one (default: both of a pair)")
    exporting.add_argument("--format", choices=("safetensors", "onnx"), default="safetensors",
                           help="(default: %(default)s); onnx needs: pip install motivation[onnx]")
    exporting.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN/export)")
    problems = commands.add_parser(
        "problems", help="problems of a task, such as chains",
        description="Print problems of every split of a task, one a line, as a run with data=NAME has them: the "
        "prompt, which ends with =, and the answer. Steps that are wrong (data.noise) have a ! behind them; what the "
        "environment writes is in brackets.")
    problems.add_argument("name", metavar="NAME", help="an option of conf/data: chains, noisy_chains, ...")
    problems.add_argument("-n", type=_count, default=5, metavar="N", help="problems a split (default: %(default)s)")
    problems.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="overrides, such as data.depth=[2,4]")
    panels = commands.add_parser(
        "wandb-panels", help="make the panels of a W&B project, once",
        description="Save a view with the panels of docs/wandb.md in a W&B project that has runs, and print its "
        "address. Needs: pip install motivation[wandb-panels], and wandb login.")
    panels.add_argument("project", metavar="PROJECT", help="W&B project, as in tracker.project")
    panels.add_argument("--entity", help="W&B team or user (default: the login's)")
    benchmarks = commands.add_parser(
        "bench", help="what training costs on this machine, in tables",
        description="Measure this machine and print Markdown: without a name all benchmarks of speed and memory, in "
        "less than ten minutes of two idle CPU cores. Things that are compared take turns. The exit status is 1 where "
        "a bound is missed.")
    benchmarks.add_argument("names", nargs="*", metavar="NAME", help="a benchmark that --list shows")
    benchmarks.add_argument("--list", action="store_true", help="all benchmarks, and the keys that each takes")
    benchmarks.add_argument("--json", type=Path, metavar="FILE", help="write the tables as JSON too")
    benchmarks.add_argument("--update", type=Path, metavar="PAGE", help="write the report into a Markdown page, such "
                            "as docs/performance.md, between <!-- motivation bench --> and <!-- end of bench -->")
    benchmarks.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="a key of the benchmarks that are named, "
                            "such as seconds=5 for the time that each measures for")
    return parser


def _choose_runs(parser: argparse.ArgumentParser) -> None:
    """Options that say which runs a table is of."""
    parser.add_argument("--scale", default="smoke", help="smoke: the whole pipeline on digits in minutes, no "
                        "reproduction; minute: 10,000 images of CIFAR-10 at 16 x 16, a minute a run on any core; cpu: "
                        "ResNet-20 in ResNet-32 on them, 20 epochs; reduced: real "
                        "data, fewer epochs; paper: the full recipe (default: %(default)s)")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs a cell (default: the scale's own)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="count seeds from here, such as for "
                        "fresh ones (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/cells"), metavar="DIR",
                        help="folder of all runs, shared by all tables (default: %(default)s)")


def _percentage(text: str) -> float:
    """An accuracy in percent."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: must be a percentage from 0 to 100")
    return value


def _count(text: str) -> int:
    """A number from 1 on."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text}: must be a number from 1 on")
    return int(text)


def _jobs(text: str) -> int | str:
    """A number of runs at once, or auto."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be a number or auto") from None


def parse_with_overrides(arguments: list[str]) -> argparse.Namespace:
    """The arguments of ``table``, ``bench`` or ``problems``. Overrides may come anywhere: they have a ``=`` and no
    leading dash.
    """
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    options = command_parser().parse_args([argument for argument in arguments if argument not in overrides])
    options.overrides, options.arguments = overrides, arguments
    return options


def parse_report(arguments: list[str]) -> argparse.Namespace:
    """The arguments of ``report``, whose runs and overrides may stand between its options."""
    parser = command_parser()
    options, more = parser.parse_known_args(arguments)
    if unknown := [argument for argument in more if argument.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.what += more
    return options


def train_parser() -> Parser:
    """The parser of ``train``: overrides, and those of Hydra's options that mean something here."""
    parser = Parser(prog="motivation train", add_help=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--run", "-r", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn", default="config")
    parser.add_argument("--config-path", "-cp")
    # What Hydra shows in place of a run.
    for option in (("--help", "-h"), ("--hydra-help",), ("--version",), ("--shell-completion", "-sc")):
        parser.add_argument(*option, dest="show", action="store_true")
    parser.add_argument("--cfg", "-c", dest="show", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", dest="show", nargs="?", const="all")
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    return parser
