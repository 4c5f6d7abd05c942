"""Augmentation on the device: sizes, crops, erasing, mixing, repeats; derived from (seed, epoch, step) alone."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from motivation.data import Augmentation, Loader, Normalization, Split, evaluation_batches
from motivation.data.augment.erasing import erase
from motivation.data.augment.resample import centre_box, random_boxes, resample
from motivation.randomness import ORDER, derived_generator, random_state

EVERYTHING = Augmentation(image_size=12, scale=(0.3, 1.0), flip=True, auto_augment="rand-m9-mstd0.5-inc1",
                          random_erasing=0.5, mixup=0.8, cutmix=1.0, repeats=3)


def loader(augmentation, count=64, size=8, channels=3, batch_size=16, seed=0, **options):
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8), np.arange(count) % 5)
    return Loader(split, batch_size, Normalization.of(split), seed=seed, augmentation=augmentation, **options)


@pytest.mark.parametrize(("changes", "message"), [
    ({"image_size": 0}, "image_size=0: must be at least 1"), ({"test_size": -3}, "test_size=-3"),
    ({"test_crop": 0.0}, "test_crop=0.0"), ({"test_crop": 1.1}, "test_crop=1.1"),
    ({"crop_padding": -1}, "crop_padding=-1"), ({"scale": (0.5, 0.2)}, r"scale=\(0.5, 0.2\)"),
    ({"scale": (0.5, 1.0), "crop_padding": 4}, "scale=.*choose one of them"),
    ({"auto_augment": "rnd"}, "auto_augment='rnd' is no policy"),
    ({"random_erasing": 1.5}, "random_erasing=1.5: must be"),
    ({"mixup": -1.0}, "mixup=-1.0"), ({"cutmix": float("inf")}, "cutmix=inf"),
    ({"mixup_prob": 2.0}, "mixup_prob=2.0"), ({"mixup_switch_prob": -0.1}, "mixup_switch_prob=-0.1"),
    ({"repeats": 0}, "repeats=0"),
])
def test_impossible_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**changes)


def test_batches_that_cannot_be_mixed_or_augmented_are_refused():
    with pytest.raises(ValueError, match=r"batch_size=15: must be even with Mixup or CutMix"):
        loader(Augmentation(mixup=0.2), batch_size=15)
    with pytest.raises(ValueError, match=r"auto_augment=cifar10: the images have 2 channels"):
        loader(Augmentation(auto_augment="cifar10"), channels=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_depends_on_seed_epoch_and_step_alone(channels):
    batches = loader(EVERYTHING, channels=channels)
    whole = list(batches.epoch(3))
    assert len(whole) == 4
    for images, targets in whole:
        assert images.shape == (16, channels, 12, 12)
        assert images.dtype == targets.dtype == torch.float32
        assert targets.shape == (16, 5)
    torch.manual_seed(9)
    np.random.seed(9)  # noqa: NPY002
    random.seed(9)
    list(loader(EVERYTHING, channels=channels).epoch(0))
    for (images, targets), (again, same) in zip(whole[2:], batches.epoch(3, start=2), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(targets, same)
    for other in (batches.epoch(2), loader(EVERYTHING, channels=channels, seed=1).epoch(3)):
        assert not torch.equal(whole[0][0], next(other)[0])
    assert not torch.equal(whole[0][0], whole[1][0])


def test_global_generators_are_left_as_they_were():
    before = random_state()
    list(loader(EVERYTHING).epoch(0))
    after = random_state()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]
    assert before["python"] == after["python"]


@pytest.mark.parametrize("augmentation", [Augmentation(mixup=0.8), Augmentation(cutmix=1.0)])
def test_mixed_targets_are_the_shares_of_the_mixed_images(augmentation):
    """Each image is its own and its mirror's at the other end, in the shares that its target says."""
    plain, mixed = loader(Augmentation()), loader(augmentation)
    seen = 0
    for (images, labels), (both, targets) in zip(plain.epoch(0), mixed.epoch(0), strict=True):
        assert torch.allclose(targets.sum(1), torch.ones(16))
        own, other = F.one_hot(labels, 5).float(), F.one_hot(labels, 5).flip(0).float()
        if augmentation.mixup:
            # Least squares over pixels gives lambda from the images alone.
            a, b = images - images.flip(0), both - images.flip(0)
            share = ((a * b).sum() / (a * a).sum()).item()
        else:
            changed = (both != images).any(1, keepdim=True)
            assert torch.equal(both, torch.where(changed, images.flip(0), images))
            share = 1 - changed[0].float().mean().item()
        assert torch.allclose(targets, share * own + (1 - share) * other, atol=1e-4)
        seen += 0.02 < share < 0.98
    assert seen


def test_mixing_with_a_probability_leaves_other_batches_whole():
    plain, mixed = loader(Augmentation(), 640), loader(Augmentation(cutmix=1.0, mixup_prob=0.5), 640)
    whole = [torch.equal(a, b) for (a, _), (b, _) in zip(plain.epoch(0), mixed.epoch(0), strict=True)]
    assert 8 <= sum(whole) <= 32
    for _, targets in mixed.epoch(0):
        assert targets.shape == (16, 5)


