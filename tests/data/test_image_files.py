"""Tests of caecnn_jax.data.image_files."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_cases import BLUE, RED, damaged_files, halves
from PIL import Image, ImageOps, PngImagePlugin

from caecnn_jax import config as config_lib
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


def test_32_bit_levels_are_refused_for_their_range_is_unknown(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(image_files.ImageError, match=r"a.tif: its pixels have 32 bits"):
        image_files.read(tmp_path / "a.tif", 4)


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


# --- What others' files have in them ---


def with_exif(path, *tags):
    """A JPEG that says "turn me" and has these EXIF tags more: (number, type, data)."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)]  # orientation: turn by 90 degrees
    place = 8 + 2 + 12 * (1 + len(tags)) + 4
    data = b""
    for tag, kind, value in tags:
        entries.append(struct.pack("<HHII", tag, kind, len(value), place + len(data)))
        data += value
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries))
    halves().save(path, exif=head + b"".join(entries) + struct.pack("<I", 0) + data)
    return path


TEXT, RATIONAL, UNDEFINED = 2, 5, 7


@pytest.mark.parametrize(
    "tag",
    [
        (0x011A, TEXT, b"72 dpi\0\0"),  # the resolution as a text
        (0x011A, UNDEFINED, b"72 dpi\0\0"),
        (0x010F, RATIONAL, struct.pack("<II", 1, 2)),  # the maker as a fraction
        (0x8769, TEXT, b"no address"),  # where the tags of the camera should be
        (0x8825, RATIONAL, b"\xff" * 8),
    ],
)
def test_exif_of_another_type_than_the_standards_is_passed_over(tmp_path, tag):
    picture = image_files.read(with_exif(tmp_path / "a.jpg", tag), 32)
    assert (picture.width, picture.height) == (60, 80)
    assert abs(picture.pixels[:14].mean((0, 1)) - RED).max() < 6


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff"])
def test_exif_that_is_none_leaves_the_picture_as_it_is(tmp_path, exif):
    picture = read(halves(), tmp_path, "a.jpg", exif=exif)
    assert (picture.width, picture.height) == (80, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = halves((64, 48))
    image.paste((0, 255, 0), (0, 0, 20, 20))
    for suffix in ("png", "tiff", "webp"):
        options = {"lossless": True} if suffix == "webp" else {}
        image.save(tmp_path / f"a.{suffix}", exif=exif, **options)
        picture = image_files.read(tmp_path / f"a.{suffix}", 32, fit="stretch")
        with Image.open(tmp_path / f"a.{suffix}") as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
        assert (picture.width, picture.height) == upright.size
        expected = np.asarray(upright.resize((32, 32), Image.Resampling.LANCZOS))
        np.testing.assert_array_equal(picture.pixels, expected)


def test_png_with_huge_texts_and_profile_is_read(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * (3 << 20), zip=True)
    info.add_itxt("Title", "y" * (3 << 20), zip=True)
    halves().save(tmp_path / "a.png", pnginfo=info, icc_profile=bytes(3 << 20))
    with pytest.raises(ValueError, match="too large"):  # the counter-check: Pillow refuses it
        Image.open(tmp_path / "a.png").load()
    np.testing.assert_array_equal(
        image_files.read(tmp_path / "a.png", 32).pixels, read(halves(), tmp_path, "b.png").pixels
    )


def test_png_keeps_palette_transparency_and_orientation(tmp_path):
    image = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read(image, tmp_path, transparency=image.getpixel((0, 0)), exif=exif)
    assert (picture.width, picture.height) == (60, 80)
    assert (picture.pixels[:10] > 250).all()  # the red half, above now
    assert abs(picture.pixels[18:].mean((0, 1)) - BLUE).max() < 6


def test_16_bit_grey_with_a_transparent_level_is_white_there(tmp_path):
    levels = np.full((32, 32), 257 * 100, np.uint16)
    levels[:, 16:] = 1000
    header = struct.pack(">IIBBBBB", 32, 32, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    parts = [(b"IHDR", header), (b"tRNS", struct.pack(">H", 1000))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    pixels = image_files.read(tmp_path / "a.png", 32).pixels
    assert (pixels[:, :16] == 100).all() and (pixels[:, 16:] == 255).all()


@pytest.mark.parametrize("name", ["a.bmp", "a.tiff", "a.gif", "a.jfif", "no suffix"])
def test_further_formats_are_read_whatever_their_name(tmp_path, name):
    kind = {"a.jfif": "JPEG", "no suffix": "PNG"}.get(name)
    halves().save(tmp_path / name, kind)
    pixels = image_files.read(tmp_path / name, 32).pixels.astype(int)
    assert abs(pixels[:, :14].mean((0, 1)) - RED).max() < 6


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert abs(image_files.read(tmp_path / "a.gif", 32).pixels.astype(int) - RED).max() < 6


def test_the_limit_of_pixels_is_named_with_its_remedy(tmp_path):
    for size in ((9600, 9600), (20000, 9600)):  # of the first Pillow only warns
        Image.new("1", size).save(tmp_path / "a.png")
        with pytest.raises(
            image_files.ImageError, match=r"more than 89 million .*: save it smaller"
        ):
            image_files.read(tmp_path / "a.png", 32)


def test_a_limit_that_somebody_took_away_limits_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("RGB", (9, 9), RED).save(tmp_path / "a.png")
    assert (image_files.read(tmp_path / "a.png", 9).pixels == RED).all()


def test_fractions_are_refused_by_name(tmp_path):
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(image_files.ImageError, match="its pixels are fractions"):
        image_files.read(tmp_path / "a.tiff", 32)


@pytest.mark.parametrize("name", ["x" * 300, "null\0.png", "."])
def test_names_that_no_file_has_are_an_error(tmp_path, name):
    with pytest.raises(image_files.ImageError):
        image_files.read(tmp_path / name, 32)


# --- Shape ---


def test_fits(tmp_path):
    image = Image.new("RGB", (64, 32), RED)  # red, in its middle square blue
    image.paste(BLUE, (16, 0, 48, 32))
    image.save(tmp_path / "a.png")
    crop, pad, stretch = (
        image_files.read(tmp_path / "a.png", 32, fit=fit).pixels for fit in config_lib.FITS
    )
    assert (crop == BLUE).all()
    assert (pad[:8] == 255).all() and (pad[24:] == 255).all()
    for whole in (pad[12:20], stretch):
        assert abs(whole[:, :6].astype(int) - RED).max() < 12  # the filter swings a little
        assert abs(whole[:, 12:20].astype(int) - BLUE).max() < 12


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1)])
@pytest.mark.parametrize("fit", config_lib.FITS)
def test_any_shape_becomes_a_square(tmp_path, size, fit):
    Image.new("RGB", size, RED).save(tmp_path / "a.png")
    assert image_files.read(tmp_path / "a.png", 8, fit=fit).pixels.shape == (8, 8, 3)


