"""What CIFAR-10 and CIFAR-100 are: sizes, classes, and the proof that arrays are theirs."""

import hashlib
from collections.abc import Sequence

import numpy as np

from caecnn_jax.errors import DataError

NUM_TRAIN = 50_000
NUM_TEST = 10_000
NUM_CLASSES = 10
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Of the uint8 arrays in the official order, images as NHWC.
SHA256 = {
    "train images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

DIGEST = hashlib.sha256("".join(SHA256.values()).encode()).hexdigest()  # of CIFAR-10 as a whole

PARTS_100 = {"train": 50_000, "test": 10_000}
CLASSES_100 = {"fine": 100, "coarse": 20}

Arrays = tuple[np.ndarray, np.ndarray]


def verify(split: str, images: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Raises DataError unless these are exactly the "train" or "test" arrays of CIFAR-10."""
    size = {"train": NUM_TRAIN, "test": NUM_TEST}[split]
    if images.shape != (size, 32, 32, 3) or labels.shape != (size,):
        raise DataError(f"{where}: {split} has {len(labels)} images, CIFAR-10 has {size}")
    counts = np.bincount(labels, minlength=NUM_CLASSES).tolist()
    if counts != [size // NUM_CLASSES] * NUM_CLASSES:
        raise DataError(f"{where}: {split} has {counts} images per class, CIFAR-10 has equal ones")
    for name, array in (("images", images), ("labels", labels)):
        digest = hashlib.sha256(np.ascontiguousarray(array, np.uint8).data).hexdigest()
        if digest != SHA256[f"{split} {name}"]:
            raise DataError(f"{where}: the {split} {name} are not CIFAR-10's (SHA-256 {digest})")


def verify_all(images: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Raises DataError unless these are all arrays of CIFAR-10, in the official order."""
    verify("train", images[:NUM_TRAIN], labels[:NUM_TRAIN], where)
    verify("test", images[NUM_TRAIN:], labels[NUM_TRAIN:], where)


def verify_counts_100(split: str, counts: Sequence[int] | np.ndarray, where: str) -> None:
    """Raises DataError unless each fine or coarse class has as many images as in CIFAR-100."""
    each = PARTS_100[split] // len(counts)
    if len(counts) not in CLASSES_100.values() or set(counts) != {each}:
        raise DataError(
            f"{where}: {split} has {sum(counts)} images, {min(counts)} to {max(counts)} of each of "
            f"{len(counts)} classes; CIFAR-100 has {PARTS_100[split]}, of 100 classes or 20"
        )
