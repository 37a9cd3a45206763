"""The user's cache of images that took long to read, and how a file is written aside and renamed.

    ~/.cache/caecnn_jax/datasets/KEY.npz     (or below XDG_CACHE_HOME)

A key is a digest of what was read (names, sizes and times of the files) and of what was made of it,
so that an entry is never stale. Without a place to write, all goes on without a cache.
"""

import hashlib
import json
import os
import pathlib
import uuid
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from absl import logging

from caecnn_jax.data.pixels import NPZ_DAMAGE, Form, Pixels

NO_PLACE = "No folder for the cache of decoded images; every start will decode them again"
FORMAT = 1  # raised whenever the same files would be read as other pixels


def user_folder() -> pathlib.Path | None:
    """Where this user's caches go; None where there is no home directory."""
    try:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # no HOME and no entry in passwd, as in some containers
        return None
    return home / "caecnn_jax"


def key(fingerprint: list, order: np.ndarray, form: Form) -> str:
    """The entry for the files or arrays of this fingerprint, in this order and form."""
    digest = hashlib.sha256(json.dumps([FORMAT, fingerprint, form]).encode())
    digest.update(np.asarray(order, np.int64).tobytes())
    return digest.hexdigest()[:32]


def _path(key: str) -> pathlib.Path | None:
    folder = user_folder()
    return folder and folder / "datasets" / f"{key}.npz"


def load(key: str) -> Pixels | None:
    """What was saved under the key, every byte checked; None where there is nothing good."""
    path = _path(key)
    if path is None or not os.path.isfile(path):  # no error in a folder that may not be opened
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, kept = arrays["images"], arrays["kept"]
            about = json.loads(str(arrays["about"]))
        if about["sha256"] != _sha256(images):
            raise ValueError("its digest differs")
        return Pixels(images, kept, tuple(about["notes"]))
    except NPZ_DAMAGE as error:
        logging.warning("Reading the images again, for their cache %s is damaged: %s", path, error)
        return None


def save(key: str, pixels: Pixels) -> None:
    """Saves what was read under the key, or warns that every start will read it again."""
    path = _path(key)
    about = json.dumps({"sha256": _sha256(pixels.images), "notes": pixels.notes})

    def write(file: BinaryIO) -> None:
        np.savez(file, images=pixels.images, kept=pixels.kept, about=np.array(about))

    if path is not None and write_first([path], write):
        logging.info("The images as they were read are cached in %s", path)
    else:
        logging.warning("%s", NO_PLACE)


def _sha256(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def write_first(paths: list[pathlib.Path], write: Callable[[BinaryIO], None]) -> bool:
    """Writes the first of these files that can be written, aside and renamed; False if none can."""
    for path in paths:
        if not is_writable(path.parent):
            continue
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("wb") as file:
                    write(file)
                aside.replace(path)
                return True
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            logging.info("No cache in %s: %s", path.parent, error)
    return False


def is_writable(folder: pathlib.Path) -> bool:
    """Whether the folder, or the one that it would be made in, may be changed."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    # root may write anywhere, but a folder marked read-only was meant to stay as it is.
    marked_writable = bool(existing.stat().st_mode & 0o222)
    return existing.is_dir() and os.access(existing, os.W_OK) and marked_writable
