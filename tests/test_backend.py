"""Tests of caecnn_jax.backend."""

import jax

from caecnn_jax import backend


def test_compiler_options_keep_the_barriers_that_the_cpu_forms_are_made_for():
    function = jax.jit(
        lambda x: backend.once(x + 1) * 2, compiler_options=backend.compiler_options()
    )
    assert function(1) == 4
    # XLA takes any name of a pass to leave out: should it rename this one, only the text tells.
    assert "opt-barrier" in function.lower(1).compile().as_text()
    assert (
        "opt-barrier" not in jax.jit(lambda x: backend.once(x + 1) * 2).lower(1).compile().as_text()
    )
