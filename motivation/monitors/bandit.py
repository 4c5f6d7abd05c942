"""Learned: which network's steps lower the held-out loss more per FLOP? (The paper's future work.)"""

import math

from motivation.monitors.signal import Monitor, Signal, check_every
from motivation.randomness import MONITOR, uniform

EXPLORED = 2  # rewards an arm needs before its mean and spread say anything


class Bandit(Monitor):
    """Two-armed bandit by discounted Thompson sampling (Raj and Kalyani 2017; paper, section "Future work").

    The arms are the base and the motivated network. A block is the steps between two probes of one network; its reward
    is the held-out loss's decrease per TFLOP of the block, probes included. After every rewarded block both arms'
    statistics are discounted, a mean reward is drawn from each arm's posterior (normal, pooled variance), and the score
    is the motivated draw minus the base's: at 0 or above the motivated network is the better bet. A probe of another
    network than the one before only starts a block. Each arm is first tried until it has two rewards, base first.

    Signal: mean held-out loss, in evaluation mode, and FLOPs. Unit: nats per TFLOP. Extra FLOPs: one forward of the
    held-out batch every ``every`` steps. Memory: ten numbers. Under no progress: none is defined; it compares the two
    networks, and on noise tries both about equally.

    Args:
        every: steps a block.
        discount: of past rewards, a block.
        seed: of the draws.

    Raises:
        ValueError: a discount outside (0, 1], or a block below one step.
    """

    needs = frozenset({"heldout"})
    reads = ("heldout", "block_flops", "motivated")
    null = "none"
    level = 0.0
    state = ("spent", "before", "arm", "rewards", "weights", "sums", "squares", "draws")

    def __init__(self, every: int = 20, discount: float = 0.95, *, seed: int = 0):
        check_every(every)
        if not 0 < discount <= 1:
            raise ValueError(f"discount={discount}: must be above 0 and at most 1")
        self.every = every
        self.discount = discount
        self.seed = seed
        self.spent = 0
        self.before = math.nan
        self.arm = -1
        self.rewards, self.weights, self.sums, self.squares = [0, 0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
        self.draws = 0

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """Held-out loss, FLOPs since the last probe, and whether the motivated network trained."""
        self.spent += signal.flops
        if signal.heldout is None:
            return None
        heldout = math.fsum(map(float, signal.heldout)) / len(signal.heldout)
        spent, self.spent = self.spent, 0
        return heldout, float(spent), float(signal.phase == "motivated")

    def score(self, heldout: float, block_flops: float, motivated: float) -> float:
        """Motivated minus base draw; 1 or -1 while an arm is still to be tried; the last score inside a block."""
        arm, before = int(motivated), self.before
        rewarded = self.arm == arm
        self.before, self.arm = heldout, arm
        if not rewarded:
            return self.last
        self._learn(arm, (before - heldout) / (block_flops or 1.0) * 1e12)
        for untried, score in ((0, -1.0), (1, 1.0)):
            if self.rewards[untried] < EXPLORED:
                return score
        return self._draw()

    def _learn(self, arm: int, reward: float) -> None:
        for values in (self.weights, self.sums, self.squares):
            values[0] *= self.discount
            values[1] *= self.discount
        self.rewards[arm] += 1
        self.weights[arm] += 1
        self.sums[arm] += reward
        self.squares[arm] += reward * reward

    def _draw(self) -> float:
        means = [total / weight for total, weight in zip(self.sums, self.weights, strict=True)]
        spread = sum(square - mean * total for square, mean, total in zip(self.squares, means, self.sums, strict=True))
        variance = max(0.0, spread / sum(self.weights))
        deviation = math.sqrt(variance * (1 / self.weights[0] + 1 / self.weights[1]))
        # The difference of two normal draws is one normal draw (Box and Muller 1958).
        first, second = (uniform(self.seed, MONITOR, 2 * self.draws + part) for part in (0, 1))
        self.draws += 1
        normal = math.sqrt(-2 * math.log(1 - first)) * math.cos(2 * math.pi * second)
        return means[1] - means[0] + deviation * normal
