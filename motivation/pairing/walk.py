"""Whether one network nests in another: a walk through both module trees, child by child and block by block."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, pairwise
from types import BuiltinFunctionType, FunctionType
from typing import Any, get_args

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from motivation.pairing.depth_rules import DepthRule, check_depth_rule, paired_stage

# Paired modules must agree in what they compute beside their weights, or equal weights would mean different things.
# Numbers of these names, and every flag, fraction, word and function of any name; other whole numbers are sizes.
SETTINGS = ("stride", "padding", "dilation", "kernel_size", "shift_size", "has_skip")
# Except what acts in training alone or does not change the result; and, by words in the name, dropout rates, start
# values, and ratios of sizes (which shapes show).
MAY_DIFFER = frozenset(("training", "momentum", "p", "inplace", "grad_checkpointing", "fused_attn", "scale_by_keep"))
# An attention's scale goes with the width of its heads: noted where widths differ, refused where they do not.
SCALES = ("scale", "scale_factor")
HEADS = ("num_heads", "groups", "num_groups")
MAY_DIFFER_WORDS = ("drop", "init", "ratio")
IDENTITY_IN_EVALUATION = frozenset(("DropPath", "StochasticDepth", "DropBlock2d", "PatchDropout"))


class NestingError(ValueError):
    """The base network does not nest in the motivated network; the message names the first place that does not.

    Args:
        message: the place and why.
        kind: ``design`` (other layers or settings), ``tied``, a `Mismatch`'s kind, or ``other``.
    """

    def __init__(self, message: str, kind: str = "other"):
        super().__init__(message)
        self.kind = kind


def refuse_unmappable(network: nn.Module, role: str) -> None:
    """Refuse a network whose weights are not plain tensors, each in one place.

    Raises:
        NestingError: tied or lazily initialised parameters, parametrised or quantised modules, or one module in two
            places; names the place.
    """
    seen: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise NestingError(f"{name} of the {role} network is not initialised yet; run one forward pass first")
        if id(parameter) in seen:
            raise NestingError(f"{name} and {seen[id(parameter)]} of the {role} network are one tied parameter; "
                               "a pair needs every parameter once", "tied")
        seen[id(parameter)] = name
    if names := find_overlap(mapped_tensors(network)):
        raise NestingError(f"{names[1]} and {names[0]} of the {role} network share memory; a pair needs every tensor "
                           "once", "tied")
    modules: dict[int, str] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        if id(module) in modules and _has_tensors(module):
            raise NestingError(f"{name} and {modules[id(module)]} of the {role} network are one module; a pair needs "
                               "every module once")
        modules[id(module)] = name
        where = name or "the network itself"
        if nn.utils.parametrize.is_parametrized(module) or (getattr(module, "_forward_pre_hooks", None) and any(
                hasattr(hook, "compute_weight") or "norm" in type(hook).__name__.lower()
                for hook in module._forward_pre_hooks.values())):
            raise NestingError(f"{where} of the {role} network is parametrised; remove the parametrisation first "
                               "(torch.nn.utils.parametrize.remove_parametrizations)")
        if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
            raise NestingError(f"{where} of the {role} network is pruned; make that permanent first "
                               "(torch.nn.utils.prune.remove)")
        if "quantized" in type(module).__module__ or any(
                tensor is not None and tensor.is_quantized for tensor in module._buffers.values()):
            raise NestingError(f"{where} of the {role} network is quantised; pair the networks before quantising")


def find_overlap(tensors: dict[str, Tensor]) -> tuple[str, str] | None:
    """Names of two tensors that share memory; None where no two do."""
    spans = sorted((str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + tensor.element_size() * (
        1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))), name)
        for name, tensor in tensors.items() if tensor.numel() and not tensor.is_meta)
    for (device, _, end, name), (other_device, start, _, other) in pairwise(spans):
        if device == other_device and start < end:
            return name, other
    return None


def join(path: str, name: str) -> str:
    """Qualified name of a module's child or tensor."""
    return f"{path}.{name}" if path else name


