"""Batches made ahead, and small batches made together: the same ones, in the same order."""

import numpy as np
import pytest
import torch

from motivation.data import Ahead, Augmentation, Loader, Normalization, Split
from motivation.data.loaders import resident


def test_batches_made_ahead_are_the_same():
    ahead, seen = Ahead(iter([(1, 2), (3, 4), (5, 6)])), []
    ahead.prepare()
    ahead.prepare()
    for batch in ahead:
        seen.append(batch)
        ahead.prepare()
    assert seen == [(1, 2), (3, 4), (5, 6)]


def test_an_error_belongs_to_its_own_batch():
    def batches():
        yield 1, 2
        raise ValueError("image 7 is damaged")

    ahead = Ahead(batches())
    assert next(ahead) == (1, 2)
    ahead.prepare()
    ahead.prepare()
    with pytest.raises(ValueError, match="image 7"):
        next(ahead)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(crop_padding=2, flip=True, repeats=2)], ids=str)
@pytest.mark.parametrize("share", [slice(None), slice(1, 3)], ids=str)
@pytest.mark.parametrize("start", [0, 5])
def test_batches_made_together_are_those_made_alone(monkeypatch, augmentation, share, start):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    split = Split(images, np.arange(50))
    loader = Loader(split, 4, Normalization.of(split), augmentation=augmentation, share=share)
    together = list(loader.epoch(1, start))
    assert len(together) == 12 - start
    calls = []
    real = Loader._augmented
    monkeypatch.setattr(Loader, "_augmented", lambda self, *args: calls.append(0) or real(self, *args))
    for batches in (3, 1):
        monkeypatch.setattr(resident, "VALUES_AT_ONCE", batches * 4 * 8 * 8 * 3)
        calls.clear()
        for ours, theirs in zip(loader.epoch(1, start), together, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        assert len(calls) == -(-len(together) // batches)
