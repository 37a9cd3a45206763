import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from caecnn_jax.networks import ops

# Rounding: float64 to 1e-12. float32 sums of a few thousand products, in another order: about
# sqrt(n) * 6e-8 of the largest, 1e-5 with room to spare.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
BATCH_SIZES = (1, 5, 8)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def normal(dtype, *shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_same(function, *inputs, tolerance):
    """The CPU form's result and gradients are the plain form's, under jit and in a scan."""

    def results(plain):
        outputs, pull = jax.vjp(lambda *given: function(*given, plain=plain), *inputs)
        leaves, tree = jax.tree.flatten(outputs)
        cotangents = [normal(leaf.dtype, *leaf.shape, seed=i) for i, leaf in enumerate(leaves)]
        return leaves, pull(jax.tree.unflatten(tree, cotangents))

    expected = jax.jit(results, static_argnums=0)(True)
    scanned = jax.jit(lambda: lax.scan(lambda c, _: (c, results(False)), 0, None, length=2)[1])()
    for found in (jax.jit(results, static_argnums=0)(False), jax.tree.map(lambda v: v[1], scanned)):
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            scale = np.abs(other).max()
            np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(scale, 1e-30))


@pytest.mark.parametrize(
    ("shape", "channels_out"),
    [
        ((8, 8, 10, 3), 7),
        ((5, 4, 6, 6), 5),
        ((1, 4, 6, 9), 2),
        ((5, 3, 5, 2), 1),
        ((5, 6, 8, 1), 4),  # grey, columns in pairs
        ((1, 5, 7, 1), 3),  # grey, of odd width
        ((8, 7, 2, 1), 1),
        ((5, 1, 1, 3), 2),
        ((1, 1, 4, 8), 2),
    ],
)
def test_conv3x3_is_the_plain_one(dtype, shape, channels_out):
    x = normal(dtype, *shape)
    kernel = normal(dtype, 3, 3, shape[-1], channels_out, seed=1)
    assert_same(ops.conv3x3, x, kernel, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("shape", "channels_out"),
    [
        ((8, 4, 5, 6), 3),
        ((5, 1, 2, 2), 5),
        ((5, 7, 7, 6), 1),
        ((8, 3, 4, 1), 1),
        ((1, 1, 1, 1), 3),
        ((1, 2, 1, 9), 1),
    ],
)
def test_conv_transpose_is_the_plain_one(dtype, shape, channels_out):
    x = normal(dtype, *shape)
    kernel = normal(dtype, 4, 4, shape[-1], channels_out, seed=1)
    assert_same(ops.conv_transpose4x4, x, kernel, tolerance=TOLERANCE[dtype])


def test_conv_transpose_is_jaxs(dtype):
    """As are its gradients, which both forms write out."""
    x, kernel = normal(dtype, 2, 4, 5, 6), normal(dtype, 4, 4, 6, 3, seed=1)
    cotangent = normal(dtype, 2, 8, 10, 3, seed=2)

    def results(function):
        y, pull = jax.vjp(function, x, kernel)
        return y, *pull(cotangent)

    expected = results(lambda x, kernel: lax.conv_transpose(x, kernel, (2, 2), ((2, 2), (2, 2))))
    for plain in (True, False):
        found = results(functools.partial(ops.conv_transpose4x4, plain=plain))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (2, 1, 1, 3)])
