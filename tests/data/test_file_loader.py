"""Batches of images in files: the same whatever the workers and the start, what timm's transforms make of them."""

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_folder
from torchvision.transforms.functional import to_pil_image

from motivation.data import Augmentation, ImageFolder, open_loader
from motivation.data.augment.erasing import erase
from motivation.data.augment.mixing import Mixing
from motivation.data.loaders.files import _orders, evaluation_transform, training_transform
from motivation.randomness import AUGMENTATION, derived_generator

RICH = Augmentation(image_size=24, test_size=32, flip=True, scale=(0.3, 1.0), auto_augment="rand-m6-mstd0.5-inc1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture
def loader(folder):
    def make(workers=0, augmentation=RICH, seed=0, batch_size=5, **arguments):
        data = ImageFolder(root=str(folder), workers=workers).load()
        made.append(open_loader(data, batch_size, augmentation=augmentation, seed=seed, **arguments))
        return made[-1]

    made = []
    yield make
    for each in made:
        each.close()
    assert not multiprocessing.active_children()


def epochs(loader, *numbers):
    return [[(images.clone(), labels.clone()) for images, labels in loader.epoch(number)] for number in numbers]


def assert_same(batches, others):
    for (images, labels), (again, same) in zip(batches, others, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_and_any_start_give_the_same_batches(loader, workers):
    """A batch depends on (seed, epoch, step) alone; a resumed run needs no replay."""
    first, second = epochs(loader(), 0, 1)
    other = loader(workers)
    assert len(other) == 3
    random.seed(workers)
    torch.manual_seed(workers)
    np.random.seed(workers)  # noqa: NPY002
    again, further = epochs(other, 0, 1)
    assert_same(first, again)
    assert_same(second, further)
    assert_same(second[2:], other.epoch(1, start=2))
    assert_same(first[1:], loader(workers).epoch(0, start=1))


def test_an_epoch_shows_every_image_once_in_its_own_order(loader):
    plain = Augmentation(image_size=24)
    orders = epochs(loader(augmentation=plain, batch_size=6), 0, 1, 0)
    seen = [{image.numpy().tobytes() for images, _ in epoch for image in images} for epoch in orders]
    assert len(seen[0]) == 18
    assert seen[0] == seen[1]
    assert_same(orders[0], orders[2])
    assert not torch.equal(orders[0][0][0], orders[1][0][0])
    assert not torch.equal(orders[0][0][0], epochs(loader(augmentation=plain, batch_size=6, seed=1), 0)[0][0][0])


def test_an_image_is_augmented_anew_in_every_epoch(loader):
    """And not like its neighbours: each of the eighteen draws for itself."""
    same = Augmentation(image_size=24, crop_padding=8)
    for augmentation in (RICH, same):
        seen = [{image.numpy().tobytes() for images, _ in epoch for image in images}
                for epoch in epochs(loader(augmentation=augmentation, batch_size=6), 0, 1)]
        assert len(seen[0] | seen[1]) == 36


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_generators_of_training_alone(loader, workers):
    """Dropout draws from torch's global generator: it must not depend on how images are read."""
    source = loader(workers)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    epochs(source, 0)
    list(source.evaluation_batches(source.files))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_images_are_timms_transforms_normalised(loader):
    """Order, crop, mirror and policy of a batch, drawn by hand."""
    source = loader(augmentation=RICH, channels_last=False)
    [(images, labels)] = list(source.epoch(2, start=2))
    order = torch.randperm(18, generator=torch.Generator().manual_seed(
        int(np.random.SeedSequence(entropy=0, spawn_key=(0, 2)).generate_state(1)[0]))).numpy()
    mean, std = (np.array(values) for values in (source.normalization.mean, source.normalization.std))
    transform = training_transform(RICH, source.normalization.mean)
    assert images.is_contiguous()
    for place, index in enumerate(order[10:15]):
        numbers = np.random.SeedSequence(entropy=0, spawn_key=(5, 2, 10 + place)).generate_state(3).tolist()
        random.seed(numbers[0])
        np.random.seed(numbers[1])  # noqa: NPY002
        torch.manual_seed(numbers[2])
        expected = (np.asarray(transform(source.files.image(index))) - mean) / std
        assert np.allclose(images[place].permute(1, 2, 0), expected, atol=1e-5)
        assert labels[place] == source.files.labels[index]


def test_evaluation_sees_the_centre_at_its_own_size_in_order(loader):
    source = loader(2, replace(RICH, test_crop=0.8))
    [images] = list(source.evaluation_batches(source.files))
    assert images.shape == (18, 3, 32, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values) for values in (source.normalization.mean, source.normalization.std))
    pixels = (images.permute(0, 2, 3, 1) * std + mean).round().byte()
    for index in range(18):
        shown = np.asarray(evaluation_transform(32, 0.8)(source.files.image(index)))
        assert np.array_equal(pixels[index], shown)
    assert [len(batch) for batch in source.evaluation_batches(source.files, 8)] == [8, 8, 2]
    ramp = to_pil_image((torch.arange(200).repeat(100, 1) + torch.arange(100)[:, None]).byte())
    half = np.asarray(evaluation_transform(50, 0.5)(ramp.convert("RGB"))).astype(int)
    assert half.shape == (50, 50, 3)
    assert abs(half[0, 0, 0] - 100) <= 1
    assert abs(half[-1, -1, 0] - 198) <= 1


def test_padding_moves_the_crop_and_policies_change_pixels(loader):
    image = loader().files.image(0)
    moved = training_transform(Augmentation(image_size=24, crop_padding=6), (127, 127, 127))
    centre = np.asarray(evaluation_transform(24)(image))
    crops = [np.asarray(moved(image)) for _ in range(40)]
    assert all(crop.shape == (24, 24, 3) for crop in crops)
    padded = np.pad(centre, ((6, 6), (6, 6), (0, 0)))
    places = {padded[top:top + 24, left:left + 24].tobytes() for top in range(13) for left in range(13)}
    assert {crop.tobytes() for crop in crops} <= places
    assert len({crop.tobytes() for crop in crops}) > 10
    for policy in ("original", "rand-m9-n2", "cifar10"):
        change = training_transform(Augmentation(image_size=24, auto_augment=policy), (127, 127, 127))
        assert sum(not np.array_equal(np.asarray(change(image)), centre) for _ in range(10)) >= 5


def test_a_share_of_every_batch_is_the_same_images(loader):
    """Of two processes each decodes its half, as one process would have augmented and erased it."""
    for augmentation in (RICH, replace(RICH, random_erasing=0.7)):
        whole = epochs(loader(batch_size=6, augmentation=augmentation), 1)[0]
        for share in (slice(0, 3), slice(3, 6)):
            half = epochs(loader(batch_size=6, augmentation=augmentation, share=share), 1)[0]
            assert_same([(images[share], labels[share]) for images, labels in whole], half)


def test_shares_are_not_erased_alike_and_are_mixed_as_one_batch_is(loader):
    """Two processes draw one batch: a rectangle an image, one mixture for all."""
    shares, plain = (slice(0, 6), slice(6, 12)), RICH
    erased = []
    for share in shares:
        pairs = zip(epochs(loader(batch_size=12, share=share, augmentation=plain), 0)[0],
                    epochs(loader(batch_size=12, share=share, augmentation=replace(plain, random_erasing=1.0)), 0)[0],
                    strict=True)
        erased.append([(before != after).any(1) for (before, _), (after, _) in pairs])
    for first, second in zip(*erased, strict=True):
        assert all(torch.cat((first, second)).flatten(1).any(1))
        assert not any(torch.equal(one, other) for one in first for other in second)
    mixed = replace(plain, mixup=0.4)
    lams = [epochs(loader(batch_size=12, share=share, augmentation=mixed), 0)[0][0][1].max(1).values
            for share in (*shares, slice(None))]
    assert lams[0].min() == lams[1].min() == lams[2].min()


def test_repeats_show_an_image_several_times_never_alike(loader):
    source = loader(augmentation=replace(RICH, repeats=3), batch_size=6)
    order = [order for _, (_, _, order) in zip(range(3), _orders(18, 6, 0, 3, slice(None), 0, 0), strict=False)]
    assert all(len(set(batch.tolist())) == 2 for batch in order)
    images = torch.cat([images for images, _ in source.epoch(0)])
    assert len(images) == len({image.numpy().tobytes() for image in images}) == 18


def test_erasing_and_mixing_are_those_of_images_in_memory(loader):
    """On the device, after normalisation, from (seed, epoch, step)."""
    plain = epochs(loader(batch_size=6), 1)[0]
    rich = loader(batch_size=6, augmentation=replace(RICH, random_erasing=1.0, mixup=0.4, cutmix=1.0))
    mixed = epochs(rich, 1)[0]
    assert_same(mixed[1:], rich.epoch(1, start=1))
    mixing = Mixing(rich.augmentation, 3, 0)
    for step, ((images, labels), (others, targets)) in enumerate(zip(plain, mixed, strict=True)):
        erased = erase(images, 1.0, derived_generator(0, AUGMENTATION, 1, step))
        expected, shares = mixing(erased, labels, 1, step)
        assert torch.equal(expected, others)
        assert torch.equal(shares, targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named_when_its_batch_comes(tmp_path, workers):
    """In one line, and not replaced by another."""
    root = write_folder(tmp_path / "images")
    path = root / "train" / "bee" / "2.jpg"
    good = path.read_bytes()
    data = ImageFolder(root=str(root), workers=workers).load()
    source = open_loader(data, 6, augmentation=RICH)
    for damage in (good[:len(good) // 2], b"x" * len(good), None):
        path.unlink() if damage is None else path.write_bytes(damage)
        for batches in (source.epoch(0), source.evaluation_batches(data.train)):
            with pytest.raises(ValueError, match=r"bee/2\.jpg cannot be read as an image: .+ resume from") as error:
                list(batches)
            assert "\n" not in str(error.value)
    path.write_bytes(good)
    assert len(list(source.epoch(0))) == 3
    source.close()


def test_workers_outlive_signals_and_end_with_their_loader(loader):
    """Pre-emption and Ctrl-C reach every process of a job: the run must outlive its workers, not the other way."""
    source = loader(2)
    batches = source.epoch(0)
    # One batch of each worker: both have started.
    first = [next(batches) for _ in range(2)]
    workers = {worker.pid for worker in multiprocessing.active_children()}
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(worker, number)
    assert_same([*first, *batches], loader().epoch(0))
    assert len(list(source.epoch(1))) == 3
    assert {worker.pid for worker in multiprocessing.active_children()} == workers
    source.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_ends_the_run_in_one_line(loader):
    source = loader(1)
    batches = source.epoch(0)
    next(batches)
    [worker] = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    further = itertools.chain(batches, *map(source.epoch, range(1, 9)))
    with pytest.raises(ValueError, match=r"was ended from outside .*memory short.*workers") as error:
        list(further)
    assert "\n" not in str(error.value)


def test_python_ends_though_a_loader_is_left_open(folder):
    """Python itself ends its children with a signal that workers ignore, and would wait for them for ever."""
    code = ("from motivation.data import *\n"
            f"source = open_loader(ImageFolder(root={str(folder)!r}, workers=2).load(), 5,\n"
            "                     augmentation=Augmentation(image_size=24))\n"
            "kept = [source.epoch(0), source.evaluation_batches(source.files, 4)]\n"
            "[next(batches) for batches in kept]\n"
            "kept.append(kept)\n"
            "raise SystemExit(3)")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 3


@pytest.mark.parametrize(("arguments", "message"), [
    ({"batch_size": 19}, r"batch_size=19 but there are only 18 training images"),
    ({"augmentation": Augmentation()}, r"image_size=null: .*image_size=224"),
])
def test_what_cannot_be_a_batch_is_refused(loader, arguments, message):
    with pytest.raises(ValueError, match=message):
        loader(**arguments)
