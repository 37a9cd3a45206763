"""Tests of caecnn_jax.records.pictures."""

import numpy as np
import pytest
from builders import open_png

from caecnn_jax.records import pictures


@pytest.mark.parametrize("count, columns, bands", [(1, 1, 1), (10, 10, 1), (16, 8, 2), (11, 6, 2)])
def test_reconstructions_fill_rows_of_at_most_ten(count, columns, bands):
    images = np.zeros((count, 32, 32, 3), np.uint8)
    height, width, _ = open_png(pictures.reconstructions(images, images)).shape
    assert (width - 104) / 100 == columns
    assert (height - 4) / (2 * 100 + 8) == bands


def test_every_pixel_is_enlarged_to_a_crisp_square():
    rng = np.random.default_rng(0)
    originals = rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    reconstructed = rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    picture = open_png(pictures.reconstructions(originals, reconstructed, ["bird", "cat"]))
    top, left = 4, 104 + 100  # the second column
    np.testing.assert_array_equal(picture[top : top + 96 : 3, left : left + 96 : 3], originals[1])
    below = picture[top + 100 : top + 196, left : left + 96]
    np.testing.assert_array_equal(below[2::3, 1::3], reconstructed[1])


def test_a_line_break_in_a_caption_is_a_space():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    broken, whole = (pictures.reconstructions(images, images, [text]) for text in ("a\nb", "a b"))
    assert broken == whole


def test_large_images_keep_their_size_and_long_captions_are_cut():
    images = np.zeros((1, 128, 128, 3), np.uint8)
    picture = open_png(pictures.reconstructions(images, images, ["a caption too long " * 9]))
    assert picture.shape[1] == 104 + 128 + 4


def test_reconstructions_refuse_other_shapes():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(1, 32, 32, 3\)"):
        pictures.reconstructions(images, images[:1])


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (2, 1, 1, 1), (3, 600, 600, 3), (40, 8, 8, 1)])
def test_reconstructions_take_any_size_grey_or_in_colour(shape):
    images = np.full(shape, 200, np.uint8)
    captions = [f"caption {index}" for index in range(shape[0])]
    height, width, _ = open_png(pictures.reconstructions(images, images, captions)).shape
    assert height < 1500 and width < 1500
