"""Tests of caecnn_jax.data.pixels."""

import numpy as np
import pytest

from caecnn_jax.data import image_files, pixels
from caecnn_jax.errors import DataError

FORM = pixels.Form(4, "crop", 3)


def picture(level, width=4, height=4):
    return image_files.Picture(None, np.full((4, 4, 3), level, np.uint8), width, height)


def test_images_are_put_in_their_place_in_whatever_order_they_come():
    found = pixels.collect([(2, picture(2)), (0, picture(0)), (1, picture(1))], 3, FORM, "x")
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert found.kept.tolist() == [0, 1, 2]


def test_one_in_a_hundred_may_be_unreadable():
    def results(bad):
        for index in range(300):
            fault = image_files.ImageError(f"{index}.png: none")
            yield index, fault if index % 100 < bad else picture(1)

    found = pixels.collect(results(1), 300, FORM, "x")
    assert len(found.images) == len(found.kept) == 297
    assert "3 cannot be read and are left out: 0.png: none; 100.png" in found.notes[1]
    with pytest.raises(DataError, match="more than one in a hundred of its 300 images cannot"):
        pixels.collect(results(2), 300, FORM, "x")


def test_sizes_are_told():
    sizes = [(9, 4), (4, 4), (9, 4), (100, 80)]
    results = [(index, picture(0, *size)) for index, size in enumerate(sizes)]
    assert pixels.collect(results, 4, FORM, "x").notes == (
        "3 sizes, from 4x4 to 100x80 pixels; the most frequent is 9x4",
    )
    assert pixels.collect(results[:1], 1, FORM, "x").notes == ("all are of 9x4 pixels",)


def test_more_images_than_memory_is_one_sentence_with_the_sizes():
    with pytest.raises(DataError) as error:
        pixels.check_memory(10**9, pixels.Form(512, "crop", 3), "photos")
    assert "photos: takes 786,432.0 GB, and this machine has " in str(error.value)
    assert "1,000,000,000 images of 512x512 pixels: lower config.image_size" in str(error.value)
    pixels.check_memory(1000, FORM, "photos")  # the counter-check


def test_arrays_of_the_right_shape_are_not_copied():
    images = np.zeros((3, 4, 4, 3), np.uint8)
    assert pixels.from_array(images, np.arange(3), FORM, "x").images is images
    grey = pixels.from_array(images, np.arange(3), FORM._replace(channels=1), "x").images
    assert grey.shape == (3, 4, 4, 1)


def test_statistics_are_those_of_the_pixels_chosen():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), np.uint8)
    images[..., 2] = 51
    chosen = np.arange(7, 40)
    mean, std = pixels.statistics(images, chosen)
    scaled = images[chosen].astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], scaled.std((0, 1, 2))[:2], rtol=1e-12)
    assert std[2] == 1.0  # nothing varies: what divides by it must not fail


def test_shared_counts_test_images_that_also_train():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    assert pixels.shared(images, 4) == 0
    assert pixels.shared(images[[0, 1, 2, 2, 0, 5]], 4) == 1


def test_the_digest_tells_everything_apart():
    images, labels = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1])
    digests = {
        pixels.digest(images, labels, 2, ("a", "b")),
        pixels.digest(images + 1, labels, 2, ("a", "b")),
        pixels.digest(images.reshape(4, 4, 1, 1), labels, 2, ("a", "b")),
        pixels.digest(images, labels[::-1], 2, ("a", "b")),
        pixels.digest(images, labels, 3, ("a", "b")),
        pixels.digest(images, labels, 2, ("a", "c")),
    }
    assert len(digests) == 6
    assert pixels.digest(images, labels.astype(np.int32), 2, ["a", "b"]) in digests
