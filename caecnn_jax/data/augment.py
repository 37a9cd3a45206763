"""Normalisation and augmentation of image batches, jit-able; images are float [B, H, W, C].

The random choices of a batch are drawn in `draw`, apart from applying them in `augment`, so that
they depend on a key alone and not on what computes them.

Pixels are read in two forms. They are gathered, one by one; but of a TPU's training step eight in
ten cycles went to that, so that a TPU multiplies matrices instead. `plain` selects either form.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from caecnn_jax import backend

MEAN = (0.4914, 0.4822, 0.4465)  # of CIFAR-10's training images' channels, on the scale 0..1
STD = (0.247, 0.243, 0.261)
MOST_MULTIPLIED = 64 * 64**3  # height x width x width of all images that are turned at a time
HOLE_SIZE = 12  # pixels, height and width; an image too small gets a hole of its own size


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, on the scale 0..1; plain numbers, for jit."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


CIFAR10 = Statistics(MEAN, STD)


def normalize(
    images: jax.Array | np.ndarray, statistics: Statistics = CIFAR10, dtype=jnp.float32
) -> jax.Array:
    """uint8 [..., C] in 0..255 to channel-normalised `dtype` [..., C].

    Raises ValueError where the statistics are of another number of channels.
    """
    mean, std = _per_channel(statistics, images, dtype)
    floats: Any = images.astype(dtype)  # times a jax.Array it is one
    return floats * (1 / (255 * std)) - mean / std


def denormalize(images: jax.Array, statistics: Statistics = CIFAR10) -> jax.Array:
    """Channel-normalised float [..., C] back to uint8, rounded and clipped to 0..255."""
    mean, std = _per_channel(statistics, images, images.dtype)
    return jnp.clip(jnp.round((images * std + mean) * 255), 0, 255).astype(jnp.uint8)


def _per_channel(
    statistics: Statistics, images: jax.Array | np.ndarray, dtype
) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation as [1, ..., 1, C], as many dimensions as the images have."""
    channels = images.shape[-1]
    for values in statistics:
        if len(values) != channels:  # one value would silently stand for three channels
            raise ValueError(f"images of {channels} channels, but statistics of {len(values)}")
    shape = (1,) * (images.ndim - 1) + (channels,)
    mean, std = (jnp.asarray(values, dtype).reshape(shape) for values in statistics)
    return mean, std


class Settings(NamedTuple):
    """How far the random choices go: config.aug, by default the reference's."""

    max_angle: float = 30.0  # degrees, either way
    scale_range: tuple[float, float] = (0.75, 1.25)
    max_shift: int = 0  # pixels, up or down and left or right, before turning and scaling
    hole_probability: float = 0.5
    flip_probability: float = 0.5  # of left and right changing places


REFERENCE = Settings()
FLIPS = Settings(max_angle=0.0, scale_range=(1.0, 1.0), hole_probability=0.0)


class Draws(NamedTuple):
    """The random choices for a batch, an entry an image."""

    flip: jax.Array  # bool [B]
    angle: jax.Array | None  # degrees, counter-clockwise, float [B]; None: neither turned ...
    scale: jax.Array | None  # ... nor scaled; above 1 enlarges, float [B]
    hole: jax.Array  # bool [B]: is there a hole?
    corner: jax.Array  # top and left of the hole, int [B, 2]
    shift: jax.Array  # down and right, before turning and scaling, pixels, int [B, 2]


def draw(
    key: jax.Array, batch_size: int, height: int, width: int, settings: Settings = REFERENCE
) -> Draws:
    """Draws the choices for a batch of images of `height` x `width` pixels."""
    # Drawn in one go: on CPU each draw of its own costs as much as a small layer.
    uniform = jax.random.uniform(key, (batch_size, 8), jnp.float32)
    flip, angle, scale, hole = uniform.T[:4]
    places = jnp.array([max(size - HOLE_SIZE, 0) + 1 for size in (height, width)])
    low, high = settings.scale_range
    shifts = 2 * settings.max_shift + 1
    warps = settings.max_angle > 0 or settings.scale_range != (1, 1)
    return Draws(
        flip=flip < settings.flip_probability,
        angle=(2 * angle - 1) * settings.max_angle if warps else None,
        scale=low + (high - low) * scale if warps else None,
        hole=hole < settings.hole_probability,
        corner=(uniform[:, 4:6] * places[None]).astype(jnp.int32),
        shift=(uniform[:, 6:] * shifts).astype(jnp.int32) - settings.max_shift,
    )


