"""A pair's weights map as a Markdown table, and what it covers in words."""

from math import prod

from motivation.pairing.pair import Pair

HEADER = ("tensor of A", "shape in A", "tensor of B", "slice of B", "kept by")


def map_table(pair: Pair) -> str:
    """One row a tensor of the base A: its shape, its slice of the motivated network B, aliased or copied.

    Below: the share of B's parameters that A covers, the blocks that only B has, and where the first expansion changes
    logits.
    """
    parameters = dict(pair.base.named_parameters())
    rows = [(entry.base, _shape(entry.shape), "same name" if entry.motivated == entry.base else entry.motivated,
             "whole" if entry.aliased else "(" + ", ".join(map(str, entry.dims)) + ")",
             "alias" if entry.aliased else "copy") for entry in pair.weights_map.entries]
    covered = sum(prod(entry.shape) for entry in pair.weights_map.entries if entry.base in parameters)
    total = sum(parameter.numel() for parameter in pair.motivated.parameters())
    copied = sum(prod(entry.shape) for entry in pair.weights_map.sliced)
    lines = [*_markdown([HEADER, *rows]), "",
             f"A has {covered:,} parameters, {covered / total:.1%} of B's {total:,}; a switch copies {copied:,} values "
             "and as many for each tensor of the optimizer's state"]
    if blocks := pair.weights_map.differential_blocks:
        lines.append(f"only B has {len(blocks)} blocks: {', '.join(blocks)}")
    if pair.notes:
        lines += ["the first expansion changes logits:", *(f"- {note}" for note in pair.notes)]
    else:
        lines.append("the first expansion changes no logit (in evaluation mode)")
    return "\n".join(lines)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _markdown(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