def test_a_tpus_dense_product_is_that_of_the_flat_maps(dtype, shape, monkeypatch):
    maps, kernel = normal(dtype, *shape), normal(dtype, np.prod(shape[1:]), 7, seed=1)
    expected = np.asarray(maps).reshape(shape[0], -1) @ np.asarray(kernel)
    for backend in ("cpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        found = ops.dense(maps, kernel)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("shape", [(8, 6, 8, 3), (1, 2, 2, 1), (5, 14, 2, 1), (1, 2, 10, 5)])
def test_max_pool_is_the_plain_one(dtype, shape):
    x = normal(dtype, *shape)
    assert_same(ops.max_pool, x, tolerance=0)


def test_max_pool_breaks_ties_as_the_plain_one(dtype):
    # Every window of three values, so all ties; and windows of equal values.
    windows = np.stack(np.meshgrid(*[np.arange(3)] * 4), -1).reshape(-1, 2, 2, 1)
    x = jnp.asarray(windows, dtype)
    assert_same(ops.max_pool, x, tolerance=0)
    gradient = jax.grad(lambda v: ops.max_pool(v, plain=False).sum())(jnp.zeros((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0, 0])


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_add_bias_is_the_plain_one(dtype, batch):
    x, bias = normal(dtype, batch, 4, 6, 3), normal(dtype, 3, seed=1)
    assert_same(ops.add_bias, x, bias, tolerance=TOLERANCE[dtype])
    np.testing.assert_array_equal(ops.add_bias(x, bias, plain=False), x + bias[None, None, None])


MASKS = {
    "none": lambda index: None,
    "some": lambda index: index % 3 != 1,
    "one image": lambda index: index == 0,
}


@pytest.mark.parametrize("masked", MASKS)
@pytest.mark.parametrize("shape", [(8, 4, 6, 3), (1, 4, 6, 3), (5, 5, 7, 1), (5, 3, 1, 2)])
def test_batch_norm_is_the_plain_one(dtype, masked, shape):
    batch, *_, channels = shape
    x = normal(dtype, *shape, seed=9) + 0.5
    scale, bias = normal(dtype, channels, seed=1), normal(dtype, channels, seed=2)
    mask = MASKS[masked](jnp.arange(batch))

    def norm(x, scale, bias, plain):
        return ops.batch_norm(x, mask, scale, bias, plain)

    assert_same(norm, x, scale, bias, tolerance=TOLERANCE[dtype] * 10)
    y, *moments = norm(x, scale, bias, plain=False)
    x, scale, bias = (np.asarray(v, np.float64) for v in (x, scale, bias))
    valid = x if mask is None else x[np.asarray(mask)]
    mean, variance = valid.mean((0, 1, 2)), valid.var((0, 1, 2))
    for found, expected in zip(moments, (mean, variance), strict=True):
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype] * 10)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
    np.testing.assert_allclose(y, expected, atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("masked", MASKS)
def test_the_gradient_of_batch_norm_is_the_formulas(masked, plain):
    """Both forms write it out; here JAX derives it of the formula."""
    mask = MASKS[masked](jnp.arange(5))

    def formula(x, scale, bias):
        weight = jnp.ones(5) if mask is None else mask.astype(x.dtype)
        weight = weight[:, None, None, None] * jnp.ones(x.shape)
        scale, bias = (each[None, None, None] for each in (scale, bias))
        sums = functools.partial(jnp.sum, axis=(0, 1, 2), keepdims=True)
        mean = sums(weight * x) / sums(weight)
        variance = sums(weight * (x - mean) ** 2) / sums(weight)
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + bias

    with jax.enable_x64(True):
        given = (normal("float64", 5, 3, 4, 2), *(normal("float64", 2, seed=i) for i in (1, 2)))
        cotangent = normal("float64", 5, 3, 4, 2, seed=3)
        expected = jax.vjp(formula, *given)[1](cotangent)
        found = jax.vjp(lambda *given: ops.batch_norm(given[0], mask, *given[1:], plain)[0], *given)
        for one, other in zip(found[1](cotangent), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


def test_the_gradient_of_batch_norm_goes_through_its_statistics():
    """The counter-check: by constant statistics, all images would get what they give."""
    x, ones = normal("float32", 4, 2, 2, 3), jnp.ones(3)

    def total(x):
        return ops.batch_norm(x, None, ones, ones, plain=False)[0].sum()

    np.testing.assert_allclose(jax.grad(total)(x), np.zeros_like(x), atol=1e-5)


def test_batch_norm_without_an_image():
    x, ones = normal("float32", 3, 2, 2, 4), jnp.ones(4)
    for plain in (True, False):
        _, *moments = ops.batch_norm(x, jnp.zeros(3, bool), ones, ones, plain)
        np.testing.assert_array_equal(moments, np.zeros((2, 4)))


@pytest.mark.parametrize("plain", [True, False])
def test_normalize_centres_and_scales(dtype, plain):
    x = normal(dtype, 8, 4, 4, 3)
    mean, variance, scale, bias = (normal(dtype, 3, seed=seed) for seed in range(1, 5))
    found = ops.normalize(x, mean, variance**2, scale, bias, plain)
    x, mean, variance, scale, bias = map(np.asarray, (x, mean, variance, scale, bias))
    expected = (x - mean) / np.sqrt(variance**2 + 1e-5) * scale + bias
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("plain", [True, False])
def test_bfloat16_keeps_its_type_and_float32_statistics(plain):
    x = normal("bfloat16", 2, 4, 4, 3)
    assert ops.conv3x3(x, normal("bfloat16", 3, 3, 3, 2), plain).dtype == jnp.bfloat16
    assert ops.conv_transpose4x4(x, normal("bfloat16", 4, 4, 3, 2), plain).dtype == jnp.bfloat16
    assert ops.max_pool(x, plain).dtype == jnp.bfloat16
    ones = jnp.ones(3, jnp.float32)
    assert {v.dtype for v in ops.batch_norm(x, None, ones, ones, plain)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_forms_work_under_vmap(dtype):
    x, kernel = normal(dtype, 2, 3, 4, 4, 3), normal(dtype, 2, 3, 3, 3, 2, seed=1)
    ones = jnp.ones(2)

    def loss(x, kernel, plain):
        y = ops.max_pool(ops.conv3x3(x, kernel, plain), plain)
        y, *_ = ops.batch_norm(ops.add_bias(y, ones, plain), None, ones, ones, plain)
        return (y**3).sum()

    found, expected = (
        jax.vmap(jax.grad(lambda x, k, plain=plain: loss(x, k, plain), (0, 1)))(x, kernel)
        for plain in (False, True)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())
