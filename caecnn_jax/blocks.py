"""The networks' block sizes: what their zeros stand for, and whether they connect."""

from typing import NamedTuple

from caecnn_jax import fields
from caecnn_jax.errors import ConfigError

MAX_IMAGE_SIZE = 1024  # pixels, height and width


class Blocks(NamedTuple):
    """The networks' sizes with every 0 of the config filled in."""

    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    cnn: tuple[tuple[int, int, bool], ...]
    input_resolution: int  # pixels, height and width, of what the CNN reads


def image_channels(config) -> int:
    """The images' channels, 1 or 3, as far as the config tells; 0: the data decide.

    Where config.channels leaves it open, blocks that name a count decide.
    """
    if config.channels or config.dataset == "cifar10":
        return config.channels or 3
    counts = []
    if config.use_cae:
        counts += [config.cae.enc_block_sizes[0][0], config.cae.dec_block_sizes[-1][1]]
    if config.use_cnn and not reads_code(config):
        counts.append(config.cnn.block_sizes[0][0])
    named = [count for count in counts if count]
    return 0 if not named else 1 if named[0] == 1 else 3


def reads_code(config) -> bool:
    """Whether the CNN reads the code alone, not the image."""
    return config.use_cae and not config.cnn.use_mixed_input


def code_resolution(config) -> int:
    """Pixels, height and width, of the encoder's code."""
    return config.image_size // 2 ** len(config.cae.enc_block_sizes)


def resolved(config, channels: int) -> Blocks:
    """The sizes of networks for images of so many channels, 0 where the data are to decide.

    Raises ConfigError where the blocks of what is trained do not connect.
    """
    encoder = fields.reading(channels, config.cae.enc_block_sizes)
    decoder = fields.giving(channels, config.cae.dec_block_sizes)
    of_code = reads_code(config)
    cnn = fields.reading(encoder[-1][1] if of_code else channels, config.cnn.block_sizes)
    resolution = code_resolution(config) if of_code else config.image_size
    blocks = Blocks(encoder, decoder, cnn, config.cnn.input_resolution or resolution)
    if config.use_cae:
        _check_autoencoder(config, blocks, channels)
    if config.use_cnn:
        _check_cnn(config, blocks, channels)
    return blocks


def _check_chain(field: str, blocks, incoming: int, source: str, start: int = 1) -> None:
    """From block `start` on, each block must take the channels that come in."""
    for index, block in enumerate(blocks[start - 1 :], start):
        if block[0] != incoming:
            hint = "; 0 stands for the image's" if source == "the image" else ""
            raise ConfigError(
                f"config.{field}={blocks!r}: block {index} takes {block[0]} channels, "
                f"but {source} has {incoming}{hint}"
            )
        incoming, source = block[1], f"block {index}'s output"


def _sizes_that_halve(config) -> str:
    """The image sizes nearest to the config's that its blocks can halve, as a remedy."""
    halvings = sum(pool for *_, pool in config.cnn.block_sizes) if config.use_cnn else 0
    if config.use_cae:
        encoder = len(config.cae.enc_block_sizes)
        halvings = encoder + halvings if reads_code(config) else max(encoder, halvings)
    step = 2**halvings
    below = config.image_size // step * step
    sizes = [size for size in (below, below + step) if 0 < size <= MAX_IMAGE_SIZE]
    if not sizes:
        return "use fewer blocks"
    return f"config.image_size={' or '.join(map(str, sizes))} would do"


def _check_autoencoder(config, blocks: Blocks, channels: int) -> None:
    encoder, decoder, size = blocks.encoder, blocks.decoder, config.image_size
    _check_chain("cae.enc_block_sizes", encoder, channels, "the image")
    if size % 2 ** len(encoder):
        most = (size & -size).bit_length() - 1  # how often 2 divides it
        count = "1 block halves" if len(encoder) == 1 else f"{len(encoder)} blocks halve"
        raise ConfigError(
            f"config.cae.enc_block_sizes={encoder!r}: {count} the {size} pixels too often, "
            f"at most {most} are possible; {_sizes_that_halve(config)}"
        )
    _check_chain("cae.dec_block_sizes", decoder, encoder[-1][1], "the code")
    fields.require(
        len(decoder) == len(encoder) and decoder[-1][1] == channels,
        "cae.dec_block_sizes",
        decoder,
        f"must have as many blocks as the encoder ({len(encoder)}) and end in {channels} "
        "channels (0 stands for the image's), to give an image of the input's size",
    )


def _check_cnn(config, blocks: Blocks, channels: int) -> None:
    cnn, of_code = blocks.cnn, reads_code(config)
    mixed = config.cnn.use_mixed_input
    if mixed and not config.use_cae:
        raise ConfigError("config.cnn.use_mixed_input=True: needs config.use_cae=True for the code")
    resolution = code_resolution(config) if of_code else config.image_size
    source = "the code" if of_code else "the image"
    fields.require(
        blocks.input_resolution == resolution,
        "cnn.input_resolution",
        blocks.input_resolution,
        f"must be {resolution}, the resolution of {source} that the CNN reads, or 0 for it",
    )
    for index, (*_, pool) in enumerate(cnn, 1):
        if pool and resolution % 2:
            raise ConfigError(
                f"config.cnn.block_sizes={cnn!r}: block {index} cannot pool "
                f"{resolution}x{resolution} pixels, an even number is needed; "
                f"{_sizes_that_halve(config)}"
            )
        resolution //= 2 if pool else 1
    code_channels = blocks.encoder[-1][1]
    if not mixed:
        _check_chain("cnn.block_sizes", cnn, code_channels if of_code else channels, source)
        return
    _check_chain("cnn.block_sizes", cnn[:1], channels, source)
    first = config.image_size // (2 if cnn[0][2] else 1)
    if first != code_resolution(config):
        raise ConfigError(
            f"config.cnn.block_sizes={cnn!r}: in mixed mode block 1 must end at the code's "
            f"resolution {code_resolution(config)}, not {first}"
        )
    joined = f"block 1's output ({cnn[0][1]}) with the code ({code_channels})"
    _check_chain("cnn.block_sizes", cnn, cnn[0][1] + code_channels, joined, start=2)
