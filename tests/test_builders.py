"""Tests of what tests share."""

import jax
from builders import less_optimized


def test_what_is_compiled_with_less_optimisation_does_not_outlast_it():
    add_one = jax.jit(lambda x: x + 1)
    with less_optimized():
        add_one(1.0)
        assert add_one._cache_size() == 1
    assert add_one._cache_size() == 0
