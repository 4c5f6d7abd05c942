"""Policies: the operations do what torchvision's and PIL's do, and are drawn as timm and torchvision say."""

import math
import random

import numpy as np
import pytest
import timm.data.auto_augment as timm_policies
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as vision

from motivation.data.augment.auto_augment import CIFAR10, FIRST_MOVE, KINDS, TIMM, Drawn, Policy, apply

FILL = torch.tensor([10.0, 20, 30])


def photograph(count: int, size: int = 24) -> torch.Tensor:
    """Smooth colourful images, uint8 (N, H, W, 3)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    planes = [128 + 90 * torch.sin(x / (3 + n) + y / 5 + c) for n in range(count) for c in range(3)]
    return torch.stack(planes).view(count, 3, size, size).permute(0, 2, 3, 1).to(torch.uint8).contiguous()


def drawn(kind: str, arguments) -> Drawn:
    arguments = torch.as_tensor(arguments, dtype=torch.float64)[:, None]
    return Drawn(torch.full(arguments.shape, KINDS.index(kind)), arguments)


@pytest.mark.parametrize(("kind", "arguments", "reference"), [
    ("autocontrast", [0, 0], lambda image, a: vision.autocontrast(image)),
    ("equalize", [0, 0], lambda image, a: vision.equalize(image)),
    ("invert", [0, 0], lambda image, a: vision.invert(image)),
    ("posterize", [0, 1, 4, 8], lambda image, a: vision.posterize(image, int(a))),
    ("solarize", [0, 100, 255], lambda image, a: vision.solarize(image, a)),
    ("color", [0.1, 1.0, 1.9], lambda image, a: vision.adjust_saturation(image, a)),
    ("contrast", [0.1, 1.0, 1.9], lambda image, a: vision.adjust_contrast(image, a)),
    ("brightness", [0.1, 1.0, 1.9], lambda image, a: vision.adjust_brightness(image, a)),
    ("sharpness", [0.1, 1.0, 1.9], lambda image, a: vision.adjust_sharpness(image, a)),
])
def test_tones_are_torchvisions_image_by_image(kind, arguments, reference):
    images = photograph(len(arguments))
    expected = torch.stack([reference(image.permute(2, 0, 1), a).permute(1, 2, 0)
                            for image, a in zip(images, arguments, strict=True)])
    result = apply(images.clone(), drawn(kind, arguments), FILL)
    assert result.dtype == torch.uint8
    assert (result.int() - expected.int()).abs().max() <= 1


def test_solarize_add_is_timms():
    images = photograph(2)
    expected = [np.asarray(timm_policies.solarize_add(Image.fromarray(image.numpy()), 60)) for image in images]
    assert np.array_equal(apply(images.clone(), drawn("solarize_add", [60, 60]), FILL), expected)


@pytest.mark.parametrize(("kind", "arguments", "reference"), [
    ("rotate", [30.0, -13.0, 0.0], timm_policies.rotate), ("shear_x", [0.3, -0.2], timm_policies.shear_x),
    ("shear_y", [0.3, -0.2], timm_policies.shear_y), ("translate_x", [0.25, -0.45], timm_policies.translate_x_rel),
    ("translate_y", [0.25, -0.45], timm_policies.translate_y_rel),
])
def test_moves_are_timms(kind, arguments, reference):
    """Sign, centre and unit, beyond the seam where PIL mixes no fill into the image's rim."""
    images = photograph(len(arguments))
    result = apply(images.clone(), drawn(kind, arguments), FILL)
    for image, ours, argument in zip(images, result, arguments, strict=True):
        theirs = np.asarray(reference(Image.fromarray(image.numpy()), argument, resample=Image.Resampling.BILINEAR,
                                      fillcolor=(10, 20, 30))).astype(int)
        outside = (theirs == [10, 20, 30]).all(-1)
        seam = binary_dilation(outside, iterations=2) & ~binary_erosion(outside, border_value=1)
        seam[[0, -1]] = seam[:, [0, -1]] = True
        assert np.abs(ours.numpy().astype(int) - theirs)[~seam].max() <= 2
        assert (~seam & ~outside).mean() > 0.3
        assert outside.any() == bool(argument)


def test_a_threshold_beyond_white_changes_nothing():
    images = photograph(1)
    assert torch.equal(apply(images.clone(), drawn("solarize", [256]), FILL), images)


@pytest.mark.parametrize("name", [*TIMM])
def test_arguments_are_timms(name):
    """Every level, both signs, against timm's own function."""
    _, argument = TIMM[name]
    theirs = timm_policies.LEVEL_TO_ARG[name]
    for level in (0.0, 1.0, 2.6, 5.0, 9.0, 10.0):
        ours = {argument(torch.tensor([level / 10], dtype=torch.float64), torch.tensor([sign])).item()
                for sign in (-1.0, 1.0)}
        if theirs is None:
            assert ours == {0.0}
            continue
        expected = set()
        for sign in (0.0, 1.0):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(random, "random", lambda sign=sign: sign)
                expected.add(theirs(level, {})[0])
        if name == "Desaturate":
            expected = {1 - value for value in expected}
        assert sorted(ours) == pytest.approx(sorted(expected))


