"""The few operations that XLA's CPU backend needs help with, beside their plain forms.

What a profile of mixed mode's training calls showed (benchmarks/profile_cpu.py; batch 64, float32,
jaxlib 0.10.2, two cores), and what is done about it here:

- XLA brings convolutions into the one form that its threaded CPU kernel takes (NHWC, HWIO) only in
  a program's outermost computation. In a `lax.scan` or a jit within a jit the gradients of a
  convolution run as plain loops, 50 to 100 times slower: `conv3x3` and `conv_transpose4x4` have
  gradients written in that form;
- jaxlib 0.10 hands convolutions to YNNPACK, which is slower for these shapes than XLA's own kernel,
  and computes an elementwise result again in each place that reads it, mostly out of order: slower
  than the convolutions themselves. `backend.compiler_options` turns off the first, and the pass
  that drops the barriers which keep the second from happening (`backend.once`);
- that kernel gathers the windows of few channels one value at a time: `_cpu_conv` gives it more;
- the gradient of a max-pool (`select_and_scatter`) becomes a five-operand reduce-window and a
  scatter, a third of the step: `max_pool` remembers where in each window its maximum was;
- sums over images, rows and columns go channel by channel, and few channels fill no vector
  register: `channelwise` works on rows of all columns' channels.

Every function of these takes `plain`, by default true anywhere but on CPU, where it leaves the work
to XLA. A TPU needs help too: `dense` spares it many small operations.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from caecnn_jax import backend


def _conv(x, kernel, padding=((1, 1), (1, 1)), strides=(1, 1), **options):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, **options
    )


def _factors(x, kernel, dtype):
    """The factors of a product in `dtype`, and its precision; None: the default one.

    On a TPU those of a product in bfloat16 stay float32: its matrix units round them, and its
    vector units, which do the rest, know no bfloat16.
    """
    dtype = jnp.dtype(dtype or x.dtype)
    if dtype == jnp.bfloat16 and backend.is_tpu():
        return x.astype(jnp.float32), kernel.astype(jnp.float32), lax.Precision.DEFAULT
    return x.astype(dtype), kernel.astype(dtype), None


def conv3x3(x, kernel, plain=None, *, dtype=None):
    """Convolve [B, H, W, C] with [3, 3, C, D], padded to keep H and W; no bias.

    In `dtype`, by default that of `x`; on a TPU the result of bfloat16 is float32.
    """
    x, kernel, precision = _factors(x, kernel, dtype)
    if backend.use_plain(plain):
        return _conv(x, kernel, precision=precision)
    return _cpu_conv3x3(x, kernel)


# [j, a, b, p]: output column p of a pair reads with the kernel's column j the column b of pair a of
# three, of which the middle one is its own.
_j, _a, _b, _p = np.ogrid[:3, :3, :2, :2]
_PAIRS = 2 * _a + _b == 1 + _p + _j


def _cpu_conv(x, kernel):
    """Few channels are taken as twice as many of half the columns, padded to a multiple of four."""
    batch, height, width, channels_in = x.shape
    channels_out = kernel.shape[-1]
    if channels_in >= 8 or width % 2:
        return _conv(x, kernel)
    padding = -channels_in % 4
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, padding)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, padding), (0, 0)))
    kernel = jnp.einsum("hjcd,jabp->habcpd", kernel, _PAIRS.astype(kernel.dtype))
    kernel = kernel.reshape(3, 3, 2 * (channels_in + padding), 2 * channels_out)
    y = _conv(x.reshape(batch, height, width // 2, -1), kernel)
    return y.reshape(batch, height, width, channels_out)


@jax.custom_vjp
def _cpu_conv3x3(x, kernel):
    return _cpu_conv3x3_forward(x, kernel)[0]


def _cpu_conv3x3_forward(x, kernel):
    x = backend.once(x)
    return _cpu_conv(x, kernel), (x, kernel)


def _cpu_conv3x3_backward(saved, gradient):
    x, kernel = saved
    gradient = backend.once(gradient)
    to_x = _conv(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    return to_x, _to_kernel(x, gradient)


def _to_kernel(x, gradient, **options):
    """The kernel's gradient: x convolved with the gradient, images taking the place of channels."""
    to_kernel = _conv(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), **options)
    return to_kernel.transpose(1, 2, 0, 3)


