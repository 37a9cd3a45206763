r"""The data that a run is about: labelled images as uint8 arrays, whatever they come from.

Loading has two stages: `open_source` finds out names and labels without decoding an image, so that
a config can be checked against them at once, and `Source.read` gives the images. What took long to
read is cached.

Describes data without training:
    python -m caecnn_jax.data.dataset cifar10 | PATH | ... [--image_size 64 ...]
"""

import argparse
import dataclasses
import pathlib
import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from caecnn_jax import blocks, exits, legible, logs
from caecnn_jax import config as config_lib
from caecnn_jax.data import (
    cache,
    catalogue,
    cifar_sources,
    image_search,
    listing,
    pixels,
    requirements,
    sampling,
)
from caecnn_jax.errors import DataError

LISTED_CLASSES = 30  # in a table; more are summarised
COLUMNS = 100


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images, the training images before the test images."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], 0..K-1
    num_train: int
    class_names: tuple[str, ...]  # K
    name: str
    digest: str  # of all of the above but the name: equal where images and labels are
    notes: tuple[str, ...] = ()  # sizes seen, what was left out and why
    files: tuple[pathlib.Path, ...] = ()  # of the N images, where each is a file


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    num_train: int,
    class_names: Sequence[str],
    name: str = "arrays",
) -> Dataset:
    """The data set of arrays in memory, shaped as in `Dataset`."""
    digest = pixels.digest(images, labels, num_train, class_names)
    return Dataset(images, labels, num_train, tuple(class_names), name, digest)


def in_order(data: Dataset, class_names: Sequence[str]) -> Dataset:
    """The data with the same classes in this order, by which their labels are numbered."""
    order = tuple(class_names)
    labels = np.array([order.index(name) for name in data.class_names], np.int32)[data.labels]
    digest = pixels.digest(data.images, labels, data.num_train, order)
    return dataclasses.replace(data, labels=labels, class_names=order, digest=digest)


class Source:
    """Data whose names and labels are known, and whose images are read when asked for."""

    def __init__(self, found: listing.Listing, form: pixels.Form, test_share: float):
        self.name = found.name
        self.class_names = found.class_names
        self.train_counts, self.test_counts = found.train_counts, found.test_counts
        self.num_train = found.num_train
        self._listing, self._form = found, form
        self._order: np.ndarray | None = None  # None: the listing's own
        listing.check_classes(found)
        if not sum(found.test_counts):
            self._hold_out(test_share)

    def _hold_out(self, share: float) -> None:
        labels = self._listing.labels()
        try:
            test = sampling.hold_out(labels, share)
        except ValueError:
            scarce = self.class_names[int(np.argmin(self.train_counts))]
            raise DataError(
                f"{self.name}: class {scarce!r} has one image; it needs two, since a test part is "
                "held out: add one, or remove the class"
            ) from None
        train = np.setdiff1d(np.arange(len(labels)), test)
        self._order = np.concatenate([train, test])
        self.num_train = len(train)
        self.train_counts, self.test_counts = (
            tuple(np.bincount(labels[part], minlength=len(self.class_names)).tolist())
            for part in (train, test)
        )

    @property
    def labels(self) -> np.ndarray:
        """int32 [N] of all images, the training part first; CIFAR-10 may be fetched for them."""
        labels = self._listing.labels()
        return labels if self._order is None else labels[self._order]

    def read(self) -> Dataset:
        """Reads the images, from the cache if they are there; raises DataError."""
        labels = self.labels
        found, form = self._listing, self._form
        order = np.arange(len(labels)) if self._order is None else self._order
        is_whole = found.shape is not None and pixels.is_formed(found.shape, form)
        read: pixels.Pixels | None
        if is_whole:  # nothing is decoded or resized: a cache would only be a copy
            read = found.read(order, form)
        else:
            key = cache.key(found.fingerprint, order, form)
            read = cache.load(key)
            if read is None:
                read = found.read(order, form)
                if read.is_lasting:
                    cache.save(key, read)
        labels = labels[read.kept]
        num_train = int(np.searchsorted(read.kept, self.num_train))
        digest = found.digest if is_whole and found.digest else None
        notes = read.notes
        if found.passed_over:
            notes += (f"passed over: {image_search.in_words(found.passed_over)}",)
        if self._order is not None:
            notes += ("no test part: a share of each class is held out (config.test_share)",)
        test_labels = labels[num_train:]
        if len(test_labels) and (untested := {*range(len(self.class_names))} - {*test_labels}):
            names = [self.class_names[label] for label in sorted(untested)]
            notes += (f"no test image of {pixels.first(names)}",)
        data = Dataset(
            read.images,
            labels,
            num_train,
            self.class_names,
            self.name,
            digest or pixels.digest(read.images, labels, num_train, self.class_names),
            notes,
            tuple(found.files[place] for place in order[read.kept]) if found.files else (),
        )
        requirements.check_train_part(data.name, data.class_names, counts(data)[0])
        if not digest and (twice := pixels.shared(data.images, data.num_train)):
            logging.warning("%s: %s", data.name, _shared_in_words(twice, data))
        return data


def _shared_in_words(count: int, data: Dataset) -> str:
    tests = len(data.labels) - data.num_train
    return f"{count:,} of {tests:,} test images are among the training images too, pixel by pixel"


# --- Which data a config names --------------------------------------------------------------------


def form_of(config: ml_collections.ConfigDict) -> pixels.Form:
    """What the config's images are made into, which is what its networks take."""
    return pixels.Form(config.image_size, config.fit, blocks.image_channels(config))


