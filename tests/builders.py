"""What the tests build from: small data shaped like CIFAR-10, and tiny configs of every kind."""

import contextlib
import io
import os
import pathlib
import types
from collections.abc import Iterator

import jax
import numpy as np
from PIL import Image

from caecnn_jax.data import augment, cifar, dataset
from caecnn_jax.data.description import Description
from caecnn_jax.networks import models
from caecnn_jax.results import predict
from caecnn_jax.training import steps
from configs import default

PROJECT = pathlib.Path(__file__).parent.parent
KINDS = ("cae", "cnn", "code", "mixed")
ABOUT = Description("cifar10", cifar.CLASS_NAMES, 32, 3, augment.MEAN, augment.STD, "")


def prepared_data_dir() -> str | None:
    """The prepared CIFAR-10 that is at hand, or None."""
    folder = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return str(folder) if (folder / "cifar10" / "3.0.2" / "dataset_info.json").exists() else None


@contextlib.contextmanager
def less_optimized() -> Iterator[None]:
    """XLA compiles without its expensive optimisations while the context lasts.

    JAX would use what was compiled in it for like calls afterwards, whose last bits then depend on
    which tests ran before; so nothing that was compiled is kept.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        jax.clear_caches()


def tiny_config(kind: str = "mixed", **changes):
    """A config of the kind with few channels and two epochs, for `tiny_data`."""
    config = default.get_config()
    config.use_cae = kind != "cnn"
    config.use_cnn = kind != "cae"
    config.cae.enc_block_sizes, config.cae.dec_block_sizes = ((3, 2),), ((2, 3),)
    config.cnn.block_sizes = ((3, 4, True), (4, 6, True))
    if kind == "mixed":
        config.cnn.use_mixed_input = True
        config.cnn.block_sizes = ((3, 4, True), (6, 6, True))
    if kind == "code":
        config.cnn.input_resolution = 16
        config.cnn.block_sizes = ((2, 4, False), (4, 6, True))
    config.only_train_cae_until = 1 if kind in ("code", "mixed") else 0
    config.train_data_regulation = {"bird": 12, "deer": 12, "truck": 12}
    config.train_data_expansion = {"bird": 6, "deer": 6, "truck": 6}
    config.num_folds = 2
    config.num_epoch = 2
    config.batch_size = 32
    config.cnn.opt.lr = config.cae.opt.lr = 1e-2
    config.update(changes)
    return config


def untrained(kind: str, **changes) -> predict.Predictor:
    """A predictor of a tiny config, with weights as they are before the first step."""
    config = tiny_config(kind, **changes)
    state = steps.create_state(models.from_config(config), config, jax.random.key(0))
    return predict.Predictor(config, ABOUT, [jax.device_get(state.variables)])


def source_of(data: dataset.Dataset) -> types.SimpleNamespace:
    """What stands in for a `dataset.Source` of these data."""
    return types.SimpleNamespace(name="tiny", class_names=data.class_names, read=lambda: data)


def make_data(per_class: int = 20, test_per_class: int = 5) -> dataset.Dataset:
    """Images that a network can tell apart: each class has a colour, and noise over it."""
    rng = np.random.default_rng(0)
    classes = len(cifar.CLASS_NAMES)
    labels = np.concatenate(
        [rng.permutation(np.repeat(np.arange(classes), n)) for n in (per_class, test_per_class)]
    ).astype(np.int32)
    colours = rng.integers(0, 256, (classes, 1, 1, 3))
    noise = rng.integers(-60, 61, (len(labels), 32, 32, 3))
    images = np.clip(colours[labels] + noise, 0, 255).astype(np.uint8)
    return dataset.from_arrays(images, labels, per_class * classes, cifar.CLASS_NAMES, "tiny")


def open_png(data: bytes) -> np.ndarray:
    """The pixels uint8 [H, W, 3] of a PNG file."""
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))
