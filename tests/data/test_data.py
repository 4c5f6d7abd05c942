"""Data sets: stratified splits, files refused by name, and batches that depend on (seed, epoch, step) alone."""

import hashlib
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
import torchvision.datasets
from conftest import write_arrays
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from motivation.data import Arrays, Augmentation, Cifar, Digits, Loader, Normalization, Split, evaluation_batches
from motivation.data.augment.crop import crop, draw_crops
from motivation.data.loaders import resident
from motivation.randomness import AUGMENTATION, derived_generator


def test_digits_are_real_fixed_and_stratified():
    data = Digits().load()
    assert (len(data.train), len(data.validation), len(data.test)) == (1150, 287, 360)
    assert data.image_shape == (1, 8, 8)
    assert data.heldout is None
    keys = [{image.tobytes() for image in part.images} for part in (data.train, data.validation, data.test)]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 1797
    whole = np.bincount(load_digits().target)
    for part in (data.train, data.validation, data.test):
        assert (abs(np.bincount(part.labels) - whole * len(part) / 1797) < 2).all()
    again = Digits().load()
    assert np.array_equal(data.test.images, again.test.images)
    assert np.array_equal(Digits(validation=0.0, heldout=0.5).load().test.images, data.test.images)


def test_splits_of_a_sorted_file_are_stratified_disjoint_and_seeded(tmp_path):
    """Validation and held-out images come from train only, whatever the file's order."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    path = write_arrays(tmp_path / "sorted.npz", x_train=x, y_train=np.repeat([0, 1, 2], 100))
    data = Arrays(str(path), validation=0.2, heldout=0.1).load()
    parts = [data.train, data.validation, data.heldout]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[70] * 3, [20] * 3, [10] * 3]
    keys = [{image.tobytes() for image in part.images} for part in parts]
    assert set.union(*keys) == {image.tobytes() for image in x}
    assert sum(map(len, keys)) == 300
    assert {image.tobytes() for image in data.test.images}.isdisjoint(set.union(*keys))
    same = Arrays(str(path), validation=0.2, heldout=0.1).load()
    other = Arrays(str(path), validation=0.2, heldout=0.1, split_seed=1).load()
    assert np.array_equal(data.validation.images, same.validation.images)
    assert not np.array_equal(data.validation.images, other.validation.images)


def test_grey_images_without_a_channel_axis(tmp_path):
    grey = np.zeros((6, 9, 7), np.uint8)
    path = write_arrays(tmp_path / "grey.npz", x_train=grey, y_train=np.arange(6) % 3, x_test=grey, y_test=[0] * 6)
    assert Arrays(str(path)).load().image_shape == (1, 9, 7)


IMAGES = np.zeros((60, 8, 8, 3), np.uint8)
LABELS = np.arange(60) % 3


@pytest.mark.parametrize(("changes", "message"), [
    ({"x_test": None}, "array x_test is missing"),
    ({"x_train": IMAGES.astype(np.float32)}, r"x_train is float32 \(60, 8, 8, 3\); images must be uint8"),
    ({"x_train": IMAGES[:, :, 0, 0]}, r"x_train is uint8 \(60, 8\)"),
    ({"x_train": np.zeros((60, 13, 64, 64), np.uint8)}, r"looks like \(N, C, H, W\).*x\.transpose\(0, 2, 3, 1\)"),
    ({"x_train": np.zeros((60, 2, 64, 48), np.uint8)}, r"looks like \(N, C, H, W\)"),
    ({"x_train": np.zeros((60, 64, 8, 8), np.uint8)}, r"looks like \(N, C, H, W\)"),
    ({"y_train": LABELS[:, None]}, r"y_train is int64 \(60, 1\); labels must be integers \(N,\)"),
    ({"y_train": LABELS.astype(float)}, "y_train is float64"),
    ({"y_train": LABELS[:50]}, "60 images, y_train 50 labels"),
    ({"x_train": IMAGES[:0], "y_train": LABELS[:0]}, "x_train is empty"),
    ({"x_test": IMAGES[:0], "y_test": LABELS[:0]}, "x_test is empty"),
    ({"x_test": IMAGES[:, :4]}, r"x_train has images of \(8, 8, 3\), x_test of \(4, 8, 3\)"),
    ({"y_train": LABELS - 1}, "y_train has labels from -1 to 1"),
    ({"y_train": LABELS * 2}, "y_train has labels from 0 to 4 and 3 different ones"),
    ({"y_train": LABELS * 0}, "a single class"),
    ({"y_test": LABELS + 1}, "y_test has labels from 1 to 3; the training set has classes 0 to 2"),
    ({"y_train": np.array([{}] * 60)}, "allow_pickle|Object arrays"),
])
def test_arrays_that_cannot_be_right_are_named(tmp_path, changes, message):
    path = write_arrays(tmp_path / "bad.npz", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        Arrays(str(path)).load()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 8, 13), (8, 8, 1), (2, 9, 3), (9, 7, 4), (64, 48, 13)])
def test_channels_may_be_many(tmp_path, shape):
    x = np.zeros((60, *shape), np.uint8)
    path = write_arrays(tmp_path / "many.npz", x_train=x, y_train=LABELS, x_test=x, y_test=LABELS)
    assert Arrays(str(path)).load().train.images.shape[1:] == shape


def test_files_that_are_no_npz_are_named(tmp_path):
    text = tmp_path / "text.npz"
    text.write_text("hello")
    single = tmp_path / "single.npy"
    np.save(single, IMAGES)
    cut = write_arrays(tmp_path / "cut.npz")
    cut.write_bytes(cut.read_bytes()[:2000])
    empty = tmp_path / "empty.npz"
    empty.touch()
    for path in (text, single, cut, empty):
        with pytest.raises(ValueError, match=rf"^path=\S+{path.name}: no \.npz with x_train"):
            Arrays(str(path)).load()
    with pytest.raises(ValueError, match="no such file"):
        Arrays(str(tmp_path / "nowhere.npz"))
    with pytest.raises(ValueError, match="path is missing"):
        Arrays()


@pytest.mark.parametrize("shares", [{"validation": -0.1}, {"validation": 1.0}, {"validation": 0.6, "heldout": 0.4}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="validation"):
        Digits(**shares)


def test_a_class_too_small_to_split_is_named(tmp_path):
    path = write_arrays(tmp_path / "rare.npz", y_train=np.array([2] + [0, 1] * 29 + [0]))
    with pytest.raises(ValueError, match=r"validation=0\.1: a stratified split needs at least one image"):
        Arrays(str(path), validation=0.1).load()


def write_cifar10(root, monkeypatch):
    """CIFAR-10's own files with 20 images a batch; torchvision checks them against their new checksums."""
    folder = root / torchvision.datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name):
        return [name, write(name, {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8),
                                   "labels": list(range(10)) * 2})]

    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(cifar, "test_list", [batch("test_batch")])
    md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5})


