"""Learned: which network's steps lower the held-out loss more per FLOP? (The paper's future work.)"""

import math
from typing import Annotated

from pydantic import Field

from motivation.monitors.signal import Monitor, Signal, check_length
from motivation.randomness import MONITOR, uniform
from motivation.validation import Count, check_arguments

EXPLORED = 2  # rewards an arm needs before its mean and spread say anything


@check_arguments
class Bandit(Monitor):
    """Two-armed bandit by discounted Thompson sampling (Raj and Kalyani 2017; paper, section "Future work").

    The arms are the base and the motivated network. A block is the steps from one probe of a network to its next; its
    reward is that network's decrease of the held-out loss per TFLOP of the block, probes included. The reward goes to
    the network that trained most of the block, and counts as much as its share of the steps: an arm whose every probe
    finds the other network (a probe an epoch, at an edge that contracts) is judged too, and can lose. After every block
    both arms' statistics are discounted, a mean reward is drawn from each arm's posterior (normal, pooled variance),
    and the score is the motivated draw minus the base's: at 0 or above the motivated network is the better bet. Each
    arm is first tried until it has two rewards, base first.

    Signal: mean held-out loss, in evaluation mode, and FLOPs. Formula: ``mean_1 - mean_0 + z * sqrt(v * (1 / w_1 + 1 /
    w_0))``, z a standard normal draw, mean and w an arm's discounted mean reward and weight, v their pooled variance, 1
    the motivated network. Unit: nats per TFLOP. Extra FLOPs: one forward of the held-out batch every ``every`` steps.
    Memory: sixteen numbers. Under no progress: none is defined; it compares the two networks, and on noise tries both
    about equally.

    Args:
        every: steps between probes.
        discount: of past rewards, a block.
        seed: of the draws.
        total_steps: length of training; a longer block is refused.

    Raises:
        ValueError: a discount outside (0, 1], or a block below one step or longer than training.
    """

    needs = frozenset({"heldout"})
    reads = ("heldout", "block_flops", "share", "motivated")
    null = "none"
    level = 0.0
    state = ("spent", "steps", "own", "before", "rewards", "weights", "sums", "squares", "draws")

    def __init__(self, every: Count = 20, discount: Annotated[float, Field(gt=0, le=1)] = 0.95, *, seed: int = 0,
                 total_steps: int | None = None):
        check_length("every", every, total_steps)
        self.every = every
        self.discount = discount
        self.seed = seed
        # By network, since its last probe: FLOPs and steps of both networks, and its own steps.
        self.spent, self.steps, self.own = [0, 0], [0, 0], [0, 0]
        self.before = [math.nan, math.nan]
        self.rewards, self.weights, self.sums, self.squares = [0, 0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
        self.draws = 0

    def read(self, signal: Signal) -> tuple[float, ...] | None:
        """Held-out loss, the block's FLOPs, its share of steps of the network just trained, and whether that is the
        motivated one.
        """
        network = int(signal.phase == "motivated")
        for each in (0, 1):
            self.spent[each] += signal.flops
            self.steps[each] += 1
        self.own[network] += 1
        if signal.heldout is None:
            return None
        heldout = math.fsum(map(float, signal.heldout)) / len(signal.heldout)
        reading = heldout, float(self.spent[network]), self.own[network] / self.steps[network], float(network)
        self.spent[network] = self.steps[network] = self.own[network] = 0
        return reading

    def score(self, heldout: float, block_flops: float, share: float, motivated: float) -> float:
        """Motivated minus base draw; 1 or -1 while an arm is still to be tried; the last score inside a block."""
        network = int(motivated)
        before, self.before[network] = self.before[network], heldout
        if math.isnan(before):
            return self.last
        arm, share = (network, share) if share >= 0.5 else (1 - network, 1 - share)
        self._learn(arm, (before - heldout) / (block_flops or 1.0) * 1e12, share)
        for untried, score in ((0, -1.0), (1, 1.0)):
            if self.rewards[untried] < EXPLORED:
                return score
        return self._draw()

    def _learn(self, arm: int, reward: float, share: float) -> None:
        for values in (self.weights, self.sums, self.squares):
            values[0] *= self.discount
            values[1] *= self.discount
        self.rewards[arm] += 1
        self.weights[arm] += share
        self.sums[arm] += share * reward
        self.squares[arm] += share * reward * reward

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
