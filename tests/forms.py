"""Comparing an operation's form for CPUs with its plain one."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Rounding: float64 to 1e-12. float32 sums of a few thousand products, in another order: about
# sqrt(n) * 6e-8 of the largest, 1e-5 with room to spare.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


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
