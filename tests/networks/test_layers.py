"""Tests of caecnn_jax.networks.layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from caecnn_jax.networks import layers

pytestmark = pytest.mark.usefixtures("quick_compilation")

TYPES = {"dtype": jnp.float32, "param_dtype": jnp.float32}
KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_together_are_those_apart(channels):
    images = normal(2, 4, 6, channels)
    convs = [layers.Conv(channels, out, pool=True, **TYPES) for out in (2, 5, 1)]
    bound = [conv.bind(conv.init(jax.random.key(seed), images)) for seed, conv in enumerate(convs)]
    together = layers.convolve_together(images, *bound)
    apart = np.concatenate([conv(images) for conv in bound], axis=-1)
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 1000])
def test_a_linear_head_is_a_dense_layer(classes):
    maps = normal(3, 2, 2, 2)
    head = layers.Head(classes, None, **TYPES)
    variables = head.init(KEY, maps)
    params = variables["params"]
    wanted = maps.reshape(3, 8) @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    np.testing.assert_allclose(head.apply(variables, maps), wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(params["bias"]).max() <= 1 / np.sqrt(8)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_cosine_head_gives_the_cosines_between_features_and_weights(scale):
    maps = normal(5, 2, 1, 4)
    features = maps.reshape(5, 8)
    head = layers.Head(3, scale, **TYPES)
    variables = head.init(KEY, maps)
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    assert set(variables["params"]) == {"kernel"}
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(kernel, axis=0)
    logits = head.apply(variables, maps)
    np.testing.assert_allclose(logits, scale * (features @ kernel) / lengths, rtol=1e-4, atol=1e-5)
    assert np.abs(logits).max() <= scale * (1 + 1e-6)
    # No length matters, neither that of the features nor that of the weights.
    longer = {"params": {"kernel": 7 * variables["params"]["kernel"]}}
    np.testing.assert_allclose(head.apply(longer, 5 * maps), logits, rtol=1e-4, atol=1e-5)


def test_maps_of_zero_have_a_cosine_of_zero_and_a_finite_gradient():
    head = layers.Head(3, 30.0, **TYPES)
    maps = np.zeros((2, 1, 1, 4), np.float32)
    variables = head.init(KEY, maps)
    assert (head.apply(variables, maps) == 0).all()
    gradient = jax.grad(lambda maps: head.apply(variables, maps).sum())(maps)
    assert np.isfinite(gradient).all()


def test_a_cosine_head_does_not_compute_low():
    head = layers.Head(3, 1.0, dtype=jnp.bfloat16, param_dtype=jnp.float32)
    maps = jnp.ones((2, 2, 2, 1), jnp.bfloat16)
    variables = head.init(KEY, maps)
    assert head.apply(variables, maps).dtype == jnp.float32
