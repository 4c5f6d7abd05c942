"""Anyone's images in folders, one a class, and ImageNet, which comes so."""

from dataclasses import dataclass
from pathlib import Path

from motivation.data.sources.files import Files, FileSource
from motivation.data.sources.scan import listed, scan
from motivation.validation import check_arguments

TEST_FOLDERS = ("val", "test")
LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg (or test/)"


@check_arguments
@dataclass(frozen=True)
class ImageFolder(FileSource):
    """A folder with train/CLASS/*.jpg and val/CLASS/*.jpg (or test/), as torchvision's ImageFolder reads them.

    Args:
        root: the folder.
        test: name of the folder of test images; null for ``val`` or ``test``, whichever is there.

    Raises:
        ValueError: no root, and as every data set in files.
    """

    root: str | None = None
    test: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.root is None:
            raise ValueError(f"root is missing: give the folder that has {LAYOUT}, root=FOLDER")

    def find(self) -> tuple[Files, Files, tuple[str, ...]]:
        """See `FileSource.find`; the classes are the folders' names, sorted.

        Raises:
            ValueError: a folder is missing or empty, or training and test images have different classes.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise ValueError(f"root={root}: no such folder; it must be there and have {LAYOUT}")
        folders = [root / part for part in ("train", self._test_folder(root))]
        for folder in folders:
            if not folder.is_dir():
                raise ValueError(f"{root} has no folder {folder.name}; it must have {LAYOUT}")
        parts = scan(root, folders)
        train, test = (Files.whole(root, part.paths, part.labels, self.reading, part.sizes) for part in parts)
        classes, others = (tuple(part.classes) for part in parts)
        if classes != others:
            apart = [f"only {part} has {listed(sorted(here - there))}" for part, here, there in (
                ("train", set(classes), set(others)), (self._test_folder(root), set(others), set(classes)))
                if here - there]
            raise ValueError(f"{root}: training and test images must have the same classes, but {'; '.join(apart)}")
        return train, test, classes

    def _test_folder(self, root: Path) -> str:
        if self.test is not None:
            return self.test
        there = [name for name in TEST_FOLDERS if (root / name).is_dir()]
        if len(there) > 1:
            raise ValueError(f"test=None: {root} has both val and test; say which one accuracy is measured on, "
                             "test=val or test=test (validation images are split off train, with validation=0.1)")
        return there[0] if there else TEST_FOLDERS[0]


@check_arguments
@dataclass(frozen=True)
class ImageNet(FileSource):
    """ImageNet-1k (ILSVRC 2012): 1,281,167 training images and, as test set, the 50,000 labelled validation images.

    Args:
        root: folder with train/WNID/*.JPEG and val/WNID/*.JPEG, or the parent of one that is called ``imagenet``.

    Raises:
        ValueError: as every data set in files.
    """

    root: str = "data"

    def find(self) -> tuple[Files, Files, tuple[str, ...]]:
        """See `FileSource.find`.

        Raises:
            ValueError: it is missing, or has another number of classes than 1,000.
        """
        root = Path(self.root)
        root = root / "imagenet" if (root / "imagenet").is_dir() else root
        if missing := [part for part in ("train", "val") if not (root / part).is_dir()]:
            raise ValueError(f"ImageNet in {root.resolve()}: {missing[0]}/ is missing. It comes with a licence only: "
                             "put ILSVRC2012_img_train.tar (138 GiB), ILSVRC2012_img_val.tar (6.3 GiB) and "
                             "ILSVRC2012_devkit_t12.tar.gz from image-net.org into that folder, and unpack them with "
                             f"torchvision.datasets.ImageNet(FOLDER, '{missing[0]}')")
        train, test, classes = ImageFolder(**{**vars(self), "root": str(root), "test": "val"}).find()
        if len(classes) != 1000:
            raise ValueError(f"ImageNet in {root.resolve()} has {len(classes)} classes in place of 1,000; a part "
                             "of it is an image folder")
        return train, test, classes
