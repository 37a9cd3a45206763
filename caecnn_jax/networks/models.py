"""The networks: encoder, decoder, autoencoder, CNN, and the classifier that joins them.

B: images of a batch; H, W: rows and columns; C: channels (NHWC); K: classes. What runs blocks takes
`mask` bool [B], False on padding images, which BatchNorm's statistics leave out (None: none is
padding), and `train`: normalise by the batch's statistics and update the running averages. The
first maps are what the first block's convolution and pooling make, before LeakyReLU and BatchNorm:
where the code joins the image, and where two networks can share a convolution.
"""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from caecnn_jax import blocks as blocks_lib
from caecnn_jax.data import dataset
from caecnn_jax.networks import channelwise, layers

CAEBlocks = tuple[tuple[int, int], ...]
CNNBlocks = tuple[tuple[int, int, bool], ...]


@flax.struct.dataclass
class Outputs:
    """What the networks give; None for a part that is absent or not run."""

    code: jax.Array | None = None  # [B, h, w, C]
    reconstruction: jax.Array | None = None  # [B, H, W, C], channel-normalised like the input
    logits: jax.Array | None = None  # [B, K]; cosines where LDAM is the loss


class Encoder(nn.Module):
    """Image to code: per block conv 3x3, max-pool 2x2, LeakyReLU, BatchNorm."""

    block_sizes: CAEBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types = self.dtype, self.param_dtype
        numbered = list(enumerate(self.block_sizes, 1))
        self.convs = [
            layers.Conv(*block, True, *types, name=f"conv_{number}") for number, block in numbered
        ]
        self.norms = [
            layers.LeakyNorm(self.param_dtype, name=f"norm_{number}") for number, _ in numbered
        ]

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """[B, H, W, C] to the code [B, H / 2^n, W / 2^n, c] of n blocks."""
        return self.from_first_maps(self.convs[0](images), train, mask)

    def from_first_maps(
        self,
        maps: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        sums: channelwise.Sums = None,
    ) -> jax.Array:
        """The first maps [B, H/2, W/2, c], and perhaps their `leaky_sums`, to the code."""
        x = self.norms[0](maps, train, mask, sums=sums)
        return layers.later_blocks(x, self.convs, self.norms, train, mask)


class Decoder(nn.Module):
    """Code to image: per block transposed conv 4x4 of stride 2, LeakyReLU, BatchNorm."""

    block_sizes: CAEBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, code: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """[B, h, w, c] to the reconstruction [B, h * 2^n, w * 2^n, C] of n blocks."""
        types = self.dtype, self.param_dtype
        x = code
        for index, (_, channels_out) in enumerate(self.block_sizes, 1):
            init = layers.uniform_fan_in(channels_out * 16)  # PyTorch's fan_in of a transposed conv
            x = layers.ConvTranspose(channels_out, init, *types, name=f"conv_{index}")(x)
            x = layers.LeakyNorm(self.param_dtype, name=f"norm_{index}")(x, train, mask)
        return x


