"""Did a run's expansions measure progress or noise: its share of motivated steps against its null rate."""

import logging
from functools import partial
from typing import NamedTuple

import numpy as np

from motivation.analysis.figures import intervals
from motivation.analysis.markdown import markdown_table, number
from motivation.analysis.runs import describe
from motivation.null.rate import TENTHS, NullRate, build_trigger, null_rate
from motivation.run_folder.read import Run, read_readings

logger = logging.getLogger(__name__)

BATCHES_A_TENTH = 4
CONFIDENCE = 0.95


class Comparison(NamedTuple):
    """A run's expansions against one null.

    Attributes:
        null: what noise would do.
        by_tenth: ``(10,)`` the null's share of motivated steps by tenth of training; NaN where there is none.
        lengths: steps of every simulated interval.
        excess: the run's share minus the null rate.
        low: lower end of its 95 % confidence interval.
        high: upper end.
    """

    null: NullRate
    by_tenth: np.ndarray
    lengths: np.ndarray
    excess: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 where the share is above what noise gives, -1 where it is below, 0 where neither is significant."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        """The null rate and the excess over it."""
        return (f"{self.null.rate:.1%} (excess {100 * self.excess:+.1f} points, 95 % interval {100 * self.low:+.1f} "
                f"to {100 * self.high:+.1f})")


class Diagnosis(NamedTuple):
    """A run's expansions against those of noise.

    Attributes:
        run: the run.
        observed: share of motivated steps.
        by_tenth: ``(10,)`` the same by tenth of training; NaN where a tenth has no step.
        lengths: steps of every interval of the run.
        noise: against the null that it is judged by, see `motivation.null.rate.null_rate`.
        independent: against independent readings, which judge nothing, where its monitor declares that null and its own
            readings judge; else None.
    """

    run: Run
    observed: float
    by_tenth: np.ndarray
    lengths: np.ndarray
    noise: Comparison
    independent: Comparison | None

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        null = self.noise.null
        share = f"{self.observed:.1%} of steps are motivated"
        if not self.observed:
            share = "no step is motivated"
        result = "No verdict" if self.observed else "No expansion"
        if null.kind == "set":
            return f"{result}: {share}, because {null.reason}" + (
                "; compare its accuracy with a control's instead." if self.observed else ".")
        if null.kind == "none":
            return f"{result}: {share}, and {null.reason}."
        if not self.observed:
            return f"{result}: {share} where noise gives {null.rate:.1%}."
        # An interval wider than all shares there are tells nothing.
        if not self.noise.high - self.noise.low < 1:
            return f"No verdict: {share} where noise gives {null.rate:.1%}, in too few steps to tell them apart."
        side, because = self.noise.side, ""
        against = f"{share} where {'independent ' * (null.kind == 'analytic')}noise gives {self.noise}"
        if null.kind == "analytic":
            # Independent readings of two equal networks are assumed, not found: they show no progress alone.
            side, because = 0, "; its readings are too few to make noise like its own"
        if self.independent:
            against = (f"{share} where noise like this run's own gives {self.noise} and independent noise "
                       f"{self.independent}")
            if self.independent.side and not side:
                because = "; readings that are correlated, or differ between the networks, are no progress"
        verdict = {1: "The expansions measured progress", -1: "The expansions were rarer than noise would give",
                   0: "The expansions cannot be told from noise"}[side]
        return f"{verdict}: {against}{because}."


def diagnose(run: Run) -> Diagnosis:
    """Compare a finished run's expansions with its null."""
    assert run.expands, "nothing was decided"
    motivated = run.steps["motivated"]
    steps_per_epoch = int(np.count_nonzero(run.steps["epoch"] == 0))
    monitor = dict(run.config["monitor"])
    lag = monitor.pop("lag", 0)
    rungs = len(run.config["lever"]["rungs"]) if len(run.networks) == 1 else None
    trigger = partial(build_trigger, monitor, run.config["schedule"], rungs, seed=run.config["seed"],
                      total_steps=len(motivated), steps_per_epoch=steps_per_epoch,
                      **{f"{phase}_flops": run.summary[f"{phase}/forward_flops"] for phase in run.networks})
    null_of = partial(null_rate, trigger, *read_readings(run.path), motivated, steps_per_epoch, lag)
    noise, independent = null_of(), None
    if noise.kind == "permute" and trigger()[0].null == "analytic":
        independent = _comparison(motivated, null_of(kind="analytic"))
    return Diagnosis(run, float(motivated.mean()), tenths(motivated), _interval_lengths(motivated[None]),
                     _comparison(motivated, noise), independent)


