"""Tests of caecnn_jax.data.augment."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from caecnn_jax.data import augment
from configs import default

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Compiled: op by op these tests would take several times as long.
draw = jax.jit(augment.draw, static_argnums=(1, 2, 3, 4))
affine = jax.jit(augment.affine, static_argnames="plain")
augmented = jax.jit(augment.augment, static_argnames=("statistics", "dtype", "plain"))
DATA = pathlib.Path(__file__).parents[1] / "golden"
SIZE = 32


@functools.cache
def draws(batch_size=1000, seed=0):
    return draw(jax.random.key(seed), batch_size, SIZE, SIZE)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8))


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "augment.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("plain", [False, True])
def test_the_affine_matches_the_reference_as_closely_as_opencv_interpolates(golden, plain):
    angle, scale = (golden[name].astype(np.float32) for name in ("angle_degrees", "scale"))
    ours = np.asarray(affine(golden["normalized"], angle, scale, plain=plain))
    error = np.abs(ours - golden["rotated_scaled"])
    assert error.max() < 0.05
    assert error.mean() < 0.01
    # The counter-check: the other sense of rotation is far off.
    turned = np.asarray(affine(golden["normalized"], -angle, scale, plain=plain))
    assert np.abs(turned - golden["rotated_scaled"]).mean() > 0.1


def test_normalize_matches_the_reference(golden):
    ours = augment.normalize(jnp.asarray(golden["images"]))
    np.testing.assert_allclose(ours, golden["normalized"], atol=2e-6)


@pytest.mark.parametrize("plain", [False, True])
def test_the_affine_mirrors_the_border_as_scipy_does(plain):
    image = np.random.default_rng(0).normal(size=(9, 9)).astype(np.float32)
    angle, scale = np.float32([25.0]), np.float32([0.6])  # reads far outside the image
    ours = affine(image[None, :, :, None], angle, scale, plain=plain)[0, :, :, 0]
    rows, columns = augment.source_coordinates(angle, scale, 9, 9)
    assert rows.min() < -1 and columns.max() > 9
    wanted = scipy.ndimage.map_coordinates(image, [rows[0], columns[0]], order=1, mode="mirror")
    np.testing.assert_allclose(ours, wanted, atol=1e-5)


def test_no_angle_and_scale_one_change_nothing(images):
    floats = images.astype(jnp.float32)
    same = affine(floats, jnp.zeros(8), jnp.ones(8))
    np.testing.assert_allclose(same, floats, atol=1e-3)


def test_denormalize_is_the_inverse_of_normalize():
    every_value = jnp.arange(256, dtype=jnp.uint8)[:, None] * jnp.ones(3, jnp.uint8)[None]
    assert np.array_equal(augment.denormalize(augment.normalize(every_value)), every_value)


def test_denormalize_clips_what_no_pixel_can_show():
    extremes = jnp.array([[-1e6, 0.0, 1e6]])
    pixels = augment.denormalize(extremes)
    assert pixels.dtype == jnp.uint8
    assert (int(pixels[0, 0]), int(pixels[0, 2])) == (0, 255)


def test_normalized_training_colours_are_centred():
    mean = jnp.asarray(augment.CIFAR10.mean)[None] * 255
    np.testing.assert_allclose(augment.normalize(mean), np.zeros((1, 3)), atol=1e-6)


def test_draws_keep_their_ranges_and_probabilities():
    drawn = draws()
    assert np.abs(drawn.angle).max() <= 30 and np.std(drawn.angle) == pytest.approx(17.3, abs=1.5)
    assert drawn.scale.min() >= 0.75 and drawn.scale.max() <= 1.25
    assert np.mean(drawn.scale) == pytest.approx(1, abs=0.02)
    # Of 1,000 fair coins 500 +- 16 show heads.
    assert 430 < int(drawn.flip.sum()) < 570
    assert 430 < int(drawn.hole.sum()) < 570


def test_the_draws_of_an_image_are_independent():
    drawn = draws()
    columns = [drawn.flip, drawn.angle, drawn.scale, drawn.hole, *drawn.corner.T]
    correlations = np.corrcoef(np.array([np.asarray(column, float) for column in columns]))
    assert np.abs(correlations - np.eye(6)).max() < 0.15


def test_settings_by_default_are_those_of_the_default_config():
    assert augment.Settings(**default.get_config().aug) == augment.REFERENCE


def test_draws_keep_to_the_settings():
    settings = augment.Settings(
        max_angle=5.0, scale_range=(0.9, 1.0), max_shift=3, hole_probability=0.0
    )
    drawn = draw(jax.random.key(0), 1000, SIZE, SIZE, settings)
    assert 4.5 < np.abs(drawn.angle).max() <= 5
    assert drawn.scale.min() >= 0.9 and drawn.scale.max() <= 1.0
    assert not drawn.hole.any()
    counts = np.stack([np.bincount(one + 3, minlength=7) for one in np.asarray(drawn.shift).T])
    # Each of seven shifts comes in a seventh of the cases, 143 +- 11.
    assert counts.shape == (2, 7) and counts.min() > 143 - 5 * 11
    assert (np.asarray(draws().shift) == 0).all()  # the reference does not shift


STILL = augment.Settings(max_angle=0.0, scale_range=(1.0, 1.0), hole_probability=0.0)


@pytest.mark.parametrize("plain", [False, True])
def test_a_shift_moves_whole_pixels_down_and_right(images, plain):
    drawn = draw(jax.random.key(0), 8, SIZE, SIZE, STILL)._replace(flip=jnp.zeros(8, bool))
    by = jnp.full((8, 2), jnp.array([[2, -3]]))
    moved = augmented(images, drawn._replace(shift=by), plain=plain)
    whole = augment.normalize(images)
    np.testing.assert_allclose(moved[:, 2:, :-3], whole[:, :-2, 3:], atol=1e-5)
    np.testing.assert_allclose(moved[:, :2, :-3], whole[:, 2:0:-1, 3:], atol=1e-5)  # mirrored
    # Turned by 90 degrees and then enlarged to twice its size, 2 down has become 4 right.
    turned = drawn._replace(angle=jnp.full(8, 90.0), scale=jnp.full(8, 2.0))
    down = turned._replace(shift=jnp.full((8, 2), jnp.array([[2, 0]])))
    before, after = (augmented(images, one, plain=plain) for one in (turned, down))
    np.testing.assert_allclose(after[:, :, 4:], before[:, :, :-4], atol=1e-4)


def test_selecting_pixels_is_sampling_at_whole_places(images):
    drawn = draw(jax.random.key(1), 8, SIZE, SIZE, STILL._replace(max_shift=9))
    assert drawn.flip.any() and not drawn.flip.all()
    unturned = drawn._replace(angle=jnp.zeros(8), scale=jnp.ones(8))
    sampled = augmented(images, unturned)
    for plain in (False, True):
        assert np.array_equal(augmented(images, drawn, plain=plain), sampled)


@pytest.mark.parametrize("shape", [(9, 14, 1), (1, 5, 4), (6, 1, 3)])
def test_products_sample_what_gathers_do_whatever_the_shape(shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    drawn = draws(2)._replace(shift=jnp.array([[3, -20], [0, 1]]))
    numbers = augment.Statistics((0.5,) * shape[-1], (0.25,) * shape[-1])
    by_gathers, by_products = (
        augment.augment(images, drawn, numbers, plain=plain) for plain in (False, True)
    )
    np.testing.assert_allclose(by_products, by_gathers, atol=2e-5)


def test_a_byte_and_sixteen_bits_of_each_weight_are_enough(images):
    # What Precision.HIGH is on a TPU: products in bfloat16 of the factors' upper and lower halves.
    def halves(x):
        upper = np.asarray(x, jnp.bfloat16).astype(np.float32)
        return upper, np.asarray(x - upper, jnp.bfloat16).astype(np.float32)

    def high(equation, a, b, precision):
        assert precision == jax.lax.Precision.HIGH
        (a, a_low), (b, b_low) = halves(np.asarray(a)), halves(np.asarray(b))
        return sum(np.einsum(equation, x, y) for x, y in ((a, b), (a, b_low), (a_low, b)))

    drawn = draws(8)
    wanted = augmented(images, drawn, plain=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jnp, "einsum", high)
        ours = augment.augment(images, drawn, plain=True)
    assert 1e-7 < np.abs(ours - wanted).max() < 2e-4


@pytest.mark.parametrize("at_once", [1, 3])
def test_large_images_are_turned_a_few_at_a_time(images, monkeypatch, at_once):
    drawn = draws(8)

    def turned():
        program = jax.jit(lambda images: augment.augment(images, drawn, plain=True))
        compiled = program.lower(images).compile()
        return compiled(images), compiled.memory_analysis().temp_size_in_bytes

    wanted, memory = turned()
    monkeypatch.setattr(augment, "MOST_MULTIPLIED", at_once * SIZE**3)
    ours, less_memory = turned()
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-4)
    assert less_memory < 0.6 * memory


@pytest.mark.parametrize(("backend", "gathers"), [("cpu", True), ("gpu", True), ("tpu", False)])
def test_only_a_tpu_multiplies(images, monkeypatch, backend, gathers):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    text = jax.jit(lambda images: augment.augment(images, draws(8))).lower(images).as_text()
    assert ("gather" in text) == gathers


def test_a_hole_is_whole_and_inside_the_image():
    drawn = draws()
    mask = np.asarray(augment.hole_mask(drawn, SIZE, SIZE))
    assert np.array_equal(mask.sum(axis=(1, 2)), np.where(drawn.hole, 12 * 12, 0))
    rows = mask.any(axis=2).sum(axis=1)
    assert np.array_equal(rows, np.where(drawn.hole, 12, 0))  # a square, not 144 pixels anywhere
    # Every place is reached, the four edges included, and none is left out.
    assert set(np.asarray(drawn.corner).ravel().tolist()) == set(range(SIZE - 12 + 1))


def test_a_hole_is_zero_after_normalisation_and_covers_nothing_else(images):
    drawn = draws(8)._replace(hole=jnp.ones(8, bool))
    cut = augmented(images, drawn)
    whole = augmented(images, drawn._replace(hole=jnp.zeros(8, bool)))
    mask = augment.hole_mask(drawn, SIZE, SIZE)[..., None]
    assert (np.asarray(jnp.where(mask, cut, 0)) == 0).all()
    assert np.array_equal(jnp.where(mask, 0, cut), jnp.where(mask, 0, whole))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 16), (16, 8)])
def test_an_image_smaller_than_a_hole_gets_one_of_its_own_size(height, width):
    drawn = draw(jax.random.key(0), 64, height, width)._replace(hole=jnp.ones(64, bool))
    mask = np.asarray(augment.hole_mask(drawn, height, width))
    assert (mask.sum(axis=(1, 2)) == min(height, 12) * min(width, 12)).all()


def test_a_flip_comes_before_the_rotation(images):
    drawn = draws(8)._replace(flip=jnp.ones(8, bool))
    flipped_first = augmented(images[:, :, ::-1], drawn._replace(flip=jnp.zeros(8, bool)))
    np.testing.assert_allclose(augmented(images, drawn), flipped_first, atol=1e-4)
    unflipped = augmented(images, drawn._replace(flip=jnp.zeros(8, bool)))
    assert np.abs(unflipped - flipped_first).max() > 0.1  # the counter-check


def test_augment_is_the_affine_of_the_normalised_image(images):
    off = jnp.zeros(8, bool)
    drawn = draws(8)._replace(flip=off, hole=off)
    wanted = affine(augment.normalize(images), drawn.angle, drawn.scale)
    np.testing.assert_allclose(augmented(images, drawn), wanted, atol=1e-4)


def test_draws_follow_from_the_key_alone():
    shifting = augment.Settings(max_shift=4)
    three = [draw(jax.random.key(seed), 8, SIZE, SIZE, shifting) for seed in (0, 0, 1)]
    for first, again, other in zip(*three, strict=True):
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


def test_padding_changes_no_draw_of_the_images_before_it():
    for few, many in zip(draws(8), draws(1000), strict=True):
        assert np.array_equal(few, many[:8])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_result_has_the_dtype_asked_for(images, dtype):
    result = jax.eval_shape(
        functools.partial(augment.augment, dtype=jnp.dtype(dtype)), images, draws(8)
    )
    assert (result.dtype, result.shape) == (jnp.dtype(dtype), images.shape)


GREY = augment.Statistics(mean=(0.286,), std=(0.353,))


def test_statistics_of_other_data_normalise_and_are_undone():
    every_value = jnp.arange(256, dtype=jnp.uint8)[:, None]
    normal = augment.normalize(every_value, GREY)
    wanted = (np.arange(256)[:, None] / 255 - 0.286) / 0.353
    np.testing.assert_allclose(normal, wanted, atol=2e-6)
    assert np.array_equal(augment.denormalize(normal, GREY), every_value)


def test_the_default_statistics_are_those_of_cifar_10(images):
    assert augment.CIFAR10 == (augment.MEAN, augment.STD)
    wanted = (np.asarray(images) / 255 - augment.MEAN) / augment.STD
    np.testing.assert_allclose(augment.normalize(images), wanted, atol=2e-6)


@pytest.mark.parametrize("function", [augment.normalize, augment.denormalize])
def test_statistics_of_another_number_of_channels_are_refused(images, function):
    with pytest.raises(ValueError, match="images of 1 channels, but statistics of 3"):
        function(images[..., :1])
    with pytest.raises(ValueError, match="images of 3 channels, but statistics of 1"):
        function(images, GREY)


def test_a_grey_image_is_augmented_as_each_channel_of_a_coloured_one(images):
    drawn = draws(8)
    assert drawn.hole.any()
    thrice = jnp.repeat(images[..., :1], 3, axis=-1)
    colours = augment.Statistics(mean=GREY.mean * 3, std=GREY.std * 3)
    grey = augmented(images[..., :1], drawn, GREY)
    assert grey.shape == (8, SIZE, SIZE, 1)
    wanted = augmented(thrice, drawn, colours)
    np.testing.assert_allclose(grey, wanted[..., :1], atol=1e-5)
    np.testing.assert_allclose(grey, wanted[..., 2:], atol=1e-5)
    # Holes are grey of the data's mean, 0 after normalisation, not black.
    hole = np.asarray(augment.hole_mask(drawn, SIZE, SIZE))
    assert (np.asarray(grey)[hole] == 0).all()
