import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forms import TOLERANCE, assert_same, normal
from jax import lax

from caecnn_jax.networks import channelwise, ops

BATCH_SIZES = (1, 5, 8)


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


@pytest.mark.parametrize("backend", ["tpu", "gpu"])
def test_a_tpu_rounds_the_factors_of_a_product_in_bfloat16_itself(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    maps = jnp.ones((1, 4, 4, 3))
    for product, kernel in (
        (ops.conv3x3, jnp.ones((3, 3, 3, 2))),
        (ops.conv_transpose4x4, jnp.ones((4, 4, 3, 2))),
        (ops.dense, jnp.ones((48, 2))),
    ):

        def of_both(maps, kernel, product=product):
            return product(maps, kernel, dtype=jnp.bfloat16).sum()

        found = str(jax.make_jaxpr(jax.grad(of_both, argnums=(0, 1)))(maps, kernel))
        assert ("bf16" in found) == (backend == "gpu")
        if backend == "tpu":
            rounded = "precision=(Precision.DEFAULT, Precision.DEFAULT)"
            assert 0 < found.count("conv_general_dilated") == found.count(rounded)


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


@pytest.mark.parametrize("plain", [True, False])
def test_bfloat16_keeps_its_type(plain):
    x = normal("bfloat16", 2, 4, 4, 3)
    assert ops.conv3x3(x, normal("bfloat16", 3, 3, 3, 2), plain).dtype == jnp.bfloat16
    assert ops.conv_transpose4x4(x, normal("bfloat16", 4, 4, 3, 2), plain).dtype == jnp.bfloat16
    assert ops.max_pool(x, plain).dtype == jnp.bfloat16


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_forms_work_under_vmap(dtype):
    x, kernel = normal(dtype, 2, 3, 4, 4, 3), normal(dtype, 2, 3, 3, 3, 2, seed=1)
    ones = jnp.ones(2)

    def loss(x, kernel, plain):
        y = ops.max_pool(ops.conv3x3(x, kernel, plain), plain)
        y = channelwise.add_bias(y, ones, plain)
        y, *_ = channelwise.leaky_norm(y, None, ones, ones, plain=plain)
        return (y**3).sum()

    found, expected = (
        jax.vmap(jax.grad(lambda x, k, plain=plain: loss(x, k, plain), (0, 1)))(x, kernel)
        for plain in (False, True)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())