class Walk:
    """Walks both module trees together.

    Args:
        rule: how the blocks of stages of different length pair.
        strict: refuse paired modules that compute different things; otherwise only other layers and `SETTINGS`.

    Attributes:
        differential: blocks of the motivated network that no base block maps to, as the walk meets them.
        nearest: for each of them the mapped block of the same stage nearest to it.
        heads_differ: paired modules with different numbers of heads or groups were met.
        scales: by module, how its scales (`SCALES`) differ, in words; and whether its weights differ in shape.

    Raises:
        ValueError: an unknown rule.
    """

    def __init__(self, rule: DepthRule, strict: bool = True):
        check_depth_rule(rule)
        self.rule = rule
        self.strict = strict
        self.differential: list[str] = []
        self.nearest: list[str] = []
        self.heads_differ = False
        self.scales: dict[str, tuple[str, bool]] = {}
        self._better_rules: dict[str, DepthRule] = {}  # by stage whose blocks this rule mixes

    def modules(self, base: nn.Module, motivated: nn.Module, base_path: str = "", path: str = ""
                ) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
        """Paired modules with their names."""
        where = base_path or "the network itself"
        if type(base) is not type(motivated):
            if _is_identity(base) and _is_identity(motivated):
                return  # DropPath where a rate is above 0, Identity elsewhere
            if not self.strict and not _has_tensors(base) and not _has_tensors(motivated):
                return
            self._refuse(where, f"{type(base).__name__} in the base, {type(motivated).__name__} in the motivated "
                                "network; both must be of one family")
        self._compare_settings(base, motivated, where)
        yield base_path, base, path, motivated
        ours, theirs = dict(base.named_children()), dict(motivated.named_children())
        if isinstance(base, nn.Sequential | nn.ModuleList) and len(ours) != len(theirs):
            chosen = self._blocks(ours, theirs, base_path, path)
        else:
            chosen = self._named(ours, theirs, base_path, path)
        for (base_name, child), name in zip(ours.items(), chosen, strict=True):
            yield from self.modules(child, theirs[name], join(base_path, base_name), join(path, name))

    def _named(self, ours: dict[str, nn.Module], theirs: dict[str, nn.Module], base_path: str, path: str) -> list[str]:
        """Children by name; numbered ones (``b1``, ``b2``, ... in a RegNet's stage) are blocks."""
        missing = sorted(ours.keys() ^ theirs.keys())
        if not missing:
            return list(ours)
        stem = missing[0].rstrip("0123456789")
        blocks = [{name: child for name, child in children.items()
                   if name != stem and name.rstrip("0123456789") == stem} for children in (ours, theirs)]
        if not all(blocks) or any(name not in blocks[0] and name not in blocks[1] for name in missing):
            only = "base" if missing[0] in ours else "motivated network"
            self._refuse(base_path or "the network itself", f"child {missing[0]!r} exists only in the {only}")
        chosen = dict(zip(blocks[0], self._blocks(*blocks, base_path, path), strict=True))
        return [chosen.get(name, name) for name in ours]

    def _blocks(self, ours: dict[str, nn.Module], theirs: dict[str, nn.Module], base_path: str, path: str) -> list[str]:
        """The motivated block of each base block; notes the others as differential."""
        if len(ours) > len(theirs):
            raise NestingError(f"{base_path or 'the network itself'}: {len(ours)} blocks in the base, only "
                               f"{len(theirs)} in the motivated network")
        names = list(theirs)
        kinds = [list(map(_kind, blocks.values())) for blocks in (ours, theirs)]
        places, *others = (paired_stage(*kinds, rule) for rule in (self.rule, *get_args(DepthRule)))
        for rule, other in zip(get_args(DepthRule), others, strict=True):
            if _agree(*kinds, other) and not _agree(*kinds, places):
                self._better_rules.setdefault(base_path, rule)
        for number, name in enumerate(names):
            if number not in places:
                self.differential.append(join(path, name))
                nearest = min(places, key=lambda at, number=number: abs(at - number), default=None)
                self.nearest.append("" if nearest is None else join(path, names[nearest]))
        return [names[number] for number in places]

    def _compare_settings(self, base: nn.Module, motivated: nn.Module, where: str) -> None:
        self.heads_differ |= any(getattr(base, name, None) != getattr(motivated, name, None) for name in HEADS)
        ours, theirs = _settings(base, self.strict), _settings(motivated, self.strict)
        for name in [*ours, *(theirs.keys() - ours.keys() if self.strict else ())]:
            small, large = getattr(base, name, None), getattr(motivated, name, None)
            if _comparable(small) == _comparable(large):
                continue
            difference = f"{name} is {small} in the base, {large} in the motivated network"
            if name in SCALES:
                shapes = [[parameter.shape for parameter in module.parameters()] for module in (base, motivated)]
                self.scales[where] = f"{where}: {difference}", shapes[0] != shapes[1]
            else:
                self._refuse(where, difference)

    def _refuse(self, where: str, why: str) -> None:
        advice = next((f"; depth_rule={rule!r} pairs blocks that agree" for stage, rule in self._better_rules.items()
                       if where.startswith(stage)), "")
        raise NestingError(f"{where}: {why}{advice}", "design")