def test_cifar_reads_torchvisions_files(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
    data = Cifar(root=str(tmp_path), validation=0.1).load()
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.image_shape == (3, 32, 32)
    assert data.num_classes == 10
    assert data.classes == tuple("abcdefghij")


def test_cifar_as_arrays_is_the_same_subset(tmp_path, monkeypatch):
    """Whatever their order, so that a run of one copy is the same as a run of the other."""
    write_cifar10(tmp_path, monkeypatch)
    whole = Cifar(root=str(tmp_path)).load()
    order = np.argsort(whole.train.labels, kind="stable")
    (tmp_path / "arrays").mkdir()
    write_arrays(tmp_path / "arrays" / "cifar10.npz", x_train=whole.train.images[order],
                 y_train=whole.train.labels[order], x_test=whole.test.images, y_test=whole.test.labels)
    options = {"train_subset": 50, "size": 16, "heldout": 0.2}
    first, second = (Cifar(root=str(root), **options).load() for root in (tmp_path, tmp_path / "arrays"))
    assert first.fingerprint == second.fingerprint
    assert first.image_shape == (3, 16, 16)
    assert len(first.train) == 40


def test_missing_or_damaged_cifar_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^download=False: CIFAR-100 in .*missing.*download=true"):
        Cifar(classes=100, root=str(tmp_path / "none")).load()
    assert not (tmp_path / "none").exists()
    write_cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="missing or damaged"):
        Cifar(root=str(tmp_path)).load()
    with pytest.raises(ValueError, match="classes=20: must be one of 10, 100"):
        Cifar(classes=20)


def test_a_file_as_root_is_told_to_be_the_folder(tmp_path):
    (file := tmp_path / "cifar10.npz").touch()
    with pytest.raises(ValueError, match=r"^root=.*cifar10\.npz: is a file; give the folder that holds .*CIFAR-10"):
        Cifar(root=str(file)).load()


def loader(count=50, size=8, channels=3, seed=0, **options):
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8), np.arange(count) % 5)
    return Loader(split, 8, Normalization.of(split), seed=seed, **options)


def test_an_epoch_shows_every_image_once_in_its_own_order():
    batches = loader()
    assert len(batches) == 6
    orders = []
    for epoch in (0, 1, 0):
        seen = torch.cat([images for images, _ in batches.epoch(epoch)])
        assert len(seen) == 48
        assert len({image.numpy().tobytes() for image in seen}) == 48
        orders.append(seen)
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], torch.cat([images for images, _ in loader(seed=1).epoch(0)]))


