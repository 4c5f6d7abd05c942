"""Images in folders: what is found in them, and what cannot be right refused by name, before any pixel is read."""

import os
import shutil

import numpy as np
import pytest
from conftest import write_folder
from PIL import Image, ImageFile

from motivation.data import ImageFolder, ImageNet


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "images")


def names(part):
    return [os.fsdecode(name) for name in part.names]


def test_finds_classes_and_images_of_both_parts(folder):
    (folder / "train" / "bee" / "deeper").mkdir()
    shutil.move(folder / "train" / "bee" / "0.jpg", folder / "train" / "bee" / "deeper" / "0.JPEG")
    (folder / "train" / "bee" / "notes.txt").write_text("no image")
    data = ImageFolder(root=str(folder)).load()
    assert data.classes == ("ant", "bee", "cat")
    assert (data.num_classes, len(data.train), len(data.test)) == (3, 18, 18)
    assert np.bincount(data.train.labels).tolist() == [6, 6, 6]
    found = dict(zip(names(data.train), data.train.labels.tolist(), strict=True))
    assert found["train/bee/deeper/0.JPEG"] == 1
    assert found["train/cat/5.jpg"] == 2
    assert names(data.test)[0] == "val/ant/0.jpg"
    place = names(data.train).index("train/ant/3.jpg")
    with Image.open(folder / "train" / "ant" / "3.jpg") as image:
        assert np.array_equal(np.asarray(data.train.image(place)), np.asarray(image))


def test_loading_reads_headers_once_and_no_pixel(folder, monkeypatch):
    """A plan asks for the fingerprint of a data set: it must not wait for a million images."""
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", None)
        ImageFolder(root=str(folder)).load()
    monkeypatch.setattr(Image, "open", None)
    monkeypatch.setattr("builtins.open", None)
    assert len(ImageFolder(root=str(folder), validation=0.5).load().fingerprint) == 64


def test_splits_come_from_train_only_stratified_and_seeded(folder):
    def parts(seed):
        data = ImageFolder(root=str(folder), validation=1 / 3, heldout=1 / 6, split_seed=seed).load()
        return data.train, data.validation, data.heldout

    train, validation, heldout = parts(0)
    assert [np.bincount(part.labels).tolist() for part in (train, validation, heldout)] == [[3] * 3, [2] * 3, [1] * 3]
    together = [name for part in (train, validation, heldout) for name in names(part)]
    assert sorted(together) == sorted(f"train/{name}/{n}.jpg" for name in ("ant", "bee", "cat") for n in range(6))
    assert names(parts(0)[1]) == names(validation) != names(parts(1)[1])


def test_fingerprint_knows_names_sizes_and_labels_but_not_the_root(folder, tmp_path):
    def fingerprint(root=folder, **arguments):
        return ImageFolder(root=str(root), **arguments).load().fingerprint

    before = fingerprint()
    assert fingerprint(shutil.copytree(folder, tmp_path / "copy")) == before
    assert fingerprint(workers=3) == before
    assert fingerprint(validation=0.5) != before
    with open(folder / "train" / "ant" / "0.jpg", "ab") as file:
        file.write(b"more")
    longer = fingerprint()
    assert longer != before
    (folder / "train" / "ant" / "0.jpg").rename(folder / "train" / "ant" / "00.jpg")
    renamed = fingerprint()
    assert renamed not in (before, longer)


def test_test_images_are_val_or_test_and_both_are_a_question(folder):
    (folder / "val").rename(folder / "test")
    assert names(ImageFolder(root=str(folder)).load().test)[0] == "test/ant/0.jpg"
    shutil.copytree(folder / "test", folder / "val")
    with pytest.raises(ValueError, match=r"^test=None: .*both val and test.*test=val or test=test"):
        ImageFolder(root=str(folder)).load()
    assert names(ImageFolder(root=str(folder), test="val").load().test)[0] == "val/ant/0.jpg"


def without(part):
    return lambda root: shutil.rmtree(root / part)


def emptied(path):
    return lambda root: (root / path).write_bytes(b"")


def without_images(root):
    for file in (root / "train" / "bee").iterdir():
        file.unlink()


def alone(root):
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            shutil.rmtree(root / part / name)


@pytest.mark.parametrize(("change", "message"), [
    (shutil.rmtree, "root=.*: no such folder"),
    (without("train"), r"has no folder train; it must have train/CLASS/\*\.jpg"),
    (without("val"), "has no folder val"),
    (without_images, "train: Found no valid file for the classes bee"),
    (without("val/cat"), "must have the same classes, but only train has cat"),
    (without("train/ant"), "only val has ant"),
    (emptied("train/cat/2.jpg"), r"train/cat/2\.jpg is empty"),
    (alone, "a single class, cat"),
    (lambda root: (root / "train" / "cat" / "9.jpg").symlink_to("nowhere"), r"9\.jpg cannot be read: No such file"),
])
def test_folders_that_cannot_be_right_are_named(folder, change, message):
    change(folder)
    with pytest.raises(ValueError, match=message) as caught:
        ImageFolder(root=str(folder)).load()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_too_small_to_split_is_named(folder):
    for number in range(1, 6):
        (folder / "train" / "bee" / f"{number}.jpg").unlink()
    with pytest.raises(ValueError, match=r"at least one image of every class.*and 1 of class bee"):
        ImageFolder(root=str(folder), validation=0.3).load()
    with pytest.raises(ValueError, match="and 1 of class bee"):
        ImageFolder(root=str(folder), validation=0.5, fold=1).load()


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "root is missing"),
    ({"root": "x", "workers": -1}, "workers=-1"),
    ({"root": "x", "mean": (0.5,)}, r"mean=\(0\.5,\): must be a list of at least 2"),
    ({"root": "x", "std": (0.5, 0.0, 0.5)}, r"std\[1\]=0.0"),
    ({"root": "x", "split_seed": -1}, "split_seed=-1"),
    ({"root": "x", "heldout": 1.0}, "heldout=1.0"),
])
def test_values_that_cannot_be_right_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(**arguments)


def test_imagenet_lies_in_its_folder_or_below_a_parent(tmp_path):
    classes = [f"n{number:08}" for number in range(1000)]
    root = write_folder(tmp_path / "imagenet", classes=classes, count=1, size=(4, 4))
    for given in (root, tmp_path):
        data = ImageNet(root=str(given)).load()
        assert (data.num_classes, len(data.train), len(data.test)) == (1000, 1000, 1000)
    assert data.classes == tuple(classes)
    for part in ("train", "val"):
        shutil.rmtree(root / part / classes[3])
    with pytest.raises(ValueError, match="999 classes in place of 1,000; a part of it is an image folder"):
        ImageNet(root=str(root)).load()
    shutil.rmtree(root / "val")
    with pytest.raises(ValueError, match=r"val/ is missing.*6\.3 GiB.*image-net\.org.*ImageNet\(FOLDER, 'val'\)"):
        ImageNet(root=str(root)).load()