def augment(
    images: jax.Array,
    draws: Draws,
    statistics: Statistics = CIFAR10,
    dtype=jnp.float32,
    plain: bool | None = None,
) -> jax.Array:
    """Flips, shifts, rotates, scales, normalises, cuts out: uint8 [B, H, W, C] to `dtype`.

    The order is the reference's; a flip only mirrors the columns that are read.
    """
    _, height, width, _ = images.shape
    if draws.angle is None:
        rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    else:
        assert draws.scale is not None  # `draw` gives both or neither
        rows, columns = source_coordinates(draws.angle, draws.scale, height, width)
    rows = rows - draws.shift[:, 0, None, None]
    columns = columns - draws.shift[:, 1, None, None]
    columns = jnp.where(draws.flip[:, None, None], width - 1 - columns, columns)
    read = select if draws.angle is None else bilinear
    warped = normalize(read(images, rows, columns, plain), statistics, dtype)
    return jnp.where(hole_mask(draws, height, width)[..., None], 0, warped)


def hole_mask(draws: Draws, height: int, width: int) -> jax.Array:
    """bool [B, H, W], True inside the holes."""
    top, left = draws.corner[:, 0, None], draws.corner[:, 1, None]
    row, column = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (row >= top) & (row < top + HOLE_SIZE) & draws.hole[:, None]
    in_columns = (column >= left) & (column < left + HOLE_SIZE)
    return in_rows[:, :, None] & in_columns[:, None, :]


def affine(
    images: jax.Array, angle_degrees: jax.Array, scale: jax.Array, plain: bool | None = None
) -> jax.Array:
    """Rotates each image counter-clockwise and scales it about its centre; same shape and dtype.

    `images` float [B, H, W, C], `angle_degrees` and `scale` [B]. Bilinear; the border is mirrored
    without repeating the edge pixel (OpenCV's REFLECT_101, SciPy's 'mirror').
    """
    rows, columns = source_coordinates(angle_degrees, scale, *images.shape[1:3])
    return bilinear(images, rows, columns, plain).astype(images.dtype)


