"""Tests of caecnn_jax.training.optimizers."""

import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax import config as config_lib
from caecnn_jax.training import optimizers

STEPS = 10


def curve(part="cnn", kind="mixed", **changes):
    """A part's factors over all epochs, one after another."""
    config = tiny_config(kind, **changes)
    epochs = range(1, config.num_epoch + 1)
    return np.concatenate([optimizers.lr_factors(config, epoch, STEPS)[part] for epoch in epochs])


def test_by_default_the_rate_is_constant():
    for part in ("cae", "cnn"):
        factors = curve(part, num_epoch=5)
        assert factors.dtype == np.float32
        np.testing.assert_array_equal(factors, np.ones(5 * STEPS))


def test_cosine_falls_from_one_to_zero():
    factors = curve("cae", lr_schedule="cosine", num_epoch=8)
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(80) / 80))
    np.testing.assert_allclose(factors, expected, atol=1e-6)


@pytest.mark.parametrize("schedule", config_lib.SCHEDULES)
def test_a_ramp_rises_step_by_step_to_one(schedule):
    factors = curve("cae", lr_schedule=schedule, lr_ramp_epochs=2, num_epoch=6)
    np.testing.assert_allclose(factors[:20], np.arange(20) / 20, atol=1e-6)
    assert factors[20] == 1
    rest = np.ones(40) if schedule == "constant" else 0.5 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(factors[20:], rest, atol=1e-6)


def test_the_schedule_of_the_cnn_starts_after_warmup():
    changes = {"lr_schedule": "cosine", "lr_ramp_epochs": 1}
    late = curve("cnn", only_train_cae_until=3, num_epoch=9, **changes)
    alone = curve("cnn", only_train_cae_until=0, num_epoch=6, **changes)
    np.testing.assert_allclose(late[30:], alone, atol=1e-6)
    of_cae = curve("cae", only_train_cae_until=3, num_epoch=9, **changes)
    np.testing.assert_allclose(of_cae, curve("cae", num_epoch=9, kind="cae", **changes), atol=1e-6)


def test_an_epochs_factors_depend_on_nothing_before_it():
    config = tiny_config("mixed", lr_schedule="cosine", num_epoch=7)
    first = optimizers.lr_factors(config, 5, STEPS)
    optimizers.lr_factors(config, 1, STEPS)
    again = optimizers.lr_factors(config, 5, STEPS)
    assert all(np.array_equal(first[part], again[part]) for part in first)
    # The counter-check: other epochs differ.
    assert not np.array_equal(first["cnn"], optimizers.lr_factors(config, 6, STEPS)["cnn"])


@pytest.mark.parametrize(("kind", "parts"), [("cae", {"cae"}), ("cnn", {"cnn"})])
def test_only_parts_that_train_have_factors(kind, parts):
    assert set(optimizers.lr_factors(tiny_config(kind), 1, STEPS)) == parts


def test_a_run_of_the_greatest_length_has_a_schedule():
    config = tiny_config("cnn", lr_schedule="cosine", num_epoch=1_000_000, lr_ramp_epochs=10)
    factors = optimizers.lr_factors(config, 500_005, 50_000)["cnn"]
    np.testing.assert_allclose(factors, 0.5, atol=1e-4)


def test_a_warmup_as_long_as_the_run_is_no_error():
    config = tiny_config("mixed", lr_schedule="cosine", num_epoch=2, only_train_cae_until=2)
    assert np.isfinite(optimizers.lr_factors(config, 2, STEPS)["cnn"]).all()
