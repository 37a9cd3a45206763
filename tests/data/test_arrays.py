"""Tests of caecnn_jax.data.arrays: .npz files and folders of IDX files, good and bad."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest

from caecnn_jax.data import arrays, pixels
from caecnn_jax.errors import DataError

RNG = np.random.default_rng(0)
NATIVE = pixels.Form(8, "crop", 0)


def images(count, *shape):
    return RNG.integers(0, 256, (count, *(shape or (8, 8))), np.uint8)


def all_of(found, form=NATIVE):
    return found.read(np.arange(len(found.labels())), form).images


def test_medmnists_layout_is_read_and_validation_joins_training(tmp_path):
    parts = {name: images(n, 8, 8, 3) for name, n in (("train", 4), ("val", 2), ("test", 3))}
    labels = {"train": [[0], [1], [0], [1]], "val": [[2], [0]], "test": [[1], [1], [2]]}
    content = {f"{name}_images": value for name, value in parts.items()}
    content |= {f"{name}_labels": np.array(value, np.uint8) for name, value in labels.items()}
    np.savez_compressed(tmp_path / "pathmnist.npz", **content)
    found = arrays.open_npz(tmp_path / "pathmnist.npz")
    assert (found.name, found.class_names, found.shape) == ("pathmnist", ("0", "1", "2"), (8, 8, 3))
    assert (found.train_counts, found.test_counts) == ((3, 2, 1), (0, 2, 1))
    assert found.labels().tolist() == [0, 1, 0, 1, 2, 0, 1, 1, 2]
    np.testing.assert_array_equal(all_of(found), np.concatenate(list(parts.values())))


def test_keras_layout_of_grey_images_and_labels_with_gaps(tmp_path):
    train, test = images(3), images(2)
    labels = {"y_train": np.array([10, 2, 10]), "y_test": np.array([2, 10])}
    np.savez(tmp_path / "a.npz", x_train=train, x_test=test, **labels)
    found = arrays.open_npz(tmp_path / "a.npz")
    assert found.class_names == ("2", "10")
    assert found.labels().tolist() == [1, 0, 1, 0, 1]
    assert all_of(found).shape == (5, 8, 8, 1)
    np.savez(tmp_path / "b.npz", x_train=train, y_train=np.array(["ten", "two", "ten"]))
    found = arrays.open_npz(tmp_path / "b.npz")
    assert (found.class_names, found.test_counts) == (("ten", "two"), (0, 0))


def test_labels_of_two_types_have_the_names_of_their_numbers(tmp_path):
    labels = {"y_train": np.array([0, 10, 2], np.uint64), "y_test": np.array([2], np.int8)}
    np.savez(tmp_path / "a.npz", x_train=images(3), x_test=images(1), **labels)
    found = arrays.open_npz(tmp_path / "a.npz")
    assert found.class_names == ("0", "2", "10")  # not "0.0", as NumPy joins the two types
    assert found.labels().tolist() == [0, 2, 1, 1]


def test_arrays_of_another_size_are_resized_as_image_files_are(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=images(2, 16, 12, 3), y_train=np.array([0, 1]))
    found = arrays.open_npz(tmp_path / "a.npz")
    assert all_of(found).shape == (2, 8, 8, 3)
    assert all_of(found, pixels.Form(12, "pad", 1)).shape == (2, 12, 12, 1)


def test_rgb_arrays_that_are_all_grey_have_one_channel_as_files_have(tmp_path):
    grey = np.repeat(images(4, 8, 8, 1), 3, axis=3)
    np.savez(tmp_path / "a.npz", x_train=grey, y_train=np.array([0, 1, 0, 1]))
    found = arrays.open_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(all_of(found), grey[..., :1])
    np.testing.assert_array_equal(all_of(found, pixels.Form(8, "crop", 3)), grey)


GOOD = {"x_train": images(2), "y_train": np.array([0, 1])}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((2, 8, 8))}, "x_train: must be uint8 .* not float64"),
        ({"x_train": images(2, 8, 8, 4)}, r"x_train: must be uint8 .* not uint8 \[2, 8, 8, 4\]"),
        ({"y_train": np.array([[0, 1], [1, 0]])}, r"y_train: must be \[N\] or \[N, 1\]"),
        ({"y_train": np.array([0.0, 1.0])}, "y_train: .* not float64"),
        ({"y_train": np.array([0, 1, 1])}, "x_train has 2 images and 3 labels"),
        ({"y_train": np.array([0, {}], object)}, "without pickles"),
        ({"x_test": images(1)}, "lacks y_test"),
        ({"x_train": np.zeros((2, 0, 5), np.uint8)}, "its images have no pixels"),
        ({"x_test": images(1, 9, 9), "y_test": np.array([0])}, "different shapes"),
    ],
)
def test_a_wrong_npz_is_an_error(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **(GOOD | changes))
    with pytest.raises(DataError, match=message):
        arrays.open_npz(tmp_path / "a.npz")


def test_other_names_are_an_error_that_says_which_are_known(tmp_path):
    np.savez(tmp_path / "a.npz", data=images(2))
    with pytest.raises(DataError, match="holds data; needed are train_images"):
        arrays.open_npz(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be read as arrays without pickles"):
        arrays.open_npz(tmp_path / "a.npz")


def test_a_header_that_claims_more_than_there_is_is_refused_before_it_is_loaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in GOOD:
            header = io.BytesIO()
            fields = {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 8, 8)}
            np.lib.format.write_array_header_1_0(header, fields)
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(100))
    with pytest.raises(DataError, match="x_train should have 70368744177792 bytes by its header"):
        arrays.open_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_that_is_damaged_however_packed_is_one_sentence(tmp_path, packing):
    path, content = tmp_path / "a.npz", io.BytesIO()
    np.lib.format.write_array(content, images(50))
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name in GOOD:
            archive.writestr(f"{name}.npy", content.getvalue())
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(200) + whole[260:])
    with pytest.raises(DataError, match="cannot be read as arrays without pickles"):
        arrays.open_npz(path)


def idx(array):
    shape = array.shape
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + array.tobytes()


def idx_folder(folder, packed=True):
    """Three training and two test images, and all of them."""
    parts = {"train": (images(3), [2, 0, 1]), "t10k": (images(2), [1, 1])}
    for name, (pictures, labels) in parts.items():
        for kind, array in (("images-idx3", pictures), ("labels-idx1", np.uint8(labels))):
            data = idx(np.asarray(array))
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(data) if packed else data)
    return np.concatenate([pictures for pictures, _ in parts.values()])


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_idx_files(tmp_path, packed):
    pictures = idx_folder(tmp_path, packed)
    assert arrays.is_idx(tmp_path)
    found = arrays.open_idx(tmp_path)
    assert found.class_names == ("0", "1", "2")
    assert (found.train_counts, found.test_counts) == ((1, 1, 1), (0, 2, 0))
    assert found.labels().tolist() == [2, 0, 1, 1, 1]
    np.testing.assert_array_equal(all_of(found)[..., 0], pictures)
    (tmp_path / "labels.txt").write_text("shirt\nboot\nsneaker\n")
    assert arrays.open_idx(tmp_path).class_names == ("shirt", "boot", "sneaker")
    (tmp_path / "labels.txt").write_text("shirt\nboot\nshirt\n")
    with pytest.raises(DataError, match="names 'shirt' more than once"):
        arrays.open_idx(tmp_path)
    (tmp_path / "labels.txt").write_text("shirt\nboot\n")
    with pytest.raises(DataError, match="names 2 classes, and there is a label 2"):
        arrays.open_idx(tmp_path)


def test_a_missing_companion_is_named(tmp_path):
    idx_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks t10k-labels-idx1-ubyte\[.gz\], the test labels"):
        arrays.open_idx(tmp_path)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "should hold 192 bytes by its header, not 191"),
        (lambda data: data + b"x", "should hold 192 bytes by its header, not 193"),
        (lambda data: data[:6], "cannot be read as an IDX file"),
        (lambda data: b"\0\0\x0d\3" + data[4:], "its first bytes are not those of 3 dimensions"),
        (lambda data: data[:4] + b"\xff" * 12, "takes .* GB, and this machine has"),
    ],
)
def test_an_idx_file_must_be_as_its_header_says(tmp_path, damage, message, packed):
    data = damage(idx(images(3)))
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=message):
        arrays.read_idx(path, 3)


def test_a_damaged_gz_is_an_error(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(images(3)))[:-20])
    with pytest.raises(DataError, match="cannot be read as an IDX file"):
        arrays.read_idx(tmp_path / "a.gz", 3)
