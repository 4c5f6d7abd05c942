"""The same held-out images before and after some steps: a paired test of progress."""

import math

from motivation.monitors.signal import Monitor, Signal, check_every


class PairedHeldout(Monitor):
    """Paired t of the held-out losses' decrease from one probe to the next.

    Signal: per-image held-out losses of the network just trained, in evaluation mode. Formula: mean over images of
    (before - after), over its standard error, where before is the last probe of the same network. Where that network
    trained fewer than half of the steps since then, the probe only sets the reference and the last score stands. Unit:
    standard errors. Extra FLOPs: one forward of the held-out batch every ``every`` steps. Memory: one loss an image
    and network. Under no progress: steps move all images together, so t is far wider than Student's, but its sign is
    random: the null flips signs.

    Measured share of probes at or above the level 2 (losses of 64 images that share half of their noise's variance):

    ===========  =========  =========  ========
    independent  AR(1) 0.3  AR(1) 0.8  swelling
    ===========  =========  =========  ========
         39.7 %     39.9 %     40.4 %    39.6 %
    ===========  =========  =========  ========

    Args:
        every: steps between probes.
        total_steps: length of training; longer steps between probes are refused.
    """

    needs = frozenset({"heldout"})
    reads = ("t",)
    null = "signflip"
    level = 2.0
    state = ("before", "steps", "own")

    def __init__(self, every: int = 20, *, total_steps: int | None = None):
        check_every(every, total_steps)
        self.every = every
        self.before: dict[str, list[float]] = {}
        # Steps since a network's last probe, and how many of them it trained.
        self.steps: dict[str, float] = {"base": math.inf, "motivated": math.inf}
        self.own = {"base": 0, "motivated": 0}

    def shows(self, phase: str, probed: bool) -> bool:
        """Whether the network has a probe before this one, and has trained half of the steps since."""
        for network in self.steps:
            self.steps[network] += 1
        self.own[phase] += 1
        if not probed:
            return False
        paired = 2 * self.own[phase] >= self.steps[phase]
        self.steps[phase] = self.own[phase] = 0
        return paired

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """The paired t of a probed step."""
        paired = self.shows(signal.phase, signal.heldout is not None)
        if signal.heldout is None:
            return None
        before, after = self.before.get(signal.phase), [float(loss) for loss in signal.heldout]
        self.before[signal.phase] = after
        if not paired:
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
