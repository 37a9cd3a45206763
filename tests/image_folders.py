"""Small folders of real image files, with what people's folders have in them."""

import functools
import pathlib
import unicodedata
from collections.abc import Callable

import numpy as np
from builders import prepared_data_dir
from image_cases import halves
from PIL import Image

from caecnn_jax.data import cifar_sources
from configs import own_images


def picture(seed: int, size=(40, 30)) -> Image.Image:
    """A smooth picture of its own for each seed."""
    levels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


@functools.cache
def _cifar10() -> tuple[np.ndarray, np.ndarray]:
    return cifar_sources.load("tfds", prepared_data_dir())


def photograph(seed: int, size=(40, 30)) -> Image.Image:
    """One of CIFAR-10's images of class `seed` % 10; drawn where there are none at hand."""
    if prepared_data_dir() is None:
        return picture(seed, size)
    images, labels = _cifar10()
    found = np.flatnonzero(labels == seed % 10)[seed // 10]
    return Image.fromarray(images[found]).resize(size, Image.Resampling.BICUBIC)


def plain(folder: pathlib.Path, each: int = 4, classes=("cat", "dog")) -> pathlib.Path:
    """CLASS/N.png, all different."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            picture(100 * number + index).save(folder / name / f"{index}.png")
    return folder


def odd(folder: pathlib.Path, take: Callable[..., Image.Image] = picture) -> pathlib.Path:
    """Classes 2, 10 and Bär of six images each, and everything that must not be taken for one."""
    for number, name in enumerate(("10", "2", unicodedata.normalize("NFD", "Bär"))):
        below = folder / name
        (below / "more" / "deep").mkdir(parents=True)
        take(number).save(below / "a photo.png")
        take(10 + number, (64, 64)).save(below / "ärger.jpg", quality=95)
        take(20 + number, (30, 60)).save(below / "more" / "b.WEBP", lossless=True)
        frames = [take(30 + number), take(40 + number)]
        frames[0].save(below / "more" / "deep" / "c.gif", save_all=True, append_images=frames[1:])
        take(50 + number).save(below / "d.jfif", "JPEG")
        take(60 + number).save(below / "e.tiff")
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    take(70).save(outside / "linked.bmp")
    (folder / "2" / "link").symlink_to(outside)
    (folder / "2" / "link.png").symlink_to(outside / "linked.bmp")
    (folder / "2" / "loop").symlink_to(folder)
    (folder / "10" / "broken link.png").symlink_to(folder / "nothing")
    (folder / "10" / "album.jpg").mkdir()
    take(71).save(folder / "10" / "album.jpg" / "f.png")
    (folder / "10" / "._a photo.png").write_bytes(b"\0\5\x16\7")  # AppleDouble
    (folder / "10" / ".ipynb_checkpoints").mkdir()
    halves().save(folder / "10" / ".ipynb_checkpoints" / "a photo-checkpoint.png")
    (folder / "10" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (folder / "10" / "notes.txt").write_text("none")
    (folder / "2" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (folder / "README.md").write_text("of somebody")
    halves().save(folder / "logo.png")
    (folder / ".DS_Store").write_bytes(b"Bud1")
    (folder / "empty").mkdir()
    return folder


def config_of(path, **changes):
    """A config for the images at the path, made 16 pixels wide and high."""
    config = own_images.get_config()
    config.do_cv = False
    config.dataset, config.image_size = str(path), 16
    config.update(changes)
    return config


def assert_same(one, other):
    """Two data sets hold the same."""
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.digest == other.digest
