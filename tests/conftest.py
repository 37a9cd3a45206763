"""Fixtures that the tests share."""

import pathlib
from collections.abc import Iterator

import hypothesis
import jax
import pytest
from builders import PROJECT, less_optimized, make_data, source_of, tiny_config

from caecnn_jax.data import dataset

# Shapes that fit only once a dimension is put before one of them are most often a mistake.
jax.config.update("jax_numpy_rank_promotion", "raise")
# The same examples each time, and no failure because the machine was busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def tiny_data() -> dataset.Dataset:
    """20 training and 5 test images of each class."""
    return make_data()


@pytest.fixture(scope="module")
def quick_compilation():
    """Compiles without XLA's expensive optimisations: half the time, and tiny models hardly run."""
    with less_optimized():
        yield


@pytest.fixture(scope="session")
def trained_run(tiny_data, tmp_path_factory) -> pathlib.Path:
    """The folder of a run of the tiny mixed config on the tiny data, two folds and test."""
    from caecnn_jax.training import train  # only tests that train pay for the import

    folder = tmp_path_factory.mktemp("trained") / "mixed"
    # Without warm-up, which would double what there is to compile.
    config = tiny_config("mixed", save_img_per_epoch=1, only_train_cae_until=0)
    with less_optimized():
        train.train_and_evaluate(config, folder, tiny_data)
    return folder


@pytest.fixture
def same_data(tiny_data, monkeypatch):
    """The run's own images instead of CIFAR-10."""
    from caecnn_jax.data import dataset

    monkeypatch.setattr(dataset, "open_at_hand", lambda *_: source_of(tiny_data))


@pytest.fixture
def project() -> pathlib.Path:
    """The repository's root."""
    return PROJECT


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The names of the functions that XLA compiles during the test, whatever was compiled before.

    A jitted function is "jit(its name)".
    """
    names: list[str] = []

    def listen(event: str, _seconds: float, **details) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details["fun_name"])

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
