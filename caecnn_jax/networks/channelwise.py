"""What is done to each channel alone: biases, LeakyReLU and BatchNorm, for CPUs and the others.

As in `ops`, `plain` is the form for what is no CPU. What a TPU's compiler needs there, by its own
estimates (docs/accelerators.md): sums over maps cost as much as a convolution unless they are
fused into what makes the maps, so `leaky_sums` are taken where several networks' maps are still
one; and maps are joined and cut where each is read, or whole maps are written once more.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from caecnn_jax import backend

LEAKY_SLOPE = 0.2
EPSILON = 1e-5  # of BatchNorm

Sums = tuple[jax.Array, jax.Array] | None  # what `leaky_sums` gives, float [C] each


def leaky_relu(x):
    """max(x, 0.2 x), elementwise."""
    return jax.nn.leaky_relu(x, LEAKY_SLOPE)


def _rows(x):
    """[B, H, W, C] as [B * H, W * C]: a few channels would not fill a vector register of a CPU."""
    batch, height, width, channels = x.shape
    return x.reshape(batch * height, width * channels)


def _in_rows(v, x):
    """A value for each channel [C], for the rows of `x`: [1, W * C]."""
    return backend.once(jnp.tile(v, x.shape[2]))[None]


def _sum(rows, x, weight=None):
    """Sum [C] of the rows of `x` [B, H, W, C] over all but the channels, images by `weight` [B]."""
    if weight is None:
        columns = rows.sum(0)
    else:
        columns = weight @ rows.reshape(x.shape[0], x.shape[1], -1).sum(1)
    return backend.once(columns).reshape(x.shape[2:]).sum(0)


def add_bias(x, bias, plain=None):
    """Add [C] to [B, H, W, C]."""
    return x + bias[None, None, None] if backend.use_plain(plain) else _cpu_add_bias(x, bias)


@jax.custom_vjp
def _cpu_add_bias(x, bias):
    return x + bias[None, None, None]


def _cpu_add_bias_forward(x, bias):
    return _cpu_add_bias(x, bias), None


def _cpu_add_bias_backward(_, gradient):
    gradient = backend.once(gradient)
    return gradient, _sum(_rows(gradient), gradient)


_cpu_add_bias.defvjp(_cpu_add_bias_forward, _cpu_add_bias_backward)


def leaky_norm(maps, mask, scale, bias, *, code=None, sums=None, plain=None):
    """BatchNorm of LeakyReLU of `maps` [B, H, W, C], by statistics over the images in `mask` [B].

    Where `code` [B, H, W, c] is given it takes the place of the last c channels. `sums` are the
    maps' `leaky_sums` where they are known. Returns the result, and mean and biased variance [C],
    in float32, or in float64 for float64 maps. Images outside the mask must be finite. No gradient
    flows from the statistics.
    """
    if not backend.use_plain(plain):
        x = leaky_relu(joined(maps, code))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return _cpu_batch_norm(x, _weight(mask, x), scale, bias)
    dtype = jnp.promote_types(maps.dtype, jnp.float32)
    maps, code = jax.tree.map(lambda v: v.astype(dtype), (maps, code))
    sums = leaky_sums(maps, mask, plain) if sums is None else sums
    if code is not None:
        kept, of_code = maps.shape[-1] - code.shape[-1], leaky_sums(code, mask, plain)
        pairs = zip(sums, of_code, strict=True)
        sums = tuple(jnp.concatenate([one[:kept], other]) for one, other in pairs)
    return _leaky_norm(maps, code, _weight(mask, maps), scale, bias, sums)


def leaky_sums(maps, mask, plain=None):
    """Sums [C] of LeakyReLU of `maps` [B, H, W, C] and of its square, over the images in `mask`.

    None on a CPU, to which they are no help.
    """
    if not backend.use_plain(plain):
        return None
    maps = lax.stop_gradient(maps.astype(jnp.promote_types(maps.dtype, jnp.float32)))
    x, weight = _leaky(maps), _weight(mask, maps)[:, None, None, None]
    return tuple((each * weight).sum((0, 1, 2)) for each in (x, x * x))


def joined(maps, code):
    """`maps` [B, H, W, C] with `code` [B, H, W, c], if there is one, for the last c channels."""
    kept = maps.shape[-1] - (0 if code is None else code.shape[-1])
    return maps if code is None else jnp.concatenate([maps[..., :kept], code], axis=-1)


def _weight(mask, x):
    return jnp.ones(x.shape[0], x.dtype) if mask is None else mask.astype(x.dtype)


def _count(x, weight):
    return jnp.maximum(weight.sum(), 1) * x.shape[1] * x.shape[2]


def _moments(sums, x, weight):
    mean, mean_square = (each / _count(x, weight) for each in sums)
    return mean, jnp.maximum(mean_square - mean * mean, 0)


def _slopes(to_bias, to_product, x, weight, scale, mean, variance):
    """BatchNorm's gradients from sums of the result's gradient, alone and times `x`.

    To the scale [C], and three [C] of which `gradient * factor + (x * slope + shift) * weight` is
    that to `x`: of (x - mean) * factor + bias by x, where mean and factor depend on x too. Written
    out, since a gradient derived of the sum of squares passes over the maps once more.
    """
    root = lax.rsqrt(variance + EPSILON)
    to_scale = root * (to_product - mean * to_bias)
    factor = root * scale
    slope = -factor * root * to_scale / _count(x, weight)
    shift = -factor * to_bias / _count(x, weight) - slope * mean
    return to_scale, factor, slope, shift


@jax.custom_vjp
def _cpu_batch_norm(x, weight, scale, bias):
    return _cpu_batch_norm_forward(x, weight, scale, bias)[0]


def _cpu_batch_norm_forward(x, weight, scale, bias):
    x = backend.once(x)
    rows = _rows(x)
    mean, variance = _moments([_sum(v, x, weight) for v in (rows, rows * rows)], x, weight)
    y = backend.once(normalize(x, mean, variance, scale, bias, plain=False))
    return (y, mean, variance), (x, weight, scale, mean, variance)


def _cpu_batch_norm_backward(saved, gradients):
    x, weight, scale, mean, variance = saved
    gradient = backend.once(gradients[0])
    rows, gradient_rows = _rows(x), _rows(gradient)
    to_bias, to_product = _sum(gradient_rows, x), _sum(gradient_rows * rows, x)
    slopes = _slopes(to_bias, to_product, x, weight, scale, mean, variance)
    to_scale, factor, slope, shift = slopes
    of_moments = rows * _in_rows(slope, x) + _in_rows(shift, x)
    of_images = jnp.repeat(weight, x.shape[1])[:, None]
    to_x = gradient_rows * _in_rows(factor, x) + of_moments * of_images
    return to_x.reshape(x.shape), None, to_scale, to_bias


_cpu_batch_norm.defvjp(_cpu_batch_norm_forward, _cpu_batch_norm_backward)


def _leaky(x):
    """`leaky_relu` as a maximum: by a comparison it costs a TPU 20,000 cycles more, as below."""
    return jnp.maximum(x, LEAKY_SLOPE * x)


def _leaky_slope(x):
    """1 where `x` >= 0, or all but, otherwise 0.2, without a comparison.

    A TPU's compiler packs comparisons of 32 rows into bits: 16,000 cycles for a decoder's image.
    """
    return jnp.clip((x + 1e-30) * 1e36, LEAKY_SLOPE, 1)


@jax.custom_vjp
def _leaky_norm(maps, code, weight, scale, bias, sums):
    return _leaky_norm_forward(maps, code, weight, scale, bias, sums)[0]


def _leaky_norm_forward(maps, code, weight, scale, bias, sums):
    maps, code = jax.tree.map(_leaky, (maps, code))
    mean, variance = _moments(sums, maps, weight)
    y = normalize(joined(maps, code), mean, variance, scale, bias, plain=True)
    return (y, mean, variance), (maps, code, weight, scale, mean, variance)


def _leaky_norm_backward(saved, gradients):
    maps, code, weight, scale, mean, variance = saved
    gradient, x = gradients[0], joined(maps, code)
    to_bias, to_product = gradient.sum((0, 1, 2)), (gradient * x).sum((0, 1, 2))
    to_scale, *slopes = _slopes(to_bias, to_product, x, weight, scale, mean, variance)

    def backward(x, channels):
        factor, slope, shift = (each[channels][None, None, None] for each in slopes)
        of_moments = (x * slope + shift) * weight[:, None, None, None]
        return (gradient[..., channels] * factor + of_moments) * _leaky_slope(x)

    to_maps, to_code = backward(maps, slice(None)), None
    if code is not None:
        # Each from what it reads, not cut of one array that would have to be written first.
        kept = maps.shape[-1] - code.shape[-1]
        is_kept = (np.arange(maps.shape[-1]) < kept).astype(maps.dtype)
        to_maps = to_maps * is_kept[None, None, None]
        to_code = backward(code, slice(kept, None))
    # Behind a barrier, or a TPU updates the scale's moments too early, and copies them afterwards.
    return to_maps, to_code, None, lax.optimization_barrier(to_scale), to_bias, None


_leaky_norm.defvjp(_leaky_norm_forward, _leaky_norm_backward)


def normalize(x, mean, variance, scale, bias, plain=None):
    """Return (x - mean) / sqrt(variance + 1e-5) * scale + bias, as one product and one sum.

    `x` is [B, H, W, C], the others [C].
    """
    factor = lax.rsqrt(variance + EPSILON) * scale
    shift = bias - mean * factor
    if backend.use_plain(plain):
        return x * factor[None, None, None] + shift[None, None, None]
    return (_rows(x) * _in_rows(factor, x) + _in_rows(shift, x)).reshape(x.shape)
