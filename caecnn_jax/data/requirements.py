"""What a config asks of its data, checked as soon as classes and counts are known."""

from collections.abc import Mapping, Sequence

import ml_collections

from caecnn_jax import config as config_lib
from caecnn_jax import fields
from caecnn_jax.data import sampling
from caecnn_jax.errors import DataError


def check(
    config: ml_collections.ConfigDict,
    class_names: Sequence[str],
    train_counts: Sequence[int],
    test_counts: Sequence[int],
) -> None:
    """Raises ConfigError where data of these classes cannot be split as the config says.

    `train_counts` and `test_counts` are the images of each class, before any is left out. No image
    is needed, so that this can run before they are decoded.
    """
    for group in ("train_data_regulation", "train_data_expansion"):
        problem = "is no class of the data"
        for name in config[group]:
            if name != "all":
                none = f"; --config.{group}={{}} names none"
                fields.known(f"{group}.{name}", name, class_names, problem, none)
    factor = config.imbalance.factor
    sizes = dict(
        zip(
            class_names,
            sampling.imbalanced_sizes(train_counts, config.imbalance.type, factor),
            strict=True,
        )
    )
    for name, size in sizes.items():
        if not size:
            raise config_lib.ConfigError(
                f"config.imbalance.factor={factor}: leaves no {name!r}: lower it"
            )
    if config.do_test and not sum(test_counts):
        raise config_lib.ConfigError("config.do_test=True: the data have no test images")
    _check_regulation(config, sizes)
    _check_rest(config, sizes)


def _check_regulation(config: ml_collections.ConfigDict, sizes: Mapping[str, int]) -> None:
    """Raises ConfigError where more images are to be kept than there are, or fewer than needed."""
    regulation, least = config.train_data_regulation, sampling.least_images(config)
    for name, count in regulation.items():
        field = f"config.train_data_regulation.{name}={count}"
        # A class of the name "all" follows it too.
        concerned = set(sizes) - (set(regulation) - {"all"}) if name == "all" else {name}
        smallest = min(concerned, key=lambda one: (sizes[one], one), default=None)
        if smallest and count > sizes[smallest]:
            raise config_lib.ConfigError(
                f"{field}: class {smallest!r} has only {sizes[smallest]} training images"
            )
        if count < least:
            raise config_lib.ConfigError(
                f"{field}: leaves {count} images of a class, fewer than the {least} needed"
            )


def _check_rest(config: ml_collections.ConfigDict, sizes: Mapping[str, int]) -> None:
    """Raises ConfigError where a class that is not regulated is too small for the folds."""
    regulated = sampling.per_class(config.train_data_regulation, tuple(sizes))
    for name, size in sizes.items():
        if name not in regulated and size < sampling.least_images(config):
            tail = " after config.imbalance" if config.imbalance.type != "none" else ""
            raise config_lib.ConfigError(
                f"config.num_folds={config.num_folds}: must be at most {size}, the training images "
                f"of class {name!r}{tail}: lower it, set config.do_cv=False or add images"
            )


def check_train_part(name: str, class_names: Sequence[str], train_counts: Sequence[int]) -> None:
    """Raises DataError where a class has no image to train on left: none that can be read."""
    for class_name, count in zip(class_names, train_counts, strict=True):
        if not count:
            raise DataError(f"{name}: no training image of class {class_name!r} can be read")