class ConvAutoencoder(nn.Module):
    """Encoder and decoder."""

    enc_block_sizes: CAEBlocks
    dec_block_sizes: CAEBlocks
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder = Encoder(self.enc_block_sizes, self.dtype, self.param_dtype)
        self.decoder = Decoder(self.dec_block_sizes, self.dtype, self.param_dtype)

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, C] to the code [B, h, w, c] and the reconstruction [B, H, W, C]."""
        code = self.encoder(images, train, mask)
        return code, self.decoder(code, train, mask)


class CNN(nn.Module):
    """Feature maps to logits: per block conv 3x3, perhaps max-pool, LeakyReLU, BatchNorm."""

    block_sizes: CNNBlocks
    num_classes: int
    cosine_scale: float | None = None  # of the head
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    def setup(self):
        types = self.dtype, self.param_dtype
        numbered = list(enumerate(self.block_sizes, 1))
        self.convs = [
            layers.Conv(*block, *types, layers.normal_init, name=f"conv_{number}")
            for number, block in numbered
        ]
        self.norms = [
            layers.LeakyNorm(self.param_dtype, layers.normal_around_one, name=f"norm_{number}")
            for number, _ in numbered
        ]
        self.dense = layers.Head(self.num_classes, self.cosine_scale, *types)

    def __call__(
        self, x: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """[B, H, W, C] to logits [B, K]."""
        return self.from_first_maps(self.convs[0](x), train, mask)

    def from_first_maps(
        self,
        maps: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        code: jax.Array | None = None,
        sums: channelwise.Sums = None,
    ) -> jax.Array:
        """The first maps [B, h, w, c], and perhaps their `leaky_sums`, to logits.

        In mixed mode the code [B, h, w, d] takes the place of the last d channels.
        """
        x = self.norms[0](maps, train, mask, code, sums)
        return self.dense(layers.later_blocks(x, self.convs, self.norms, train, mask))


class Classifier(nn.Module):
    """The autoencoder, the CNN, or both joined; the classifier's gradient reaches the encoder."""

    image_shape: tuple[int, int, int]  # H, W, C
    cae: ConvAutoencoder | None = None
    cnn: CNN | None = None
    use_mixed_input: bool = False  # with both: the CNN reads image and code, not the code alone

    @property
    def param_dtype(self) -> jnp.dtype:
        """That of the images too, which low-precision layers lower by themselves."""
        either = self.cae or self.cnn
        assert either is not None  # a config uses one of them at least
        return either.param_dtype

    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        joint: bool = True,
    ) -> Outputs:
        """Runs what there is on images [B, H, W, C]; `joint=False` leaves the CNN out."""
        cae, cnn = self.cae, self.cnn if joint else None
        if cae is None:
            assert cnn is not None  # a CNN alone always runs
            return Outputs(logits=cnn(images, train, mask))
        if cnn is None:
            return Outputs(*cae(images, train, mask))
        if not self.use_mixed_input:
            code, reconstruction = cae(images, train, mask)
            return Outputs(code, reconstruction, cnn(code, train, mask))
        maps = layers.convolve_together(images, cnn.convs[0], cae.encoder.convs[0])
        sums = channelwise.leaky_sums(maps, mask) if train else None
        of_cae = slice(cnn.convs[0].channels_out, None)
        code_sums = sums and tuple(each[of_cae] for each in sums)
        code = cae.encoder.from_first_maps(maps[..., of_cae], train, mask, code_sums)
        reconstruction = cae.decoder(code, train, mask)
        logits = cnn.from_first_maps(maps, train, mask, code, sums)
        return Outputs(code, reconstruction, logits)


def from_config(
    config: ml_collections.ConfigDict,
    *,
    num_classes: int | None = None,
    channels: int | None = None,
) -> Classifier:
    """The networks that a validated config describes.

    `num_classes` and `channels` (1 or 3) are those of the data; what is None follows from the
    config, and where that leaves it open from its data set, which is then opened. Raises
    ConfigError where the blocks take another number of channels.
    """
    channels = channels or blocks_lib.image_channels(config)
    channels = channels or dataset.load(config).images.shape[-1]
    sizes = blocks_lib.resolved(config, channels)
    dtype = jnp.dtype(config.dtype)
    # Low-precision compute keeps its parameters and statistics in float32.
    types = {"dtype": dtype, "param_dtype": jnp.promote_types(dtype, jnp.float32)}
    cae = cnn = None
    if config.use_cae:
        cae = ConvAutoencoder(sizes.encoder, sizes.decoder, **types)
    if config.use_cnn:
        num_classes = num_classes or len(dataset.open_source(config).class_names)
        cnn = CNN(sizes.cnn, num_classes, _cosine_scale(config), **types)
    image_shape = config.image_size, config.image_size, channels
    return Classifier(image_shape, cae, cnn, config.cnn.use_mixed_input)


def _cosine_scale(config: ml_collections.ConfigDict) -> float | None:
    """What the head's cosines are multiplied by; None: the head is linear.

    LDAM takes its margins from the cosines themselves and multiplies then; any other loss would
    hardly train on logits within -1 and 1.
    """
    if config.cnn.head == "linear":
        return None
    return 1.0 if config.cnn.loss.name == "ldam" else float(config.cnn.loss.ldam_scale)
