"""A small decoder of tokens (Radford et al. 2019, "GPT-2"; rotary positions of Su et al. 2021, "RoFormer")."""

import re
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from motivation.validation import Count, check_arguments

# depth x width, as in gpt_2x64.
NAME = re.compile(r"gpt_([1-9]\d*)x([1-9]\d*)")
HEAD_WIDTH = 16
ROTARY_BASE = 10_000
# Of weights and embeddings, as in GPT-2.
STANDARD_DEVIATION = 0.02
# Ids of the padding and of the token that asks for an answer, in the vocabularies of all our tasks.
PADDING, ASK = 0, 1
# Position of the token that asks, in the layout of answers.
ANSWERS_AT = 256
Layout = Literal["columns", "answers"]


def rotate(x: Tensor, positions: Tensor | None = None) -> Tensor:
    """Rotary positions: each pair of features turns with the position, at a speed of its own.

    Args:
        x: queries or keys ``(N, heads, T, width)``, of an even width.
        positions: ``(N, T)``; None for those of the columns, 0 to T - 1.
    """
    length, half = x.shape[-2], x.shape[-1] // 2
    speeds = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    if positions is None:
        angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * speeds
    else:
        angles = positions[:, None, :, None].float() * speeds
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.split(half, -1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), -1)


class Attention(nn.Module):
    """Causal self-attention with rotary positions.

    Args:
        width: of the stream; the heads share it.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.num_heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """``(N, T, width)`` -> ``(N, T, width)``; positions as in `rotate`, what is seen as in `answer_layout`."""
        query, key, value = rearrange(self.qkv(x), "n t (qkv heads width) -> qkv n heads t width", qkv=3,
                                      heads=self.num_heads).unbind()
        x = F.scaled_dot_product_attention(rotate(query, positions), rotate(key, positions), value, attn_mask=seen,
                                           is_causal=seen is None)
        return self.proj(rearrange(x, "n heads t width -> n t (heads width)"))


class Mlp(nn.Module):
    """Two layers with a GELU between them, four times as wide inside.

    Args:
        width: of the stream.
    """

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, T, width)`` -> ``(N, T, width)``."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and beside a skip.

    Args:
        width: of the stream.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, positions: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """``(N, T, width)`` -> ``(N, T, width)``; positions as in `rotate`, what is seen as in `answer_layout`."""
        x = x + self.attn(self.norm1(x), positions, seen)
        return x + self.mlp(self.norm2(x))


def answer_layout(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Positions that leave a gap where prompts are padded, and what each token sees: all before it but the padding.

    An answer starts at one position, however long its prompt, and a problem gives the same logits whether its columns
    of padding are there or not.

    Args:
        tokens: ids int64 ``(N, T)`` of prompts whose padding, if any, is before the token that asks; T at most 256.

    Returns:
        Positions ``(N, T)``, and bool ``(N, 1, T, T)``.
    """
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    asked = (tokens == ASK).cumsum(1) > 0
    positions = columns + asked * (ANSWERS_AT - (~asked).sum(1, keepdim=True))
    before, itself = columns[:, None] >= columns, columns[:, None] == columns
    # Padding sees itself, since a softmax over nothing is none.
    return positions, (before & ((tokens != PADDING)[:, None, None] | itself))


class GPT(nn.Module):
    """A pre-norm decoder of token ids. Positions are rotary, so that it takes sequences of any length.

    The head is not tied to the embedding: a pair needs every parameter once.

    Args:
        depth: number of blocks.
        width: of the stream.
        num_classes: number of tokens in the vocabulary.
        heads: of every attention; None for heads of a width of 16, so that a wider network has more heads of one width.
        layout: what a token's position is: ``columns``, its column, and padding is a token like any other; ``answers``,
            see `answer_layout`, for training on sequences of several widths.

    Raises:
        ValueError: a width that the heads do not share into even parts.
    """

    @check_arguments
    def __init__(self, depth: Count, width: Count, num_classes: Annotated[int, Field(ge=2)],
                 heads: Count | None = None, layout: Layout = "columns"):
        super().__init__()
        unit = HEAD_WIDTH if heads is None else 2 * heads
        if width % unit:
            raise ValueError(f"width={width}: must be a multiple of {unit}, for heads of an even width")
        heads = width // HEAD_WIDTH if heads is None else heads
        self.num_classes = num_classes
        self.layout = layout
        self.embedding = nn.Embedding(num_classes, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=STANDARD_DEVIATION)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids int64 ``(N, T)`` -> logits of each next token ``(N, num_classes, T)``, classes first as torch's
        losses take them.

        Raises:
            ValueError: the layout of answers and more than 256 tokens.
        """
        positions = seen = None
        if self.layout == "answers":
            if tokens.shape[1] > ANSWERS_AT:
                raise ValueError(f"tokens is {tokens.shape[1]} wide: the layout of answers takes at most {ANSWERS_AT}")
            positions, seen = answer_layout(tokens)
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, positions, seen)
        return rearrange(self.head(self.norm(x)), "n t classes -> n classes t")
