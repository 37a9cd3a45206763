"""Tests of caecnn_jax.data.cifar with 30 images that pass for CIFAR-10."""

import cifar_files
import pytest

from caecnn_jax.data import cifar
from caecnn_jax.errors import DataError


@pytest.fixture(autouse=True)
def tiny():
    with cifar_files.thirty_images() as arrays:
        yield arrays


def test_verify_accepts_the_official_arrays_and_no_flipped_bit(tiny):
    images, labels = tiny
    cifar.verify_all(images, labels, "here")
    images[25, 31, 31, 2] ^= 1
    with pytest.raises(DataError, match=r"here: the test images are not CIFAR-10's"):
        cifar.verify_all(images, labels, "here")


def test_verify_tells_counts_from_order(tiny):
    images, labels = tiny
    with pytest.raises(DataError, match="train has 19 images, CIFAR-10 has 20"):
        cifar.verify("train", images[:19], labels[:19], "here")
    swapped = labels.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    with pytest.raises(DataError, match="the train labels are not"):
        cifar.verify_all(images, swapped, "here")
    swapped[0] = swapped[1]
    with pytest.raises(DataError, match="images per class"):
        cifar.verify_all(images, swapped, "here")


def test_the_real_hashes_are_four_different_ones():
    assert set(cifar.SHA256) == {
        f"{split} {name}" for split in ("train", "test") for name in ("images", "labels")
    }
    assert len(set(cifar.SHA256.values())) == 4
