"""The dual-model loop (paper, Algorithm 1): one network a step, a monitor that scores it, a schedule that decides."""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from motivation.monitors import Monitor
from motivation.pairing.pair import Pair
from motivation.phase import PHASES, Phase
from motivation.schedules import Ladder, Never, Schedule
from motivation.schedules.schedule import check_saves, completed
from motivation.training.distillation import Student
from motivation.training.distributed import broadcast, processes
from motivation.training.engine import Engine, Loss, out_of_memory_named
from motivation.training.ledger import TRAINING_FORWARDS, Ledger, Stopwatch, forward_flops
from motivation.training.optimizer_state import (
    SharedState,
    StatePolicy,
    as_groups,
    restore_layout,
    set_differential_options,
    split_groups,
    start_momentum,
)
from motivation.training.probes import NonFiniteLoss, Observation, Probes, runs_ahead

__all__ = ["NonFiniteLoss", "StepResult", "Trainer"]


@dataclass(frozen=True)
class StepResult:
    """What one training step did.

    Attributes:
        phase: the network this step trained.
        score: the monitor's score after it (NaN: none yet, or no monitor); with a lag, of the step ``lag`` steps
            earlier, on which this step decided.
        flops: the step's FLOPs: of training, its probes, and what was charged to the ledger for it.
        lr: learning rate of its first parameter group.
        reading: what the monitor read for that score; None for nothing new.
        observation: the step's loss and probes; with a lag they may still be on the device.
        rung: of the lever that chose its batch; None without rungs.
    """

    phase: Phase
    score: float
    flops: int
    lr: float
    reading: tuple[float, ...] | None
    observation: Observation
    rung: int | None = None

    @property
    def loss(self) -> float:
        """Batch loss before the update; waits for the device where it has not come so far.

        Raises:
            NonFiniteLoss: the loss or a gradient is NaN or infinite.
        """
        return self.observation.signal().loss


