"""Tests of caecnn_jax.data.description."""

import numpy as np

from caecnn_jax.data import dataset, description


def test_a_description_is_what_a_finished_run_needs():
    labels = np.array([0, 1, 0, 1], np.int32)
    data = dataset.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), labels, 2, ["ant", "bee"])
    assert description.of(data, [0.5], np.float64([0.25])) == description.Description(
        "arrays", ("ant", "bee"), 8, 1, (0.5,), (0.25,), data.digest
    )
