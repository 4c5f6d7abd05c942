"""Whether one network nests in another: both module trees walked together, child by child and block by block."""

from collections.abc import Iterator

from torch import Tensor, nn

from motivation.families import DepthRule, paired_stage

# What a module computes beside its weights; paired modules must agree, or equal weights would mean different things.
SETTINGS = ("stride", "padding", "dilation", "kernel_size", "shift_size", "has_skip")
HEADS = ("num_heads", "groups", "num_groups")


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
    """Refuse what has no plain weights of its own.

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
        if "quantized" in type(module).__module__ or any(
                tensor is not None and tensor.is_quantized for tensor in module._buffers.values()):
            raise NestingError(f"{where} of the {role} network is quantised; pair the networks before quantising")


def join(path: str, name: str) -> str:
    """Qualified name of a module's child or tensor."""
    return f"{path}.{name}" if path else name


class Walk:
    """Walks both module trees together.

    Args:
        rule: how the blocks of stages of different length pair.

    Attributes:
        differential: blocks of the motivated network that no base block maps to, as the walk meets them.
        nearest: for each of them the mapped block of the same stage nearest to it.
        heads_differ: paired modules with different numbers of heads or groups were met.
    """

    def __init__(self, rule: DepthRule):
        self.rule = rule
        self.differential: list[str] = []
        self.nearest: list[str] = []
        self.heads_differ = False

    def modules(self, base: nn.Module, motivated: nn.Module, base_path: str = "", path: str = ""
                ) -> Iterator[tuple[str, nn.Module, str, nn.Module]]:
        """Paired modules with their names."""
        where = base_path or "the network itself"
        if type(base) is not type(motivated):
            if not any(_has_tensors(module) for module in (base, motivated)):
                return  # DropPath where a rate is above 0, Identity elsewhere
            raise NestingError(f"{where}: {type(base).__name__} in the base, {type(motivated).__name__} in the "
                               "motivated network; both must be of one family", "design")
        self._compare_settings(base, motivated, where)
        yield base_path, base, path, motivated
        ours, theirs = dict(base.named_children()), dict(motivated.named_children())
        if isinstance(base, nn.Sequential | nn.ModuleList) and len(ours) != len(theirs):
            chosen = self._blocks(ours, theirs, where, path)
        else:
            chosen = self._named(ours, theirs, where, path)
        for (base_name, child), name in zip(ours.items(), chosen, strict=True):
            yield from self.modules(child, theirs[name], join(base_path, base_name), join(path, name))

    def _named(self, ours: dict[str, nn.Module], theirs: dict[str, nn.Module], where: str, path: str) -> list[str]:
        """Children by name; numbered ones (``b1``, ``b2``, ... in a RegNet's stage) are blocks."""
        missing = sorted(ours.keys() ^ theirs.keys())
        if not missing:
            return list(ours)
        stem = missing[0].rstrip("0123456789")
        blocks = [{name: child for name, child in children.items()
                   if name != stem and name.rstrip("0123456789") == stem} for children in (ours, theirs)]
        if not all(blocks) or any(name not in blocks[0] and name not in blocks[1] for name in missing):
            only = "base" if missing[0] in ours else "motivated network"
            raise NestingError(f"{where}: child {missing[0]!r} exists only in the {only}", "design")
        chosen = dict(zip(blocks[0], self._blocks(*blocks, where, path), strict=True))
        return [chosen.get(name, name) for name in ours]

    def _blocks(self, ours: dict[str, nn.Module], theirs: dict[str, nn.Module], where: str, path: str) -> list[str]:
        """The motivated block of each base block; notes the others as differential."""
        if len(ours) > len(theirs):
            raise NestingError(f"{where}: {len(ours)} blocks in the base, only {len(theirs)} in the motivated network")
        names = list(theirs)
        places = paired_stage(list(map(_kind, ours.values())), list(map(_kind, theirs.values())), self.rule)
        for number, name in enumerate(names):
            if number not in places:
                self.differential.append(join(path, name))
                nearest = min(places, key=lambda at, number=number: abs(at - number), default=None)
                self.nearest.append("" if nearest is None else join(path, names[nearest]))
        return [names[number] for number in places]

    def _compare_settings(self, base: nn.Module, motivated: nn.Module, where: str) -> None:
        for setting in SETTINGS:
            ours, theirs = getattr(base, setting, None), getattr(motivated, setting, None)
            if isinstance(ours, int | tuple | str) and ours != theirs:
                raise NestingError(f"{where}: {setting} is {ours} in the base, {theirs} in the motivated network; "
                                   "another depth rule may pair blocks that agree", "design")
        self.heads_differ |= any(getattr(base, name, None) != getattr(motivated, name, None) for name in HEADS)


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
        yield join(base_path, name), tensor, join(path, name), theirs[name]


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, and the buffers that training changes, that a module holds itself.

    Those are persistent floating-point buffers (running statistics) and scalar counters; index tables and masks are
    constants that each network keeps for itself.
    """
    tensors: dict[str, Tensor] = {name: p for name, p in module._parameters.items() if p is not None}
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set \
                and (buffer.is_floating_point() or buffer.dim() == 0):
            tensors[name] = buffer
    return tensors


def mapped_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every parameter, and every buffer that training changes, by qualified name."""
    return {join(path, name): tensor for path, module in network.named_modules()
            for name, tensor in _own_tensors(module).items()}


def _kind(block: nn.Module) -> tuple:
    """What blocks that can pair have in common: the modules that hold tensors, and how they are set."""
    return tuple((name, type(module), *(getattr(module, setting, None) for setting in SETTINGS))
                 for name, module in block.named_modules() if module._parameters or module._buffers or not name)


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())