_cpu_conv3x3.defvjp(_cpu_conv3x3_forward, _cpu_conv3x3_backward)


def conv_transpose4x4(x, kernel, plain=None, *, dtype=None):
    """Double H and W of [B, H, W, C] with [4, 4, C, D]; no bias. `dtype` is as in `conv3x3`.

    As linen's ConvTranspose with strides (2, 2) and padding ((2, 2), (2, 2)), PyTorch's padding=1.
    """
    x, kernel, precision = _factors(x, kernel, dtype)
    return _conv_transpose4x4(x, kernel, backend.use_plain(plain), precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_transpose4x4(x, kernel, plain, precision):
    return _conv_transpose4x4_forward(x, kernel, plain, precision)[0]


def _conv_transpose4x4_forward(x, kernel, plain, precision):
    if plain:
        y = _conv(x, kernel, ((2, 2), (2, 2)), lhs_dilation=(2, 2), precision=precision)
        return y, (x, kernel)
    # A 3x3 convolution to the 2x2 pixels that come of each pixel, as channels, then in their place.
    # Output pixel 2i + r reads input pixel i - 1 + a with the kernel's row 2a - r, where it is one.
    x = backend.once(x)
    batch, height, width, _ = x.shape
    channels_out = kernel.shape[-1]
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = [padded[1 - r : 7 - r : 2] for r in (0, 1)]
    parts = [row[:, 1 - c : 7 - c : 2] for row in rows for c in (0, 1)]
    y = _cpu_conv(x, jnp.concatenate(parts, axis=-1))
    y = y.reshape(batch, height, width, 2, 2, channels_out).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, 2 * height, 2 * width, channels_out), (x, kernel)


def _conv_transpose4x4_backward(plain, precision, saved, gradient):
    x, kernel = saved
    gradient = gradient if plain else backend.once(gradient)
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    to_x = _conv(gradient, flipped, strides=(2, 2), precision=precision)
    # The transpose of `to_x` as a function of the kernel: the gradient read with a stride of 2. As
    # JAX derives it, a TPU would turn the whole gradient about first.
    to_kernel = _to_kernel(gradient, x, rhs_dilation=(2, 2), precision=precision)
    return to_x, to_kernel[::-1, ::-1].transpose(0, 1, 3, 2)


_conv_transpose4x4.defvjp(_conv_transpose4x4_forward, _conv_transpose4x4_backward)


def max_pool(x, plain=None):
    """Return the maximum of each 2x2 window of [B, H, W, C], H and W even.

    The gradient goes to a window's first maximum, row by row, as in XLA and PyTorch.
    """
    if backend.use_plain(plain):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return _cpu_max_pool(x)


@jax.custom_vjp
def _cpu_max_pool(x):
    return _cpu_max_pool_forward(x)[0]


def _cpu_max_pool_forward(x):
    batch, height, width, channels = x.shape
    windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    a, b, c, d = (windows[:, :, row, :, column] for row in (0, 1) for column in (0, 1))
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    place = jnp.where(top >= bottom, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3))
    return jnp.maximum(top, bottom), place


def _cpu_max_pool_backward(place, gradient):
    places = jnp.arange(4).reshape(1, 1, 2, 1, 2, 1)
    place, gradient = (v[:, :, None, :, None] for v in (place, gradient))
    windows = jnp.where(place == places, gradient, jnp.zeros((), gradient.dtype))
    batch, height, _, width, _, channels = windows.shape
    return (windows.reshape(batch, 2 * height, 2 * width, channels),)


_cpu_max_pool.defvjp(_cpu_max_pool_forward, _cpu_max_pool_backward)


def dense(maps, kernel, *, dtype=None):
    """Multiply each image's values of [B, H, W, C] with [H * W * C, K]; no bias.

    `dtype` is as in `conv3x3`. A TPU does it as one window of a convolution, since to lay the maps
    out flat costs it more.
    """
    maps, kernel, precision = _factors(maps, kernel, dtype)
    if not backend.is_tpu():
        return maps.reshape(maps.shape[0], -1) @ kernel
    windows = kernel.reshape(*maps.shape[1:], -1)
    return _conv(maps, windows, ((0, 0), (0, 0)), precision=precision)[:, 0, 0]
