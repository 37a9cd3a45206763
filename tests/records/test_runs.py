"""Tests of caecnn_jax.records.runs: what a run's folder tells."""

import pytest
from synthetic_runs import counted_run


@pytest.mark.parametrize(
    ("counts", "imbalance", "rare"),
    [
        ([50] * 5 + [5] * 5, "step", "fghij"),
        ([100, 77, 60, 46, 36], "exp", "e"),
        ([100, 90, 80], "exp", "c"),  # the config's wish, however small
        ([501, 500, 500], "none", ""),
        ([500, 400, 30], "none", "c"),
        ([5000, 50], "none", "b"),
        ([7, 7, 7], "none", ""),
    ],
)
def test_rare_are_the_cut_classes_or_the_end_of_a_long_tail(counts, imbalance, rare):
    assert counted_run(counts, imbalance={"type": imbalance}).rare == list(rare)
