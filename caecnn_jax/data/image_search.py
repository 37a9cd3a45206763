"""Which image files there are below a folder, or where paths and globs point, in natural order."""

import collections
import glob
import os
import pathlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from caecnn_jax.data import image_files

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif",
)  # fmt: skip
# What operating systems and storage servers leave in folders, in lower case.
SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin")
RUN_FILES = ("config.json", "history.jsonl")  # what a folder that was trained in has

HIDDEN = "hidden (the name begins with a dot)"
SYSTEM = "left by a system (Thumbs.db and the like)"
NO_IMAGE = "no image by name"
NOWHERE = "links to nowhere"
LOOP = "links back to a folder already read"
RUN = "folders of runs, whose pictures are no data"
PREDICTED = "reconstructions that predict wrote"
CLOSED = "folders that may not be opened"


class Found(NamedTuple):
    """The image files that a search came upon, and how many entries it passed over, by reason."""

    paths: list[pathlib.Path]
    passed_over: collections.Counter[str]


def natural_key(name: str) -> tuple:
    """Sorts names as people do: 2 before 10, upper and lower case together.

    However a file system composes umlauts, for the order decides the data's digest.
    """
    composed = unicodedata.normalize("NFC", name)
    parts = re.split(r"(\d+)", composed.casefold())
    ordered = tuple(_number(part) if index % 2 else part for index, part in enumerate(parts))
    return ordered, composed, name


def _number(digits: str) -> tuple[int, int]:
    """Sorts digits as their number; Python makes none of more than 4,300 of them."""
    return max(0, len(digits.lstrip("0")) - 4000), int(digits[:4000])


def walk(folder: pathlib.Path) -> Found:
    """The image files in a folder and all below it; links are followed, each folder read once.

    A link to a folder that is above, or was read already, is passed over: so a loop ends.
    """
    found = Found([], collections.Counter())
    above = {*folder.absolute().parents, *folder.resolve().parents, folder.resolve()}
    _walk(folder, {_identity(path) for path in above}, found)
    return found


def _walk(folder: pathlib.Path, seen: set[tuple[int, int]], found: Found) -> None:
    for path in entries(folder, found.passed_over):
        if not path.is_dir():
            if path.suffix.lower() in SUFFIXES:
                found.paths.append(path)
            else:
                found.passed_over[NO_IMAGE] += 1
        elif _identity(path) in seen:
            found.passed_over[LOOP] += 1
        else:
            seen.add(_identity(path))
            _walk(path, seen, found)


def entries(folder: pathlib.Path, passed_over: collections.Counter[str]) -> list[pathlib.Path]:
    """What a folder holds, in natural order, without what `passed_over` counts."""
    try:
        names = sorted(os.listdir(folder), key=natural_key)
    except PermissionError:
        passed_over[CLOSED] += 1
        return []
    kept = []
    for name in names:
        if name.startswith("."):
            passed_over[HIDDEN] += 1
        elif name.lower() in SYSTEM_NAMES:
            passed_over[SYSTEM] += 1
        elif not os.path.exists(folder / name):  # false too for a link to itself
            passed_over[NOWHERE] += 1
        elif all(os.path.isfile(folder / name / file) for file in RUN_FILES):
            passed_over[RUN] += 1
        else:
            kept.append(folder / name)
    return kept


def _identity(path: pathlib.Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def find(names: Sequence[str]) -> Found:
    """The image files that these paths, folders (searched with all below them) and globs name.

    A path that is none of these stays in the list, for `image_files.read` to say what is wrong with
    it. Raises ImageError when there is nothing to read.
    """
    paths: list[pathlib.Path] = []
    passed_over: collections.Counter[str] = collections.Counter()
    for name in names:
        given = pathlib.Path(os.path.expanduser(name))  # which leaves ~$cat.jpg, a name, as it is
        matches: list[Any] = [] if given.exists() else glob.glob(str(given), recursive=True)
        matches.sort(key=natural_key)
        for path in map(pathlib.Path, matches or [given]):
            below = walk(path) if path.is_dir() else Found([path], collections.Counter())
            passed_over += below.passed_over
            for file in below.paths:
                if file != given and _is_predicted(file):
                    passed_over[PREDICTED] += 1
                else:
                    paths.append(file)
    unique = list(dict.fromkeys(paths))
    if not any(path.exists() for path in unique):
        problem = f"={' '.join(names)}: no image is there" if names else " is missing"
        if passed_over:
            problem += f" ({in_words(passed_over)} passed over)"
        raise image_files.ImageError(
            f"--images{problem}: give PNG, JPEG, WebP, BMP, TIFF or GIF files, folders or globs"
        )
    return Found(unique, passed_over)


def _is_predicted(path: pathlib.Path) -> bool:
    """Whether predict wrote it as a reconstruction, by its name and place beside predictions."""
    folder = path.parent
    is_named_so = folder.name == "reconstructions" and re.match(r"\d{4,}-.*\.png$", path.name)
    return bool(is_named_so) and (folder.parent / "predictions.json").is_file()


def in_words(passed_over: Mapping[str, int]) -> str:
    """Such as "3 hidden (the name begins with a dot), 1 no image by name"."""
    return ", ".join(f"{count} {reason}" for reason, count in passed_over.items())
