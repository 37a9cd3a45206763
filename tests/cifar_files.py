"""Thirty images that pass for CIFAR-10, and the official files made of them."""

import contextlib
import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from caecnn_jax.data import cifar, cifar_archives
from caecnn_jax.errors import DataError

SIZES = (4, 4, 4, 4, 4, 10)  # images per batch; 20 for training, 10 for testing


@contextlib.contextmanager
def thirty_images():
    """Makes 30 random images pass for CIFAR-10; yields them."""
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar, "NUM_TRAIN", 20)
        patch.setattr(cifar, "NUM_TEST", 10)
        for split, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
            for name, array in (("images", images), ("labels", labels)):
                digest = hashlib.sha256(array[rows].tobytes()).hexdigest()
                patch.setitem(cifar.SHA256, f"{split} {name}", digest)
        yield images, labels


def batches(arrays):
    """(name, pixels [n, 3072] channels first, labels) of each official file."""
    start = 0
    for name, size in zip(cifar_archives.BATCHES, SIZES, strict=True):
        images, labels = (array[start : start + size] for array in arrays)
        yield name, images.transpose(0, 3, 1, 2).reshape(size, 3072), labels
        start += size


def binary_files(arrays):
    return {
        name + ".bin": np.hstack([labels[:, None], pixels]).tobytes()
        for name, pixels, labels in batches(arrays)
    }


def python_files(arrays, numpy_module=b"numpy.core"):
    """As NumPy 1 wrote them: protocol 2 or 3 keeps the module names as plain text."""
    return {
        name: pickle.dumps(
            {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"x"}, protocol=3
        ).replace(b"numpy._core", numpy_module)
        for name, pixels, labels in batches(arrays)
    }


def npm_files(arrays):
    files, (images, labels) = {}, arrays
    start = 0
    for name, size in zip(cifar_archives.BATCHES, SIZES, strict=True):
        png = io.BytesIO()
        picture = images[start : start + size].reshape(size, 1024, 3)
        Image.fromarray(picture).save(png, "PNG")
        files[f"package/{name}.png"] = png.getvalue()
        start += size
    files["package/train_lables.json"] = json.dumps(labels[:20].tolist()).encode()
    files["package/test_lables.json"] = json.dumps(labels[20:].tolist()).encode()
    return files


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(path, files):
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def assert_arrays_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)


def failing(message):
    """What stands in for a function that cannot give the data."""

    def fail(*args, **kwargs):
        raise DataError(message)

    return fail


def files_100(images, fine, coarse, version, num_train):
    """The official files of CIFAR-100 with these images and labels, "binary" or "python"."""
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    names = {
        f"{grain}_label_names": [f"{grain}_{k}" for k in range(labels.max() + 1)]
        for grain, labels in (("fine", fine), ("coarse", coarse))
    }
    rows = {"train": slice(0, num_train), "test": slice(num_train, None)}
    if version == "binary":
        records = np.hstack([coarse[:, None], fine[:, None], pixels]).astype(np.uint8)
        files = {f"{split}.bin": records[part].tobytes() for split, part in rows.items()}
        return files | {f"{name}.txt": "\n".join(each).encode() for name, each in names.items()}
    files = {
        split: pickle.dumps(
            {
                b"data": pixels[part],
                b"fine_labels": fine[part].tolist(),
                b"coarse_labels": coarse[part].tolist(),
            },
            protocol=3,
        )
        for split, part in rows.items()
    }
    meta = {name.encode(): [one.encode() for one in each] for name, each in names.items()}
    return files | {"meta": pickle.dumps(meta, protocol=3)}