def diagnose_all(runs: list[Run]) -> list[Diagnosis]:
    """Diagnose the runs that trained a pair, or climbed a lever's rungs; the others are left out with a warning.

    Raises:
        ValueError: no run is left.
    """
    pairs = [run for run in runs if run.expands]
    if not pairs:
        raise ValueError(f"{', '.join(str(run.path) for run in runs)}: training of one network has no expansions to "
                         "diagnose; name a run of a pair, or one whose schedule climbs the rungs of a lever")
    for run in runs:
        if run not in pairs:
            logger.warning("%s is left out: training of one network has no expansions", run.path)
    return [diagnose(run) for run in pairs]


def _comparison(motivated: np.ndarray, null: NullRate) -> Comparison:
    by_tenth = tenths(null.motivated.mean(0)) if len(null.motivated) else np.full(TENTHS, np.nan)
    return Comparison(null, by_tenth, _interval_lengths(null.motivated), *excess_interval(motivated, null))


def _interval_lengths(motivated: np.ndarray) -> np.ndarray:
    """Steps of every interval of runs ``(runs, steps)``."""
    return np.array([length for phases in motivated for _, length in intervals(phases)], int)


def excess_interval(motivated: np.ndarray, null: NullRate) -> tuple[float, float, float]:
    """Share of motivated steps above the null rate, and its 95 % confidence interval."""
    from scipy.stats import t

    excess = float(motivated.mean() - null.rate)
    simulations = len(null.motivated)
    error, quantile = share_error(motivated)
    if simulations < 2:
        return excess, excess - quantile * error, excess + quantile * error
    # Batch means miss what depends on longer stretches than a batch; the spread of whole simulated runs does not. It is
    # itself estimated, from so many of them.
    spread = null.motivated.mean(1).std(ddof=1)
    quantile = max(quantile, t.ppf((1 + CONFIDENCE) / 2, simulations - 1))
    margin = quantile * np.sqrt(max(error, spread) ** 2 + spread ** 2 / simulations)
    return excess, excess - margin, excess + margin


def tenths(motivated: np.ndarray) -> np.ndarray:
    """Share of motivated steps ``(10,)`` by tenth of training, from phases ``(steps,)``; NaN for an empty tenth."""
    return np.array([part.mean() if len(part) else np.nan for part in np.array_split(motivated, TENTHS)])


def share_error(motivated: np.ndarray) -> tuple[float, float]:
    """Standard error of a share of dependent steps, and the quantile that makes it a 95 % interval.

    Decisions depend on one another, so the error comes from the means of batches of successive steps (batch means,
    Law 2007, section 9.5.3), four in each tenth, and their spread inside a tenth: a share that falls during training
    is no error. Short runs, of less than ten steps a batch, are cut into fewer batches and not into tenths.
    """
    from scipy.stats import t

    steps = len(motivated)
    strata = TENTHS if steps >= 10 * TENTHS * BATCHES_A_TENTH else 1
    batches = BATCHES_A_TENTH if strata == TENTHS else min(10, steps // 2)
    if batches < 2:
        return float("nan"), float("nan")
    means = np.array([[batch.mean() for batch in np.array_split(stratum, batches)]
                      for stratum in np.array_split(motivated, strata)])
    error = np.sqrt(means.var(axis=1, ddof=1).mean() / (strata * batches))
    return float(error), float(t.ppf((1 + CONFIDENCE) / 2, strata * (batches - 1)))


def report(diagnosis: Diagnosis) -> str:
    """The figures behind a verdict, then the verdict."""
    comparisons = [("on noise", diagnosis.noise)]
    if diagnosis.independent:
        comparisons = [("on noise like its own", diagnosis.noise), ("on independent noise", diagnosis.independent)]
    rows = [["tenth of training", *(str(tenth) for tenth in range(1, TENTHS + 1)), "all"]]
    for name, values, overall in (("motivated steps", diagnosis.by_tenth, diagnosis.observed),
                                  *((name, each.by_tenth, each.null.rate) for name, each in comparisons)):
        rows.append([name, *(number(value, ".1%") for value in (*values, overall))])
    lines = [f"{diagnosis.run.path}: {describe(diagnosis.run.config)}", *markdown_table(rows),
             f"intervals: {_lengths(diagnosis.lengths)}"
             + "".join(f"; {name}: {_lengths(each.lengths)}" for name, each in comparisons)]
    if "rung" in diagnosis.run.steps:
        reached, first = np.unique(diagnosis.run.steps["rung"], return_index=True)
        lines.append("rungs: " + ", ".join(f"{rung} from step {step} on" for rung, step in zip(reached, first,
                                                                                              strict=True)))
    for _, each in comparisons:
        if each.null.kind not in ("set", "none"):
            lines.append(f"noise: {each.null.reason} ({each.null.kind})")
    return "\n".join([*lines, diagnosis.verdict])


def _lengths(lengths: np.ndarray) -> str:
    if not len(lengths):
        return "none"
    return f"mean {lengths.mean():.2f} steps, {np.mean(lengths == 1):.0%} of one step, longest {lengths.max()}"
