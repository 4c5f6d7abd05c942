"""The same held-out images before and after some steps: a paired test of progress."""

import math

from motivation.monitors.signal import Monitor, Signal, check_every


class PairedHeldout(Monitor):
    """Paired t of the held-out losses' decrease from one probe to the next.

    Signal: per-image held-out losses of the network just trained, in evaluation mode. Formula: mean over images of
    (before - after), over its standard error. A probe of another network than the one before only sets the reference;
    the last score stands. Unit: standard errors. Extra FLOPs: one forward of the held-out batch every ``every`` steps.
    Memory: one loss an image. Under no progress: steps move all images together, so t is far wider than Student's, but
    its sign is random: the null flips signs.

    Measured share of probes at or above the level 2 (losses of 64 images that share half of their noise's variance):

    ===========  =========  =========  ========
    independent  AR(1) 0.3  AR(1) 0.8  swelling
    ===========  =========  =========  ========
         39.7 %     39.9 %     40.4 %    39.6 %
    ===========  =========  =========  ========

    Args:
        every: steps between probes.
    """

    needs = frozenset({"heldout"})
    reads = ("t",)
    null = "signflip"
    level = 2.0
    state = ("before", "phase")

    def __init__(self, every: int = 20):
        check_every(every)
        self.every = every
        self.before: list[float] | None = None
        self.phase: str | None = None

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The paired t of a probed step, where the probe before it was of the same network."""
        if signal.heldout is None:
            return None
        after = [float(loss) for loss in signal.heldout]
        before, phase = self.before, self.phase
        self.before, self.phase = after, signal.phase
        if before is None or phase != signal.phase:
            return None
        count = len(after)
        differences = [old - new for old, new in zip(before, after, strict=True)]
        mean = math.fsum(differences) / count
        variance = math.fsum((difference - mean) ** 2 for difference in differences) / max(1, count - 1)
        if variance == 0:
            return (math.copysign(math.inf, mean) if mean else 0.0,)
        return (mean / math.sqrt(variance / count),)

    def score(self, t: float) -> float:
        """The paired t."""
        return t
