"""Oxford's flowers and pets, from small files in their real layout; what is missing says how to get it."""

import hashlib
import io
import shutil
import tarfile

import numpy as np
import pytest
import torchvision.datasets
import torchvision.datasets.utils
from PIL import Image
from scipy.io import savemat

from motivation.data import Flowers, Pets


def jpeg(number):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (number, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def pack(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Oxford's server: four images of each of two classes, archives and lists as it has them."""
    server = tmp_path / "server"
    server.mkdir()
    flowers = torchvision.datasets.Flowers102
    pack(server / "102flowers.tgz", [(f"jpg/image_{n:05}.jpg", jpeg(n)) for n in range(1, 9)])
    savemat(server / "imagelabels.mat", {"labels": np.array([[1, 2] * 4])})
    savemat(server / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6, 7, 8]]})
    files = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    monkeypatch.setattr(flowers, "_file_dict", {key: (name, md5(server / name)) for key, name in files.items()})

    pets = torchvision.datasets.OxfordIIITPet
    kinds = ["Abyssinian", "american_bulldog"]
    lines = {part: "".join(f"{kind}_{n} {label} {label} 1\n" for label, kind in enumerate(kinds, 1) for n in numbers)
             for part, numbers in (("trainval", (1, 2)), ("test", (3, 4)))}
    pack(server / "images.tar.gz", [(f"images/{kind}_{n}.jpg", jpeg(n)) for kind in kinds for n in range(1, 5)])
    pack(server / "annotations.tar.gz", [(f"annotations/{part}.txt", text.encode()) for part, text in lines.items()])
    monkeypatch.setattr(pets, "_RESOURCES", tuple((f"https://server/{name}", md5(server / name))
                                                  for name in ("images.tar.gz", "annotations.tar.gz")))
    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve",
                        lambda url, path: shutil.copy(server / url.rpartition("/")[2], path))
    return server


def test_flowers_train_on_the_authors_train_and_val(served, tmp_path):
    data = Flowers(root=str(tmp_path / "data"), download=True).load()
    assert [name.decode() for name in data.train.names] == [f"flowers-102/jpg/image_{n:05}.jpg" for n in (1, 2, 3, 4)]
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1, 0, 1]
    assert data.classes[:2] == ("pink primrose", "hard-leaved pocket orchid")
    assert data.test.image(3).getpixel((0, 0))[0] == pytest.approx(8, abs=3)
    again = Flowers(root=str(tmp_path / "data")).load()
    assert again.fingerprint == data.fingerprint


def test_pets_train_on_trainval(served, tmp_path):
    data = Pets(root=str(tmp_path / "data"), download=True).load()
    assert [name.decode() for name in data.train.names] == [
        f"oxford-iiit-pet/images/{name}.jpg" for name in ("Abyssinian_1", "Abyssinian_2", "american_bulldog_1",
                                                          "american_bulldog_2")]
    assert data.classes == ("Abyssinian", "American Bulldog")
    assert (data.num_classes, len(data.test)) == (2, 4)
    (tmp_path / "data" / "oxford-iiit-pet" / "images" / "Abyssinian_2.jpg").unlink()
    with pytest.raises(ValueError, match=r"Abyssinian_2\.jpg cannot be read: No such file.*copy of the data is incom"):
        Pets(root=str(tmp_path / "data")).load()


@pytest.mark.parametrize(("source", "message"), [
    (Flowers, r"Flowers-102 in .*missing or damaged.*download=true \(329 MiB\)"),
    (Pets, r"Oxford-IIIT Pet in .*missing or damaged.*download=true \(774 MiB\)"),
])
def test_missing_data_says_how_to_get_it(served, tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        source(root=str(tmp_path / "none")).load()
    assert not (tmp_path / "none").exists()


def test_a_download_that_is_not_the_real_one_is_refused(served, tmp_path):
    pack(served / "102flowers.tgz", [("jpg/image_00001.jpg", jpeg(9))])
    with pytest.raises(ValueError, match="the download failed"):
        Flowers(root=str(tmp_path / "data"), download=True).load()
    assert not (tmp_path / "data" / "flowers-102" / "jpg").exists()