def _settings(module: nn.Module, strict: bool = True) -> dict[str, Any]:
    """A module's settings other than sizes; not strict: `SETTINGS` alone."""
    chosen = {name: value for name in SETTINGS if isinstance(value := getattr(module, name, None), int | tuple | str)}
    return chosen | {name: value for name, value in vars(module).items() if strict
                     and isinstance(value, float | bool | str | FunctionType | BuiltinFunctionType | partial)
                     and not name.startswith("_") and name not in MAY_DIFFER
                     and not any(word in name for word in MAY_DIFFER_WORDS)}


def _comparable(value: Any) -> Any:
    """A setting in a form that compares by meaning: the functions of two networks are never identical objects."""
    if isinstance(value, FunctionType):
        return value.__code__, value.__defaults__
    if isinstance(value, partial):
        return _comparable(value.func), value.args, value.keywords
    return value


def _is_identity(module: nn.Module) -> bool:
    """Whether a module is the identity in evaluation mode: an identity, a dropout, a drop path."""
    if isinstance(module, nn.Sequential):
        return all(map(_is_identity, module))
    return type(module) is nn.Identity or isinstance(module, nn.modules.dropout._DropoutNd) \
        or type(module).__name__ in IDENTITY_IN_EVALUATION


def paired_tensors(base_path: str, base: nn.Module, path: str, motivated: nn.Module
                    ) -> Iterator[tuple[str, Tensor, str, Tensor]]:
    """Tensors that two paired modules hold themselves, with their names."""
    ours, theirs = _own_tensors(base), _own_tensors(motivated)
    for name in [*ours, *theirs]:
        if name not in theirs:
            raise NestingError(f"{join(base_path, name)}: the motivated network has no such tensor", "design")
        if name not in ours:
            raise NestingError(f"{join(path, name)}: the base has no such tensor", "design")
    for name, tensor in ours.items():
        refuse_other_kind(join(base_path, name), tensor, theirs[name])
        yield join(base_path, name), tensor, join(path, name), theirs[name]


def refuse_other_kind(name: str, base: Tensor, motivated: Tensor) -> None:
    """Raise NestingError where two tensors differ in data type or device: they could not share storage."""
    for ours, theirs in ((base.dtype, motivated.dtype), (base.device, motivated.device)):
        if ours != theirs:
            raise NestingError(f"{name}: {ours} in the base, {theirs} in the motivated network; convert or move one "
                               "network before pairing")


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, and the buffers that training changes, that a module holds itself.

    Those are persistent floating-point buffers (running statistics) and scalar counters; index tables and masks are
    constants that each network keeps for itself.
    """
    buffers = {name: buffer for name, buffer in module._buffers.items() if buffer is not None
               and name not in module._non_persistent_buffers_set and (buffer.is_floating_point() or buffer.dim() == 0)}
    return {name: p for name, p in module._parameters.items() if p is not None} | buffers


def mapped_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter, and every buffer that training changes, by qualified name."""
    return {join(path, name): tensor for path, module in network.named_modules()
            for name, tensor in _own_tensors(module).items()}


def _kind(block: nn.Module) -> tuple:
    """What blocks that can pair have in common: their modules and settings."""
    return tuple((name, type(module), {key: _comparable(value) for key, value in _settings(module).items()
                                       if key not in SCALES})
                 for name, module in block.named_modules() if not _is_identity(module))


def _agree(base: list[tuple], motivated: list[tuple], places: list[int]) -> bool:
    return all(kind == motivated[place] for kind, place in zip(base, places, strict=True))


def _has_tensors(module: nn.Module) -> bool:
    return next(chain(module.parameters(), module.buffers()), None) is not None