def test_repeats_show_a_third_of_the_images_thrice_in_an_epoch_as_long():
    batches = loader(Augmentation(repeats=3))
    assert len(batches) == 4
    seen = [image.numpy().tobytes() for images, _ in batches.epoch(1) for image in images]
    assert len(seen) == 64
    assert seen[0] == seen[1] == seen[2] != seen[3]
    order = torch.randperm(64, generator=derived_generator(0, ORDER, 1))[:22]
    assert list(dict.fromkeys(seen)) == [
        batches.normalization.apply(batches.images[i:i + 1])[0].numpy().tobytes() for i in order]


@pytest.mark.parametrize("size", [(224, 224), (20, 20), (24, 40), (7, 5)])
def test_resampling_the_whole_image_is_torchs_antialiased_resize(size):
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = resample(images, torch.tensor([[0, 0, 32, 32]]), size)
    theirs = F.interpolate(images.permute(0, 3, 1, 2).float(), size, mode="bilinear", antialias=True)
    assert (ours - theirs.permute(0, 2, 3, 1)).abs().max() <= 0.501


def test_resampling_a_box_is_resizing_a_crop():
    images = torch.randint(0, 256, (3, 16, 20, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2, 3, 8, 10], [0, 0, 16, 20], [9, 1, 2, 19]])
    ours = resample(images, boxes, (12, 12))
    for image, (top, left, height, width), out in zip(images, boxes.tolist(), ours, strict=True):
        crop = image[top:top + height, left:left + width].permute(2, 0, 1)[None].float()
        theirs = F.interpolate(crop, (12, 12), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        assert (out - theirs).abs().max() <= 0.501


def test_boxes_lie_inside_and_have_the_area_asked_for():
    boxes, found = random_boxes(5000, 32, 32, (0.25, 1.0), (3 / 4, 4 / 3), torch.Generator().manual_seed(0))
    tops, lefts, heights, widths = boxes.T
    assert found.all()
    assert (tops >= 0).all()
    assert (tops + heights <= 32).all()
    assert (lefts >= 0).all()
    assert (lefts + widths <= 32).all()
    areas = heights * widths / 1024
    assert areas.min() > 0.2
    assert areas.max() > 0.9
    # Large areas do not fit at every ratio, so the mean lies below that of the uniform distribution, 0.625.
    assert 0.55 < areas.mean() < 0.625
    assert ((widths / heights) > 1.4).float().mean() < 0.01
    boxes, found = random_boxes(10, 2, 200, (1.0, 1.0), (1.0, 1.0), torch.Generator().manual_seed(0))
    assert not found.any()
    assert (boxes == torch.tensor([0.0, 0, 2, 200])).all()


def test_evaluation_has_its_own_size_and_centre():
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (5, 10, 14, 3), dtype=np.uint8), np.arange(5))
    normalization = Normalization.of(split)
    augmentation = Augmentation(image_size=16, test_size=8, test_crop=0.8, flip=True, random_erasing=1.0, mixup=1.0)
    [images] = evaluation_batches(split, normalization, "cpu", augmentation=augmentation)
    # The centre 8 x 8 of a 10 x 14 image, at its own size.
    assert torch.equal(images, normalization.apply(torch.from_numpy(split.images[:, 1:9, 3:11])))
    assert augmentation.train_shape((3, 10, 14)) == (3, 16, 16)
    assert augmentation.test_shape((3, 10, 14)) == (3, 8, 8)
    assert Augmentation().test_shape((3, 10, 14)) == (3, 10, 14)
    assert Augmentation(test_crop=0.5).test_shape((3, 10, 14)) == (3, 10, 10)
    [stored] = evaluation_batches(split, normalization, "cpu")
    assert torch.equal(stored, normalization.apply(torch.from_numpy(split.images)))
    assert centre_box(10, 14).tolist() == [[0, 2, 10, 10]]


def test_erasing_takes_one_rectangle_of_the_asked_share_of_images():
    images = torch.full((2000, 3, 16, 16), 9.0)
    erased = erase(images, 0.25, torch.Generator().manual_seed(0))
    changed = (erased != 9).all(1)
    hit = changed.flatten(1).any(1)
    assert hit.float().mean().item() == pytest.approx(0.25, abs=0.04)
    area = changed[hit].flatten(1).float().mean(1)
    assert 0.01 < area.min() < area.max() < 0.4
    rows, columns = changed[hit].any(2), changed[hit].any(1)
    assert torch.equal(changed[hit], rows[:, :, None] & columns[:, None, :])
    noise = erased[erased != 9]
    assert noise.mean().abs() < 0.05
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(erase(images, 0.0, torch.Generator()), images)


def test_what_is_fed_is_normalised_and_laid_out():
    for channels_last in (True, False):
        batches = loader(EVERYTHING, channels_last=channels_last)
        images, _ = next(batches.epoch(0))
        assert images.is_contiguous(memory_format=torch.channels_last) is channels_last
        assert batches.image_shape == (3, 12, 12)
        assert images.abs().max() < 6


def test_without_augmentation_nothing_changes():
    """The plain loader: one gather and a normalisation, as before there was any augmentation."""
    batches = loader(Augmentation())
    order = torch.randperm(64, generator=derived_generator(0, ORDER, 2))
    for step, (images, labels) in enumerate(batches.epoch(2)):
        part = order[step * 16:(step + 1) * 16]
        assert torch.equal(images, batches.normalization.apply(batches.images[part]))
        assert torch.equal(labels, part % 5)
