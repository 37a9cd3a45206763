"""Images of any shape made alike: uint8 [N, size, size, channels], with a note of what was met."""

import collections
import hashlib
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from caecnn_jax.data import image_files, progress
from caecnn_jax.errors import DataError

NAMED = 3  # of the files that cannot be read, so many are named


class Form(NamedTuple):
    """What images are made into: `dataset.form_of` a config."""

    size: int  # pixels, height and width
    fit: str  # crop | pad | stretch
    channels: int  # 1 grey, 3 RGB, 0: grey if every image is, else RGB


# What reading a .npz raises that is cut short, altered, encrypted or full of pickles.
NPZ_DAMAGE = (
    OSError,
    ValueError,
    TypeError,  # a .npy in its place
    LookupError,
    EOFError,
    MemoryError,  # a header that claims more
    RuntimeError,  # encrypted, or packed in an unknown way
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


class Pixels(NamedTuple):
    """What became of N images."""

    images: np.ndarray  # uint8 [M, size, size, channels], those that can be read
    kept: np.ndarray  # int64 [M], which of the N these are, rising
    notes: tuple[str, ...]  # sizes seen, and what was left out and why
    is_lasting: bool = True  # False where a file could not be reached, as it may be next time


def collect(
    results: Iterable[tuple[int, image_files.Picture | image_files.ImageError]],
    count: int,
    form: Form,
    what: str,
) -> Pixels:
    """Gathers `count` images that arrive with their number, in any order.

    `what` is what is read, for the progress bar and for errors. Raises DataError where more than
    one in a hundred (of few: more than one) cannot be read, or where all would exceed the memory.
    """
    check_memory(count, form, what)
    channels = form.channels or 3
    images = np.zeros((count, form.size, form.size, channels), np.uint8)
    readable = np.zeros(count, bool)
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    unreadable: list[str] = []
    num_dim = 0
    all_grey, is_lasting = form.channels == 0, True
    with progress.shown(f"Reading {what}", count, "images") as update:
        for index, result in results:
            update(1)
            if isinstance(result, image_files.ImageError):
                unreadable.append(str(result))
                is_lasting = is_lasting and not isinstance(result, image_files.UnreachableError)
                _check_unreadable(unreadable, count, what)
                continue
            images[index], readable[index] = result.pixels, True
            sizes[result.width, result.height] += 1
            num_dim += result.is_dim
            all_grey = all_grey and is_grey(images[index])
    if all_grey:
        images = images[..., :1].copy()
    kept = np.flatnonzero(readable)
    notes: tuple[str, ...] = (_sizes_in_words(sizes),)
    if num_dim:
        notes += (f"{num_dim} use 12 of their 16 bits at most, nearly black: scale them first",)
    if unreadable:
        notes += (f"{len(unreadable)} cannot be read and are left out: {first(unreadable)}",)
    return Pixels(images if len(kept) == count else images[kept], kept, notes, is_lasting)


def is_grey(pixels: np.ndarray) -> bool:
    """Whether the channels of uint8 [..., channels] are the same everywhere."""
    return bool((pixels == pixels[..., :1]).all())


def from_array(images: np.ndarray, order: np.ndarray, form: Form, what: str) -> Pixels:
    """The images of uint8 [N, H, W, 1 or 3] at `order`, resized as image files are, if need be."""
    _, height, width, channels = images.shape
    notes = (_sizes_in_words({(width, height): len(order)}),)
    if is_formed(images.shape[1:], form):
        in_place = np.array_equal(order, np.arange(len(images)))
        return Pixels(images if in_place else images[order], np.arange(len(order)), notes)

    def fit(item: tuple[int, int]) -> tuple[int, image_files.Picture]:
        place, index = item
        image = Image.fromarray(images[index, ..., 0] if channels == 1 else images[index])
        form_channels = form.channels or channels
        pixels = image_files.fitted(image, form.size, fit=form.fit, channels=form_channels)
        return place, image_files.Picture(None, pixels, width, height)

    results = image_files.on_all_cores(fit, enumerate(order))
    return collect(results, len(order), form._replace(channels=form.channels or channels), what)


def is_formed(shape: tuple[int, int, int], form: Form) -> bool:
    """Whether images of this shape (H, W, C) are left as they are."""
    return shape == (form.size, form.size, form.channels or shape[2])


def check_memory(count: int, form: Form, what: str) -> None:
    """Raises DataError where so many images are more than this machine's memory."""
    try:
        check_bytes(count * form.size**2 * (form.channels or 3), what)
    except DataError as error:
        raise DataError(
            f"{error}, for {count:,} images of {form.size}x{form.size} pixels: lower "
            "config.image_size, set config.channels=1 or leave images out"
        ) from error


def check_bytes(needed: int, what: str) -> None:
    """Raises DataError where `needed` bytes are more than this machine's memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # only some systems tell
        return
    if needed > memory:
        raise DataError(
            f"{what}: takes {needed / 1e9:,.1f} GB, and this machine has {memory / 1e9:,.1f} GB of "
            "memory"
        )


def _check_unreadable(unreadable: list[str], count: int, what: str) -> None:
    if len(unreadable) > max(1, count / 100):
        raise DataError(
            f"{what}: more than one in a hundred of its {count:,} images cannot be read: "
            f"{first(unreadable)}; mend or remove them"
        )


def first(reasons: list[str]) -> str:
    """The first of them in words, and how many more there are."""
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return "; ".join(reasons[:NAMED]) + more


def _sizes_in_words(sizes) -> str:
    if not sizes:
        return "no image"
    smallest, *_, largest = sorted(2 * list(sizes), key=lambda size: (size[0] * size[1], size))
    if smallest == largest:
        return f"all are of {smallest[0]}x{smallest[1]} pixels"
    width, height = max(sizes, key=lambda size: sizes[size])
    return (
        f"{len(sizes):,} sizes, from {smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]} "
        f"pixels; the most frequent is {width}x{height}"
    )


def statistics(
    images: np.ndarray, indices: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale 0..1, of the images at `indices`.

    From the counts of the 256 levels, so that neither order nor number costs precision. A channel
    of one level has the deviation 1, by which it can be divided.
    """
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[3], 256), np.int64)
    for start in range(0, len(indices), 1024):  # no copy of all images
        some = images[indices[start : start + 1024]]
        counts += [np.bincount(some[..., c].ravel(), minlength=256) for c in range(len(counts))]
    mean = counts @ levels / counts.sum(axis=1)
    variance = [
        row @ (levels - centre) ** 2 / row.sum() for row, centre in zip(counts, mean, strict=True)
    ]
    std = np.sqrt(variance)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def shared(images: np.ndarray, num_train: int) -> int:
    """How many test images are identical, as they were resized, to a training image."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    train = set(digests[:num_train])
    return sum(digest in train for digest in digests[num_train:])


def digest(
    images: np.ndarray, labels: np.ndarray, num_train: int, class_names: Sequence[str]
) -> str:
    """SHA-256 of images, labels, classes and the number of training images."""
    about = json.dumps([images.shape, num_train, class_names])
    found = hashlib.sha256(about.encode())
    found.update(np.ascontiguousarray(images).data)
    found.update(np.ascontiguousarray(labels, np.int32).data)
    return found.hexdigest()