def test_a_resumed_epoch_needs_no_replay():
    """Batches depend on (seed, epoch, step) alone: starting inside an epoch gives the very same ones."""
    batches = loader(augmentation=Augmentation(crop_padding=2, flip=True))
    whole = list(batches.epoch(3))
    torch.manual_seed(9)
    for (images, labels), (again, same) in zip(whole[4:], batches.epoch(3, start=4), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, same)


def test_shares_make_up_the_batch():
    """What several processes are given is the batch of one, with the same draws."""
    stack = {"augmentation": Augmentation(crop_padding=2, flip=True, auto_augment="cifar10", random_erasing=0.5,
                                          mixup=0.8, cutmix=1.0)}
    parts = [loader(**stack, share=share).epoch(1) for share in (slice(0, 4), slice(4, 8))]
    for (images, labels), *given_ in zip(loader(**stack).epoch(1), *parts, strict=True):
        assert torch.equal(images, torch.cat([part for part, _ in given_]))
        assert torch.equal(labels, torch.cat([part for _, part in given_]))


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 12), st.integers(8, 12), st.sampled_from([1, 3]), st.integers(0, 4), st.booleans(),
       st.integers(0, 1000))
def test_augmentation_equals_a_loop_over_images(height, width, channels, padding, flip, step):
    """Pad, crop and flip image by image, from the same draws, gives the same pixels."""
    images = torch.randint(0, 256, (6, height, width, channels), dtype=torch.uint8)
    drawn = draw_crops(6, derived_generator(0, AUGMENTATION, step), padding, flip)
    result = crop(images, torch.arange(6), drawn, padding)
    draws = derived_generator(0, AUGMENTATION, step)
    tops = torch.randint(0, 2 * padding + 1, (6, 1), generator=draws).flatten()
    lefts = torch.randint(0, 2 * padding + 1, (6, 1), generator=draws).flatten()
    mirrored = (torch.rand(6, 1, generator=draws) < 0.5).flatten() if flip else [False] * 6
    for image, top, left, mirror, out in zip(images, tops, lefts, mirrored, result, strict=True):
        padded = np.pad(image.numpy(), ((padding, padding), (padding, padding), (0, 0)))
        part = padded[top:top + height, left:left + width]
        assert np.array_equal(part[:, ::-1] if mirror else part, out.numpy())


def test_augmentation_draws_every_offset_and_both_mirrors():
    images = torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3, 1).repeat(2000, 1, 1, 1)
    drawn = draw_crops(2000, derived_generator(0, 1, 2), 1, True)
    kinds = {image.numpy().tobytes() for image in crop(images, torch.arange(2000), drawn, 1)}
    assert len(kinds) == 3 * 3 * 2


def test_normalised_training_set_has_zero_mean_and_unit_variance():
    rng = np.random.default_rng(0)
    split = Split(np.concatenate([rng.integers(0, 99, (40, 8, 8, 1)), np.full((40, 8, 8, 1), 7)], 3).astype(np.uint8),
                  np.arange(40) % 2)
    images = torch.cat(list(evaluation_batches(split, Normalization.of(split), "cpu", batch_size=16)))
    assert images.shape == (40, 2, 8, 8)
    assert images[:, 0].mean().abs() < 1e-5
    assert images[:, 0].std().item() == pytest.approx(1, abs=1e-3)
    assert not images[:, 1].any()


def test_normalization_is_exact_and_small(monkeypatch):
    """Equal to numpy's float64 over all values, whatever is counted at once, in a tenth of numpy's memory."""
    images = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    images[:, :, :, 1] //= 3
    split = Split(images, np.arange(300) % 2)
    flat = images.reshape(-1, 3)
    for values in (2 ** 20, 2 ** 13, 1):
        monkeypatch.setattr(resident, "VALUES_COUNTED", values)
        found = Normalization.of(split)
        assert found.mean == pytest.approx(flat.mean(0, dtype=np.float64), rel=1e-13)
        assert found.std == pytest.approx(flat.std(0, dtype=np.float64), rel=1e-12)
        assert found == Normalization.of(Split(images[::-1], split.labels))
    monkeypatch.setattr(resident, "VALUES_COUNTED", 2 ** 15)
    tracemalloc.start()
    Normalization.of(split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes


def test_layout_is_as_asked():
    for wanted in (True, False):
        images, _ = next(loader(channels_last=wanted).epoch(0))
        assert images.is_contiguous(memory_format=torch.channels_last) is wanted
        assert images.is_contiguous() is not wanted


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ValueError, match="batch_size=8 but there are only 5 training images"):
        loader(count=5)