def open_source(config: ml_collections.ConfigDict) -> Source:
    """Finds the data of config.dataset; raises DataError where there are none to be had."""
    return Source(catalogue.find(config), form_of(config), config.test_share)


def open_at_hand(config: ml_collections.ConfigDict, places: Sequence[str]) -> Source:
    """As `open_source`, of what lies in one of the places; see `catalogue.at_hand`."""
    is_placed = catalogue.uses_data_dir(config)
    return open_source(catalogue.at_hand(config, places) if is_placed else config)


def open_checked(config: ml_collections.ConfigDict) -> Source:
    """The data of config.dataset, which the config agrees with, before an image is decoded.

    Raises DataError, or ConfigError where the config names other classes or asks for more images
    than these data have.
    """
    source = open_source(config)
    requirements.check(config, source.class_names, source.train_counts, source.test_counts)
    return source


def read_checked(source: Source, config: ml_collections.ConfigDict) -> Dataset:
    """The images of `open_checked`, with which the config still agrees; raises the same errors."""
    data = source.read()  # without what cannot be read
    requirements.check(config, data.class_names, *counts(data))
    return data


def load(config: ml_collections.ConfigDict) -> Dataset:
    """The data of config.dataset; raises the errors of `open_checked`."""
    return read_checked(open_checked(config), config)


def counts(data: Dataset) -> tuple[list[int], list[int]]:
    """The training and the test images of each class."""
    train, test = (
        np.bincount(part, minlength=len(data.class_names)).tolist()
        for part in (data.labels[: data.num_train], data.labels[data.num_train :])
    )
    return train, test


# --- The command ----------------------------------------------------------------------------------


OPTIONS = ("image_size", "fit", "channels", "test_share", "data_source", "data_dir")


def table(data: Dataset) -> list[str]:
    """Classes, images of each class and part, sizes seen and what was left out, in lines."""
    train, test = counts(data)
    rows: list[tuple[str, Any, Any]] = list(zip(data.class_names, train, test, strict=True))
    size = (
        "x".join(map(str, data.images.shape[1:3])) + ("", " grey", "", " RGB")[data.images.shape[3]]
    )
    title = f"{data.name}: {len(data.labels):,} images of {len(rows)} classes, {size}"
    if len(rows) > LISTED_CLASSES:
        rows.sort(key=lambda row: (-row[1], row[0]))
        half = LISTED_CLASSES // 6
        between = (f"... {len(rows) - 2 * half} classes between ...", "", "")
        rows = [*rows[:half], between, *rows[-half:]]
    rows = [("class", "train", "test"), *rows, ("all", sum(train), sum(test))]
    width = min(max(len(name) for name, *_ in rows), COLUMNS - 24)
    lines = [textwrap.shorten(title, COLUMNS, placeholder=" ...")]
    for name, *numbers in rows:
        cells = (f"{number:,}" if isinstance(number, int) else number for number in numbers)
        short = legible.short(name, width)
        lines.append(f"  {short:{width}}" + "".join(f" {cell:>10}" for cell in cells))
    for note in data.notes:
        lines += textwrap.wrap(note, COLUMNS, initial_indent="  ", subsequent_indent="    ")
    return [legible.printable(line) for line in lines]


def main() -> None:
    """Reads the data, prints what they are and how to train on them."""
    from configs import own_images  # the program's own are found once __main__ has said where

    config = own_images.get_config()  # whose networks take any number of channels
    parser = argparse.ArgumentParser(
        prog="python -m caecnn_jax.data.dataset",
        description="Describes data without training, and prepares CIFAR-10 where it is not yet.",
    )
    parser.add_argument("dataset", nargs="?", default=config.dataset, help="as config.dataset")
    for name in OPTIONS:
        value = config[name]
        parser.add_argument(
            f"--{name}", default=value, type=type(value), help=f"as config.{name}, {value!r}"
        )
    args = parser.parse_args()
    logs.to_console("INFO")
    config.update(vars(args))
    config_lib.check_schema(config.to_dict())
    data = open_source(config).read()
    print("\n".join([*table(data), *_advice(config, data)]), flush=True)


def _advice(config: ml_collections.ConfigDict, data: Dataset) -> list[str]:
    """Where CIFAR-10 lies; of other data, what is in both parts and the command that trains."""
    from configs import own_images

    if config.dataset == "cifar10":
        folder = cifar_sources.prepared_folder(config.data_source, config.data_dir or None)
        return [f"CIFAR-10 ({len(data.images):,} images) is ready in {folder}"]
    training = own_images.get_config()
    changed = {name: config[name] for name in OPTIONS if config[name] != training[name]}
    fields = {"dataset": config.dataset} | changed
    shared = f"  {_shared_in_words(pixels.shared(data.images, data.num_train), data)}"
    training.update(fields)
    if (least := min(counts(data)[0])) < training.num_folds:
        fields |= {"num_folds": least} if least > 1 else {"do_cv": False}
        training.update(fields)
    try:
        config_lib.validate(training)
        requirements.check(training, data.class_names, *counts(data))
    except config_lib.ConfigError as error:
        return [shared, f"configs/own_images.py cannot train on them so: {error}"]
    words = ["python main.py --config configs/own_images.py"]
    words += [shlex.quote(f"--config.{name}={value}") for name, value in fields.items()]
    workdir = shlex.quote(f"runs/{pathlib.PurePath(data.name.replace(':', '_')).name}")
    return [
        shared,
        "To train on them:",
        f"  {' '.join(words)} --workdir {workdir}",
    ]


if __name__ == "__main__":
    # Another package `configs` on the user's path must not win.
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    with exits.known_ends():
        main()
