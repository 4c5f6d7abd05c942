"""Did a run's expansions measure progress or noise? Its rate of motivated steps against its null rate."""

from typing import NamedTuple

import numpy as np

from motivation.analysis.figures import intervals
from motivation.analysis.null_rate import TENTHS, NullRate, null_rate
from motivation.analysis.runs import Run, describe

BATCHES_A_TENTH = 4
CONFIDENCE = 0.95


class Diagnosis(NamedTuple):
    """A run's expansions against those of noise.

    Attributes:
        run: the run.
        null: what noise would do.
        observed: share of motivated steps.
        by_tenth: ``(10,)`` the same by tenth of training; NaN where a tenth has no step.
        null_by_tenth: ``(10,)`` the null's; NaN where there is none.
        excess: observed minus null rate.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        lengths: steps of every interval of the run.
        null_lengths: of every simulated one.
    """

    run: Run
    null: NullRate
    observed: float
    by_tenth: np.ndarray
    null_by_tenth: np.ndarray
    excess: float
    low: float
    high: float
    lengths: np.ndarray
    null_lengths: np.ndarray

    @property
    def verdict(self) -> str:
        """One plain sentence."""
        share = f"{self.observed:.1%} of steps are motivated"
        if self.null.kind == "set":
            return f"No verdict: {share}, because {self.null.reason}; compare its accuracy with a control's instead."
        if self.null.kind == "none":
            return f"No verdict: {share}, and {self.null.reason}."
        if np.isnan(self.low):
            return f"No verdict: {share} where noise gives {self.null.rate:.1%}, in too few steps to tell them apart."
        against = (f"{share} where noise gives {self.null.rate:.1%} (excess {100 * self.excess:+.1f} points, 95 % "
                   f"interval {100 * self.low:+.1f} to {100 * self.high:+.1f})")
        if self.low > 0:
            return f"The expansions measured progress: {against}."
        if self.high < 0:
            return f"The expansions were rarer than noise would give: {against}."
        return f"The expansions cannot be told from noise: {against}."


def diagnose(run: Run) -> Diagnosis:
    """Compare a finished run's expansions with its null.

    Raises:
        ValueError: classical training, which has no expansions.
    """
    if len(run.networks) == 1:
        raise ValueError(f"{run.path} is classical training of one network: it has no expansions to diagnose")
    motivated = run.steps["motivated"]
    flops = {phase: run.summary[f"{phase}/forward_flops"] for phase in ("base", "motivated")}
    null = null_rate(run.path, run.config, flops)
    excess, low, high = compared(motivated, null)
    lengths = [np.array([length for _, length in intervals(phases)], int) for phases in (motivated, *null.motivated)]
    simulated = len(null.motivated) > 0
    return Diagnosis(run, null, float(motivated.mean()), tenths(motivated),
                     tenths(null.motivated.mean(0)) if simulated else np.full(TENTHS, np.nan),
                     excess, low, high, lengths[0], np.concatenate(lengths[1:]) if simulated else np.empty(0, int))


def compared(motivated: np.ndarray, null: NullRate) -> tuple[float, float, float]:
    """Share of motivated steps above the null rate, and its 95 % confidence interval."""
    excess = float(motivated.mean() - null.rate)
    # Batch means miss what depends on longer stretches than a batch; the spread of whole simulated runs does not.
    spread = null.motivated.mean(1).std(ddof=1) if len(null.motivated) else 0.0
    error, quantile = share_error(motivated)
    margin = quantile * np.sqrt(max(error, spread) ** 2 + spread ** 2 / max(1, len(null.motivated)))
    return excess, excess - margin, excess + margin


def tenths(motivated: np.ndarray) -> np.ndarray:
    """Share of motivated steps ``(10,)`` by tenth of training, from phases ``(steps,)``; NaN for an empty tenth."""
    return np.array([part.mean() if len(part) else np.nan for part in np.array_split(motivated, TENTHS)])


def share_error(motivated: np.ndarray) -> tuple[float, float]:
    """Standard error of a share of dependent steps, and the quantile that makes it a 95 % interval.

    Decisions depend on one another, so the error comes from the means of batches of successive steps (batch means,
    Law 2007, section 9.5.3), four in each tenth, and their spread inside a tenth: progress that fades is no error.
    Short runs, of less than ten steps a batch, are cut into fewer batches and not into tenths.
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
    rows = [["tenth of training", *(str(tenth) for tenth in range(1, TENTHS + 1)), "all"]]
    for name, values, overall in (("motivated steps", diagnosis.by_tenth, diagnosis.observed),
                                  ("on noise", diagnosis.null_by_tenth, diagnosis.null.rate)):
        rows.append([name, *(_percent(value) for value in values), _percent(overall)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]
    table.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    lines = [f"{diagnosis.run.path}: {describe(diagnosis.run.config)}", *table,
             f"intervals: {_lengths(diagnosis.lengths)}; on noise: {_lengths(diagnosis.null_lengths)}"]
    if diagnosis.null.kind not in ("set", "none"):
        lines.append(f"noise: {diagnosis.null.reason} ({diagnosis.null.kind})")
    return "\n".join([*lines, diagnosis.verdict])


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.1%}"


def _lengths(lengths: np.ndarray) -> str:
    if not len(lengths):
        return "none"
    return f"mean {lengths.mean():.2f} steps, {np.mean(lengths == 1):.0%} of one step, longest {lengths.max()}"
