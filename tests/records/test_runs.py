"""Tests of caecnn_jax.records.runs: what a run's folder tells."""

import pytest
from synthetic_runs import counted_run


@pytest.mark.parametrize(
    ("counts", "imbalance", "rare"),
    [
        ([50] * 5 + [5] * 5, "step", "fghij"),
        ([50, 20, 5, 5], "step", "cd"),  # the second has but 20, and was not cut
        ([100, 77, 60, 46, 36], "exp", "e"),
        ([100, 90, 80], "exp", "c"),  # the config's wish, however small
        ([501, 500, 500], "none", ""),
        ([500, 400, 30], "none", "c"),
        ([5000, 50], "none", "b"),
        ([7, 7, 7], "none", ""),
        ([120, 72, 40, 20, 10], "none", "de"),  # a third of five, rounded
    ],
)
def test_rare_are_the_cut_classes_or_the_end_of_a_long_tail(counts, imbalance, rare):
    assert counted_run(counts, imbalance={"type": imbalance}).rare == list(rare)


@pytest.mark.parametrize(
    ("counts", "regulated", "rare"),
    [
        ([5000, 2500, 5000, 2500, 2500], "bde", "bde"),
        ([60, 72, 40, 20, 10], "a", "de"),  # the largest was cut, and is not rare for it
        ([120, 60, 30, 15, 10], "bcd", "bcde"),
    ],
)
def test_a_class_that_the_config_cut_is_rare_by_its_images(counts, regulated, rare):
    cut = {name: count for name, count in zip("abcde", counts, strict=True) if name in regulated}
    assert counted_run(counts, train_data_regulation=cut).rare == list(rare)
