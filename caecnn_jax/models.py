"""The networks: encoder, decoder, autoencoder, CNN, and the classifier that joins them.

B: images of a batch; H, W: rows and columns; C: channels (NHWC). Every `__call__` takes `mask`
bool [B], False on padding images, which BatchNorm's statistics leave out (None: none is padding),
and `train`: normalise by the batch's statistics and update the running averages.
"""

import functools
import math
from collections.abc import Callable

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

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


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows: [B, H, W, C] to [B, H/2, W/2, C]."""
    return nn.max_pool(x, (2, 2), strides=(2, 2))


def _layers(train: bool, mask: jax.Array | None, dtype, param_dtype) -> tuple[Callable, Callable]:
    """Convolution 3x3 and BatchNorm as every block has them; the norm's mask is bound."""
    conv = functools.partial(
        nn.Conv, kernel_size=(3, 3), padding=((1, 1), (1, 1)), dtype=dtype, param_dtype=param_dtype
    )
    mask = None if mask is None else mask[:, None, None, None]

    def norm(x: jax.Array, **options) -> jax.Array:
        layer = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=dtype,
            param_dtype=param_dtype,
            **options,
        )
        return layer(x, mask=mask)

    return conv, norm


class Encoder(nn.Module):
    """Image to code: per block conv 3x3, max-pool 2x2, LeakyReLU, BatchNorm."""

    block_sizes: EncoderBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """[B, H, W, 3] to the code [B, H / 2^n, W / 2^n, C] of n blocks."""
        conv, norm = _layers(train, mask, self.dtype, self.param_dtype)
        for index, (channels_in, channels_out) in enumerate(self.block_sizes, 1):
            init = uniform_fan_in(channels_in * 9)
            x = conv(channels_out, kernel_init=init, bias_init=init, name=f"conv_{index}")(x)
            x = norm(leaky_relu(max_pool(x)), name=f"norm_{index}")
        return x


class Decoder(nn.Module):
    """Code to image: per block transposed conv 4x4 of stride 2, LeakyReLU, BatchNorm."""

    block_sizes: EncoderBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, mask: jax.Array | None = None) -> jax.Array:
        """[B, h, w, C] to the reconstruction [B, h * 2^n, w * 2^n, 3] of n blocks."""
        _, norm = _layers(train, mask, self.dtype, self.param_dtype)
        for index, (_, channels_out) in enumerate(self.block_sizes, 1):
            init = uniform_fan_in(channels_out * 16)  # PyTorch's fan_in of a transposed conv
            x = nn.ConvTranspose(
                channels_out,
                kernel_size=(4, 4),
                strides=(2, 2),
                padding=((2, 2), (2, 2)),  # PyTorch's padding=1, counted on the dilated input
                kernel_init=init,
                bias_init=init,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"conv_{index}",
            )(x)
            x = norm(leaky_relu(x), name=f"norm_{index}")
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
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] to the code [B, h, w, C] and the reconstruction [B, H, W, 3]."""
        code = self.encoder(images, train, mask)
        return code, self.decoder(code, train, mask)


class CNN(nn.Module):
    """Feature maps to logits: per block conv 3x3, perhaps max-pool, LeakyReLU, BatchNorm."""

    block_sizes: CNNBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        code: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """[B, H, W, C] to logits [B, 10].

        A `code` [B, H/2, W/2, c] is concatenated to the first block's channels after its pooling,
        before its LeakyReLU (mixed mode).
        """
        conv, norm = _layers(train, mask, self.dtype, self.param_dtype)
        weight_init = nn.initializers.normal(WEIGHT_STD)
        for index, (_, channels_out, pool) in enumerate(self.block_sizes, 1):
            bias_init = uniform_fan_in(x.shape[-1] * 9)
            name = f"conv_{index}"
            x = conv(channels_out, kernel_init=weight_init, bias_init=bias_init, name=name)(x)
            x = max_pool(x) if pool else x
            if code is not None and index == 1:
                x = jnp.concatenate([x, code], axis=-1)
            x = norm(leaky_relu(x), scale_init=normal_around_one, name=f"norm_{index}")
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(
            NUM_CLASSES,
            kernel_init=weight_init,
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
        code = reconstruction = logits = None
        if self.cae is not None:
            code, reconstruction = self.cae(images, train, mask)
        if self.cnn is not None and joint:
            if code is None:
                logits = self.cnn(images, None, train, mask)
            elif self.use_mixed_input:
                logits = self.cnn(images, code, train, mask)
            else:
                logits = self.cnn(code, None, train, mask)
        return Outputs(code, reconstruction, logits)


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
