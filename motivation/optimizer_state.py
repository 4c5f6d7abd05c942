"""Optimizer state shared through the weights map (paper, Algorithm 1: "copy weights, buffers and optimizer state").

An aliased parameter has one state dict, put into both optimizers. A sliced parameter has a state in each; at a switch
the slice is copied, its step is carried, and what lies outside the slice keeps its own values.
"""

import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from motivation.pair import Pair, copy_tensors
from motivation.weights_map import Entry, tensor_of

ParameterGroups = list[dict]

# Value of a state tensor before the first step, by optimizer and key: what lies outside a slice starts there.
INITIAL_VALUES: dict[str, dict[str, float]] = {
    "SGD": {"momentum_buffer": 0.0},
    "Adam": {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0},
    "AdamW": {"exp_avg": 0.0, "exp_avg_sq": 0.0, "max_exp_avg_sq": 0.0},
    "NAdam": {"exp_avg": 0.0, "exp_avg_sq": 0.0},
    "RMSprop": {"square_avg": 0.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
    "RMSpropTF": {"square_avg": 1.0, "momentum_buffer": 0.0, "grad_avg": 0.0},
}


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
                halves.append({**group, "params": params, "mapped": belongs, "group": number})
    for number, group in enumerate(base):
        group["group"] = number
    return base, halves


def as_groups(parameters: Iterable) -> ParameterGroups:
    """Parameters or group dicts -> fresh group dicts."""
    parameters = list(parameters)
    if parameters and isinstance(parameters[0], dict):
        return [{**group, "params": list(group["params"])} for group in parameters]
    return [{"params": parameters}]


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

    Raises:
        ValueError: a pair with sliced parameters and an optimizer that `INITIAL_VALUES` does not hold.
    """

    def __init__(self, pair: Pair, base: Optimizer, motivated: Optimizer):
        self.pair, self.base, self.motivated = pair, base, motivated
        parameters = {id(p) for p in pair.base.parameters()}
        own = [entry for entry in pair.weights_map.entries if id(tensor_of(pair.base, entry.base)) in parameters]
        self._aliased = [tensor_of(pair.base, entry.base) for entry in own if entry.aliased]
        self._sliced: list[tuple[Entry, nn.Parameter, nn.Parameter]] = [
            (entry, tensor_of(pair.base, entry.base), tensor_of(pair.motivated, entry.motivated))
            for entry in own if not entry.aliased]
        name = type(motivated).__name__
        if self._sliced and name not in INITIAL_VALUES:
            raise ValueError(f"the state of {name} cannot be carried for sliced weights; choose one of "
                             f"{', '.join(INITIAL_VALUES)}, or a pair whose mapped weights have equal shapes")
        self._initial = INITIAL_VALUES.get(name, {})
        start_momentum(base)
        start_momentum(motivated)
        self.tie()

    def tie(self) -> None:
        """Give every aliased parameter one state dict in both optimizers; again after any ``load_state_dict``."""
        for parameter in self._aliased:
            self.motivated.state[parameter] = self.base.state[parameter]

    def expand(self) -> int:
        """Carry the state base -> motivated; returns the bytes copied."""
        self._carry_counters(self.base, self.motivated)
        return self._carry_slices(self.base, self.motivated, expanding=True)

    def contract(self) -> int:
        """Carry the state motivated -> base; returns the bytes copied."""
        self._carry_counters(self.motivated, self.base)
        return self._carry_slices(self.motivated, self.base, expanding=False)

    def _carry_counters(self, source: Optimizer, destination: Optimizer) -> None:
        """Copy per-group step counters between a base group and the mapped half of its twin."""
        counters = {group["group"]: group["step"] for group in source.param_groups
                    if "step" in group and group.get("mapped", True)}
        for group in destination.param_groups:
            if group.get("mapped", True) and group["group"] in counters:
                group["step"] = counters[group["group"]]

    def _carry_slices(self, source: Optimizer, destination: Optimizer, expanding: bool) -> int:
        copies: tuple[list[Tensor], list[Tensor]] = ([], [])
        for entry, small, large in self._sliced:
            giver, taker = (small, large) if expanding else (large, small)
            given = source.state[giver]
            taken = destination.state[taker]
            for key, value in given.items():
                if not torch.is_tensor(value) or value.shape != giver.shape or value.dim() == 0:
                    taken[key] = value.clone() if torch.is_tensor(value) else value
                    continue
                if key not in taken:
                    taken[key] = torch.full_like(taker, self._initial[key])
                ours, theirs = (value, taken[key]) if expanding else (taken[key], value)
                view = entry.slice_of(theirs)
                copies[0].append(view if expanding else ours)
                copies[1].append(ours if expanding else view)
        return copy_tensors(*copies)


def fused_if_offered(optimizer: Callable[..., Optimizer]) -> dict[str, bool]:
    """``{"fused": True}`` where the optimizer class takes it, else no argument."""
    return {"fused": True} if "fused" in inspect.signature(optimizer).parameters else {}
