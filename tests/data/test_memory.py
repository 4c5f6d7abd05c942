"""Data sets in memory: stratified subsets, stored sizes, and the splits inside them, the same for every source."""

import numpy as np
import pytest
import torch
from conftest import compose_config, write_arrays

from motivation.data import BY_NAME, Arrays, Digits, Split
from motivation.data.sources.memory import ordered, reduced, stratified_subset
from motivation.registry import build
from motivation.run_folder.identity import identity

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))


def images(count, size, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


@pytest.fixture
def arrays(tmp_path):
    """60 images of 8 x 8 in three classes."""
    return str(write_arrays(tmp_path / "images.npz"))


def test_a_subset_has_equal_shares_of_every_class():
    kept = stratified_subset(LABELS, 1000, seed=0)
    assert len(set(kept.tolist())) == 1000
    assert (np.diff(kept) > 0).all()
    assert np.bincount(LABELS[kept]).tolist() == [100] * 10
    # Of unequal classes the shares are the whole's, to the image.
    unequal = np.repeat([0, 1, 2], [70, 25, 5])
    assert np.bincount(unequal[stratified_subset(unequal, 20, 0)]).tolist() == [14, 5, 1]
    assert np.bincount(unequal[stratified_subset(unequal, 50, 0)]).tolist() == [35, 13, 2]
    assert stratified_subset(unequal, 100, 0).tolist() == list(range(100))


def test_a_subset_is_its_seeds_and_inside_a_larger_one():
    small, large = (set(stratified_subset(LABELS, count, 3).tolist()) for count in (500, 2000))
    assert small < large
    assert small == set(stratified_subset(LABELS, 500, 3).tolist())
    assert small != set(stratified_subset(LABELS, 500, 4).tolist())


@pytest.mark.parametrize(("size", "stored"), [(16, 32), (3, 8)])
def test_a_stored_size_is_the_area_average_rounded(size, stored):
    split = Split(images(7, stored), np.zeros(7, np.int64))
    made = reduced(split, size)
    assert made.images.shape == (7, size, size, 3)
    assert made.images.dtype == np.uint8
    # Output pixel i is the mean from floor(i * stored / size) to ceil((i + 1) * stored / size).
    edges = [(i * stored // size, -(-(i + 1) * stored // size)) for i in range(size)]
    expected = np.array([[split.images[:, top:bottom, left:right].astype(np.float64).mean((1, 2))
                          for left, right in edges] for top, bottom in edges]).transpose(2, 0, 1, 3)
    assert np.array_equal(made.images, np.round(expected))


def test_a_stored_size_is_the_same_however_many_are_averaged_at_once(monkeypatch):
    split = Split(images(7, 8), np.zeros(7, np.int64))
    monkeypatch.setattr("motivation.data.sources.memory.AT_ONCE", 3)
    piecewise = reduced(split, 4).images
    monkeypatch.undo()
    assert np.array_equal(piecewise, reduced(split, 4).images)
    assert np.array_equal(reduced(split, 8).images, split.images)


@pytest.mark.parametrize("seed", [0, 5])
def test_splits_are_inside_the_subset_and_the_test_set_is_whole(arrays, seed):
    whole = Arrays(arrays).load()
    data = Arrays(arrays, validation=0.2, heldout=0.1, split_seed=seed, train_subset=30, size=4).load()
    assert (len(data.train), len(data.validation), len(data.heldout), len(data.test)) == (21, 6, 3, 60)
    assert data.image_shape == (3, 4, 4)
    kept = stratified_subset(ordered(whole.train).labels, 30, seed)
    small = {image.tobytes() for image in reduced(ordered(whole.train), 4).images[kept]}
    assert {image.tobytes() for part in (data.train, data.validation, data.heldout) for image in part.images} == small
    assert np.array_equal(data.test.images, reduced(ordered(whole.test), 4).images)


def test_the_same_images_in_another_order_give_the_same_subset(tmp_path):
    """CIFAR-10 sorted by class, as some store it, is the same data as in its authors' order."""
    rng = np.random.default_rng(2)
    x, y, orders = rng.integers(0, 3, (60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 3, []
    # Pixels of 0 at the end of an image, and equal images.
    x[:9, 2:], x[20:26] = 0, x[20]
    for number, order in enumerate((np.arange(60), rng.permutation(60), np.argsort(y, kind="stable"))):
        path = write_arrays(tmp_path / f"{number}.npz", x_train=x[order], y_train=y[order], x_test=x[order],
                            y_test=y[order])
        orders.append(Arrays(str(path), train_subset=30, size=4, heldout=0.1).load())
    assert len({data.fingerprint for data in orders}) == 1
    assert len({ordered(Split(x[order], y[order])).images.tobytes() for order in (np.arange(60), np.argsort(y))}) == 1


@pytest.mark.parametrize("option", ["digits", "cifar10", "cifar100", "arrays"])
def test_every_data_set_in_memory_takes_both(option):
    plain = compose_config(f"data={option}")["data"]
    assert plain["train_subset"] is plain["size"] is None
    changed = compose_config(f"data={option}", "data.train_subset=100", "data.size=4")
    # Both are of a run's identity; a config of an earlier version, which had neither, is of the same run as null.
    earlier = changed | {"data": {key: value for key, value in plain.items() if key not in ("train_subset", "size")}}
    assert identity(earlier, "f") == identity(changed | {"data": plain}, "f") != identity(changed, "f")


def test_both_are_in_the_fingerprint(arrays):
    made = [Arrays(arrays, **options).load().fingerprint for options in (
        {}, {"train_subset": 30}, {"size": 4}, {"train_subset": 30, "size": 4},
        {"train_subset": 30, "size": 4, "split_seed": 1})]
    assert len(set(made)) == 5
    assert Arrays(arrays, size=8).load().fingerprint == made[0]


@pytest.mark.parametrize(("options", "said"), [
    ({"train_subset": 1438}, r"^data\.train_subset=1438: the training set has 1437 images"),
    ({"train_subset": 9}, r"^data\.train_subset=9: leaves no image of class \d"),
    ({"train_subset": 0}, r"^data\.train_subset=0: must be at least 1"),
    ({"size": 9}, r"^data\.size=9: the images are 8 x 8, smaller"),
    ({"size": 0}, r"^data\.size=0: must be at least 1"),
])
def test_mistakes_name_the_key(options, said):
    from motivation.run.prepare import prepare

    config = compose_config("model=resnet8", "tracker=none")
    with pytest.raises(ValueError, match=said) as caught:
        prepare(config | {"data": config["data"] | options})
    assert "\n" not in str(caught.value)


def test_images_that_are_no_squares_are_refused(tmp_path):
    wide = np.zeros((60, 8, 6, 3), np.uint8)
    path = write_arrays(tmp_path / "wide.npz", x_train=wide, x_test=wide)
    with pytest.raises(ValueError, match=r"^size=4: the images are 8 x 6, no squares"):
        Arrays(str(path), size=4).load()


def test_a_subset_trains(tmp_path):
    from motivation.run.prepare import prepare

    session = prepare(compose_config("model=resnet8", "tracker=none", "data.train_subset=100", "data.size=8",
                                     "recipe.batch_size=16", "engine.threads=1"))
    assert len(session.dataset.train) == 80
    images, _ = next(session.batches())
    assert images.shape == (16, 1, 8, 8)
    assert torch.isfinite(images).all()
    assert build(BY_NAME, session.config["data"], "data") == Digits(train_subset=100, size=8)
