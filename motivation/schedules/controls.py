"""Controls: phases that no score decides."""

import csv
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from motivation.monitors.signal import check_length
from motivation.phase import Phase
from motivation.randomness import SCHEDULE, derived_seed
from motivation.schedules.gates import check_known
from motivation.schedules.schedule import Schedule, Share
from motivation.validation import Count, check_arguments

HalfAtMost = Annotated[float, Field(gt=0, le=0.5, description=(
    "above 0 and at most 0.5, since an epoch's count is drawn from 0 to twice the share"))]


class Planned(Schedule):
    """Phases that depend on the step's number alone."""

    set_share = True
    state = ("step",)

    def __init__(self):
        self.step = 0

    def motivated_at(self, step: int) -> bool:
        """Whether a step, counted from 0, trains the motivated network."""
        raise NotImplementedError

    def start(self) -> Phase:
        """Phase of step 0."""
        return "motivated" if self.motivated_at(0) else "base"

    def decide(self, score: float) -> Phase:
        """Phase of the next step."""
        self.step += 1
        return "motivated" if self.motivated_at(self.step) else "base"


@check_arguments
class Periodic(Planned):
    """The last ``length`` steps of every ``period`` are motivated.

    Args:
        period: steps from one interval's start to the next.
        length: steps an interval.
        total_steps: length of training; a longer period is refused.

    Raises:
        ValueError: length is not from 1 to below period, or the period is longer than training.
    """

    def __init__(self, period: Annotated[int, Field(ge=2)], length: Count, *, total_steps: int | None = None):
        super().__init__()
        check_length("period", period, total_steps)
        if length >= period:
            raise ValueError(f"length={length}: must be below period={period}")
        self.period = period
        self.length = length

    def motivated_at(self, step: int) -> bool:
        """In the last steps of a period."""
        return step % self.period >= self.period - self.length


@check_arguments
class Progressive(Planned):
    """One network first, the other to the end.

    Args:
        share: of training that is motivated.
        reverse: false trains the base first, as progressive growing does; true the motivated network.
        total_steps: length of training.

    Raises:
        ValueError: a share outside (0, 1), or no total_steps.
    """

    def __init__(self, share: Share, reverse: bool = False, *, total_steps: int | None = None):
        super().__init__()
        check_known("total_steps", total_steps)
        self.reverse = reverse
        self.turn = round((share if reverse else 1 - share) * total_steps)

    def motivated_at(self, step: int) -> bool:
        """On the motivated side of the turn."""
        return (step < self.turn) is self.reverse


@check_arguments
class Onset(Planned):
    """The base until a step, the motivated network from it on.

    Args:
        step: the first motivated one, from 1; None for one that is drawn by the seed, each of the run alike likely.
        seed: of that draw.
        total_steps: length of training; a step after its end is refused.

    Raises:
        ValueError: the step is not in training, or no total_steps.
    """

    def __init__(self, step: Count | None = None, *, seed: int = 0, total_steps: int | None = None):
        super().__init__()
        check_known("total_steps", total_steps)
        if step is not None and step >= total_steps:
            raise ValueError(f"step={step}: must be below the {total_steps} steps of training")
        drawn = np.random.default_rng(derived_seed(seed, SCHEDULE)).integers(1, max(2, total_steps))
        self.turn = int(drawn) if step is None else step

    def motivated_at(self, step: int) -> bool:
        """From the step on."""
        return step >= self.turn