def test_one_channel_is_grey_and_of_grey_images_the_very_levels(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    grey = image_files.read(tmp_path / "a.png", 16, channels=1).pixels
    np.testing.assert_array_equal(grey, levels[..., None])
    three = image_files.read(tmp_path / "a.png", 16).pixels
    np.testing.assert_array_equal(three, np.repeat(grey, 3, axis=2))
    halves().save(tmp_path / "b.png")
    assert image_files.read(tmp_path / "b.png", 16, channels=1).pixels.shape == (16, 16, 1)


def test_a_large_jpeg_looks_as_if_it_had_been_decoded_whole(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(levels).resize((1600, 1200), Image.Resampling.BICUBIC)
    pixels = read(image, tmp_path, "a.jpg", quality=95).pixels.astype(int)
    whole = image.crop((200, 0, 1400, 1200)).resize((32, 32), Image.Resampling.LANCZOS)
    assert abs(pixels - np.asarray(whole, int)).mean() < 1.5


def test_all_files_are_read_in_their_order_and_the_bad_ones_told(tmp_path):
    paths = []
    for number in range(30):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (9, 9), (number, 0, 0)).save(paths[-1])
    paths[7].write_text("none")
    pictures, skipped = image_files.read_all(paths, 8)
    assert [picture.pixels[0, 0, 0] for picture in pictures] == [*range(7), *range(8, 30)]
    assert [one["file"] for one in skipped] == [str(paths[7])]
    assert skipped[0]["reason"].startswith("not a PNG")


def test_side_by_side_shows_one_channel_too():
    for channels in (1, 3):
        image = np.full((4, 4, channels), 50, np.uint8)
        png = Image.open(io.BytesIO(image_files.side_by_side(image, image + 50, factor=1)))
        assert png.size == (9, 4)
        assert np.asarray(png)[0, [0, 4, 5]].ravel()[::channels].tolist() == [50, 255, 100]
