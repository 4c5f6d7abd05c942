"""The paper's own monitor: straight decreases of the raw batch loss."""

import math

from motivation.monitors.signal import Monitor, Signal, loss_of


class Consecutive(Monitor):
    """Number of straight decreases of the mini-batch training loss (paper, Algorithm 1).

    Signal: raw batch loss of whichever network trained. Formula: ``run = run + 1 if loss < previous else 0``, with
    ``previous = inf`` at first; neither a switch nor an epoch edge resets it. Unit: steps. Extra FLOPs: none. Memory:
    two numbers. Under no progress (exchangeable losses) the score reaches k with probability 1 / (k + 1)!.
    """

    state = ("previous", "run")

    def __init__(self):
        self.previous = math.inf
        self.run = 0

    def observe(self, signal: Signal | float) -> float:
        """Straight decreases up to and with this step."""
        loss = loss_of(signal)
        self.run = self.run + 1 if loss < self.previous else 0
        self.previous = loss
        return float(self.run)

    def exceedance(self, level: float) -> float:
        """``1 / (k + 1)!`` for k straight decreases of exchangeable losses."""
        return 1 / math.factorial(max(0, math.ceil(level)) + 1)