class Trainer:
    """Trains a pair, switching capacity on learning progress; or one network alone.

    A step trains one network, shows the loss to the monitor, gives the score to the schedule, and runs the switch that
    the schedule decides. Call `end_epoch` after every epoch: the paper contracts there.

    A monitor of one's own needs `observe(signal)` alone, and a schedule `decide(score)`; both need ``state_dict`` and
    ``load_state_dict`` where the trainer's state is saved. A schedule without `start` starts on the base, one without
    `end_epoch` does not end an interval at an epoch edge.

    Args:
        model: a `Pair`, or a single network for classical training (its phase is always ``base``). A single network may
            have a `Ladder` as its schedule: a motivated step then climbs a rung of whatever reads it, and no network
            switches.
        optimizer: ``params -> torch optimizer``; called once a network.
        loss: ``(logits, targets) -> scalar``.
        monitor: turns the training signal into a progress score; a single network may have none without a `Ladder`.
        schedule: turns the score into the phase of the next step; without one the pair never expands.
        groups: ``network -> parameter groups``; default all parameters in one group.
        heldout: images ``(N, C, H, W)`` and targets ``(N,)`` on the model's device, for monitors that need them: one
            fixed batch of training images that are not trained on.
        engine: how a step is executed; default plain eager steps on the device the model is on.
        lag: steps that a decision lags behind its loss, so that a GPU never waits to be read; 0 is the paper. With a
            lag, a loss that is not finite is noticed so much later. Without a monitor no decision waits for a loss: on
            a GPU each is read while the next step runs.
        state: how the optimizer state is carried through a switch, see `SharedState`.
        differential_lr: times the learning rate, for tensors that only the motivated network has.
        differential_weight_decay: their weight decay; None leaves the group's.
        known_flops: FLOPs of one image's forward pass by network and ``(C, H, W)``, where they are known already;
            others are counted when they are first needed.

    Attributes:
        student: the base, where motivated steps train it too, see `motivation.training.distillation.Student`; None
            where they do not.

    In several processes (torchrun, a process group) each gives an equal share of the batch: the first one's weights are
    everybody's from the first step on, gradients, running statistics and signals are averaged, all take the same
    decisions, and the ledger counts the whole batch. Held-out losses are taken of all held-out images in every process.

    Raises:
        ValueError: a monitor, a schedule or a rule for switches without a pair, a schedule that needs a monitor
            and has none, a monitor that needs a signal this trainer cannot give, a schedule that cannot act on the
            monitor's scores, a negative lag, or an optimizer whose state cannot be carried through the pair's map.
    """

    def __init__(self, model: Pair | nn.Module, optimizer: Callable[[Iterable], Optimizer], loss: Loss,
                 monitor: Monitor | None = None, schedule: Schedule | None = None, *,
                 groups: Callable[[nn.Module], Iterable] | None = None, heldout: tuple[Tensor, Tensor] | None = None,
                 engine: Engine | None = None, lag: int = 0,
                 state: StatePolicy = "carry", differential_lr: float = 1.0,
                 differential_weight_decay: float | None = None,
                 known_flops: Mapping[tuple[Phase, tuple[int, ...]], int] = MappingProxyType({})):
        _check_parts(model, optimizer, monitor, schedule)
        self.model = model
        self.pair = model if isinstance(model, Pair) else None
        self.loss = loss
        self.monitor = monitor
        self.schedule = Never() if schedule is None else schedule
        self._decisions = completed(self.schedule)
        self.engine = engine or Engine()
        self.ledger = Ledger()
        self.student: Student | None = None
        self.steps = 0
        if not isinstance(lag, int) or lag < 0:
            raise ValueError(f"lag={lag!r}: must be 0 or more whole steps")
        self.lag = lag
        self._unread: deque[Observation] = deque()
        self._forward_flops = dict(known_flops)
        groups = groups or nn.Module.parameters
        if self.pair is None:
            if (schedule is not None or monitor is not None) and not isinstance(schedule, Ladder):
                raise ValueError("a monitor and a schedule switch between two networks; give the trainer a Pair, or "
                                 "rungs to climb: a Ladder as its schedule")
            if (state, differential_lr, differential_weight_decay) != ("carry", 1, None):
                raise ValueError("state, differential_lr and differential_weight_decay say what a switch between two "
                                 "networks does; give the trainer a Pair")
            self.optimizers = [optimizer(as_groups(groups(model)))]
            start_momentum(self.optimizers[0])
            self._state = None
        if monitor is not None:
            self._decisions.bind(monitor)
        elif self._decisions.needs_monitor:
            raise ValueError(f"monitor is missing: {type(self.schedule).__name__} decides by a monitor's scores, "
                             "and would never expand; give one, such as motivation.monitors.Consecutive()")
        if self.pair is not None:
            self.optimizers = [optimizer(params) for params in split_groups(self.pair, groups)]
            set_differential_options(self.pair, self.optimizers[1], differential_lr, differential_weight_decay)
            self._state = SharedState(self.pair, *self.optimizers, state)
            # torch's learning-rate schedulers warn of an optimizer that has not stepped; a dormant one rightly has not.
            self.optimizers[1]._opt_called = True
        self._scalers = [self.engine.scaler() for _ in self.optimizers]
        self._probes = Probes(model, monitor, loss, heldout)
        self.phase: Phase = "base"
        self._switch(self._decisions.start())

    def network(self, phase: Phase) -> nn.Module:
        """The network that trains in a phase."""
        return self.pair.network(phase) if self.pair else self.model

    @property
    def rung(self) -> int | None:
        """Rung that the next step is on, from 0; None where the schedule is no `Ladder`."""
        return self.schedule.rung if isinstance(self.schedule, Ladder) else None

    @property
    def unread(self) -> int:
        """How many of the last steps' losses are still on the way from the device."""
        return len(self._unread)

    def step(self, images: Tensor, targets: Tensor, weights: Tensor | None = None, *,
             meanwhile: Callable[[], None] | None = None) -> StepResult:
        """Train the active network on one batch, then run the switch that its loss decides.

        Args:
            images: ``(N, C, H, W)`` on the model's device, or what else it takes, such as tokens ``(N, T)``.
            targets: ``(N,)`` class indices, or what else the loss takes, such as ``(N, classes)`` shares.
            weights: ``(N,)``, or of tokens ``(N, T)``: times each unit's loss, before the mean over all units. 0 leaves
                a unit out and saves no FLOPs; a negative weight raises its loss. None for the plain loss.
            meanwhile: called when the step has been launched, before its loss is waited for; such as what prepares the
                next batch.

        Raises:
            ValueError: an empty batch, weights of another shape, or a loss that has none of its units.
            NonFiniteLoss: the loss or a gradient is NaN or infinite.
            OutOfMemory: the network does not fit in memory with this batch.
        """
        if not len(images):
            raise ValueError("images is empty: a step needs a batch of at least one image")
        units = targets.shape[:1] if targets.is_floating_point() else targets.shape
        if weights is not None and weights.shape not in (targets.shape[:1], units):
            raise ValueError(f"weights has shape {tuple(weights.shape)}: must be one an input or target, "
                             f"{' or '.join(str(tuple(shape)) for shape in dict.fromkeys((targets.shape[:1], units)))}")
        if self.steps == 0:
            broadcast([*self.model.parameters(), *self.model.buffers()])
            if self.pair:
                self.pair.assert_tied()
        phase, count = self.phase, len(images) * processes()
        network = self.network(phase)
        forward = self.forward_flops(phase, images)
        stopwatch = Stopwatch(images.device)
        if not network.training:
            network.train()
        number = PHASES.index(phase) if self.pair else 0
        optimizer, scaler = self.optimizers[number], self._scalers[number]
        probes, due = self._probes, self._probes.due(self.steps)
        measure = (lambda: probes.before_update(phase)) if "gradient" in due else None
        signal = None
        probes.before_forward(due, images)
        with out_of_memory_named(phase, len(images), self.engine.micro_batches):
            loss, also = self._taught(phase, self.engine, images, targets, scaler)
            loss_and_spoiled = self.engine.step(network, optimizer, loss, images, targets, measure, scaler, weights,
                                                also)
            self.ledger.charge("probe", probes.flops(due, count, forward))
            if also is not None:
                self.ledger.charge("student", TRAINING_FORWARDS * count * self.forward_flops("base", images))
            flops = TRAINING_FORWARDS * count * forward + self.ledger.pending
            seen = probes.observe(due, self.steps, phase, flops, network, loss_and_spoiled, images, targets,
                                  self.engine, weights)
            seen.send()
            seconds = stopwatch.stop()
            if meanwhile is not None:
                meanwhile()
            self._unread.append(seen)
            late = self.lag if self.monitor is not None else max(self.lag, runs_ahead(images.device))
            if len(self._unread) > late:
                signal = self._unread.popleft().signal()
        self.ledger.record(phase, count, forward, seconds)
        self.steps += 1
        score, reading = math.nan, None
        if self.monitor is not None and signal is not None:
            score = self.monitor.observe(signal)
            reading = getattr(self.monitor, "reading", None)
        lr = float(optimizer.param_groups[0]["lr"])
        self._switch(self._decisions.decide(score))
        return StepResult(phase, score, flops, lr, reading, seen)

    def rehearse(self, phase: Phase, images: Tensor, targets: Tensor, engine: Engine) -> None:
        """Do what takes memory in a step of a phase, its probes included; neither recorded nor decided on.

        It changes weights, state of the optimizer and of the monitor: the caller undoes that. No other process is
        waited for.

        Args:
            phase: of the network that takes the step.
            images: a batch, as in `step`.
            targets: its labels, or shares of them.
            engine: in place of the trainer's.
        """
        network, optimizer = self.network(phase), self.optimizers[phase == "motivated"]
        network.train()
        optimizer.zero_grad(set_to_none=True)
        due = self._probes.due(0)
        self._probes.before_forward(due, images)
        loss, also = self._taught(phase, engine, images, targets)
        engine.gradients(network, loss, images, targets)
        if also is not None:
            also()
        if "gradient" in due:
            self._probes.before_update(phase)
        optimizer.step()
        self._probes.after_update(due, engine, network, images, targets)

    def _taught(self, phase: Phase, engine: Engine, images: Tensor, targets: Tensor, scaler: GradScaler | None = None
                ) -> tuple[Loss, Callable[[], None] | None]:
        """The loss of a step, and what adds the student's gradients to it; None where the step has no student."""
        student = self.student
        if student is None or phase == "base":
            return self.loss, None

        def learn() -> None:
            self.ledger.bytes_copied += student.learn(engine, self.loss, images, targets, scaler)

        return student.listen(self.loss), learn

    def end_epoch(self) -> None:
        """Close an epoch: the schedule may switch here (the paper contracts)."""
        self._switch(self._decisions.end_epoch(self.phase))

    def synchronize(self) -> None:
        """Bring the network that is not training up to date, before both are evaluated."""
        if self.pair:
            self.pair.synchronize(self.phase)

    def _switch(self, phase: Phase) -> None:
        if phase == self.phase:
            return
        if phase not in ("base", "motivated"):
            raise ValueError(f"{type(self.schedule).__name__} decided {phase!r}: a phase is 'base' or 'motivated'")
        if self.pair is None:
            self.phase = phase
            return
        parts = (self.pair, self._state)
        self.ledger.bytes_copied += sum(part.expand() if phase == "motivated" else part.contract() for part in parts)
        if phase == "base":
            # Gradients of dormant weights are dead memory.
            self.optimizers[1].zero_grad(set_to_none=True)
        self.phase = phase

    def forward_flops(self, phase: Phase, images: Tensor) -> int:
        """FLOPs of one image's forward pass through the network of a phase."""
        key = (phase, tuple(images.shape[1:]))
        if key not in self._forward_flops:
            self._forward_flops[key] = forward_flops(self.network(phase), key[1])
        return self._forward_flops[key]

    def state_dict(self) -> dict:
        """Everything that training carries from one step to the next.

        Raises:
            ValueError: a monitor or schedule of one's own has no state_dict.
        """
        for part in (self.monitor, self.schedule):
            check_saves(part)
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scalers": [scaler and scaler.state_dict() for scaler in self._scalers],
            "monitor": self.monitor.state_dict() if self.monitor is not None else None,
            "schedule": self.schedule.state_dict(),
            "ledger": self.ledger.state_dict(),
            "phase": self.phase,
            "steps": self.steps,
            "unread": [seen.state_dict() for seen in self._unread],
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore a state saved by `state_dict`; training is then bit-identical to one that was never stopped.

        Raises:
            ValueError: a monitor or schedule of one's own has no load_state_dict.
        """
        for part in (self.monitor, self.schedule):
            check_saves(part)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            scales = [group.get("lr_scale") for group in optimizer.param_groups]
            # torch keeps the tensors it is given: without a copy two trainers would share their momentum.
            optimizer.load_state_dict(copy.deepcopy(saved))
            for group, scale in zip(optimizer.param_groups, scales, strict=True):
                if scale is not None:  # A checkpoint of an earlier version has none.
                    group["lr_scale"] = scale
            restore_layout(optimizer)
        # A checkpoint of an earlier version, or of another precision, has none.
        for scaler, saved in zip(self._scalers, state.get("scalers", ()), strict=False):
            if scaler and saved:
                scaler.load_state_dict(saved)
        if self._state:
            self._state.tie()
        if self.monitor is not None:
            self.monitor.load_state_dict(state["monitor"])
        self.schedule.load_state_dict(state["schedule"])
        self.ledger.load_state_dict(state["ledger"])
        self.phase = state["phase"]
        self.steps = state["steps"]
        self._unread = deque(Observation(**seen) for seen in state["unread"])


def _check_parts(model: nn.Module, optimizer: Callable, monitor: Monitor | None, schedule: Schedule | None) -> None:
    """Raise ValueError for what cannot be a part of a trainer, such as a name or a class in place of an object."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model={model!r}: must be a Pair, or another torch.nn.Module")
    if not callable(optimizer):
        raise ValueError(f"optimizer is a {type(optimizer).__name__}: must be a function of parameters, such as "
                         "lambda params: torch.optim.SGD(params, lr=0.1)")
    for name, part, method in (("monitor", monitor, "observe"), ("schedule", schedule, "decide")):
        if part is not None and (isinstance(part, type) or not hasattr(part, method)):
            raise ValueError(f"{name}={part!r}: must be an object with {method}()")
