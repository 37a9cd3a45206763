"""Tests of caecnn_jax.results.calibration."""

import numpy as np
import pytest
from scipy import special

from caecnn_jax.results import calibration


def test_the_error_of_bins_is_the_images_mean_gap():
    # 4 images at mean confidence 0.5, 1 right; 6 at 0.9, all right: (4 x 0.25 + 6 x 0.1) / 10.
    assert calibration.error_from_bins([4, 0, 6], [2.0, 0.0, 5.4], [1, 0, 6]) == pytest.approx(0.16)
    assert calibration.error_from_bins([0, 0], [0.0, 0.0], [0, 0]) == 0.0


def test_the_diagram_has_means_and_nothing_where_a_bin_is_empty():
    assert calibration.reliability([4, 0, 6], [2.0, 0.0, 5.4], [1, 0, 6]) == {
        "images": [4, 0, 6],
        "confidence": [0.5, None, pytest.approx(0.9)],
        "accuracy": [0.25, None, 1.0],
    }


def test_pooled_diagrams_are_that_of_all_images():
    draws = np.random.default_rng(2)
    images = draws.integers(0, 9, (3, 15)) * (np.arange(15) > 2)  # some bins are empty
    sums = [(n, n * draws.random(15), draws.binomial(n, 0.6)) for n in images]
    pooled = calibration.pooled([calibration.reliability(*one) for one in sums])
    whole = calibration.reliability(*np.sum(sums, axis=0))
    assert pooled["images"] == whole["images"] == images.sum(axis=0).tolist()
    for name in ("confidence", "accuracy"):
        assert pooled[name][:3] == whole[name][:3] == [None] * 3
        assert pooled[name][3:] == pytest.approx(whole[name][3:])


def test_the_temperature_is_the_one_of_least_nll():
    # Labels drawn from softmax(z / 2.5): the fitted temperature of the logits z is 2.5.
    draws = np.random.default_rng(1)
    logits = draws.normal(0, 4, (20000, 5))
    labels = (logits / 2.5 + draws.gumbel(size=logits.shape)).argmax(axis=1)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(2.5, rel=0.03)

    def nll(temperature):
        return -special.log_softmax(logits / temperature, axis=1)[range(20000), labels].mean()

    assert nll(found) <= min(nll(found * 1.001), nll(found / 1.001))
