"""Data that come as arrays: .npz files (MedMNIST's and Keras' names) and folders of IDX (MNIST's).

Both are untrusted: what a header claims is held against the file before anything is loaded.
"""

import collections
import gzip
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from caecnn_jax.data import listing, pixels
from caecnn_jax.data.image_search import natural_key
from caecnn_jax.errors import DataError

# Names of images and labels by part: the first part trains, the last one tests.
NPZ_LAYOUTS = (
    tuple((f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")),
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),
)
IDX_FILES = {
    "train images": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "train labels": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "test images": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "test labels": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}
LABEL_NAMES = "labels.txt"  # beside IDX files: the classes' names, a line each

Part = tuple[np.ndarray, np.ndarray]  # images uint8 [N, H, W, C], labels [N]


def _listing(
    path: pathlib.Path, parts: Sequence[Part], num_train: int, class_names: Sequence[str] | None
) -> listing.Listing:
    """The listing of parts in memory, the first `num_train` images for training."""
    shapes = {images.shape[1:] for images, _ in parts}
    if len(shapes) > 1:
        raise DataError(f"{path}: its parts have images of different shapes: {sorted(shapes)}")
    images, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if 0 in images.shape[1:]:
        raise DataError(f"{path}: its images have no pixels: {list(images.shape)}")
    if images.shape[3] > 1 and all(map(pixels.is_grey, images)):  # as a folder of such images is
        images = images[..., :1].copy()
    if class_names is None:
        class_names = sorted({str(value) for value in values.tolist()}, key=natural_key)
        numbers = {name: number for number, name in enumerate(class_names)}
        labels = np.array([numbers[str(value)] for value in values.tolist()], np.int32)
    else:
        labels = values
        if labels.max(initial=0) >= len(class_names):
            raise DataError(
                f"{path / LABEL_NAMES}: names {len(class_names)} classes, and there is a label "
                f"{labels.max()}"
            )

    def read(order: np.ndarray, form: pixels.Form) -> pixels.Pixels:
        return pixels.from_array(images, order, form, str(path))

    files = sorted(path.glob("*ubyte*")) if path.is_dir() else [path]
    marks = [listing.mark(file, file.name) for file in files]
    return listing.of_labels(
        path.stem, class_names, labels, num_train, read, marks, shape=images.shape[1:]
    )


# --- .npz -----------------------------------------------------------------------------------------


def open_npz(path: pathlib.Path) -> listing.Listing:
    """The listing of a .npz file; a validation part joins the training part."""
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            layout = _layout(path, arrays.files)
            for name in (name for pair in layout for name in pair):
                _check_header(archive, name, path)
            parts = [
                (
                    _images(arrays[images], f"{path}: {images}"),
                    _labels(arrays[labels], f"{path}: {labels}"),
                )
                for images, labels in layout
            ]
    except pixels.NPZ_DAMAGE as error:
        raise DataError(f"{path}: cannot be read as arrays without pickles ({error})") from error
    for (images, labels), (name, _) in zip(parts, layout, strict=True):
        if len(images) != len(labels):
            raise DataError(f"{path}: {name} has {len(images)} images and {len(labels)} labels")
    tests = [name for name, _ in layout if "test" in name]
    num_train = sum(len(labels) for _, labels in parts[: len(parts) - len(tests)])
    return _listing(path, parts, num_train, None)


def _layout(path: pathlib.Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """The names of images and labels that are there, part by part."""
    for layout in NPZ_LAYOUTS:
        there = [pair for pair in layout if set(pair) & set(names)]
        missing = [name for pair in there for name in pair if name not in names]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)} beside {', '.join(names)}")
        if there and there[0] == layout[0]:
            return there
    raise DataError(
        f"{path}: holds {', '.join(names) or 'nothing'}; needed are train_images, train_labels, "
        "test_images, test_labels (and val_...), or x_train, y_train, x_test, y_test"
    )


def _check_header(archive: zipfile.ZipFile, name: str, path: pathlib.Path) -> None:
    """Raises DataError where an array's header claims more than its file holds or memory takes."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        shape, _, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(file)
        claimed = file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if claimed != member.file_size and not dtype.hasobject:  # pickles are refused when loaded
        raise DataError(
            f"{path}: {name} should have {claimed} bytes by its header, not {member.file_size}"
        )
    pixels.check_bytes(claimed, f"{path}: {name}")


def _images(images: np.ndarray, where: str) -> np.ndarray:
    """Images uint8 [N, H, W] or [N, H, W, C] as [N, H, W, C]."""
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(
            f"{where}: must be uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], not {images.dtype} "
            f"{list(images.shape)}"
        )
    return images


def _labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Labels [N] or [N, 1], whole numbers or texts, as texts [N]."""
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: must be [N] or [N, 1] of whole numbers or texts, not {labels.dtype} "
            f"{list(labels.shape)}"
        )
    return labels.astype(str)


# --- IDX ------------------------------------------------------------------------------------------


def is_idx(folder: pathlib.Path) -> bool:
    """Whether the folder holds any of the four files."""
    return any(_idx_file(folder, names) for names in IDX_FILES.values())


def open_idx(folder: pathlib.Path) -> listing.Listing:
    """The listing of a folder with MNIST's four files, packed (.gz) or not."""
    arrays = {}
    for part, names in IDX_FILES.items():
        path = _idx_file(folder, names)
        if path is None:
            raise DataError(f"{folder}: lacks {names[0]}[.gz], the {part}")
        arrays[part] = read_idx(path, 3 if part.endswith("images") else 1)
    parts = []
    for split in ("train", "test"):
        images, labels = arrays[f"{split} images"], arrays[f"{split} labels"]
        if len(images) != len(labels):
            raise DataError(
                f"{folder}: has {len(images)} {split} images and {len(labels)} {split} labels"
            )
        parts.append((images[..., None], labels))
    return _listing(folder, parts, len(parts[0][1]), _idx_names(folder))


def _idx_file(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    paths = [folder / (name + suffix) for name in names for suffix in ("", ".gz")]
    return next((path for path in paths if path.is_file()), None)


def _idx_names(folder: pathlib.Path) -> list[str] | None:
    path = folder / LABEL_NAMES
    if not path.is_file():
        return None
    lines = path.read_text("utf-8-sig", "replace").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise DataError(f"{path}: names {name!r} more than once: give each class its own name")
    return names


def read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file, whose header must agree with the file's length."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            zeros, kind, found = struct.unpack(">HBB", file.read(4))
            if (zeros, kind, found) != (0, 8, dimensions):  # 8: unsigned bytes
                raise ValueError(f"its first bytes are not those of {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = int(np.prod(shape, dtype=object))
            pixels.check_bytes(size, str(path))
            data = file.read(size + 1)
    except (OSError, EOFError, ValueError, MemoryError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as an IDX file ({error})") from error
    if len(data) != size:
        raise DataError(f"{path}: should hold {size} bytes by its header, not {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)
