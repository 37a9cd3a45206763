"""What a run keeps of its data, so that what reads the run needs no image: dataset.json."""

from collections.abc import Sequence
from typing import NamedTuple

from caecnn_jax.data import dataset


class Description(NamedTuple):
    """What a finished run needs to know of its data."""

    name: str
    class_names: tuple[str, ...]
    image_size: int  # pixels, height and width
    channels: int
    mean: tuple[float, ...]  # of each channel, on the scale 0..1
    std: tuple[float, ...]
    digest: str


def of(data: dataset.Dataset, mean: Sequence[float], std: Sequence[float]) -> Description:
    """The description of data that are normalised with `mean` and `std`."""
    _, size, _, channels = data.images.shape
    return Description(
        data.name, data.class_names, size, channels, tuple(mean), tuple(std), data.digest
    )