def test_cifar10_arguments_and_policy_are_torchvisions():
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    space = policy._augmentation_space(10, (1000, 1000))
    for name, (_, argument) in CIFAR10.items():
        for index in range(10):
            magnitudes, signed = space[name]
            magnitude = magnitudes[index].item() if magnitudes.ndim else 0.0
            level = torch.tensor([index / 9], dtype=torch.float64)
            for sign in (-1.0, 1.0):
                expected = magnitude * sign if signed else magnitude
                if name in ("Color", "Contrast", "Brightness", "Sharpness"):
                    expected += 1
                scale = 1000 if name.startswith("Translate") else 1
                assert argument(level, torch.tensor([sign])).item() * scale == pytest.approx(expected, abs=1e-4)
    kinds = Policy("cifar10").draw(50_000, torch.Generator().manual_seed(0)).kinds
    lower = {name: name.lower().replace("shear", "shear_").replace("translate", "translate_") for name in CIFAR10}
    for place in (0, 1):
        expected = torch.zeros(len(KINDS))
        for row in policy.policies:
            name, probability, _ = row[place]
            expected[KINDS.index(lower[name])] += probability / 25
        expected[0] = 1 - expected.sum()
        shares = torch.bincount(kinds[:, place], minlength=len(KINDS)) / len(kinds)
        assert (shares - expected).abs().max() < 5 * math.sqrt(0.25 / 50_000)


@pytest.mark.parametrize(("text", "layers", "share"), [
    ("rand-m9-mstd0.5-inc1", 2, 0.5), ("rand-m5-n3-p0.8", 3, 0.8)])
def test_randaugment_draws_every_operation_alike(text, layers, share):
    kinds, arguments = Policy(text).draw(20_000, torch.Generator().manual_seed(0))
    assert kinds.shape == arguments.shape == (20_000, layers)
    counts = torch.bincount(kinds.flatten(), minlength=len(KINDS)) / kinds.numel()
    assert counts[0].item() == pytest.approx(1 - share, abs=0.01)
    assert (counts[1:] - share / 15).abs().max() < 0.005


def test_magnitudes_and_signs_are_drawn_an_image():
    kinds, arguments = Policy("rand-m6-mstd0.5-inc1").draw(20_000, torch.Generator().manual_seed(1))
    turns = arguments[kinds == FIRST_MOVE]
    assert (turns > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert turns.abs().mean().item() == pytest.approx(18, abs=0.2)
    assert turns.abs().std().item() == pytest.approx(1.5, abs=0.1)
    kinds, arguments = Policy("rand-m9-mstd101").draw(20_000, torch.Generator().manual_seed(1))
    assert arguments[kinds == FIRST_MOVE].abs().mean().item() == pytest.approx(13.5, abs=1)
    kinds, arguments = Policy("rand-m20-mmax20").draw(2000, torch.Generator().manual_seed(1))
    assert set(arguments[kinds == FIRST_MOVE].abs().tolist()) == {60.0}


def test_weighted_choice_takes_no_operation_twice():
    policy = Policy("rand-m9-n2-p1-tweights")
    kinds = policy.draw(2000, torch.Generator().manual_seed(0)).kinds
    assert (kinds[:, 0] != kinds[:, 1]).all()
    counts = torch.bincount(kinds.flatten(), minlength=len(KINDS))
    assert counts[FIRST_MOVE] == counts.max()


def test_grey_images_and_a_slice_of_the_batch():
    """A batch's share is augmented as it is inside the whole batch: draws are rows."""
    policy = Policy("rand-m9-mstd0.5-inc1")
    images = photograph(32)[..., :1].contiguous()
    draws = policy.draw(32, torch.Generator().manual_seed(2))
    whole = apply(images.clone(), draws, FILL[:1])
    part = apply(images[8:16].clone(), Drawn(*(column[8:16] for column in draws)), FILL[:1])
    assert torch.equal(whole[8:16], part)
    assert not torch.equal(whole, images)


@pytest.mark.parametrize("text", ["rand-x9", "foo", "rand-ma", "", "rand-m9-", "augmix-m3", "rand-m9-t3a"])
def test_texts_that_are_no_policy(text):
    with pytest.raises(ValueError, match=r"is no policy: give cifar10, original, or timm's string"):
        Policy(text)


@pytest.mark.parametrize("text", ["original", "originalr-mstd0.5", "v0", "v0r"])
def test_timms_policies_are_known(text):
    kinds, _ = Policy(text).draw(500, torch.Generator().manual_seed(0))
    assert kinds.shape == (500, 2)
    assert len(kinds.unique()) > 5
