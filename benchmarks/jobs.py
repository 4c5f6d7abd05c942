"""Runs per hour of a table by --jobs.

A small table at scale smoke is trained anew for every number of jobs, in turn, each time as a command of its own:
imports, plan and the table are part of its seconds, and so is what `auto` measures to choose. Compare them on a machine
that does nothing else.
"""

import functools
import os
import statistics
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import Literal

from motivation.run.machine import cores
from motivation.validation import Count, NotNegative

from .table import Table
from .turns import RATIO, alternate, ratios
from .workload import is_here

# Of the time of one run after another: at most, for one run a core, and for what is chosen by measurement.
CORES, AUTO = 0.65, 1.0


def runs_an_hour(table: str, jobs: str, seeds: int, overrides: tuple[str, ...]) -> float:
    """Of a table that is trained from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "motivation", "table", table, "--seeds", str(seeds), "--jobs", jobs, "--runs",
                   f"{folder}/cells", "--out", f"{folder}/tables", "tracker=none", *overrides]
        start = perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True)
        seconds = perf_counter() - start
        if ended.returncode:
            raise ValueError(ended.stderr.splitlines()[-1].removeprefix("motivation: error: "))
        return 3600 * len(os.listdir(f"{folder}/cells")) / seconds


def measure(seconds: NotNegative = 40, jobs: tuple[Count | Literal["cores", "auto"], ...] = (1, "cores", "auto"),
            table: str | int = 7, seeds: Count = 1, overrides: tuple[str, ...] = ()) -> list[Table]:
    """Measure this.

    Args:
        seconds: of all; each number of jobs is measured at least once.
        jobs: numbers of jobs, the first one as the reference; ``cores`` is one a core, at least 2; or ``auto``.
        table: at scale smoke.
        seeds: runs a cell.
        overrides: of every run.
    """
    numbers = [str(max(2, cores()) if number == "cores" else number) for number in jobs]
    rates = alternate({number: functools.partial(runs_an_hour, str(table), number, seeds, overrides)
                       for number in numbers}, seconds)
    made = Table("Runs per hour", {"device": "", "table": "", "--jobs": "", "runs/hour": ".0f",
                                   f"x --jobs {numbers[0]}": ".3f", **RATIO}, [], bounds={})
    device = "cuda" if is_here("cuda") else "cpu"
    made.rows += [(device, str(table), number, statistics.median(values), *ratios(values, rates[numbers[0]]))
                  for number, values in rates.items()]
    bounds = {str(max(2, cores())): CORES, "auto": AUTO} if device == "cpu" and numbers[0] == "1" else {}
    for number, bound in bounds.items():
        if number in rates:
            share = 1 / ratios(rates[number], rates["1"])[0]
            made.bounds[f"--jobs {number} takes at most {bound} of the time of 1; {share:.2f}"] = share <= bound
    if not is_here("cuda"):
        made.unmeasured("cuda", str(table), "all")
    return [made]
