"""The layers that the networks are made of, and how their parameters start.

B: images of a batch; H, W: rows and columns; C: channels (NHWC); K: classes. Layers compute in
`dtype` and keep their parameters in `param_dtype`.
"""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from caecnn_jax.networks import channelwise, ops

WEIGHT_STD = 0.02  # of the CNN's weights and BatchNorm scales at the start


def uniform_fan_in(fan_in: int) -> Callable:
    """PyTorch's default for weights and biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


normal_init = nn.initializers.normal(WEIGHT_STD)  # the CNN's weights


def normal_around_one(key, shape, dtype=jnp.float32):
    """N(1, 0.02), the start of the CNN's BatchNorm scales."""
    return 1 + WEIGHT_STD * jax.random.normal(key, shape, dtype)


class Conv(nn.Module):
    """Convolution 3x3 that keeps the resolution, and perhaps a max-pool 2x2 after it."""

    channels_in: int
    channels_out: int
    pool: bool
    dtype: jnp.dtype
    param_dtype: jnp.dtype
    kernel_init: Callable | None = None  # None: PyTorch's default, as of the biases

    def setup(self):
        shape = (3, 3, self.channels_in, self.channels_out)
        default = uniform_fan_in(self.channels_in * 9)
        self.kernel = self.param("kernel", self.kernel_init or default, shape, self.param_dtype)
        self.bias = self.param("bias", default, shape[-1:], self.param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels_in] to [B, H, W, channels_out], or with `pool` to half of H and W."""
        return _convolve(x, self.kernel, self.bias, self.pool, self.dtype)


def _convolve(x, kernel, bias, pool: bool, dtype) -> jax.Array:
    x = ops.conv3x3(x, kernel, dtype=dtype)
    # A bias is the same all over a window: it can wait until the pooling left less to add it to.
    return channelwise.add_bias(ops.max_pool(x) if pool else x, bias.astype(x.dtype))


def convolve_together(images: jax.Array, *convs: Conv) -> jax.Array:
    """What several pooled convolutions make of the same images, computed as one: their channels.

    Few channels use a processor badly: on CPU a joint step of mixed mode is 15 % faster for it.
    """
    kernel = jnp.concatenate([conv.kernel for conv in convs], axis=-1)
    bias = jnp.concatenate([conv.bias for conv in convs])
    return _convolve(images, kernel, bias, pool=True, dtype=convs[0].dtype)


class ConvTranspose(nn.Module):
    """Transposed convolution 4x4 of stride 2, which doubles the resolution."""

    features: int
    initializer: Callable
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, 2H, 2W, features]."""
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", self.initializer, shape, self.param_dtype)
        bias = self.param("bias", self.initializer, (self.features,), self.param_dtype)
        x = ops.conv_transpose4x4(x, kernel, dtype=self.dtype)
        return channelwise.add_bias(x, bias.astype(x.dtype))


class LeakyNorm(nn.Module):
    """LeakyReLU, and BatchNorm over images, rows and columns, with the variables of flax.linen's.

    The running averages move by a tenth of the way to the batch's; the variance is the biased one.
    The result keeps the type of the parameters: float32 where products are of bfloat16.
    """

    param_dtype: jnp.dtype
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(
        self,
        maps: jax.Array,
        train: bool,
        mask: jax.Array | None,
        code: jax.Array | None = None,
        sums: channelwise.Sums = None,
    ) -> jax.Array:
        """[B, H, W, C] to the same shape.

        `code` and `sums` are those of `channelwise.leaky_norm`.
        """
        shape = maps.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if not train:
            x = channelwise.leaky_relu(channelwise.joined(maps, code))
            return channelwise.normalize(x, running_mean.value, running_var.value, scale, bias)
        y, mean, var = channelwise.leaky_norm(maps, mask, scale, bias, code=code, sums=sums)
        running_mean.value = 0.9 * running_mean.value + 0.1 * mean
        running_var.value = 0.9 * running_var.value + 0.1 * var
        return y


class Head(nn.Module):
    """Maps to a logit a class: a dense layer of all their values, or cosines.

    The cosine head has no bias: its logit is `cosine_scale` times the cosine between the values
    and the class's weights (Cao et al. 2019, "Learning imbalanced datasets with label-distribution-
    aware margin loss", whose classifier is normalised so). It computes in float32 at least.
    """

    num_classes: int
    cosine_scale: float | None  # None: the dense layer
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(self, maps: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, K]."""
        shape = math.prod(maps.shape[1:]), self.num_classes
        kernel = self.param("kernel", normal_init, shape, self.param_dtype)
        if self.cosine_scale is not None:
            maps = _unit(maps.astype(self.param_dtype), axis=(1, 2, 3))
            return self.cosine_scale * ops.dense(maps, _unit(kernel, axis=0))
        bias = self.param("bias", uniform_fan_in(shape[0]), shape[1:], self.param_dtype)
        logits = ops.dense(maps, kernel, dtype=self.dtype)
        return logits + bias.astype(logits.dtype)[None]


def _unit(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """`x` at length 1 along `axis`; zeros remain, and have a finite gradient."""
    square = jnp.square(x).sum(axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-24))  # 1e-12 of length, as in PyTorch


def later_blocks(
    x: jax.Array,
    convs: Sequence[Conv],
    norms: Sequence[LeakyNorm],
    train: bool,
    mask: jax.Array | None,
) -> jax.Array:
    """What a network's blocks make of what the first of them gave."""
    for conv, norm in zip(convs[1:], norms[1:], strict=True):
        x = norm(conv(x), train, mask)
    return x
