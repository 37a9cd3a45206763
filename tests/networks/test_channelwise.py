import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forms import TOLERANCE, assert_same, normal

from caecnn_jax.networks import channelwise

MASKS = {
    "none": lambda index: None,
    "some": lambda index: index % 3 != 1,
    "one image": lambda index: index == 0,
}
SHAPES = [(8, 4, 6, 3), (1, 4, 6, 3), (5, 5, 7, 1), (5, 3, 1, 2)]


def test_leaky_relu_keeps_a_fifth_of_what_is_negative():
    found = channelwise.leaky_relu(jnp.array([-5.0, 0.0, 5.0]))
    np.testing.assert_allclose(found, [-1.0, 0.0, 5.0])


@pytest.mark.parametrize("batch", [1, 5, 8])
def test_add_bias_is_the_plain_one(dtype, batch):
    x, bias = normal(dtype, batch, 4, 6, 3), normal(dtype, 3, seed=1)
    assert_same(channelwise.add_bias, x, bias, tolerance=TOLERANCE[dtype])
    found = channelwise.add_bias(x, bias, plain=False)
    np.testing.assert_array_equal(found, x + bias[None, None, None])


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_leaky_norm_is_the_plain_one(dtype, masked, shape):
    batch, *_, channels = shape
    x = (normal(dtype, *shape, seed=9) + 0.5).at[:, 0].set(0)  # 0 has the slope of what is above
    scale, bias = normal(dtype, channels, seed=1), normal(dtype, channels, seed=2)
    mask = MASKS[masked](jnp.arange(batch))

    def norm(x, scale, bias, plain):
        return channelwise.leaky_norm(x, mask, scale, bias, plain=plain)

    assert_same(norm, x, scale, bias, tolerance=TOLERANCE[dtype] * 10)
    y, *moments = norm(x, scale, bias, plain=False)
    x, scale, bias = (np.asarray(v, np.float64) for v in (x, scale, bias))
    x = np.maximum(x, 0.2 * x)
    valid = x if mask is None else x[np.asarray(mask)]
    mean, variance = valid.mean((0, 1, 2)), valid.var((0, 1, 2))
    for found, expected in zip(moments, (mean, variance), strict=True):
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype] * 10)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
    np.testing.assert_allclose(y, expected, atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_code_takes_the_last_channels_place(dtype, channels):
    maps, code = normal(dtype, 5, 4, 6, 4), normal(dtype, 5, 4, 6, channels, seed=1) + 1
    scale, bias = normal(dtype, 4, seed=2), normal(dtype, 4, seed=3)
    mask = MASKS["some"](jnp.arange(5))

    def norm(maps, code, scale, bias, plain):
        sums = channelwise.leaky_sums(maps, mask, plain)
        return channelwise.leaky_norm(maps, mask, scale, bias, code=code, sums=sums, plain=plain)

    assert_same(norm, maps, code, scale, bias, tolerance=TOLERANCE[dtype] * 10)
    found = norm(maps, code, scale, bias, plain=True)
    joined = jnp.concatenate([maps[..., :-channels], code], axis=-1)
    expected = channelwise.leaky_norm(joined, mask, scale, bias, plain=True)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE[dtype])
    to_maps = jax.grad(lambda maps: norm(maps, code, scale, bias, plain=True)[0][0].sum())(maps)
    assert to_maps[..., :-channels].any()
    assert not to_maps[..., -channels:].any()


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("masked", MASKS)
def test_the_gradient_of_leaky_norm_is_the_formulas(masked, plain):
    """Both forms write it out; here JAX derives it of the formula."""
    mask = MASKS[masked](jnp.arange(5))

    def formula(x, scale, bias):
        x = jnp.where(x > 0, x, 0.2 * x)
        weight = jnp.ones(5) if mask is None else mask.astype(x.dtype)
        weight = weight[:, None, None, None] * jnp.ones(x.shape)
        scale, bias = (each[None, None, None] for each in (scale, bias))
        sums = functools.partial(jnp.sum, axis=(0, 1, 2), keepdims=True)
        mean = sums(weight * x) / sums(weight)
        variance = sums(weight * (x - mean) ** 2) / sums(weight)
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

    def norm(x, scale, bias):
        return channelwise.leaky_norm(x, mask, scale, bias, plain=plain)[0]

    with jax.enable_x64(True):
        given = (normal("float64", 5, 3, 4, 2), *(normal("float64", 2, seed=i) for i in (1, 2)))
        cotangent = normal("float64", 5, 3, 4, 2, seed=3)
        expected = jax.vjp(formula, *given)[1](cotangent)
        found = jax.vjp(norm, *given)[1](cotangent)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("plain", [True, False])
def test_the_gradient_of_leaky_norm_goes_through_its_statistics(plain):
    """The counter-check: by constant statistics, all images would get what they give."""
    x, ones = normal("float32", 4, 2, 2, 3), jnp.ones(3)

    def total(x):
        return channelwise.leaky_norm(x, None, ones, ones, plain=plain)[0].sum()

    np.testing.assert_allclose(jax.grad(total)(x), np.zeros_like(x), atol=1e-5)


@pytest.mark.parametrize("plain", [True, False])
def test_leaky_norm_without_an_image(plain):
    x, ones = normal("float32", 3, 2, 2, 4), jnp.ones(4)
    _, *moments = channelwise.leaky_norm(x, jnp.zeros(3, bool), ones, ones, plain=plain)
    np.testing.assert_array_equal(moments, np.zeros((2, 4)))


def test_leaky_sums_are_an_accelerators():
    maps, mask = normal("float32", 3, 2, 2, 4), jnp.array([True, False, True])
    assert channelwise.leaky_sums(maps, mask, plain=False) is None
    x = np.where(maps > 0, maps, 0.2 * maps)[np.array(mask)]
    found = channelwise.leaky_sums(maps, mask, plain=True)
    for one, other in zip(found, (x, x**2), strict=True):
        np.testing.assert_allclose(one, other.sum((0, 1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("plain", [True, False])
def test_bfloat16_has_float32_statistics(plain):
    x, ones = normal("bfloat16", 2, 4, 4, 3), jnp.ones(3, jnp.float32)
    found = channelwise.leaky_norm(x, None, ones, ones, plain=plain)
    assert {each.dtype for each in found} == {jnp.dtype("float32")}


@pytest.mark.parametrize("plain", [True, False])
def test_normalize_centres_and_scales(dtype, plain):
    x = normal(dtype, 8, 4, 4, 3)
    mean, variance, scale, bias = (normal(dtype, 3, seed=seed) for seed in range(1, 5))
    found = channelwise.normalize(x, mean, variance**2, scale, bias, plain)
    x, mean, variance, scale, bias = map(np.asarray, (x, mean, variance, scale, bias))
    expected = (x - mean) / np.sqrt(variance**2 + 1e-5) * scale + bias
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype] * 10)
