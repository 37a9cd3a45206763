"""The few operations that XLA's CPU backend needs help with, beside their plain forms.

What a profile of the mixed model's training step (batch 64, float32, jaxlib 0.10.2, two AMD EPYC
cores) showed, and what is done about it here:

- XLA brings convolutions into the one form that its threaded CPU kernel takes (NHWC, HWIO) only in
  a program's outermost computation. In a `lax.scan` or a jit within a jit the gradients of a
  convolution run as plain loops, 50 to 100 times slower: `conv3x3` and `conv_transpose4x4` have
  gradients written in that form;
- jaxlib 0.10 hands convolutions to YNNPACK, which is slower for these shapes than XLA's own kernel:
  `compiler_options` turns that off;
- the gradient of a max-pool (`select_and_scatter`) becomes a five-operand reduce-window and a
  scatter, a third of the step: `max_pool` has a gradient made of comparisons;
- a sum over images, rows and columns is slower than the product with a vector that computes it:
  `batch_statistics`.

Other forms of the convolutions' products (im2col, also over chunks of images, row-wise and shifted
matrix products) were slower, and hand-written gradients of batch normalisation or packed bilinear
gathers gained next to nothing, so there are none. Every function takes `plain`, by default true
anywhere but on CPU, where it leaves the work to XLA.

Medians per training step of 64 images: plain 127 ms as a program of its own, 2 to 3 s in a scan;
with this module 41 ms and, augmentation included, 52 ms in a scan of 8 steps, on a machine in use.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


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


def _use_plain(plain):
    return jax.default_backend() != "cpu" if plain is None else plain


def _conv(x, kernel, padding=((1, 1), (1, 1)), **options):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=dimensions, **options
    )


def conv3x3(x, kernel, plain=None):
    """Convolve [B, H, W, C] with [3, 3, C, D], padded to keep H and W; no bias."""
    return _conv(x, kernel) if _use_plain(plain) else _cpu_conv3x3(x, kernel)


@jax.custom_vjp
def _cpu_conv3x3(x, kernel):
    return _conv(x, kernel)


def _cpu_conv3x3_forward(x, kernel):
    return _conv(x, kernel), (x, kernel)


def _cpu_conv3x3_backward(saved, gradient):
    x, kernel = saved
    to_x = _conv(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    # The kernel's gradient convolves x with the gradient, images taking the place of channels.
    to_kernel = _conv(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3))
    return to_x, to_kernel.transpose(1, 2, 0, 3)


_cpu_conv3x3.defvjp(_cpu_conv3x3_forward, _cpu_conv3x3_backward)


def conv_transpose4x4(x, kernel, plain=None):
    """Double H and W of [B, H, W, C] with [4, 4, C, D]; no bias.

    As linen's ConvTranspose with strides (2, 2) and padding ((2, 2), (2, 2)), PyTorch's padding=1.
    """
    if _use_plain(plain):
        return _conv(x, kernel, ((2, 2), (2, 2)), lhs_dilation=(2, 2))
    # A 3x3 convolution to the 2x2 pixels that come of each pixel, as channels, then in their place.
    # Output pixel 2i + r reads input pixel i - 1 + a with the kernel's row 2a - r, where it is one.
    batch, height, width, _ = x.shape
    channels_out = kernel.shape[-1]
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = [padded[1 - r : 7 - r : 2] for r in (0, 1)]
    parts = [row[:, 1 - c : 7 - c : 2] for row in rows for c in (0, 1)]
    y = conv3x3(x, jnp.concatenate(parts, axis=-1), plain)
    y = y.reshape(batch, height, width, 2, 2, channels_out).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, 2 * height, 2 * width, channels_out)


def max_pool(x, plain=None):
    """Return the maximum of each 2x2 window of [B, H, W, C], H and W even.

    The gradient goes to a window's first maximum, row by row, as in XLA and PyTorch.
    """
    return _plain_max_pool(x) if _use_plain(plain) else _cpu_max_pool(x)


def _plain_max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _corners(x):
    return x[:, ::2, ::2], x[:, ::2, 1::2], x[:, 1::2, ::2], x[:, 1::2, 1::2]


@jax.custom_vjp
def _cpu_max_pool(x):
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _cpu_max_pool_forward(x):
    return _cpu_max_pool(x), x


def _cpu_max_pool_backward(x, gradient):
    a, b, c, d = _corners(x)
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    in_top = top >= bottom
    in_left = jnp.where(in_top, a >= b, c >= d)
    zero = jnp.zeros((), gradient.dtype)
    parts = [
        jnp.where(row & column, gradient, zero)
        for row in (in_top, ~in_top)
        for column in (in_left, ~in_left)
    ]
    rows = [jnp.stack(parts[:2], 3), jnp.stack(parts[2:], 3)]
    return (jnp.stack(rows, 2).reshape(x.shape),)


_cpu_max_pool.defvjp(_cpu_max_pool_forward, _cpu_max_pool_backward)


def batch_statistics(x, mask, plain=None):
    """Return mean and biased variance per channel of [B, H, W, C] over the images in `mask` [B].

    Both in float32, or in float64 for a float64 `x`. Images outside the mask must be finite.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    weight = jnp.ones(x.shape[0], x.dtype) if mask is None else mask.astype(x.dtype)
    count = jnp.maximum(weight.sum(), 1) * x.shape[1] * x.shape[2]
    if _use_plain(plain):
        sums = [jnp.sum(v * weight[:, None, None, None], (0, 1, 2)) for v in (x, x * x)]
    else:
        weight = jnp.repeat(weight, x.shape[1] * x.shape[2])
        sums = [weight @ v.reshape(-1, x.shape[-1]) for v in (x, x * x)]
    mean, mean_square = (s / count for s in sums)
    return mean, jnp.maximum(mean_square - mean * mean, 0)


def normalize(x, mean, variance, scale, bias):
    """Return (x - mean) / sqrt(variance + 1e-5) * scale + bias, as one product and one sum.

    `x` is [B, H, W, C], the others [C].
    """
    factor = lax.rsqrt(variance + 1e-5) * scale
    shift = bias - mean * factor
    return x * factor[None, None, None] + shift[None, None, None]
