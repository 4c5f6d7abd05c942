"""Recipes: optimizer, learning-rate schedule, augmentation, length and batch size, from torch and timm factories."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.accuracy import IGNORED
from motivation.data.augment.augmentation import Augmentation
from motivation.training.optimizer_state import StatePolicy, fused_if_offered
from motivation.validation import Count, NotNegative, Positive, ShareBelowOne, check_arguments, convert

# What a schedule cannot do without; timm's own defaults count steps here.
NEEDED = {"step": "decay_epochs", "multistep": "decay_milestones"}
# Share of a mixed image from which a class counts as present; the value of the timm runs behind ResNet strikes back.
PRESENT = 0.2
SCHEDULES = ("cosine", "constant", "step", "multistep", "tanh", "poly")
# Beside the name; epochs may be fractions of one.
SCHEDULE_OPTIONS = {
    "warmup_epochs": NotNegative, "warmup_lr": NotNegative, "min_lr": NotNegative, "decay_epochs": NotNegative,
    "decay_rate": NotNegative, "decay_milestones": tuple[int, ...], "warmup_prefix": bool}


def optimizer_class(name: str) -> Callable[..., Optimizer]:
    """An optimizer by name: torch's own in lower case (``sgd``, ``adamw``, ``rmsprop``), then timm's registry.

    Raises:
        ValueError: neither has it.
    """
    import timm.optim

    torch_names = {key.lower(): key for key in torch.optim.__all__ if isinstance(getattr(torch.optim, key), type)
                   and issubclass(getattr(torch.optim, key), Optimizer) and key not in ("Optimizer", "LBFGS")}
    if name in torch_names:
        return getattr(torch.optim, torch_names[name])
    names = [*torch_names, *timm.optim.list_optimizers()]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"torch has {', '.join(torch_names)}; timm has more"
        raise ValueError(f"optimizer.name={name!r} is unknown; {hint}")
    return timm.optim.get_optimizer_class(name)


def binary_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Every class on its own, present or not (Wightman et al. 2021, section 3); the mean over images and classes.

    Args:
        logits: ``(N, classes)``.
        targets: class indices ``(N,)``, or shares ``(N, classes)``: a class is present from a share of 0.2.
        label_smoothing: share of the presence that is spread over all classes.
    """
    classes = logits.shape[1]
    if targets.ndim == 1:
        present = targets[:, None] == torch.arange(classes, device=targets.device)
    else:
        present = targets > PRESENT
    smooth = present.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, smooth)


def sequence_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0,
                           reduction: Literal["mean", "none"] = "mean") -> Tensor:
    """Cross-entropy of next tokens: the mean over a sequence's targets, and of that the mean over sequences.

    A sequence counts like an image: losses of parts of a batch average to the batch's, whatever their lengths.

    Args:
        logits: ``(N, classes, T)``.
        targets: ``(N, T)``, with `motivation.accuracy.IGNORED` where no token is learned.
        label_smoothing: share of a target that is spread over all classes.
        reduction: ``none`` for ``(N, T)`` losses whose mean is the loss.
    """
    losses = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none", ignore_index=IGNORED)
    losses = losses * (targets.shape[1] / (targets != IGNORED).sum(1, keepdim=True).clamp(min=1))
    return losses.mean() if reduction == "mean" else losses


