"""Fixtures that the tests share."""

import pathlib

import jax
import pytest
from builders import PROJECT, make_data, tiny_config, without_optimisations

from caecnn_jax.data import dataset


@pytest.fixture(scope="session")
def tiny_data() -> dataset.Dataset:
    """20 training and 5 test images of each class."""
    return make_data()


@pytest.fixture(scope="session", autouse=True)
def rank_promotion_is_an_error():
    """[B, 1] - [B] makes [B, B] without a word: shapes that do not agree are a slip."""
    before = jax.config.jax_numpy_rank_promotion
    jax.config.update("jax_numpy_rank_promotion", "raise")
    try:
        yield
    finally:
        jax.config.update("jax_numpy_rank_promotion", before)


@pytest.fixture(scope="module")
def quick_compilation():
    """As `without_optimisations`."""
    with without_optimisations():
        yield


@pytest.fixture(scope="session")
def trained_run(tiny_data, tmp_path_factory) -> pathlib.Path:
    """The folder of a run of the tiny mixed config on the tiny data, two folds and test."""
    from caecnn_jax.training import train  # only tests that train pay for the import

    folder = tmp_path_factory.mktemp("trained") / "mixed"
    # Without warm-up, which would double what there is to compile.
    config = tiny_config("mixed", save_img_per_epoch=1, only_train_cae_until=0)
    with without_optimisations():
        train.train_and_evaluate(config, folder, tiny_data)
    return folder


@pytest.fixture
def project() -> pathlib.Path:
    """The repository's root."""
    return PROJECT