class Scattered(Planned):
    """A number of motivated steps every epoch, at random batches, never the epoch's first: Algorithm 1 has none there.

    Args:
        seed: of the draws; each epoch's come from (seed, epoch) alone.
        steps_per_epoch: batches an epoch.

    Raises:
        ValueError: no steps_per_epoch.
    """

    def __init__(self, seed: int, steps_per_epoch: int | None):
        super().__init__()
        check_known("steps_per_epoch", steps_per_epoch)
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self._epoch = -1
        self._chosen: frozenset[int] = frozenset()

    def count(self, epoch: int, rng: np.random.Generator) -> int:
        """Motivated steps of an epoch, at most steps_per_epoch - 1."""
        raise NotImplementedError

    def batches(self, epoch: int) -> int:
        """Batches of an epoch; the last may be cut short."""
        return self.steps_per_epoch

    def motivated_at(self, step: int) -> bool:
        """Whether the step was drawn."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng(derived_seed(self.seed, SCHEDULE, epoch))
            drawn = rng.permutation(np.arange(1, self.batches(epoch)))[:self.count(epoch, rng)]
            self._epoch, self._chosen = epoch, frozenset(drawn.tolist())
        return batch in self._chosen


@check_arguments
class Random(Scattered):
    """A random number of motivated steps every epoch, at random batches (paper, Experiment A).

    The paper does not state the distribution. Here the count is uniform from 0 to ``2 * share`` of the epoch's steps,
    rounded up or down at random, so that its mean is the share in epochs of any length; the batches are a uniform draw
    without replacement. Since an epoch's first batch is never drawn, a count is at most the steps less one: at a share
    of 1/2 the mean is half a step an epoch less.

    Args:
        share: mean share of motivated steps, above 0 and at most 1/2.
        seed: of the draws.
        steps_per_epoch: batches an epoch.

    Raises:
        ValueError: a share outside (0, 1/2], or no steps_per_epoch.
    """

    def __init__(self, share: HalfAtMost, *, seed: int = 0, steps_per_epoch: int | None = None):
        super().__init__(seed, steps_per_epoch)
        self.most = min(2 * share * steps_per_epoch, steps_per_epoch - 1)

    def count(self, epoch: int, rng: np.random.Generator) -> int:
        """Uniform from 0 to twice the share, rounded at random so that the mean stays."""
        return int(rng.uniform(0, self.most) + rng.uniform())


@check_arguments
class MatchedRandom(Scattered):
    """As many motivated steps in every epoch as a finished run had, at random batches (paper, Experiment B).

    Args:
        run: the finished run's folder, whose steps.csv is read.
        seed: of the draws.
        steps_per_epoch: batches an epoch.
        total_steps: length of training.

    Raises:
        ValueError: no such run, one of another length, or one that trained an epoch's every batch motivated.
    """

    def __init__(self, run: str | None = None, *, seed: int = 0, steps_per_epoch: int | None = None,
                 total_steps: int | None = None):
        super().__init__(seed, steps_per_epoch)
        phases = recorded_phases(run, total_steps, steps_per_epoch)
        self.length = len(phases)
        self.counts = [sum(phases[start:start + steps_per_epoch])
                       for start in range(0, len(phases), steps_per_epoch)]
        for epoch, count in enumerate(self.counts):
            if count >= self.batches(epoch):
                raise ValueError(f"run={run}: all {count} steps of epoch {epoch} are motivated; a first batch never is "
                                 "here, so that this count cannot be matched; use replay")

    def batches(self, epoch: int) -> int:
        """Batches of an epoch of the run that is matched; none after its end."""
        return max(0, min(self.steps_per_epoch, self.length - epoch * self.steps_per_epoch))

    def count(self, epoch: int, rng: np.random.Generator) -> int:
        """The run's own count."""
        return self.counts[epoch] if epoch < len(self.counts) else 0


@check_arguments
class Replay(Planned):
    """The exact phases of a finished run.

    Args:
        run: the finished run's folder, whose steps.csv is read.
        steps_per_epoch: batches an epoch; a run with another number is refused.
        total_steps: length of training; a run of another length is refused.

    Raises:
        ValueError: no such run, or one of another length.
    """

    def __init__(self, run: str | None = None, *, steps_per_epoch: int | None = None, total_steps: int | None = None):
        super().__init__()
        self.phases = recorded_phases(run, total_steps, steps_per_epoch)

    def motivated_at(self, step: int) -> bool:
        """As recorded; base after the end."""
        return step < len(self.phases) and self.phases[step]


def recorded_phases(run: str | None, total_steps: int | None, steps_per_epoch: int | None) -> list[bool]:
    """Which steps of a finished run were motivated.

    Raises:
        ValueError: no such run, a damaged steps.csv, or a run of another length than this one.
    """
    if run is None:
        raise ValueError("run is missing: name the folder of a finished run, run=FOLDER")
    path = Path(run) / "steps.csv"
    try:
        with open(path, newline="") as file:
            rows = [(int(row["epoch"]), row["phase"]) for row in csv.DictReader(file)]
    except OSError as error:
        raise ValueError(f"run={run}: its steps.csv cannot be read ({error.strerror}); name the folder of a finished "
                         "run") from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"run={run}: steps.csv is damaged ({type(error).__name__}: {error})") from error
    if wrong := {phase for _, phase in rows} - {"base", "motivated"}:
        raise ValueError(f"run={run}: steps.csv is damaged (phase {wrong.pop()!r})")
    if not rows or (total_steps is not None and len(rows) != total_steps):
        raise ValueError(f"run={run}: it has {len(rows)} steps, this run {total_steps}; name a finished run of the "
                         "same length")
    epochs = Counter(epoch for epoch, _ in rows)
    if steps_per_epoch is not None and epochs[0] != min(steps_per_epoch, len(rows)):
        raise ValueError(f"run={run}: its epochs have {epochs[0]} steps, this run's {steps_per_epoch}; name a run with "
                         "the same data and batch size")
    return [phase == "motivated" for _, phase in rows]
