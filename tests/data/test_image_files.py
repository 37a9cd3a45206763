"""Tests of caecnn_jax.data.image_files."""

import numpy as np
import pytest
from image_cases import BLUE, RED, damaged_files, halves
from PIL import Image

from caecnn_jax.data import image_files


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def read(image, tmp_path, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return image_files.read(tmp_path / name, 32)


def test_an_image_of_the_right_size_is_read_unchanged(tmp_path, images):
    picture = read(Image.fromarray(images[0]), tmp_path)
    np.testing.assert_array_equal(picture.pixels, images[0])
    assert (picture.width, picture.height) == (32, 32)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("P", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.jpg"), ("RGB", "a.webp"), ("RGB", "a.JPEG")],
)
def test_other_modes_and_formats_show_the_same_colours(tmp_path, mode, name):
    pixels = read(halves().convert(mode), tmp_path, name).pixels.astype(int)
    assert pixels.shape == (32, 32, 3)
    assert abs(pixels[:, :14].mean((0, 1)) - RED).max() < 6
    assert abs(pixels[:, 18:].mean((0, 1)) - BLUE).max() < 6


def test_grey_of_1_8_and_16_bits_keeps_its_level(tmp_path):
    levels = np.full((40, 40), 100, np.uint8)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    for image in (Image.fromarray(levels), deep):
        assert (read(image, tmp_path).pixels == 100).all()
    assert (read(Image.new("1", (9, 9), 1), tmp_path).pixels == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_becomes_white(tmp_path, mode):
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    if mode == "PA":
        picture = read(clear.convert("P"), tmp_path, transparency=0)
    else:
        picture = read(clear.convert(mode), tmp_path)
    assert (picture.pixels == 255).all()


def test_exif_turns_the_image_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright
    picture = read(halves(), tmp_path, "turned.jpg", exif=exif)
    assert (picture.width, picture.height) == (60, 80)
    assert abs(picture.pixels[:14].mean((0, 1)) - RED).max() < 6  # what was left is now above


def test_resizing_is_antialiased(tmp_path):
    rows, columns = np.indices((256, 256))
    pixels = read(Image.fromarray((255 * ((rows + columns) % 2)).astype(np.uint8)), tmp_path).pixels
    assert abs(pixels.astype(int) - 127).max() <= 2


def test_damaged_and_huge_files_are_named(tmp_path):
    for name, reason in damaged_files(tmp_path).items():
        with pytest.raises(image_files.ImageError, match=f"{name}: .*{reason}"):
            image_files.read(tmp_path / name, 32)


def test_bytes_changed_at_random_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg", "a.webp"):
        halves((20, 20)).save(tmp_path / name, exif=exif)
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(100):
            altered = whole[: rng.integers(1, len(whole) + 1)].copy()
            places = rng.integers(0, len(altered), 3)
            altered[places] = rng.integers(0, 256, 3)
            (tmp_path / "altered").write_bytes(altered.tobytes())
            try:
                image_files.read(tmp_path / "altered", 32)
            except image_files.ImageError:
                continue
