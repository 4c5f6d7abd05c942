"""How many of timm's neighbouring architectures pair automatically.

Neighbours are an architecture and the next size up of the same family: one class, one input size, and names that differ
only in size words and counts (``vit_tiny_patch16_224`` and ``vit_small_patch16_224``, ``resnet50`` and ``resnet101``).
Counted are those whose every stage is at least as deep and as wide. Networks are built on the meta device, so nothing
is allocated and nothing downloaded. A row a class, every refusal with its reason, and the share that pairs.
"""

import collections
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import timm
import torch
from torch import nn

from motivation.pairing.map_weights import map_weights
from motivation.pairing.walk import NestingError

from .table import Table

BOUND = 0.95
CLASSES = 10
# How neighbours pair, and the kinds of refusal.
KINDS = ("depth", "width", "scaled", "design", "smaller", "tied", "fixed", "skip", "divided", "other")
SIZE_WORDS = frozenset((
    "zepto", "atto", "femto", "pico", "nano", "pint", "xxxsmall", "xxsmall", "xxtiny", "xtiny", "xsmall", "tiny",
    "mini", "little", "small", "medium", "mediumd", "betwixt", "base", "large", "huge", "giant", "gigantic",
    "enormous", "xlarge", "xxlarge", "so150m", "so400m", "xxs", "xs", "t", "s", "m", "b", "l", "h", "g", "n", "x",
    "xl", "xxl"))
VARIANT = re.compile(r"(v|p|patch|window|reg|fl|r|w|so|se|dinov)\d+")


def family(name: str, network: nn.Module) -> tuple:
    """What neighbours share: class, input size, kinds of layers, and the name without size words and counts."""
    size = tuple(network.pretrained_cfg["input_size"])
    words = []
    for word in name.split("_"):
        if word in SIZE_WORDS:
            words.append("*")
        elif word.isdigit():
            words.append(word if int(word) in size else "#")
        elif VARIANT.fullmatch(word):
            words.append(word)
        else:
            head = re.match(r"[a-z]*(v\d+)?", word)[0]
            words.append(head + re.sub(r"\d+", "#", word[len(head):]) if word[0].isalpha() else word)
    words = [re.sub(r"^(xx?)?[tsmblh]#$", "*#", word) for word in words]
    layers = frozenset((type(module).__name__, getattr(module, "kernel_size", None), getattr(module, "stride", None))
                       for module in network.modules() if next(module.parameters(), None) is not None)
    return type(network).__module__.rpartition(".")[2], type(network).__name__, "_".join(words), size, layers


def stages(network: nn.Module) -> tuple[dict[str, int], list[int]]:
    """Blocks of every stage by name, and channels after every stage."""
    depths = {}
    for name, module in network.named_modules():
        blocks = [child for child in module._modules if child.rstrip("0123456789") != child]
        if isinstance(module, nn.Sequential | nn.ModuleList):
            blocks = list(module._modules)
        if blocks:
            depths[name] = len(blocks)
    return depths, [stage["num_chs"] for stage in getattr(network, "feature_info", None) or []]


def is_larger(base: nn.Module, motivated: nn.Module) -> bool:
    """Whether every stage of the motivated network is at least as deep and as wide."""
    (depths, widths), (larger_depths, larger_widths) = stages(base), stages(motivated)
    return len(widths) == len(larger_widths) and all(map(int.__le__, widths, larger_widths)) and all(
        depth <= larger_depths.get(name, depth) for name, depth in depths.items()) \
        and getattr(base, "num_features", 0) <= getattr(motivated, "num_features", 0)


@dataclass
class Neighbours:
    """Two architectures, and how they pair.

    Args:
        base: name of the smaller.
        motivated: name of the larger.
        kind: the class of both.
        result: ``depth`` (nothing copied), ``width``, ``scaled`` (narrower heads or softmaxes in wider ones: the map
            is not exact), or the kind of refusal (see `NestingError`).
        why: of the refusal, in words.
        seconds: to map the weights.
    """

    base: str
    motivated: str
    kind: str
    result: str
    why: str = ""
    seconds: float = 0.0


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=CLASSES)


def all_families(pattern: str) -> dict[tuple, list[str]]:
    """Names by family, smallest network first."""
    sizes: dict[str, int] = {}
    families = collections.defaultdict(list)
    for name in timm.list_models(pattern):
        network = build(name)
        sizes[name] = sum(parameter.numel() for parameter in network.parameters())
        families[family(name, network)].append(name)
    return {key: sorted(names, key=sizes.get) for key, names in families.items() if len(names) > 1}


def all_neighbours(pattern: str) -> Iterator[tuple[Neighbours, bool]]:
    """Every pair of neighbours, and whether the larger is larger in every stage."""
    for (_, kind, *_), names in sorted(all_families(pattern).items(), key=lambda item: item[0][:4]):
        base = build(names[0])
        for smaller, larger in pairwise(names):
            motivated = build(larger)
            neighbours = Neighbours(smaller, larger, kind, "")
            if counted := is_larger(base, motivated):
                start = time.process_time()
                try:
                    weights_map = map_weights(base, motivated)
                    neighbours.result = "width" if weights_map.sliced else "depth"
                    if any(word in note for note in weights_map.notes for word in (" scale", "temperature", "softmax")):
                        neighbours.result = "scaled"
                except NestingError as error:
                    neighbours.result, neighbours.why = error.kind, str(error)
                neighbours.seconds = time.process_time() - start
            yield neighbours, counted
            base = motivated


def measure(pattern: str = "") -> list[Table]:
    """Measure this.

    Args:
        pattern: of architectures, such as 'vit*'; all by default.
    """
    rows = collections.defaultdict(collections.Counter)
    seconds, smaller = [], 0
    refused = Table("Refused", {"kind": "", "base": "", "motivated": "", "reason": ""}, [])
    for neighbours, counted in all_neighbours(pattern):
        if not counted:
            smaller += 1
            continue
        seconds.append((round(neighbours.seconds, 2), neighbours.base))
        rows[neighbours.kind][neighbours.result] += 1
        if neighbours.why:
            refused.rows.append((neighbours.result, neighbours.base, neighbours.motivated, neighbours.why))
    if not seconds:
        raise ValueError(f"pattern={pattern!r}: no two neighbours among timm's architectures of that name")
    total = sum(rows.values(), collections.Counter())
    count, exact = len(seconds), total["depth"] + total["width"]
    pairing, by_nature = exact + total["scaled"], total["design"] + total["smaller"] + total["tied"]
    share = pairing / (count - by_nature) if count > by_nature else 1.0
    table = Table("Neighbours", {"class": "", **dict.fromkeys(KINDS, "d")},
                  [(name, *(row[kind] for kind in KINDS)) for name, row in [*sorted(rows.items()), ("all", total)]],
                  f"{exact} of {count} neighbours pair ({exact / count:.1%}), and {total['scaled']} more whose "
                  f"attention is scaled otherwise, so not exactly ({pairing / count:.1%} with them). Not counted: "
                  f"{smaller} whose larger network is smaller in some stage. Refused: {total['design']} of another "
                  f"design (layers, activations, strides, settings), {total['smaller']} with something smaller inside "
                  f"the larger (heads, groups, channels), {total['tied']} with tied weights, "
                  f"{count - pairing - by_nature} for what the map cannot do. CPU seconds to map: median "
                  f"{sorted(seconds)[count // 2][0]:.2f}, largest {' '.join(map(str, max(seconds)))}.",
                  {f"at least {BOUND:.0%} of the {count - by_nature} that could pair do; {share:.1%}": share >= BOUND})
    return [table, refused]
