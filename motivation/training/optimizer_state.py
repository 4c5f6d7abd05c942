"""Optimizer state shared through the weights map (paper, Algorithm 1: "copy weights, buffers and optimizer state").

An aliased parameter has one state dict, put into both optimizers. A sliced parameter has a state in each; at a switch
the slice is copied, its step is carried, and values outside the slice are kept.
"""

import copy
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.pairing.copies import Copies
from motivation.pairing.pair import Pair
from motivation.pairing.weights_map import Entry, tensor_of
from motivation.validation import NotNegative, Probability, convert

ParameterGroups = list[dict]

# Value of a state tensor before the first step, by optimizer and key: values outside a slice start there.
_ADAM = {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0}
INITIAL_VALUES: dict[str, dict[str, float]] = {
    "SGD": {"momentum_buffer": 0.0},
    "SGDW": {"momentum_buffer": 0.0},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "AdamWLegacy": _ADAM,
    "NAdam": _ADAM,
    "NAdamW": _ADAM,
    "RAdam": _ADAM,
    "AdaBelief": {"exp_avg": 0.0, "exp_avg_var": 0.0, "max_exp_avg_var": 0.0},
    "RMSprop": {"square_avg": 0.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
    "RMSpropTF": {"square_avg": 1.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
    "Lamb": _ADAM,
    "Lion": {"exp_avg": 0.0},
    # Adan's first step stores its negative gradient; an element outside the slice then has 0 for its last gradient.
    "Adan": {**_ADAM, "exp_avg_diff": 0.0, "neg_pre_grad": 0.0},
    "Muon": {"momentum_buffer": 0.0, **_ADAM},
}
StatePolicy = Annotated[Literal["carry", "reset"] | Probability,
                        Field(description="carry, reset, or a factor from 0 to 1")]


def split_groups(pair: Pair, groups: Callable[[nn.Module], Iterable]) -> tuple[ParameterGroups, ParameterGroups]:
    """Parameter groups of both networks; the motivated network's are split into mapped and differential.

    Counters that an optimizer keeps in a group (LAMB's step) are then carried for the mapped half only.

    Args:
        pair: the two networks.
        groups: network -> parameters, or dicts with ``params`` and options, as torch optimizers take them.

    Raises:
        ValueError: the function gives the two networks different numbers of groups.
    """
    base = as_groups(groups(pair.base))
    motivated = as_groups(groups(pair.motivated))
    if len(base) != len(motivated):
        raise ValueError(f"groups() gives {len(base)} parameter groups for the base and {len(motivated)} for the "
                         "motivated network; both need the same groups in the same order")
    mapped = {id(tensor_of(pair.motivated, entry.motivated)) for entry in pair.weights_map.entries}
    halves = []
    for belongs in (True, False):
        for number, group in enumerate(motivated):
            params = [p for p in group["params"] if (id(p) in mapped) is belongs]
            if params:
                halves.append({**group, "params": params, "mapped": belongs, "group": number,
                               "spared": group.get("weight_decay") == 0})
    for number, group in enumerate(base):
        group["group"] = number
    return base, halves


def as_groups(parameters: Iterable) -> ParameterGroups:
    """Parameters, (name, parameter) pairs or group dicts -> fresh group dicts of parameters."""
    parameters = list(parameters)
    if not parameters or not isinstance(parameters[0], dict):
        parameters = [{"params": parameters}]
    return [{**group, "params": _plain(group["params"])} for group in parameters]


def _plain(parameters: Tensor | Iterable) -> list[Tensor]:
    """What torch optimizers take as a group's ``params``, as a list of parameters."""
    if isinstance(parameters, Tensor):
        return [parameters]
    return [parameter[1] if isinstance(parameter, tuple) else parameter for parameter in parameters]


def start_momentum(optimizer: Optimizer) -> None:
    """Create SGD's momentum as zeros: the same bits as its lazy creation, and no mix of None and buffers for fused SGD.

    With dampening the first lazy buffer is the undamped gradient, so zeros would be another algorithm: left to torch.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def restore_layout(optimizer: Optimizer) -> None:
    """Give every loaded state tensor the strides of its parameter: fused optimizers read both as one flat memory."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class SharedState:
    """The state of two optimizers over one pair: aliased dicts, copied slices, carried counters.

    Args:
        pair: the two networks.
        base: optimizer over the base network's parameters.
        motivated: optimizer over the motivated network's, in groups made by `split_groups`.
        policy: at a switch the state is carried (``carry``, paper), the network that then trains starts with none
            (``reset``), or its moments are carried and shrunk towards their initial values by this factor.

    Raises:
        ValueError: a pair with sliced parameters, or a factor, and an optimizer that `INITIAL_VALUES` does not hold; or
            a mapped parameter that only one of the optimizers holds.
    """

    def __init__(self, pair: Pair, base: Optimizer, motivated: Optimizer, policy: StatePolicy = "carry"):
        convert(policy, StatePolicy, "state")
        self.pair, self.base, self.motivated, self.policy = pair, base, motivated, policy
        held, theirs = ({id(p) for group in optimizer.param_groups for p in group["params"]}
                        for optimizer in (base, motivated))
        own = []
        for entry in pair.weights_map.entries:
            ours = id(tensor_of(pair.base, entry.base)) in held
            if ours != (id(tensor_of(pair.motivated, entry.motivated)) in theirs):
                raise ValueError(f"groups() gives {entry.base} to the optimizer of one network only; both need every "
                                 "mapped parameter, or neither")
            if ours:
                own.append(entry)
        self._aliased = [tensor_of(pair.base, entry.base) for entry in own if entry.aliased]
        self._sliced: list[tuple[Entry, nn.Parameter, nn.Parameter]] = [
            (entry, tensor_of(pair.base, entry.base), tensor_of(pair.motivated, entry.motivated))
            for entry in own if not entry.aliased]
        self._name = type(motivated).__name__
        if self._name not in INITIAL_VALUES and (self._sliced or policy not in ("carry", "reset")):
            raise ValueError(f"the state of {self._name} cannot be carried for sliced weights; choose one of "
                             f"{', '.join(INITIAL_VALUES)}, or a pair whose mapped weights have equal shapes")
        self._initial = INITIAL_VALUES.get(self._name, {})
        start_momentum(base)
        start_momentum(motivated)
        self.tie()

    def tie(self) -> None:
        """Give every aliased parameter one state dict in both optimizers; again after any ``load_state_dict``."""
        for parameter in self._aliased:
            self.motivated.state[parameter] = self.base.state[parameter]
        self._listed: dict[bool, _Listed] = {}  # by direction: expanding or not

    def expand(self) -> int:
        """Carry the state base -> motivated; returns the bytes copied."""
        return self._switch(self.base, self.motivated, expanding=True)

    def contract(self) -> int:
        """Carry the state motivated -> base; returns the bytes copied."""
        return self._switch(self.motivated, self.base, expanding=False)

    def _switch(self, source: Optimizer, destination: Optimizer, expanding: bool) -> int:
        if self.policy == "reset":
            self._reset(destination)
            return 0
        self._carry_counters(source, destination)
        copied = self._carry_slices(source, destination, expanding)
        if self.policy != "carry":
            self._shrink(destination)
        return copied

    def _reset(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            group.pop("step", None)
            for parameter in group["params"]:
                # The dict itself stays: an aliased parameter's is in both optimizers.
                optimizer.state[parameter].clear()
        start_momentum(optimizer)

    @torch.no_grad()
    def _shrink(self, optimizer: Optimizer) -> None:
        for state in optimizer.state.values():
            for key, value in state.items():
                if key in self._initial and torch.is_tensor(value):
                    value.sub_(self._initial[key]).mul_(self.policy).add_(self._initial[key])

    def _carry_counters(self, source: Optimizer, destination: Optimizer) -> None:
        """Copy per-group step counters between a base group and the mapped half of its twin."""
        counters = {group["group"]: group["step"] for group in source.param_groups
                    if "step" in group and group.get("mapped", True)}
        for group in destination.param_groups:
            if group.get("mapped", True) and group["group"] in counters:
                # A counter that is a tensor is advanced in place: each group needs its own.
                group["step"] = copy.deepcopy(counters[group["group"]])

    def _carry_slices(self, source: Optimizer, destination: Optimizer, expanding: bool) -> int:
        """One fused copy, listed again only where the optimizers hold other state than before."""
        listed = self._listed.get(expanding)
        if listed is None or listed.held != self._held():
            listed = self._listed[expanding] = self._list(source, destination, expanding)
        for given, taken, key in listed.numbers:
            taken[key] = given[key]
        return listed.copies.run()

    def _list(self, source: Optimizer, destination: Optimizer, expanding: bool) -> "_Listed":
        pairs: list[tuple[Tensor, Tensor]] = []
        numbers = []
        for entry, small, large in self._sliced:
            giver, taker = (small, large) if expanding else (large, small)
            given, taken = source.state[giver], destination.state[taker]
            for key, value in given.items():
                if not torch.is_tensor(value):
                    taken[key] = value
                    numbers.append((given, taken, key))
                elif value.dim() == 0:
                    # A tensor once made stays, since the other direction's list holds it.
                    pairs.append((taken.setdefault(key, torch.empty_like(value)), value))
                elif value.shape != giver.shape or key not in self._initial:
                    raise ValueError(f"{self._name} keeps {key!r} of shape {tuple(value.shape)} for {entry.base} of "
                                     f"shape {tuple(giver.shape)}: no slice of it belongs to a slice of the weight; "
                                     "choose another optimizer, or a pair whose mapped weights have equal shapes")
                else:
                    if key not in taken:
                        taken[key] = torch.full_like(taker, self._initial[key], dtype=value.dtype)
                    if expanding:
                        pairs += [(theirs, ours) for ours, theirs in entry.pieces(value, taken[key])]
                    else:
                        pairs += entry.pieces(taken[key], value)
        return _Listed(Copies(pairs), numbers, self._held())

    def _held(self) -> tuple[int, int]:
        """How many values each optimizer holds for sliced parameters."""
        return (sum(len(self.base.state[small]) for _, small, _ in self._sliced),
                sum(len(self.motivated.state[large]) for _, _, large in self._sliced))


class _Listed(NamedTuple):
    """What a switch copies in one direction, and how much state the optimizers held when it was listed."""

    copies: Copies
    numbers: list[tuple[dict, dict, str]]
    held: tuple[int, int]


def set_differential_options(pair: Pair, optimizer: Optimizer, lr_factor: float, weight_decay: float | None) -> None:
    """Other learning rate and weight decay for what only the motivated network has.

    Args:
        pair: the two networks.
        optimizer: over the motivated network, in groups made by `split_groups`.
        lr_factor: times the group's learning rate.
        weight_decay: in place of the group's, but where `groups` spares it (``weight_decay`` 0); None leaves it.

    Raises:
        ValueError: a pair with sliced tensors, which are mapped and differential at once; or a negative or infinite
            value.
    """
    convert(lr_factor, NotNegative, "differential_lr")
    convert(weight_decay, NotNegative | None, "differential_weight_decay")
    if lr_factor == 1 and weight_decay is None:
        return
    sliced = pair.weights_map.sliced
    if sliced:
        raise ValueError(f"differential_lr and differential_weight_decay need tensors that are wholly differential; "
                         f"{sliced[0].motivated} is mapped in part")
    for group in optimizer.param_groups:
        if not group["mapped"]:
            group["lr"] = group["lr"] * lr_factor  # a tensor may be every group's
            if weight_decay is not None and not group["spared"]:
                group["weight_decay"] = weight_decay


def fused_if_offered(optimizer: Callable[..., Optimizer]) -> dict[str, bool]:
    """``{"fused": True}`` where the optimizer class takes it, else no argument."""
    return {"fused": True} if "fused" in inspect.signature(optimizer).parameters else {}
