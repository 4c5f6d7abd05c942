"""Saved networks: written whole or not at all, read without running code."""

import os
from pathlib import Path

import torch


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a state dict of tensors and plain values; a kill leaves the old file or the new one, never half of one.

    Shared storages are written once, and strides are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict:
    """Read what `save_checkpoint` wrote; tensors and plain values only, never code."""
    return torch.load(path, map_location=device, weights_only=True)
