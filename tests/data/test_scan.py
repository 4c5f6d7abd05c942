"""The scan of a folder of images: what is passed over is said, faults are named at once, links count once."""

import logging
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import write_folder
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from motivation.data import Augmentation, ImageFolder, open_loader
from motivation.data.sources import headers


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "images")


def load(root, **arguments):
    return ImageFolder(root=str(root), **arguments).load()


def names(part):
    return [os.fsdecode(name) for name in part.names]


def huge_png() -> bytes:
    """A PNG whose header says 200,000 x 200,000."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def test_what_is_no_image_is_passed_over_and_one_line_says_so(folder, caplog):
    before = load(folder)
    assert not caplog.records
    jpeg = (folder / "train" / "ant" / "0.jpg").read_bytes()
    for place in ("train/.ipynb_checkpoints", "val/.ipynb_checkpoints", "train/ant/.ipynb_checkpoints",
                  "train/__MACOSX", "train/bee/@eaDir"):
        (folder / place).mkdir()
        (folder / place / "0-checkpoint.jpg").write_bytes(jpeg)
    (folder / "train" / "ant" / "._0.jpg").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    (folder / "train" / "loose.jpg").write_bytes(jpeg)
    (folder / "train" / "cat" / "error.jpg").write_text("<html>404</html>")
    os.mkfifo(folder / "val" / "cat" / "pipe.jpg")
    with caplog.at_level(logging.INFO, "motivation"):
        after = load(folder)
    assert after.classes == before.classes
    assert after.fingerprint == before.fingerprint
    [record] = caplog.records
    assert record.levelname == "WARNING"
    line = record.getMessage()
    assert "6 hidden or of the system (train/.ipynb_checkpoints, " in line
    assert "2 with another ending or in no class (train/loose.jpg, train/cat/notes.txt)" in line
    assert "2 without an image in it (train/cat/error.jpg, val/cat/pipe.jpg)" in line
    assert line.endswith("kept train 18 (ant 6, bee 6, cat 6); val 18 (ant 6, bee 6, cat 6)")


def test_images_that_cannot_be_read_are_named_all_at_once(folder):
    """Of both parts, before training."""
    good = (folder / "train" / "ant" / "0.jpg").read_bytes()
    (folder / "train" / "ant" / "1.jpg").write_bytes(good[:20])
    (folder / "train" / "bee" / "2.jpg").write_bytes(b"")
    (folder / "train" / "cat" / "0.jpg").write_bytes(bytes(len(good)))
    (folder / "train" / "cat" / "1.jpg").write_text("version https://git-lfs.github.com/spec/v1")
    (folder / "val" / "bee" / "3.png").write_bytes(huge_png())
    (folder / "val" / "cat" / "4.jpg").unlink()
    (folder / "val" / "cat" / "4.jpg").symlink_to("nowhere")
    Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "val" / "cat" / "float.tif")
    with pytest.raises(ValueError, match="7 of 38 images cannot be used") as caught:
        load(folder)
    for fault in ("each of train/ant/1.jpg, train/cat/0.jpg is damaged", "train/cat/1.jpg is a pointer of Git LFS",
                  "train/bee/2.jpg is empty", "val/bee/3.png is too large",
                  "val/cat/4.jpg cannot be read: No such file", "val/cat/float.tif is floating-point"):
        assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_are_those_of_torchvision_in_its_order(folder):
    for place in ("ant/deeper/z", "ant/deeper-still", "bee/0"):
        (folder / "train" / place).mkdir(parents=True)
        for name in ("9.PNG", "10.png"):
            Image.new("RGB", (4, 4)).save(folder / "train" / place / name)
    theirs = TorchvisionFolder(folder / "train")
    ours = load(folder).train
    assert [(ours.path(index), label) for index, label in enumerate(ours.labels.tolist())] == theirs.samples


def test_links_that_loop_count_no_image_twice(folder, tmp_path, caplog):
    before = load(folder)
    train = folder / "train"
    (train / "ant" / "self").symlink_to(train / "ant")
    (train / "ant" / "up").symlink_to(train)
    (train / "ant" / "root").symlink_to(folder)
    (train / "ant" / "other").symlink_to("../bee")
    (train / "dog").symlink_to("ant")
    after = load(folder)
    assert after.classes == ("ant", "bee", "cat")
    assert after.fingerprint == before.fingerprint
    assert "5 links to folders counted already" in caplog.text
    elsewhere = write_folder(tmp_path / "elsewhere", parts=("store",)) / "store"
    (train / "bee" / "more").symlink_to(elsewhere / "bee")
    (train / "cat" / "again").symlink_to(elsewhere / "bee")
    assert np.bincount(load(folder).train.labels).tolist() == [6, 12, 6]


def test_linked_folders_are_read(folder, tmp_path):
    """Also into a hidden folder beside the classes, as volumes of containers have them."""
    before = load(folder)
    for part in ("train", "val"):
        (folder / part / "..data").mkdir()
        for name in before.classes:
            (folder / part / name).rename(folder / part / "..data" / name)
            (folder / part / name).symlink_to(f"..data/{name}")
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link").fingerprint == load(folder).fingerprint == before.fingerprint


def test_only_changed_files_are_read_again(folder, monkeypatch):
    load(folder)
    read = []
    monkeypatch.setattr(headers, "header_fault", lambda path: read.append(os.path.relpath(path, folder)))
    load(folder)
    assert read == []
    os.utime(folder / "train" / "ant" / "1.jpg", ns=(1, 1))
    with open(folder / "val" / "bee" / "0.jpg", "ab") as file:
        file.write(b"more")
    load(folder)
    assert sorted(read) == ["train/ant/1.jpg", "val/bee/0.jpg"]


def test_a_cache_that_cannot_be_used_costs_nothing_else(folder, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"no folder")
    monkeypatch.setenv("MOTIVATION_CACHE", str(file))
    first = load(folder).fingerprint
    monkeypatch.setenv("MOTIVATION_CACHE", str(tmp_path / "cache"))
    load(folder)
    [cache] = (tmp_path / "cache" / "images").iterdir()
    cache.write_bytes(b"damaged by someone")
    assert load(folder).fingerprint == first


RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))


@pytest.mark.parametrize("name", ["i16.png", "i16.tif", "big.tif", "i16.pgm"])
def test_grey_images_of_16_bits_are_scaled_by_their_range(folder, name):
    """They are their own 8-bit versions; Pillow alone makes all but the darkest white."""
    path = folder / "train" / "ant" / name
    Image.fromarray(RAMP if name != "big.tif" else RAMP.astype(">u2")).save(path)
    train = load(folder).train
    shown = np.asarray(train.image(names(train).index(f"train/ant/{name}")))
    assert shown.shape == (64, 64, 3)
    assert np.array_equal(shown[:, :, 1], np.round(RAMP / 257).astype(np.uint8))


def test_a_tiff_of_12_bits_is_scaled_by_its_own_range(folder):
    values = RAMP[0].astype(int) // 16
    content = b"".join(bytes([one >> 4, (one & 15) << 4 | two >> 8, two & 255])
                       for one, two in zip(values[::2], values[1::2], strict=True))
    # Width, height, bits, compression, black is zero, and where the one strip is (TIFF 6.0, section 3).
    tags = {256: 64, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (folder / "train" / "ant" / "x.tif").write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + entries + bytes(4))
    train = load(folder).train
    shown = np.asarray(train.image(names(train).index("train/ant/x.tif")))
    assert np.array_equal(shown[0, :, 0], np.round(values * 255 / 4095).astype(np.uint8))


def test_images_that_are_almost_black_are_said(folder, caplog):
    """Of 12 bits in files of 16: no header says so."""
    augmentation = Augmentation(image_size=16)
    open_loader(load(folder), 4, augmentation=augmentation)
    assert not caplog.records
    for path in (folder / "train").rglob("*.jpg"):
        Image.fromarray(RAMP // 16).save(path.with_suffix(".png"))
        path.unlink()
    open_loader(load(folder), 4, augmentation=augmentation)
    assert "no value above 16 of 255, almost black" in caplog.text


@pytest.mark.parametrize("array", [RAMP.astype(np.int32), RAMP.astype(np.float32), (RAMP / 65535).astype(np.float32)])
def test_values_without_a_known_range_are_refused(folder, array):
    Image.fromarray(array).save(folder / "val" / "ant" / "x.tif")
    with pytest.raises(ValueError, match=r"x\.tif is (32-bit|floating-point).*; save it with 8 or 16 bits"):
        load(folder)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_other_mode_is_what_pillow_makes_of_it(folder, mode):
    colours = torch.randint(0, 256, (9, 7, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    image = Image.fromarray(colours).convert(mode)
    path = folder / "train" / "ant" / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    train = load(folder).train
    shown = train.image(names(train).index(f"train/ant/{path.name}"))
    assert np.array_equal(np.asarray(shown), np.asarray(image.convert("RGB")))
