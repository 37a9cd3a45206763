"""Image files that people have, as the networks' input: checked, upright, resized.

Files are untrusted: nothing that one holds stops the reading of the others. Which files there are
is the matter of `image_search`.
"""

import concurrent.futures
import contextlib
import io
import os
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from caecnn_jax import errors

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
BACKGROUND = "white"  # under transparent pixels, and beside the image where it is padded

# What Pillow was seen to raise for files that are cut short, altered or made to exhaust memory.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
)
# How an image is turned that has this orientation in its EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


class ImageError(errors.UserError):
    """A file that cannot be read as an image, or nothing to read at all."""


class UnreachableError(ImageError):
    """A file that could not be read now, and may be another time: its content is not to blame."""


class Picture(NamedTuple):
    """An image file as the networks take it."""

    path: pathlib.Path | None  # None: an array's, of no file
    pixels: np.ndarray  # uint8 [size, size, channels]
    width: int  # as in the file, upright
    height: int
    is_dim: bool = False  # of 16 bits, of which it uses 12 at most: nearly black


def read(path: pathlib.Path, size: int, *, fit: str = "crop", channels: int = 3) -> Picture:
    """Reads an image file upright as size x size pixels of 1 (grey) or 3 (RGB) channels.

    `fit` says how another shape becomes a square: "crop" takes the middle, "pad" all of it between
    white bars, "stretch" all of it out of proportion. Palette, 16-bit and CMYK images are read too,
    transparency becomes white, and of an animation the first frame counts. Raises ImageError for a
    file that is missing, no image, damaged, or of more than Pillow's limit of pixels (89 million).
    """
    with quiet():
        return _read(path, size, fit, channels)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings meanwhile, in any thread: Pillow's are of odd metadata or what `decode` checks.

    The filters of warnings belong to the process, so that each thread cannot have its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_each(
    paths: Sequence[pathlib.Path], size: int, *, fit: str = "crop", channels: int = 3
) -> Iterator[Picture | ImageError]:
    """What `read` returns or raises for each path, in their order, on all cores."""

    def attempt(path: pathlib.Path) -> Picture | ImageError:
        try:
            return _read(path, size, fit, channels)
        except ImageError as error:
            return error

    with quiet():
        yield from on_all_cores(attempt, paths)


def on_all_cores(function, items: Iterable) -> Iterator:
    """`map` by a thread a core, for what leaves Python's lock as Pillow does; keeps the order."""
    pool = concurrent.futures.ThreadPoolExecutor(num_cores())
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt ends with the images at hand


def num_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_all(
    paths: Sequence[pathlib.Path], size: int, *, fit: str = "crop", channels: int = 3
) -> tuple[list[Picture], list[dict[str, str]]]:
    """What can be read of these files, and {"file", "reason"} of the others."""
    pictures, skipped = [], []
    results = read_each(paths, size, fit=fit, channels=channels)
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, Picture):
            pictures.append(result)
        else:
            skipped.append({"file": str(path), "reason": str(result).removeprefix(f"{path}: ")})
    return pictures, skipped


def decode(
    file: BinaryIO, name: str | os.PathLike, size: int, *, fit: str, channels: int
) -> Picture:
    """What `read` does, of an open file of this name; Pillow's warnings are the caller's matter."""
    try:
        with Image.open(_bare(file), formats=FORMATS) as image:
            _check_pixels(name, image.size)
            width, height = image.size
            # A JPEG can be decoded at an eighth of its size: twice the pixels asked for are plenty.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            orientation = _orientation(image)
            upright = image.transpose(_TURNS[orientation]) if orientation in _TURNS else image
            pixels = fitted(to_rgb(upright), size, fit=fit, channels=channels)
            is_dim = image.mode.startswith("I") and np.asarray(image).max() < 2**12
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a PNG, JPEG, WebP, BMP, TIFF or GIF, or damaged") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {_too_large(str(error))}") from error
    except _DAMAGE as error:
        is_content = not isinstance(error, MemoryError) and getattr(error, "errno", None) is None
        kind = ImageError if is_content else UnreachableError
        raise kind(f"{name}: {str(error) or type(error).__name__}") from error
    if orientation in _ON_THEIR_SIDE:
        width, height = height, width
    return Picture(pathlib.Path(name), pixels, width, height, is_dim)


def _read(path: pathlib.Path, size: int, fit: str, channels: int) -> Picture:
    try:
        if not path.is_file():
            raise ImageError(f"{path}: there is no such file")
        with path.open("rb") as file:
            return decode(file, path, size, fit=fit, channels=channels)
    except OSError as error:
        raise UnreachableError(f"{path}: {error}") from error
    except ValueError as error:  # a name with a null character
        raise ImageError(f"{path}: {error}") from error


def _check_pixels(path: str | os.PathLike, size: tuple[int, int]) -> None:
    """Pillow only warns of up to twice its limit, and of nothing where somebody took that away."""
    width, height = size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"{path}: {_too_large(f'it has {width}x{height} pixels')}")


def _too_large(found: str) -> str:
    assert Image.MAX_IMAGE_PIXELS is not None  # or nothing would be too large
    return (
        f"{found}; a file of more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million could be a "
        "decompression bomb: save it smaller"
    )


def _bare(file: BinaryIO) -> BinaryIO:
    """The file; if it is a PNG without its texts and its colour profile, which may be huge.

    Pillow refuses images for their size, and would read them into memory for nothing.
    """
    if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
        file.seek(0)
        return file
    chunks = [_PNG_SIGNATURE]
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in _PNG_METADATA:
            file.seek(length + 4, os.SEEK_CUR)
        else:
            chunks += [head, file.read(length + 4)]  # with its checksum
        if kind == b"IEND":
            break
    return io.BytesIO(b"".join(chunks))


def _orientation(image: Image.Image) -> int:
    """What EXIF says of the orientation, 1 (upright) to 8; 1 where it says nothing readable.

    `ImageOps.exif_transpose` would write the other tags again, and fails for those it cannot write.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, whatever its mode; transparent pixels over white."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions, whose range is unknown: save it with 8 bits")
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its pixels have 32 bits, whose range is unknown: save it with 8 or 16")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
        levels = np.asarray(image).astype(np.float64)
        clear = image.info.get("transparency")  # a level of grey
        levels = np.where(levels == clear, 65535.0, levels) / 257
        image = Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, BACKGROUND)
    return Image.alpha_composite(ground, layer).convert("RGB")


def fitted(image: Image.Image, size: int, *, fit: str, channels: int) -> np.ndarray:
    """An image of mode RGB or L as uint8 [size, size, channels], antialiased."""
    image = image.convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if fit == "pad" and width != height:
        scale = size / max(width, height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        ground = Image.new(image.mode, (size, size), BACKGROUND)
        ground.paste(_resized(image, inner), ((size - inner[0]) // 2, (size - inner[1]) // 2))
        image = ground
    elif fit == "crop" and width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(_resized(image, (size, size))).reshape(size, size, channels)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    # Pillow's filters widen with the scale, so that nothing aliases; by far too large an image is
    # first averaged to three times the size, which nobody can see and is several times as fast.
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def side_by_side(original: np.ndarray, reconstruction: np.ndarray, factor: int = 8) -> bytes:
    """PNG of an image and, right of it, its reconstruction, uint8 [H, W, 1 or 3] each, enlarged."""
    height, width, channels = original.shape
    gap = np.full((height, 1, channels), 255, np.uint8)
    pixels = np.concatenate([original, gap, reconstruction], axis=1)
    pair = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    size = ((2 * width + 1) * factor, height * factor)
    buffer = io.BytesIO()
    pair.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
