"""The same held-out images before and after some steps: a paired test of progress."""

import math

from motivation.monitors.signal import Monitor, Signal, check_length
from motivation.validation import Count, check_arguments


@check_arguments
class PairedHeldout(Monitor):
    """Paired t of the held-out losses' decrease from one probe to the next.

    Signal: per-image held-out losses of the network just trained, in evaluation mode. Formula: mean over images of
    (before - after), over its standard error, where before is the same network's last probe, if that is one of the last
    two probes of all. Another probe only sets the reference, and the last score stands; of any three probes in a row at
    least one gives a score. Unit: standard errors. Extra FLOPs: one forward of the held-out batch every ``every``
    steps. Memory: two losses an image. Under no progress: steps move all images together, so t is far wider than
    Student's: the null is the noise of the run's own held-out losses, without their trend.

    Args:
        every: steps between probes.
        total_steps: length of training; longer steps between probes are refused.
    """

    needs = frozenset({"heldout"})
    reads = ("heldout", "error", "motivated")
    null = "permute"
    window = 2
    level = 2.0
    state = ("probes", "means")

    def __init__(self, every: Count = 20, *, total_steps: int | None = None):
        check_length("every", every, total_steps)
        self.every = every
        # The last two probes, newest first: the network, and its losses or their mean.
        self.probes: list[tuple[bool, list[float]]] = []
        self.means: list[tuple[bool, float]] = []

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """Mean held-out loss of a probed step, standard error of its paired difference, NaN without a pair, and whether
        it is the motivated network's.
        """
        if signal.heldout is None:
            return None
        network, after = signal.phase == "motivated", [float(loss) for loss in signal.heldout]
        before = dict(reversed(self.probes)).get(network)
        self.probes = [(network, after), *self.probes[:1]]
        count, error = len(after), math.nan
        if before is not None:
            differences = [old - new for old, new in zip(before, after, strict=True)]
            mean = math.fsum(differences) / count
            variance = math.fsum((difference - mean) ** 2 for difference in differences) / max(1, count - 1)
            error = math.sqrt(variance / count)
        return math.fsum(after) / count, error, float(network)

    def score(self, heldout: float, error: float, motivated: float) -> float:
        """The paired t; the last one where there is no pair."""
        network = bool(motivated)
        before = dict(reversed(self.means)).get(network)
        self.means = [(network, heldout), *self.means[:1]]
        if before is None:
            return self.last
        decrease = before - heldout
        if error == 0:
            return math.copysign(math.inf, decrease) if decrease else 0.0
        return decrease / error
