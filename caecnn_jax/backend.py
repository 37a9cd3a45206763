"""What the platform's compiler is told, and which forms of an operation suit it: see `ops`."""

import functools

import jax
from jax import lax

_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
    "xla_disable_hlo_passes": "cse_barrier_expander",  # what removes optimization barriers
}

# Computed once, whoever reads it. Only a program compiled with `compiler_options` keeps to it.
once = lax.optimization_barrier


@functools.cache
def compiler_options():
    """Return the `compiler_options` that `jax.jit` should compile training and evaluation with.

    Empty on accelerators, and where this version of XLA does not know the option.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=_CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return dict(_CPU_OPTIONS)


def use_plain(plain=None):
    """Return whether work is left to XLA: true anywhere but on CPU, unless told otherwise."""
    return jax.default_backend() != "cpu" if plain is None else plain


def is_tpu(given=None):
    """Return whether programs are compiled for a TPU, unless told otherwise."""
    return jax.default_backend() == "tpu" if given is None else given
