"""Labelled image files: a folder with a folder for each class, or a CSV file that lists them.

    CLASS/*.jpg ...                     the test part is held out
    train/CLASS/...  test/CLASS/...     val/ joins train/: cross-validation makes its own
    FILE.csv                            columns file, label and, if wanted, split

Folders are read as torchvision's ImageFolder and Keras read them.
"""

import collections
import csv
import os
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from caecnn_jax.data import image_files, listing, pixels
from caecnn_jax.data.image_search import LOOP, NO_IMAGE, SUFFIXES, entries, natural_key, walk
from caecnn_jax.errors import DataError

TRAIN, VALID, TEST = "train", "valid", "test"
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALID,
    "valid": VALID,
    "validation": VALID,
    "test": TEST,
    "testing": TEST,
}  # of folders, and in a CSV's column, in any case
OUTSIDE = "images in no class folder"
BESIDE = "folders beside train"
EMPTY = "folders without images"


class Item(NamedTuple):
    """An image file with its class."""

    path: pathlib.Path
    label: str
    part: str  # TRAIN or TEST


def open_folder(folder: pathlib.Path) -> listing.Listing:
    """The listing of a folder; files and classes are in natural order."""
    passed_over: collections.Counter[str] = collections.Counter()
    items = []
    for part, root in _parts(folder, passed_over):
        found = _classes(root, part, passed_over)
        if not found:
            raise DataError(f"{root}: holds no class folders with images: make CLASS/IMAGE there")
        items += found
    return _listing(folder.resolve().name, folder, items, passed_over)


def _parts(
    folder: pathlib.Path, passed_over: collections.Counter[str]
) -> list[tuple[str, pathlib.Path]]:
    """The folders of classes, each with the part that its images belong to, TRAIN or TEST."""
    ignored: collections.Counter[str] = collections.Counter()
    inside = entries(folder, ignored)
    folders = [path for path in inside if path.is_dir()]
    named = [(SPLIT_NAMES[path.name.lower()], path) for path in folders if _names_split(path)]
    trains = [path for split, path in named if split == TRAIN]
    if any(_holds_folders(path) for path in trains):
        beside = [path for path in folders if not _names_split(path)]
        if len(named) == len(trains) and (full := [path for path in beside if walk(path).paths]):
            names = ", ".join(path.name for path in full[:5])
            raise DataError(
                f"{folder}: is {trains[0].name} the training part, or a class as {names} may be? "
                "Move them into it, add a test folder, or rename it"
            )
        _pass_over_files(inside, passed_over)
        passed_over += ignored
        passed_over[BESIDE] += len(beside)
        return [(TEST if split == TEST else TRAIN, path) for split, path in named]
    if any(split != TRAIN for split, _ in named) or (trains and len(folders) == 1):
        names = ", ".join(path.name for _, path in named)
        raise DataError(
            f"{folder}: has {names} but no train folder with a folder for each class: add "
            "train/CLASS/, or rename what is a class"
        )
    return [(TRAIN, folder)]


def _names_split(path: pathlib.Path) -> bool:
    return path.name.lower() in SPLIT_NAMES


def _holds_folders(path: pathlib.Path) -> bool:
    return any(inside.is_dir() for inside in entries(path, collections.Counter()))


def _pass_over_files(inside: Sequence[pathlib.Path], passed_over: collections.Counter[str]) -> None:
    for path in inside:
        if path.is_file():
            passed_over[OUTSIDE if path.suffix.lower() in SUFFIXES else NO_IMAGE] += 1


def _classes(root: pathlib.Path, part: str, passed_over: collections.Counter[str]) -> list[Item]:
    """The images below each folder in `root`, which is their class."""
    inside = entries(root, passed_over)
    _pass_over_files(inside, passed_over)
    items, place = [], root.resolve()
    for path in inside:
        if path.is_dir() and place.is_relative_to(path.resolve()):
            passed_over[LOOP] += 1  # as a class it would hold the images of all
        elif path.is_dir():
            found = walk(path)
            passed_over += found.passed_over
            passed_over[EMPTY] += not found.paths
            items += [Item(file, _as_text(path.name), part) for file in found.paths]
    return items


def _as_text(name: str) -> str:
    """A name that compares equal however a system composes umlauts, and can be printed."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def open_csv(path: pathlib.Path) -> listing.Listing:
    """The listing of a CSV file with columns file, label[, split]; files are relative to it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
            missing = [name for name in ("file", "label") if name not in columns]
            if missing:
                raise DataError(
                    f"{path}: its first line must name the columns file,label or file,label,split, "
                    f"with commas between; it lacks {' and '.join(missing)}"
                )
            items = [_item(path, rows.line_num, row, columns) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    places = collections.Counter(os.path.normpath(item.path) for item in items)
    twice = [place for place, count in places.items() if count > 1]
    if twice:
        raise DataError(f"{path}: lists {twice[0]} more than once: an image has one class")
    items.sort(key=lambda item: item.part == TEST)  # stable: else as in the file
    return _listing(path.stem, path, items, collections.Counter())


def _item(path: pathlib.Path, line: int, row: dict, columns: dict[str, str]) -> Item:
    values = {name: (row[column] or "").strip() for name, column in columns.items() if name}
    empty = [name for name in ("file", "label") if not values[name]]
    if empty:
        raise DataError(f"{path}: line {line} has no {' and no '.join(empty)}")
    split = SPLIT_NAMES.get(values.get("split", TRAIN).lower())
    if split is None:
        raise DataError(
            f"{path}: line {line} has the split {values['split']!r}: must be train, valid or test"
        )
    label = unicodedata.normalize("NFC", values["label"])
    return Item(path.parent / values["file"], label, TEST if split == TEST else TRAIN)


def _listing(
    name: str, place: pathlib.Path, items: list[Item], passed_over: collections.Counter[str]
) -> listing.Listing:
    """The listing of the files in a folder, or that a CSV file names, those for training first."""
    root = place if place.is_dir() else place.parent
    items = sorted(items, key=lambda item: item.part == TEST)  # val/ comes after test/
    class_names = sorted({item.label for item in items}, key=natural_key)
    numbers = {label: number for number, label in enumerate(class_names)}
    paths = [item.path for item in items]

    def read(order: np.ndarray, form: pixels.Form) -> pixels.Pixels:
        results = image_files.read_each(
            [paths[index] for index in order], form.size, fit=form.fit, channels=form.channels or 3
        )
        return pixels.collect(enumerate(results), len(order), form, str(place))

    return listing.of_labels(
        name,
        class_names,
        np.array([numbers[item.label] for item in items], np.int32),
        sum(item.part == TRAIN for item in items),
        read,
        [listing.mark(path, os.path.relpath(path, root)) for path in paths],
        passed_over=+passed_over,
        files=paths,
    )
