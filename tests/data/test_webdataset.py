"""WebDataset shards: an index of their members, read at random, and shards that cannot be right refused by name."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_folder
from PIL import Image

from motivation.data import ImageFolder, WebDataset


def write_shard(path, members):
    """A tar archive; members are (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(root, folder):
    """The images of a folder data set in shards of seven, as other tools write them: label before or after."""
    data = ImageFolder(root=str(folder)).load()
    for part, files in (("train", data.train), ("validation", data.test)):
        for first in range(0, len(files), 7):
            members = []
            for index in range(first, min(first + 7, len(files))):
                content = Path(files.path(index)).read_bytes()
                pair = [(f"{part}/{index:05}.jpg", content), (f"{part}/{index:05}.cls", b"%d\n" % files.labels[index])]
                members += pair[::-1] if index % 2 else pair
                members.append((f"{part}/{index:05}.json", b"{}"))
            write_shard(root / f"set-{part}-{first:04}.tar", members)
    return data


@pytest.fixture
def shards(tmp_path):
    return tmp_path / "shards", write_shards(tmp_path / "shards", write_folder(tmp_path / "images"))


def test_holds_the_images_of_the_folder_it_was_made_of(shards):
    root, folder = shards
    data = WebDataset(root=str(root)).load()
    assert data.num_classes == 3
    for part, other in ((data.train, folder.train), (data.test, folder.test)):
        assert np.array_equal(part.labels, other.labels)
        for index in np.random.default_rng(0).permutation(len(part)):
            assert np.array_equal(np.asarray(part.image(index)), np.asarray(other.image(index)))
    assert data.train.path(8) == f"{root}/set-train-0007.tar/train/00008.jpg"
    assert WebDataset(root=str(root)).load().fingerprint == data.fingerprint != folder.fingerprint
    split = WebDataset(root=str(root), validation=1 / 3).load()
    assert np.bincount(split.validation.labels).tolist() == [2, 2, 2]


def test_patterns_choose_the_shards(shards):
    root, _ = shards
    (root / "a").mkdir()
    for shard in root.glob("set-train-*.tar"):
        shard.rename(root / "a" / shard.name.replace("train", "learn"))
    with pytest.raises(ValueError, match=r"train=\*train\*\.tar: no such shard in .*which has a/set-learn-0000\.tar"):
        WebDataset(root=str(root)).load()
    assert len(WebDataset(root=str(root), train="a/*.tar").load().train) == 18
    with pytest.raises(ValueError, match=r"share shards: set-validation-0000\.tar"):
        WebDataset(root=str(root), train="*.tar").load()
    with pytest.raises(ValueError, match=r"which has no \.tar file"):
        WebDataset(root=str(root / "none")).load()
    with pytest.raises(ValueError, match="root is missing"):
        WebDataset()


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(("members", "message"), [
    ([("a.jpg", jpeg())], r"a\.jpg has no label; it needs a member a\.cls"),
    ([("d/a.b.jpg", jpeg()), ("d/a.cls", b"0")], "has no image"),
    ([("a.jpg", jpeg()), ("a.cls", b"ant")], r"a\.cls must hold a class index from 0, not b'ant'"),
    ([("a.jpg", jpeg()), ("a.png", jpeg()), ("a.cls", b"0")], r"a\.png is there twice"),
    ([("a.jpg", b""), ("a.cls", b"0")], r"a\.jpg is empty"),
    ([("a.jpg", jpeg()[:20]), ("a.cls", b"0"), ("b.jpg", b"text"), ("b.cls", b"0")],
     r"2 of 2 images cannot be used: a\.jpg is damaged; b\.jpg is no image"),
    ([("a.jpg", jpeg()), ("a.cls", b"4")], "labels up to 4, but none of class 3"),
    ([], "has no image"),
])
def test_shards_that_cannot_be_right_are_named(shards, members, message):
    root, _ = shards
    write_shard(root / "set-train-9999.tar", members)
    with pytest.raises(ValueError, match=message) as caught:
        WebDataset(root=str(root)).load()
    assert str(root) in str(caught.value)


def test_headers_of_a_shard_are_read_once(shards, monkeypatch):
    root, _ = shards
    before = WebDataset(root=str(root)).load().fingerprint
    monkeypatch.setattr(Image, "open", None)
    assert WebDataset(root=str(root)).load().fingerprint == before


def test_classes_that_differ_are_named(shards):
    root, _ = shards
    write_shard(root / "set-validation-9999.tar", [("a.jpg", jpeg()), ("a.cls", b"3")])
    with pytest.raises(ValueError, match="the same classes, but only one of them has 3"):
        WebDataset(root=str(root)).load()


def test_packed_cut_and_foreign_files_are_named(shards):
    root, _ = shards
    whole = root / "set-train-0000.tar"
    content = whole.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(whole, "whole.tar")
    for damage in (packed.getvalue(), content[:700], content[: len(content) // 2], b"hello"):
        whole.write_bytes(damage)
        with pytest.raises(ValueError, match=r"set-train-0000\.tar"):
            WebDataset(root=str(root)).load()


def test_nothing_is_unpacked(shards, tmp_path):
    """A member that points out of its archive is only a name."""
    root, _ = shards
    before = sorted(tmp_path.rglob("*"))
    write_shard(root / "set-train-9999.tar", [("../../out.jpg", jpeg()), ("../../out.cls", b"0")])
    data = WebDataset(root=str(root)).load()
    assert data.train.image(18).size == (4, 4)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, root / "set-train-9999.tar"])
