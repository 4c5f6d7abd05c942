"""The example input of a network: an image, or tokens where its first layer is an embedding."""

import torch
from torch import Tensor, nn

LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear | nn.Embedding


def first_layer(network: nn.Module) -> nn.Module | None:
    """A network's first convolution, linear layer or embedding; None without any."""
    return next((module for module in network.modules() if isinstance(module, LAYERS)), None)


def takes_tokens(network: nn.Module) -> bool:
    """Whether a network's input is token ids int64 ``(N, T)``: its first layer is an embedding."""
    return isinstance(first_layer(network), nn.Embedding)


def example_input(network: nn.Module, shape: tuple[int, ...], batch: int = 1, *, device: torch.device | str = "cpu",
                  dtype: torch.dtype | None = None, seed: int | None = None) -> Tensor:
    """An input ``(batch, *shape)`` of a network.

    Args:
        network: what takes it.
        shape: ``(C, H, W)`` of an image, ``(T,)`` of a sequence of tokens.
        batch: how many.
        device: where; with a seed it is drawn on the CPU first.
        dtype: of an image; None for torch's default.
        seed: for normal pixels, or tokens that are all alike likely; None for zeros.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    if takes_tokens(network):
        known = first_layer(network).num_embeddings
        tokens = torch.zeros((batch, *shape), dtype=torch.long) if generator is None else torch.randint(
            known, (batch, *shape), generator=generator)
        return tokens.to(device)
    if generator is None:
        return torch.zeros(batch, *shape, dtype=dtype, device=device)
    return torch.randn(batch, *shape, generator=generator).to(device=device, dtype=dtype)
