"""A scan of a folder of images before training: what is kept, what is passed over, what cannot be used."""

import logging
import os
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from motivation.data.sources.headers import NO_IMAGE, inspect

logger = logging.getLogger(__name__)
# Folders that systems and archives leave among a user's own; names with a dot in front are passed over too.
SYSTEM_FOLDERS = frozenset({"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN",
                            "System Volume Information"})
HIDDEN, OTHER = "hidden or of the system", "with another ending or in no class"
LINKS = "links to folders counted already"
# Names of files with one fault in a message, and classes whose images are counted one by one.
MOST_NAMED, MOST_CLASSES = 20, 20


@dataclass
class Part:
    """The images of one part, ``train`` or ``val``, in the order of torchvision's ImageFolder.

    Args:
        folder: the part's folder.
        classes: names of its folders, sorted.
        paths: of the images.
        labels: of the images, indices into the classes.
        sizes: of the images, in bytes; empty before `scan`.
        passed: why something was passed over -> paths.
    """

    folder: Path
    classes: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    passed: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def scan(root: Path, folders: Sequence[Path]) -> list[Part]:
    """Find the images of the parts of a data set. Headers are read, once for each state of a file, and no pixel.

    What is no image (hidden files and folders, other endings, other content) is passed over, and one line says so.

    Args:
        root: folder of the data set.
        folders: of its parts.

    Raises:
        ValueError: images that cannot be read, all at once, or a class without any.
    """
    parts = [find(folder) for folder in folders]
    paths = [path for part in parts for path in part.paths]
    found = inspect(root, paths)
    refuse(root, paths, {index: fault for index, fault in found.faults.items() if fault != NO_IMAGE})
    first = 0
    for part in parts:
        end = first + len(part.paths)
        kept = [index for index in range(first, end) if index not in found.faults]
        part.passed[NO_IMAGE] += [paths[index] for index in range(first, end) if index in found.faults]
        part.labels = [part.labels[index - first] for index in kept]
        part.paths, part.sizes = [paths[index] for index in kept], found.sizes[kept]
        first = end
    _log(root, parts)
    for part in parts:
        if not part.classes:
            raise ValueError(f"{part.folder}: Couldn't find any class folder")
        if empty := sorted(set(part.classes) - {part.classes[label] for label in part.labels}):
            raise ValueError(f"{part.folder}: Found no valid file for the classes {listed(empty)}; images end in "
                             f"{', '.join(endings())}")
    return parts


def refuse(root: Path, paths: Sequence[str], faults: Mapping[int, str]) -> None:
    """Raise ValueError for files that cannot be used, in one line.

    Args:
        root: the folder they are in.
        paths: of all files.
        faults: index of a file -> what is wrong with it.
    """
    names = defaultdict(list)
    for index, fault in faults.items():
        names[fault].append(os.path.relpath(paths[index], root))
    if faults:
        named = "; ".join(f"{'each of ' if len(files) > 1 else ''}{listed(files, MOST_NAMED)} {fault}"
                          for fault, files in names.items())
        raise ValueError(f"{root}: {len(faults):,} of {len(paths):,} images cannot be used: {named}; put whole files "
                         "in their place or take them out")


def endings() -> tuple[str, ...]:
    """What the names of images end in."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return IMG_EXTENSIONS


def find(folder: Path) -> Part:
    """The images of one part by name alone; folders in class folders belong to the class, and links are followed.

    Raises:
        ValueError: a folder cannot be read.
    """
    part = Part(folder)
    inside = os.path.realpath(folder)
    # Real path of every folder visited. Folders before links: so no link takes a folder's images to another class.
    seen = {inside}
    folders: deque[tuple[str, str | None]] = deque([(str(folder), None)])
    links: deque[tuple[str, str]] = deque()
    found: list[tuple[str, str, str]] = []
    wanted = endings()
    while folders or links:
        if folders:
            path, name = folders.popleft()
        else:
            path, name = links.popleft()
            real = os.path.realpath(path)
            if real in seen or os.path.commonpath([real, inside]) == real:
                part.passed[LINKS].append(path)
                continue
            seen.add(real)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                part.passed[HIDDEN].append(entry.path)
            elif entry.is_dir():
                if entry.is_symlink():
                    links.append((entry.path, name or entry.name))
                elif (real := os.path.realpath(entry.path)) in seen:
                    part.passed[LINKS].append(entry.path)
                else:
                    seen.add(real)
                    folders.append((entry.path, name or entry.name))
                if name is None:
                    part.classes.append(entry.name)
            elif name is None or not entry.name.lower().endswith(wanted):
                part.passed[OTHER].append(entry.path)
            else:
                found.append((name, path, entry.name))
    # A class that is a link to another one is no class.
    repeated = {os.path.basename(path) for path in part.passed[LINKS] if os.path.dirname(path) == str(folder)}
    part.classes = sorted(set(part.classes) - repeated)
    indices = {name: index for index, name in enumerate(part.classes)}
    found.sort()
    part.paths, part.labels = [os.path.join(*file[1:]) for file in found], [indices[file[0]] for file in found]
    return part


def _log(root: Path, parts: Sequence[Part]) -> None:
    """One line on what is passed over, if anything is, and how many images are kept."""
    passed: dict[str, list[str]] = defaultdict(list)
    for part in parts:
        for reason, paths in part.passed.items():
            passed[reason] += [os.path.relpath(path, root) for path in paths]
    reasons = [f"{len(paths):,} {'without an image in it' if reason == NO_IMAGE else reason} ({listed(paths)})"
               for reason, paths in passed.items() if paths]
    if reasons:
        logger.warning("%s: passed over %s; kept %s", root, ", ".join(reasons),
                       "; ".join(f"{part.folder.name} {_counts(part)}" for part in parts))


def _counts(part: Part) -> str:
    """Images a class: each of a few, the range of many."""
    counts = np.bincount(np.array(part.labels, np.int64), minlength=len(part.classes))
    if len(counts) > MOST_CLASSES:
        return f"{counts.sum():,} of {len(counts):,} classes, {counts.min():,} to {counts.max():,} a class"
    return f"{counts.sum():,} (" + ", ".join(f"{name} {count:,}" for name, count
                                             in zip(part.classes, counts.tolist(), strict=True)) + ")"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Some names for a message: all of a few, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