@check_arguments
@dataclass(frozen=True)
class Recipe(Augmentation):
    """How a run is trained; the same for both networks of a pair. Beside these, all that `Augmentation` takes.

    Args:
        batch_size: images a step, of all processes together.
        epochs: passes over the training set; give this or ``steps``.
        steps: optimizer steps; give this or ``epochs``.
        optimizer: ``name`` and the optimizer's own arguments, such as lr, momentum, weight_decay; a null one is left
            to the optimizer's default.
        decay_norms: weight decay for norms, biases and what a network names (timm's ``no_weight_decay``) too.
        schedule: ``name`` of a timm learning-rate schedule, updated every step; ``warmup_epochs`` of linear warm-up,
            and for step schedules ``decay_epochs``, ``decay_rate`` and ``warmup_prefix`` (count them from the end of
            warm-up), for multistep ``decay_milestones`` (epochs).
        loss: ``cross_entropy``, or ``bce``: binary cross-entropy over classes, a class counting as present from a fifth
            of the image (ResNet strikes back).
        label_smoothing: of the loss, in [0, 1).
        dropout: before the classifier, given to the networks as timm's ``drop_rate``; null for theirs.
        drop_path: stochastic depth, given as ``drop_path_rate``; null for theirs.
        rollbacks: how many times a run whose loss or gradients turn NaN goes back to its last checkpoint and continues
            with a smaller learning rate; 0 stops it.
        rollback_lr: factor on the learning rate from each rollback on.
        state: the optimizer state at a switch: ``carry`` (paper), ``reset``, or a factor from 0 to 1 that shrinks the
            carried moments.
        differential_lr: factor on the learning rate of tensors that only the motivated network has.
        differential_weight_decay: their weight decay; null for the optimizer's. Where ``decay_norms`` is
            off, norms and biases stay without.

    Raises:
        ValueError: an impossible value, an unknown optimizer or schedule, or an argument it does not take.
    """

    batch_size: Count = 128
    epochs: Count | None = None
    steps: Count | None = None
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "sgd", "lr": 0.1})
    decay_norms: bool = True
    schedule: dict[str, Any] = field(default_factory=lambda: {"name": "cosine"})
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    label_smoothing: ShareBelowOne = 0.0
    dropout: ShareBelowOne | None = None
    drop_path: ShareBelowOne | None = None
    rollbacks: Annotated[int, Field(ge=0)] = 0
    rollback_lr: Annotated[float, Field(gt=0, lt=1)] = 0.5
    state: StatePolicy = "carry"
    differential_lr: NotNegative = 1.0
    differential_weight_decay: NotNegative | None = None

    def __post_init__(self):
        super().__post_init__()
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"epochs={self.epochs} and steps={self.steps}: give exactly one of them, the other null")
        if self.mixes and self.batch_size % 2:
            raise ValueError(f"batch_size={self.batch_size}: must be even with Mixup or CutMix, which mix pairs")
        self._check_optimizer()
        self._check_schedule()

    def _check_optimizer(self) -> None:
        if not isinstance(self.optimizer.get("name"), str):
            raise ValueError("optimizer.name is missing; name one, such as sgd or adamw")
        build = optimizer_class(self.optimizer["name"])
        taken = [name for name in inspect.signature(build).parameters if name not in ("self", "params")]
        for name, value in self.optimizer.items():
            if name == "name" or value is None:
                continue
            if name not in taken:
                close = difflib.get_close_matches(name, taken, n=1)
                raise ValueError(f"optimizer.{name}: {self.optimizer['name']} takes no such argument; "
                                 + (f"did you mean {close[0]}?" if close else "leave it out, "
                                    f"or null; it takes {', '.join(taken)}"))
            if isinstance(value, str):
                raise ValueError(f"optimizer.{name}={value!r}: must be a number or true/false")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"optimizer.{name}={value}: must be finite")
        convert(self.optimizer.get("lr"), Positive | None, "optimizer.lr")
        try:
            # One step shows what a constructor does not check.
            parameter = nn.Parameter(torch.zeros(2, 2))
            optimizer = self.optimizer_factory()([parameter])
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
        except (ValueError, TypeError, RuntimeError, IndexError, AssertionError) as error:
            raise ValueError(f"optimizer {self.optimizer['name']}: {' '.join(str(error).split())[:160]}") from error

    def _check_schedule(self) -> None:
        name = self.schedule.get("name")
        if name not in SCHEDULES:
            raise ValueError(f"schedule.name={name!r}: choose one of {', '.join(SCHEDULES)}" if "name" in self.schedule
                             else f"schedule.name is missing; choose one of {', '.join(SCHEDULES)}")
        for key, value in self.schedule.items():
            if key != "name" and key not in SCHEDULE_OPTIONS:
                raise ValueError(f"schedule.{key}: unknown; a schedule takes name, {', '.join(SCHEDULE_OPTIONS)}")
            convert(value, SCHEDULE_OPTIONS.get(key, Any), f"schedule.{key}")
        if self.schedule.get("warmup_prefix") and name != "step":
            raise ValueError("schedule.warmup_prefix=True: must be false; true is for a step schedule alone")
        needed = NEEDED.get(name)
        if needed and not self.schedule.get(needed):
            raise ValueError(f"schedule.{needed} is missing or 0: a {name} schedule needs it, in epochs")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        return self.steps if self.steps is not None else self.epochs * steps_per_epoch

    def optimizer_factory(self) -> Callable[[Iterable], Optimizer]:
        """``params -> optimizer``, fused where torch offers it."""
        arguments = {name: value for name, value in self.optimizer.items() if name != "name" and value is not None}
        build = optimizer_class(self.optimizer["name"])
        fused = {} if arguments.get("foreach") or arguments.get("differentiable") else fused_if_offered(build)
        return partial(build, **{**fused, **arguments})

    @property
    def augmentation(self) -> Augmentation:
        """Its sizes and augmentation alone, for the data."""
        return Augmentation(**{one.name: getattr(self, one.name) for one in fields(Augmentation)})

    @property
    def network_options(self) -> dict[str, float]:
        """Its dropout and stochastic depth, as arguments of timm's networks."""
        options = {"drop_rate": self.dropout, "drop_path_rate": self.drop_path}
        return {name: value for name, value in options.items() if value is not None}

    def groups(self, network: nn.Module) -> Iterable:
        """Parameters of a network, or groups of them where norms and biases go without weight decay."""
        if self.decay_norms:
            return network.parameters()
        from timm.optim import param_groups_weight_decay

        spared = getattr(network, "no_weight_decay", set)()
        without, decayed = param_groups_weight_decay(network, no_weight_decay_list=spared)
        # How much is the optimizer's to say.
        return [without, {"params": decayed["params"]}]

    def loss_function(self, sequences: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
        """Loss of logits ``(N, classes)`` and targets, class indices ``(N,)`` or shares ``(N, classes)``; a scalar.

        Args:
            sequences: of next tokens, see `sequence_cross_entropy`.

        Raises:
            ValueError: a loss that tokens do not have.
        """
        if sequences:
            if self.loss != "cross_entropy":
                raise ValueError(f"loss={self.loss}: is for images, and these are tokens; must be cross_entropy")
            return partial(sequence_cross_entropy, label_smoothing=self.label_smoothing)
        if self.loss == "bce":
            return partial(binary_cross_entropy, label_smoothing=self.label_smoothing)
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)

    def learning_rates(self, optimizers: list[Optimizer], steps_per_epoch: int) -> list:
        """timm schedulers, one an optimizer, all with the same schedule; call ``step_update(step)`` before each step.

        Args:
            optimizers: of the base and, for a pair, of the motivated network.
            steps_per_epoch: converts the schedule's epochs to steps.
        """
        from timm.scheduler import create_scheduler_v2

        options = dict(self.schedule)
        for name in ("warmup_epochs", "decay_epochs"):
            if name in options:
                options[name] = round(options[name] * steps_per_epoch)
        if options.get("decay_epochs") == 0:
            raise ValueError(f"schedule.decay_epochs={self.schedule['decay_epochs']}: less than one step of "
                             f"1/{steps_per_epoch} epoch")
        if options.get("warmup_epochs", 0) >= self.total_steps(steps_per_epoch):
            raise ValueError(f"schedule.warmup_epochs={self.schedule['warmup_epochs']}: the whole run is "
                             f"{self.total_steps(steps_per_epoch) / steps_per_epoch:g} epochs")
        if options["name"] == "constant":
            # A step schedule that never decays, as timm's own; its factory has none before 1.0.25.
            options |= {"name": "step", "decay_epochs": 1, "decay_rate": 1.0}
        if "decay_milestones" in options:
            options["decay_milestones"] = [epoch * steps_per_epoch for epoch in options["decay_milestones"]]
        if self.differential_lr != 1:
            # timm multiplies all that it sets, warm-up and least rate too, by a group's lr_scale.
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    if not group.get("mapped", True):
                        group.update(lr_scale=self.differential_lr, initial_lr=optimizer.defaults["lr"])
        # timm counts in epochs; one "epoch" of one update makes its unit the step.
        return [create_scheduler_v2(optimizer, sched=options["name"],
                                    num_epochs=self.total_steps(steps_per_epoch), step_on_epochs=False,
                                    updates_per_epoch=1, **{k: v for k, v in options.items() if k != "name"})[0]
                for optimizer in optimizers]
