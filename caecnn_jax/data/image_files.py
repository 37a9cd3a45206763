"""Image files that people have, as the networks' input: found, checked, upright, RGB, resized.

And back: a picture of an image beside its reconstruction.
"""

import glob
import io
import pathlib
import struct
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from caecnn_jax import errors

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # what a folder is searched for
BACKGROUND = "white"  # under transparent pixels

# What Pillow raises for files that are cut short, altered or made to exhaust memory.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    MemoryError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class ImageError(errors.UserError):
    """A file that cannot be read as an image, or nothing to read at all."""


class Picture(NamedTuple):
    """An image file as the networks take it."""

    path: pathlib.Path
    pixels: np.ndarray  # uint8 [size, size, 3]
    width: int  # as in the file, upright
    height: int


def find(names: Sequence[str]) -> list[pathlib.Path]:
    """The files that these paths, folders (searched with all below them) and globs name.

    A path that is none of these stays in the list, for `read` to say what is wrong with it. Raises
    ImageError when there is nothing to read.
    """
    found: list[pathlib.Path] = []
    for name in names:
        path = pathlib.Path(name).expanduser()
        if path.is_dir():
            files = path.rglob("*")
            found += sorted(file for file in files if file.suffix.lower() in SUFFIXES)
        else:
            matches = () if path.exists() else sorted(glob.glob(str(path), recursive=True))
            found += map(pathlib.Path, matches or [path])
    unique = list(dict.fromkeys(found))
    if not any(path.exists() for path in unique):
        problem = f"={' '.join(names)}: no image is there" if names else " is missing"
        raise ImageError(f"--images{problem}: give PNG, JPEG or WebP files, folders or globs")
    return unique


def read(path: pathlib.Path, size: int) -> Picture:
    """Reads a PNG, JPEG or WebP file, turns it upright, and resizes all of it to size x size.

    Grey, palette, 16-bit and CMYK images become RGB, transparency becomes white; of an animation
    the first frame counts. Raises ImageError for a file that is missing, no image, damaged, or so
    large (89 million pixels) that decoding it could exhaust the memory.
    """
    if not path.is_file():
        raise ImageError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Pillow warns of possible decompression bombs, before it decodes them, and of odd EXIF.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                upright = ImageOps.exif_transpose(image)
                rgb = to_rgb(upright)
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not a PNG, JPEG or WebP image, or damaged") from error
    except _DAMAGE as error:
        raise ImageError(f"{path}: {str(error) or type(error).__name__}") from error
    width, height = rgb.size
    if rgb.size != (size, size):
        # Pillow's filters widen with the scale, so that nothing aliases.
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS)
    return Picture(path, np.asarray(rgb), width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, whatever its mode; transparent pixels over white."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
        levels = np.asarray(image).astype(np.float64) / 257
        image = Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, BACKGROUND)
    return Image.alpha_composite(ground, layer).convert("RGB")


def read_all(
    paths: Iterable[pathlib.Path], size: int
) -> tuple[list[Picture], list[dict[str, str]]]:
    """What can be read of these files, and {"file", "reason"} of the others."""
    pictures, skipped = [], []
    for path in paths:
        try:
            pictures.append(read(path, size))
        except ImageError as error:
            skipped.append({"file": str(path), "reason": str(error).removeprefix(f"{path}: ")})
    return pictures, skipped


def side_by_side(original: np.ndarray, reconstruction: np.ndarray, factor: int = 8) -> bytes:
    """PNG of an image and, right of it, its reconstruction, uint8 [H, W, 3] each, enlarged."""
    height, width, _ = original.shape
    gap = np.full((height, 1, 3), 255, np.uint8)
    pair = Image.fromarray(np.concatenate([original, gap, reconstruction], axis=1))
    size = ((2 * width + 1) * factor, height * factor)
    buffer = io.BytesIO()
    pair.resize(size, Image.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
