"""What the data are, found out without decoding an image: classes, labels, and how to read them."""

import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from caecnn_jax.data.pixels import Form, Pixels
from caecnn_jax.errors import DataError

MAX_CLASSES = 1000


class Listing(NamedTuple):
    """N labelled images that nobody has decoded yet, the training images before the test images."""

    name: str  # of the data, for people
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]  # images of each class
    test_counts: tuple[int, ...]
    labels: Callable[[], np.ndarray]  # int32 [N]; CIFAR-10's are known when it has been fetched
    read: Callable[[np.ndarray, Form], Pixels]  # the images at these places, in this order
    fingerprint: list  # of what `read` would read, as JSON: by it a cache knows its entry
    shape: tuple[int, int, int] | None = None  # H, W, C where all images are arrays of one shape
    digest: str | None = None  # of the whole, in the shape that it has, where that is known
    passed_over: Mapping[str, int] = types.MappingProxyType({})  # entries, by reason
    files: Sequence[pathlib.Path] = ()  # of the N images, where each is a file

    @property
    def num_train(self) -> int:
        return sum(self.train_counts)


def of_labels(
    name: str,
    class_names: Sequence[str],
    labels: np.ndarray,
    num_train: int,
    read: Callable[[np.ndarray, Form], Pixels],
    fingerprint: list,
    **more,
) -> Listing:
    """The listing of data whose labels int [N] are at hand."""
    labels = np.asarray(labels, np.int32)
    train, test = (
        tuple(np.bincount(part, minlength=len(class_names)).tolist())
        for part in (labels[:num_train], labels[num_train:])
    )
    names = tuple(class_names)
    return Listing(name, names, train, test, lambda: labels, read, fingerprint, **more)


def mark(path: pathlib.Path, name: str) -> list:
    """What tells that a file is the same as when it was cached: `name`, its size and its time."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # it will be told among those that cannot be read
        return [name, 0, 0]
    return [name, status.st_size, status.st_mtime_ns]


def check_classes(found: Listing) -> None:
    """Raises DataError unless there are 2 to 1,000 classes, each with training images."""
    count = len(found.class_names)
    if not 2 <= count <= MAX_CLASSES:
        names = f" ({found.class_names[0]})" if count == 1 else ""
        noun = "class" if count == 1 else "classes"
        remedy = "name the folder or file that holds all of them" if count < 2 else "join some"
        raise DataError(
            f"{found.name}: has {count:,} {noun}{names}, and 2 to {MAX_CLASSES:,} can be told "
            f"apart: {remedy}"
        )
    for name, images in zip(found.class_names, found.train_counts, strict=True):
        if not images:
            raise DataError(
                f"{found.name}: class {name!r} has no training image: add some, or remove the class"
            )
