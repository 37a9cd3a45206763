"""The networks: encoder, decoder, autoencoder, CNN, and the classifier that joins them.

B: images of a batch; H, W: rows and columns; C: channels (NHWC). Every `__call__` takes `mask`
bool [B], False on padding images, which BatchNorm's statistics leave out (None: none is padding),
and `train`: normalise by the batch's statistics and update the running averages.
"""

import itertools
import math
from collections.abc import Callable

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from caecnn_jax.networks import ops

NUM_CLASSES = 10
LEAKY_SLOPE = 0.2
WEIGHT_STD = 0.02  # of the CNN's weights and BatchNorm scales at the start
EncoderBlocks = tuple[tuple[int, int], ...]
CNNBlocks = tuple[tuple[int, int, bool], ...]


@flax.struct.dataclass
class Outputs:
    """What the networks give; None for a part that is absent or not run."""

    code: jax.Array | None = None  # [B, h, w, C]
    reconstruction: jax.Array | None = None  # [B, H, W, 3], channel-normalised like the input
    logits: jax.Array | None = None  # [B, 10]


def uniform_fan_in(fan_in: int) -> Callable:
    """PyTorch's default for weights and biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def normal_around_one(key, shape, dtype=jnp.float32):
    """N(1, 0.02), the start of the CNN's BatchNorm scales."""
    return 1 + WEIGHT_STD * jax.random.normal(key, shape, dtype)


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, 0.2 x), elementwise."""
    return nn.leaky_relu(x, LEAKY_SLOPE)


class Conv(nn.Module):
    """Convolution 3x3 that keeps the resolution, and perhaps a max-pool 2x2 after it."""

    channels_in: int
    channels_out: int
    kernel_init: Callable
    bias_init: Callable
    dtype: jnp.dtype
    param_dtype: jnp.dtype

    def setup(self):
        shape = (3, 3, self.channels_in, self.channels_out)
        self.kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        self.bias = self.param("bias", self.bias_init, shape[-1:], self.param_dtype)

    def __call__(self, x: jax.Array, pool: bool) -> jax.Array:
        """[B, H, W, channels_in] to [B, H, W, channels_out], or with `pool` to half of H and W."""
        return _convolve(x, self.kernel, self.bias, pool, self.dtype)


def _convolve(x, kernel, bias, pool: bool, dtype) -> jax.Array:
    x = ops.conv3x3(x.astype(dtype), kernel.astype(dtype))
    # A bias is the same all over a window: it can wait until the pooling left less to add it to.
    return ops.add_bias(ops.max_pool(x) if pool else x, bias.astype(dtype))


def convolve_together(images: jax.Array, *convs: Conv) -> list[jax.Array]:
    """What each of several pooled convolutions makes of the same images, computed as one.

    Few channels use a processor badly: on CPU a joint step of mixed mode is 15 % faster for it.
    """
    kernel = jnp.concatenate([conv.kernel for conv in convs], axis=-1)
    bias = jnp.concatenate([conv.bias for conv in convs])
    x = _convolve(images, kernel, bias, pool=True, dtype=convs[0].dtype)
    ends = list(itertools.accumulate(conv.channels_out for conv in convs))
    return jnp.split(x, ends[:-1], axis=-1)


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
        x = ops.conv_transpose4x4(x.astype(self.dtype), kernel.astype(self.dtype))
        return ops.add_bias(x, bias.astype(self.dtype))


class BatchNorm(nn.Module):
    """BatchNorm over images, rows and columns, with the variables of flax.linen's.

    The running averages move by a tenth of the way to the batch's; the variance is the biased one.
    """

    dtype: jnp.dtype
    param_dtype: jnp.dtype
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        """[B, H, W, C] to the same shape."""
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if not train:
            y = ops.normalize(x, running_mean.value, running_var.value, scale, bias)
            return y.astype(self.dtype)
        y, mean, var = ops.batch_norm(x, mask, scale, bias)
        running_mean.value = 0.9 * running_mean.value + 0.1 * mean
        running_var.value = 0.9 * running_var.value + 0.1 * var
        return y.astype(self.dtype)


class Encoder(nn.Module):
    """Image to code: per block conv 3x3, max-pool 2x2, LeakyReLU, BatchNorm."""

    block_sizes: EncoderBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types = self.dtype, self.param_dtype
        for index, (channels_in, channels_out) in enumerate(self.block_sizes, 1):
            init = uniform_fan_in(channels_in * 9)
            setattr(self, f"conv_{index}", Conv(channels_in, channels_out, init, init, *types))
            setattr(self, f"norm_{index}", BatchNorm(*types))

    def __call__(
        self,
        x: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, 3] to the code [B, H / 2^n, W / 2^n, C] of n blocks.

        `first` [B, H/2, W/2, C] stands in for the first block's convolution and pooling.
        """
        for index in range(1, len(self.block_sizes) + 1):
            given = first if index == 1 else None
            x = getattr(self, f"conv_{index}")(x, pool=True) if given is None else given
            x = getattr(self, f"norm_{index}")(leaky_relu(x), train, mask)
        return x


