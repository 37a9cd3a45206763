"""The official archives of CIFAR-10 and CIFAR-100, packed or unpacked, as arrays.

Every source of CIFAR-10 ends as the same two arrays in the official order, the 50,000 training
images before the 10,000 test images: images uint8 [60000, 32, 32, 3], labels uint8 [60000]. What is
read here was written by others: nothing of it is executed, and no file or array may be larger than
those of the official archives.
"""

import gzip
import io
import pathlib
import pickle
import tarfile
import zlib
from collections.abc import Sequence

import numpy as np

from caecnn_jax.data import cifar
from caecnn_jax.data.cifar import Arrays
from caecnn_jax.errors import DataError

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6)) + ("test_batch",)
ARCHIVE_NAMES = (
    "cifar-10-binary.tar.gz",
    "cifar-10-python.tar.gz",
    "cifar-10-batches-bin",
    "cifar-10-batches-py",
)
MAX_MEMBER_BYTES = 160 << 20  # the largest file of any source has 155.3 MB
MAX_UNPACKED_BYTES = 256 << 20  # the largest archive unpacks to 186 MB


def find_archive(
    path: pathlib.Path,
    names: Sequence[str] = ARCHIVE_NAMES,
    members: Sequence[str] = ("data_batch_1.bin", "data_batch_1"),
) -> pathlib.Path | None:
    """The official archive, packed or unpacked, that `path` is or holds.

    `names` are what it may be called, `members` files of which an unpacked one holds one.
    """
    if path.is_file() or any((path / name).is_file() for name in members):
        return path
    return next((path / name for name in names if (path / name).exists()), None)


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
    return joined(parts, str(path))


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
                raise DataError(f"{path}: is larger than any file of CIFAR's")
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
            raise DataError(f"{path}: unpacks to more than any archive of CIFAR's")
        files = {}
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
            for member in tar:
                name = pathlib.PurePosixPath(member.name).name
                # Sparse members may claim any size; links and devices are never regular files.
                if name in wanted and member.isreg() and not member.issparse():
                    file = tar.extractfile(member)
                    assert file is not None  # as it is of what is no regular file
                    files[name] = file.read()
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


def parse_python(
    data: bytes, where: str, labels_name: bytes = b"labels", classes: int = cifar.NUM_CLASSES
) -> Arrays:
    """One file of the Python version: a pickled dict of an [n, 3072] array and a list of labels."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        labels = to_labels(batch[labels_name], classes)
        _, shape, dtype, _, pixels = batch[b"data"].state
        if dtype.args[0] not in ("u1", b"u1") or shape != (len(labels), 3072):
            raise ValueError(f"its array is {dtype.args[0]} {shape}")
        return _to_nhwc(np.frombuffer(pixels, np.uint8)), labels
    except Exception as error:  # the pickle module documents that malformed data may raise any
        raise DataError(f"{where}: is no CIFAR batch ({error!r})") from error


def _to_nhwc(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def to_labels(labels: object, classes: int = cifar.NUM_CLASSES) -> np.ndarray:
    """Labels uint8 [n] from a list of 0 to `classes` - 1; raises ValueError for any other."""
    labels = np.asarray(labels)  # ValueError where the list is ragged
    allowed = range(classes)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not np.isin(labels, allowed).all():
        raise ValueError(f"the labels are not a list of 0 to {classes - 1}")
    return labels.astype(np.uint8)


def joined(parts: list[Arrays], where: str) -> Arrays:
    """The parts of CIFAR-10 in the official order, verified."""
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    cifar.verify_all(images, labels, where)
    return images, labels


# --- CIFAR-100 ------------------------------------------------------------------------------------

ARCHIVE_NAMES_100 = (
    "cifar-100-binary.tar.gz",
    "cifar-100-python.tar.gz",
    "cifar-100-binary",
    "cifar-100-python",
)


def find_archive_100(path: pathlib.Path) -> pathlib.Path | None:
    """As `find_archive`, of CIFAR-100."""
    return find_archive(path, ARCHIVE_NAMES_100, members=("train.bin", "meta"))


def from_archive_100(path: pathlib.Path, grain: str) -> tuple[Arrays, tuple[str, ...]]:
    """The images, the "fine" or "coarse" labels and the names of these classes.

    From the binary or the Python version, the .tar.gz or the unpacked folder. The official arrays'
    hashes are not known here, so they are verified by counts.
    """
    names_file = f"{grain}_label_names.txt"
    binary, python = ("train.bin", "test.bin", names_file), ("train", "test", "meta")
    wanted = [*binary, *python]
    files = read_folder(path, wanted) if path.is_dir() else read_tar(path, wanted)
    is_binary = "train.bin" in files
    missing = [name for name in (binary if is_binary else python) if name not in files]
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; point data_dir to a complete "
            "cifar-100-binary.tar.gz or cifar-100-python.tar.gz, or to its unpacked folder"
        )
    classes = cifar.CLASSES_100[grain]
    if is_binary:
        names = tuple(files[names_file].decode("utf-8", "replace").split())
        parts = [_parse_binary_100(files[name], f"{path}: {name}", grain) for name in binary[:2]]
    else:
        names = _parse_meta(files["meta"], f"{path}: meta", f"{grain}_label_names".encode())
        key = f"{grain}_labels".encode()
        parts = [parse_python(files[name], f"{path}: {name}", key, classes) for name in python[:2]]
    if len(set(names)) != classes:
        raise DataError(f"{path}: names {len(set(names))} {grain} classes, CIFAR-100 has {classes}")
    for split, (_, labels) in zip(cifar.PARTS_100, parts, strict=True):
        cifar.verify_counts_100(split, np.bincount(labels, minlength=classes), str(path))
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return (images, labels), names


def _parse_binary_100(data: bytes, where: str, grain: str) -> Arrays:
    """Records of a coarse label byte, a fine label byte and 3 x 32 x 32 image bytes."""
    if not data or len(data) % 3074:
        raise DataError(f"{where}: {len(data)} bytes are no whole number of 3,074-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, 3074)
    try:
        labels = to_labels(records[:, 1 if grain == "fine" else 0], cifar.CLASSES_100[grain])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return _to_nhwc(records[:, 2:]), labels


def _parse_meta(data: bytes, where: str, key: bytes) -> tuple[str, ...]:
    try:
        names = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()[key]
        return tuple(name.decode() for name in names)
    except Exception as error:  # the pickle module documents that malformed data may raise any
        raise DataError(f"{where}: is no list of CIFAR's classes ({error!r})") from error
