"""Runs per hour of a table by --jobs: ``motivation bench jobs``. Prints Markdown.

Trains a small table anew for every number of jobs, in turn and several times, each time as a command of its own:
imports, plan and the table are part of its seconds. Compare them on a machine that does nothing else.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter

import torch

from motivation.run.machine import cores


def seconds_of(table: str, jobs: str, seeds: int, overrides: list[str]) -> tuple[float, int]:
    """Seconds that a table takes from nothing, and how many runs it has."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "motivation", "table", table, "--seeds", str(seeds), "--jobs", jobs, "--runs",
                   f"{folder}/cells", "--out", f"{folder}/tables", "tracker=none", *overrides]
        start = perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True)
        seconds = perf_counter() - start
        if ended.returncode:
            raise SystemExit(ended.stderr.splitlines()[-1])
        return seconds, len(os.listdir(f"{folder}/cells"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", default="7", help="at smoke scale (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="runs a cell (default: %(default)s)")
    parser.add_argument("--jobs", nargs="+", default=["1", str(max(2, cores())), "auto"],
                        help="numbers of jobs, the first one as the reference (default: 1, a job a core, auto)")
    parser.add_argument("--blocks", type=int, default=2, help="times that each is measured (default: %(default)s)")
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE", help="of every run")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {jobs: [] for jobs in options.jobs}
    before = os.getloadavg()[0]
    for _ in range(options.blocks):
        for jobs, seconds in taken.items():
            took, runs = seconds_of(options.table, jobs, options.seeds, options.overrides)
            seconds.append(took)
    print(f"Table {options.table} at smoke scale, {runs} runs, {cores()} cores, torch {torch.__version__}, "
          f"{options.blocks} blocks in turn; load before {before:.1f}.\n")
    print("| --jobs | seconds (median) | each block | runs/hour | share of the first row's time |")
    print("|---|--:|---|--:|--:|")
    for jobs, seconds in taken.items():
        shares = [one / other for one, other in zip(seconds, taken[options.jobs[0]], strict=True)]
        median = statistics.median(seconds)
        print(f"| {jobs} | {median:.1f} | {', '.join(f'{one:.1f}' for one in seconds)} | {3600 * runs / median:.0f} | "
              f"{statistics.median(shares):.2f} |")


if __name__ == "__main__":
    main()