class Decoder(nn.Module):
    """Code to image: per block transposed conv 4x4 of stride 2, LeakyReLU, BatchNorm."""

    block_sizes: EncoderBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """[B, h, w, C] to the reconstruction [B, h * 2^n, w * 2^n, 3] of n blocks."""
        types = self.dtype, self.param_dtype
        for index, (_, channels_out) in enumerate(self.block_sizes, 1):
            init = uniform_fan_in(channels_out * 16)  # PyTorch's fan_in of a transposed conv
            x = ConvTranspose(channels_out, init, *types, name=f"conv_{index}")(x)
            x = BatchNorm(*types, name=f"norm_{index}")(leaky_relu(x), train, mask)
        return x


class ConvAutoencoder(nn.Module):
    """Encoder and decoder."""

    enc_block_sizes: EncoderBlocks
    dec_block_sizes: EncoderBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder = Encoder(self.enc_block_sizes, self.dtype, self.param_dtype)
        self.decoder = Decoder(self.dec_block_sizes, self.dtype, self.param_dtype)

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] to the code [B, h, w, C] and the reconstruction [B, H, W, 3].

        `first` is the encoder's.
        """
        code = self.encoder(images, train, mask, first)
        return code, self.decoder(code, train, mask)


class CNN(nn.Module):
    """Feature maps to logits: per block conv 3x3, perhaps max-pool, LeakyReLU, BatchNorm."""

    block_sizes: CNNBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types = self.dtype, self.param_dtype
        self.weight_init = nn.initializers.normal(WEIGHT_STD)
        for index, (channels_in, channels_out, _) in enumerate(self.block_sizes, 1):
            inits = self.weight_init, uniform_fan_in(channels_in * 9)
            setattr(self, f"conv_{index}", Conv(channels_in, channels_out, *inits, *types))
            setattr(self, f"norm_{index}", BatchNorm(*types, normal_around_one))

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        code: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, C] to logits [B, 10].

        A `code` [B, H/2, W/2, c] is concatenated to the first block's channels after its pooling,
        before its LeakyReLU (mixed mode). `first` [B, H/2, W/2, C] stands in for the first block's
        convolution and pooling.
        """
        for index, (_, _, pool) in enumerate(self.block_sizes, 1):
            given = first if index == 1 else None
            x = getattr(self, f"conv_{index}")(x, pool) if given is None else given
            if code is not None and index == 1:
                x = jnp.concatenate([x, code], axis=-1)
            x = getattr(self, f"norm_{index}")(leaky_relu(x), train, mask)
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(
            NUM_CLASSES,
            kernel_init=self.weight_init,
            bias_init=uniform_fan_in(x.shape[-1]),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="dense",
        )(x)


class Classifier(nn.Module):
    """The autoencoder, the CNN, or both joined; the classifier's gradient reaches the encoder."""

    cae: ConvAutoencoder | None = None
    cnn: CNN | None = None
    use_mixed_input: bool = False  # with both: the CNN reads image and code, not the code alone

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        joint: bool = True,
    ) -> Outputs:
        """Runs what there is on images [B, H, W, 3]; `joint=False` leaves the CNN out."""
        cnn = self.cnn if joint else None
        if self.cae is None:
            return Outputs(logits=cnn(images, None, train, mask))
        if cnn is None:
            return Outputs(*self.cae(images, train, mask))
        if not self.use_mixed_input:
            code, reconstruction = self.cae(images, train, mask)
            return Outputs(code, reconstruction, cnn(code, None, train, mask))
        of_cnn, of_cae = convolve_together(images, cnn.conv_1, self.cae.encoder.conv_1)
        code, reconstruction = self.cae(images, train, mask, of_cae)
        return Outputs(code, reconstruction, cnn(images, code, train, mask, of_cnn))


def from_config(config: ml_collections.ConfigDict) -> Classifier:
    """The networks that a validated config describes."""
    dtype = jnp.dtype(config.dtype)
    # Low-precision compute keeps its parameters and statistics in float32.
    param_dtype = jnp.promote_types(dtype, jnp.float32)
    cae = cnn = None
    if config.use_cae:
        sizes = config.cae.enc_block_sizes, config.cae.dec_block_sizes
        cae = ConvAutoencoder(*sizes, dtype, param_dtype)
    if config.use_cnn:
        cnn = CNN(config.cnn.block_sizes, dtype, param_dtype)
    return Classifier(cae, cnn, config.cnn.use_mixed_input)
