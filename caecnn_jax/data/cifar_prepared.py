"""CIFAR-10 as the TFDS dataset cifar10/3.0.2 in array_record files, and the cache beside it.

Decoding its 60,000 PNGs takes seconds, so the decoded arrays are cached; reading that cache checks
every byte, and imports neither TFDS nor anything else that is slow.
"""

import contextlib
import io
import os
import pathlib
from typing import BinaryIO

import numpy as np
from absl import logging

from caecnn_jax.data import cache, cifar, prepared, progress
from caecnn_jax.data.cifar import Arrays
from caecnn_jax.errors import DataError

VERSION_DIR = pathlib.Path("cifar10", "3.0.2")  # TFDS's name and version, below its data_dir


def check_can_write(folder: pathlib.Path) -> None:
    """Finds out before a download, not after it, that the prepared data would have no place."""
    if folder.exists():
        fault = f"{folder}: is no complete TFDS dataset; delete that folder"
    elif not cache.is_writable(folder):
        fault = f"{folder}: is not prepared and cannot be written; allow writing there"
    else:
        return
    raise DataError(f"{fault}, or set data_dir to another one")


def write(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes the arrays as the TFDS dataset cifar10/3.0.2, without TensorFlow."""
    import tensorflow_datasets as tfds
    from PIL import Image
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    class Cifar10(tfds_cifar.Cifar10, skip_registration=True):  # type: ignore[call-arg]  # no types
        """TFDS's own builder, except that it encodes the PNGs itself: TFDS would do it with TF."""

        name = "cifar10"

        def _split_generators(self, dl_manager):
            self.info.features["label"].names = cifar.CLASS_NAMES
            num_train = cifar.NUM_TRAIN
            return {
                "train": self._generate_examples("train", range(num_train)),
                "test": self._generate_examples("test", range(num_train, len(images))),
            }

        def _generate_examples(self, split, rows):
            for index, row in enumerate(rows):
                png = io.BytesIO()
                Image.fromarray(images[row]).save(png, "PNG")
                png.seek(0)
                update(1)
                yield index, {"id": f"{split}_{index:05d}", "image": png, "label": labels[row]}

    tfds.disable_progress_bar()
    try:
        with (
            progress.shown("Preparing CIFAR-10", len(images), "images") as update,
            contextlib.redirect_stdout(io.StringIO()),  # TFDS prints sizes that it does not know
        ):
            builder = Cifar10(data_dir=os.fspath(folder.parent.parent))
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    except (OSError, RuntimeError) as error:  # a full disk is TFDS's RuntimeError
        if not prepared.is_prepared(folder):  # else another process was faster, with the same data
            raise DataError(
                f"{folder}: cannot be written ({error}); set data_dir to a folder with 500 MB"
            ) from error


def read(folder: pathlib.Path) -> Arrays:
    """Decodes the prepared dataset, whose records TFDS shuffles, into the official order."""
    remedy = f"delete {folder} to have it prepared again, or set data_dir to another folder"
    info = prepared.read_info(folder)
    size = cifar.NUM_TRAIN + cifar.NUM_TEST
    images, labels = np.zeros((size, 32, 32, 3), np.uint8), np.zeros(size, np.uint8)
    train, test = slice(0, cifar.NUM_TRAIN), slice(cifar.NUM_TRAIN, size)
    with progress.shown("Decoding CIFAR-10", size, "images") as update:
        for split, rows in (("train", train), ("test", test)):
            shards = info.splits[split].filepaths
            names = ", ".join(map(os.fspath, shards))
            try:
                for example in prepared.examples(shards, info.features):
                    _put(example, images[rows], labels[rows])
                    update(1)
                cifar.verify(split, images[rows], labels[rows], names)
            except (
                ValueError,
                LookupError,
                OSError,
                SyntaxError,
            ) as error:  # Pillow's, too
                raise DataError(f"{names}: cannot be read ({error}); {remedy}") from error
            except DataError as error:
                raise DataError(f"{error}; {remedy}") from error
    return images, labels


def _put(example: dict, images: np.ndarray, labels: np.ndarray) -> None:
    """Puts a record's image and label where its id says."""
    from PIL import Image

    index = int(example["id"].decode().rpartition("_")[2])  # train_00001
    with Image.open(io.BytesIO(example["image"]), formats=["PNG"]) as picture:
        images[index] = np.asarray(picture)
    labels[index] = example["label"]


def _cache_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The cache beside the prepared dataset, and the one for where that cannot be written."""
    # Raw bytes, images before labels: a header would be one more thing that can be corrupt.
    files = [folder / "caecnn_cache" / "cifar10.bin"]
    user = cache.user_folder()
    return [*files, user / "cifar10.bin"] if user else files


def read_cache(folder: pathlib.Path) -> Arrays | None:
    """The arrays of the first good cache; None if there is none."""
    size = cifar.NUM_TRAIN + cifar.NUM_TEST
    for path in _cache_files(folder):
        try:
            data = np.fromfile(path, np.uint8)
            images, labels = data[: size * 3072].reshape(size, 32, 32, 3), data[size * 3072 :]
            cifar.verify_all(images, labels, "its content")
            return images, labels
        except FileNotFoundError:
            pass
        except (OSError, ValueError, DataError) as error:
            logging.warning("Rebuilding the cache of decoded images %s (%s)", path, error)
    return None


def write_cache(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes the first cache that can be written; without one, goes on."""

    def write(file: BinaryIO) -> None:
        images.tofile(file)
        labels.tofile(file)

    if not cache.write_first(_cache_files(folder), write):
        logging.warning("%s", cache.NO_PLACE)
