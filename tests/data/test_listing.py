"""Tests of caecnn_jax.data.listing."""

import os
import pathlib

import image_folders
import numpy as np
import pytest
from image_folders import config_of

from caecnn_jax.data import dataset, listing
from caecnn_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("alone")


def listing_of(names, labels, num_train, **more):
    return listing.of_labels("pets", names, labels, num_train, None, ["pets"], **more)


def test_labels_are_counted_by_part_and_class():
    found = listing_of(["cat", "dog", "emu"], [0, 1, 0, 0, 2, 1, 1], 4, digest="d")
    assert (found.train_counts, found.test_counts) == ((3, 1, 0), (0, 2, 1))
    assert found.num_train == 4
    assert found.labels().tolist() == [0, 1, 0, 0, 2, 1, 1] and found.labels().dtype == np.int32
    assert (found.class_names, found.digest, found.shape) == (("cat", "dog", "emu"), "d", None)
    assert listing_of(["cat", "dog"], [0, 1], 2).test_counts == (0, 0)  # no test part


def test_a_mark_changes_with_a_files_name_size_and_time(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    os.utime(path, ns=(7, 3_000_000_001))
    assert listing.mark(path, "a.png") == ["a.png", 5, 3_000_000_001]
    os.utime(path, ns=(8, 3_000_000_001))  # reading it is no change
    assert listing.mark(path, "b.png") == ["b.png", 5, 3_000_000_001]


@pytest.mark.parametrize("path", ["nothing", "a\0b", "x" * 300])
def test_the_mark_of_what_cannot_be_looked_at_is_zero(tmp_path, path):
    assert listing.mark(tmp_path / pathlib.Path(path), "a.png") == ["a.png", 0, 0]


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "pets: has 0 classes, and 2 to 1,000 can be told apart: name the folder or file that"),
        (1, r"pets: has 1 class \(class 0\), and 2 to 1,000 can be told apart: name the folder"),
        (1001, "pets: has 1,001 classes, and 2 to 1,000 can be told apart: join some"),
    ],
)
def test_too_few_or_too_many_classes_are_an_error(count, message):
    names = [f"class {k}" for k in range(count)]
    with pytest.raises(DataError, match=message):
        listing.check_classes(listing_of(names, np.arange(count), count))


@pytest.mark.parametrize("count", [2, 1000])
def test_as_many_classes_as_can_be_told_apart_each_need_a_training_image(count):
    names = [f"class {k}" for k in range(count)]
    assert listing.check_classes(listing_of(names, np.arange(count), count)) is None
    last = f"class 'class {count - 1}' has no training image: add some, or remove the class"
    with pytest.raises(DataError, match=last):
        listing.check_classes(listing_of(names, np.arange(count), count - 1))


def test_one_class_is_not_enough(tmp_path):
    image_folders.plain(tmp_path / "data", classes=("cat",))
    with pytest.raises(DataError, match=r"has 1 class \(cat\), and 2 to 1,000"):
        dataset.load(config_of(tmp_path / "data"))


def test_a_class_that_only_tests_is_an_error(tmp_path):
    image_folders.plain(tmp_path / "data" / "train")
    image_folders.plain(tmp_path / "data" / "test", classes=("cat", "dog", "emu"))
    with pytest.raises(DataError, match="class 'emu' has no training image"):
        dataset.load(config_of(tmp_path / "data"))