def source_coordinates(
    angle_degrees: jax.Array, scale: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """The row and column, float [B, H, W], that each output pixel of `affine` is read from.

    The inverse of OpenCV's getRotationMatrix2D about the image's centre.
    """
    radians = jnp.deg2rad(angle_degrees)
    cosine = (jnp.cos(radians) / scale)[:, None, None]
    sine = (jnp.sin(radians) / scale)[:, None, None]
    centre_row, centre_column = height / 2, width / 2  # as the reference counts, not (n - 1) / 2
    row = (np.arange(height) - centre_row)[None, :, None].astype(cosine.dtype)
    column = (np.arange(width) - centre_column)[None, None, :].astype(cosine.dtype)
    return (
        sine * column + cosine * row + centre_row,
        cosine * column - sine * row + centre_column,
    )


def select(
    images: jax.Array, rows: jax.Array, columns: jax.Array, plain: bool | None = None
) -> jax.Array:
    """The rows int [B, H', 1] and columns int [B, 1, W'] of images [B, H, W, C], mirrored outside.

    The result is [B, H', W', C], of the images' dtype or of one that holds their values.
    """
    batch, height, width, channels = images.shape
    rows, columns = _mirror(rows, height), _mirror(columns, width)
    if not backend.is_tpu(plain):
        index = (rows * width + columns).reshape(batch, -1, 1)
        flat = images.reshape(batch, height * width, channels)
        taken = jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds")
        return taken.reshape(batch, rows.shape[1], columns.shape[2], channels)
    # One term of a product is 1, the others 0; bfloat16 holds both, and a byte, exactly.
    dtype = jnp.bfloat16 if images.dtype == jnp.uint8 else images.dtype
    by_row = (rows == jnp.arange(height)[None, None]).astype(dtype)
    places = columns[:, 0, :, None] * channels + jnp.arange(channels)[None, None]
    by_column = places.reshape(batch, -1, 1) == jnp.arange(width * channels)[None, None]
    images = images.reshape(batch, height, -1).astype(dtype)
    lines = jnp.einsum("brh,bhk->brk", by_row, images, precision=jax.lax.Precision.HIGHEST)
    taken = jnp.einsum(
        "brk,bjk->brj",
        lines,
        by_column.astype(dtype),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(dtype, jnp.float32),
    )
    return taken.reshape(batch, rows.shape[1], columns.shape[2], channels)


def bilinear(
    images: jax.Array, rows: jax.Array, columns: jax.Array, plain: bool | None = None
) -> jax.Array:
    """Samples images [B, H, W, C] at float `rows` and `columns` [B, H', W'], mirrored outside.

    The result is float [B, H', W', C].
    """
    if not backend.is_tpu(plain):
        return _gathered(images, rows, columns)
    batch, height, width, _ = images.shape
    at_once = max(MOST_MULTIPLIED // (height * width**2), 1)
    if at_once >= batch:
        return _multiplied(images, rows, columns)

    def multiplied(of_image):
        return _multiplied(*(array[None] for array in of_image))[0]

    return jax.lax.map(multiplied, (images, rows, columns), batch_size=at_once)


def _multiplied(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """`bilinear` as sum over r and c of hat(row - r) hat(column - c) image[r, c].

    The sum over rows is a product of matrices for each image, that over columns one with zeros and
    ones. P: output pixels. Memory grows with their number times the images' width.
    """
    batch, height, width, channels = images.shape
    # Three products in bfloat16 keep 16 bits of a weight, of a byte all there is.
    is_bytes = images.dtype == jnp.uint8
    precision = jax.lax.Precision.HIGH if is_bytes else jax.lax.Precision.HIGHEST
    row, column = (
        _mirror(places.reshape(batch, 1, -1), size)
        for places, size in ((rows, height), (columns, width))
    )
    of_row = np.arange(height, dtype=row.dtype)
    of_column = np.repeat(np.arange(width, dtype=column.dtype), channels)
    by_row = _hat(row - of_row[None, :, None])  # [B, H, P]
    by_column = _hat(column - of_column[None, :, None])  # [B, WC, P]
    images = images.reshape(batch, height, -1).astype(by_row.dtype)
    lines = jnp.einsum("bhk,bhp->bkp", images, by_row, precision=precision)
    of_channel = np.tile(np.eye(channels, dtype=by_row.dtype), width)
    sampled = jnp.einsum("ck,bkp->bcp", of_channel, lines * by_column, precision=precision)
    return sampled.reshape(batch, channels, *rows.shape[1:]).transpose(0, 2, 3, 1)


def _hat(distance: jax.Array) -> jax.Array:
    """What a pixel at this distance counts: 1 at 0, falling to 0 at 1."""
    return jnp.maximum(1 - jnp.abs(distance), 0)


def _gathered(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """`bilinear` of the four pixels around each place."""
    batch, height, width, channels = images.shape
    top, left = jnp.floor(rows), jnp.floor(columns)
    # The barriers keep XLA from computing places and weights again for every channel.
    weights = jax.lax.optimization_barrier((rows - top, columns - left))
    down, right = (weight[..., None] for weight in weights)
    flat = images.reshape(batch, height * width, channels)

    def pixel(row_offset: int, column_offset: int) -> jax.Array:
        row = _mirror(top.astype(jnp.int32) + row_offset, height)
        column = _mirror(left.astype(jnp.int32) + column_offset, width)
        index = jax.lax.optimization_barrier((row * width + column).reshape(batch, -1, 1))
        taken = jnp.take_along_axis(flat, index, axis=1, mode="promise_in_bounds")
        return taken.reshape(*rows.shape, channels).astype(rows.dtype)

    upper = pixel(0, 0) * (1 - right) + pixel(0, 1) * right
    lower = pixel(1, 0) * (1 - right) + pixel(1, 1) * right
    return upper * (1 - down) + lower * down


def _mirror(index: jax.Array, size: int) -> jax.Array:
    """Reflects places into 0..size-1 without repeating the edge: -1 -> 1, size -> size-2."""
    if size == 1:
        return jnp.zeros_like(index)
    period = 2 * (size - 1)
    index = jnp.mod(index, period)
    return jnp.minimum(index, period - index)


def mixup(
    key: jax.Array, images: jax.Array, alpha: float, mask: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mixes each image of a batch with another: the mixed images, the partners, and the share.

    share x image + (1 - share) x partner, one share float32 [] for the batch, drawn from
    Beta(alpha, alpha): Zhang et al. 2018, "mixup: Beyond empirical risk minimization", mixup_data
    in train.py of their code. `images` float [B, H, W, C]; the partners, indices int32 [B], are a
    random permutation of the images where `mask` bool [B] is True; padding gets padding.
    """
    share_key, partner_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)
    bits = jax.random.bits(partner_key, mask.shape, jnp.uint32)
    images_first = jnp.argsort(~mask, stable=True)
    dealt = jnp.lexsort((bits, ~mask))
    partners = jnp.zeros_like(dealt).at[images_first].set(dealt)
    own = share.astype(images.dtype)
    return own * images + (1 - own) * images[partners], partners, share
