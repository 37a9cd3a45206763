"""Tests of caecnn_jax.results.statistics."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from caecnn_jax.results import statistics

FOLDS = 5
DIFFERENCES = (0.01, 0.03, -0.005, 0.02, 0.015)


def test_the_plain_interval_is_the_paired_t_test():
    got = statistics.fold_interval(DIFFERENCES, 0.0)
    test = stats.ttest_1samp(DIFFERENCES, 0)
    expected = test.confidence_interval(0.95)
    assert got == pytest.approx((np.mean(DIFFERENCES), expected.low, expected.high))
    assert statistics.fold_p_value(DIFFERENCES, 0.0) == pytest.approx(test.pvalue)


def test_of_five_folds_the_corrected_interval_is_one_and_a_half_times_as_wide():
    plain = statistics.fold_interval(DIFFERENCES, 0.0)
    corrected = statistics.fold_interval(DIFFERENCES, 1 / 4)
    # s sqrt(1/5 + 1/4) over s sqrt(1/5)
    assert (corrected.high - corrected.low) / (plain.high - plain.low) == pytest.approx(1.5)
    assert corrected.mean == plain.mean == pytest.approx(0.014)


def test_the_corrected_interval_is_the_one_reckoned_by_hand():
    # Mean 0.014, s = 0.0129422; t(97.5 %, 4) = 2.7764451; s sqrt(0.45) = 0.0086819.
    got = statistics.fold_interval(DIFFERENCES, 0.25)
    assert got == pytest.approx((0.014, 0.014 - 0.0241048, 0.014 + 0.0241048), abs=1e-6)
    t = 0.014 / 0.0086819
    assert statistics.fold_p_value(DIFFERENCES, 0.25) == pytest.approx(
        2 * (1 - stats.t.cdf(t, 4)), rel=1e-4
    )


@hypothesis.given(
    st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.sampled_from([0.0, 0.25, 1.0])
)
def test_the_p_value_is_small_exactly_where_the_interval_leaves_out_zero(numbers, ratio):
    _, low, high = statistics.fold_interval(numbers, ratio)
    p_value = statistics.fold_p_value(numbers, ratio)
    hypothesis.assume(abs(p_value - 0.05) > 1e-9)
    assert (p_value < 0.05) == (low > 0 or high < 0)


def test_equal_differences_leave_nothing_to_chance():
    assert statistics.fold_p_value([0.5, 0.5], 0.25) == 0.0
    assert statistics.fold_p_value([0.0, 0.0], 0.25) == 1.0
    assert statistics.fold_interval([0.5, 0.5], 0.25) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[0.1, 0.1], [0.1 + 0.2, 0.3], [0.0, 0.0, 0.0], [0.1]])
def test_one_value_or_equal_ones_tell_of_no_spread(values):
    mean, *rest = statistics.estimate(values, 1.0)
    assert mean == pytest.approx(np.mean(values)) and rest == [None, None, None]


def test_values_that_vary_have_interval_and_p_value():
    expected = statistics.fold_interval(DIFFERENCES, 0.25)
    p_value = statistics.fold_p_value(DIFFERENCES, 0.25)
    assert statistics.estimate(DIFFERENCES, 0.25) == (*expected, p_value)


@pytest.mark.parametrize("few", [[], [0.1]])
def test_one_difference_has_no_interval(few):
    with pytest.raises(ValueError, match="two differences or more"):
        statistics.fold_interval(few, 0.25)


def nearest_mean(images, labels, test_images):
    means = np.stack([images[labels == label].mean(axis=0) for label in (0, 1)])
    return np.square(test_images[:, None] - means).sum(axis=2).argmin(axis=1)


def fold_differences(rng, repeats=1):
    """Accuracy of one classifier minus another's in each fold of cross-validation.

    Both are nearest-mean classifiers, each of one of two equally good features: neither is better
    over all data, but on one sample each has its luck, and folds that overlap share it.
    """
    labels = np.repeat([0, 1], 20)
    images = rng.normal(0, 1, (40, 2)) + 0.3 * labels[:, None]
    differences = []
    for _ in range(repeats):
        fold_of = rng.permuted(np.arange(40) % FOLDS)
        for fold in range(FOLDS):
            train, valid = fold_of != fold, fold_of == fold
            guesses = [
                nearest_mean(images[train, part], labels[train], images[valid, part])
                for part in (slice(0, 1), slice(1, 2))
            ]
            right = [(guess == labels[valid]).mean() for guess in guesses]
            differences.append(right[0] - right[1])
    return differences


def share_that_misses_zero(samples, ratio):
    intervals = [statistics.fold_interval(sample, ratio) for sample in samples]
    return np.mean([low > 0 or high < 0 for _, low, high in intervals])


def test_under_no_difference_the_corrected_interval_misses_zero_in_a_twentieth():
    rng = np.random.default_rng(0)
    samples = [fold_differences(rng) for _ in range(1500)]
    corrected = share_that_misses_zero(samples, 1 / (FOLDS - 1))
    plain = share_that_misses_zero(samples, 0.0)
    # 5 % of 1500 are 75 +- 8; the correction itself is an approximation.
    assert 0.03 < corrected < 0.07
    assert plain > 0.1


def test_repeated_folds_mislead_the_plain_interval_more_still():
    rng = np.random.default_rng(1)
    samples = [fold_differences(rng, repeats=4) for _ in range(200)]
    assert share_that_misses_zero(samples, 1 / (FOLDS - 1)) < 0.1
    assert share_that_misses_zero(samples, 0.0) > 0.3


def test_holm_is_the_step_down_procedure():
    # Of 4: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1, each at least the one before.
    assert statistics.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([0.2]) == [0.2] and statistics.holm([]) == []


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.floats(0.001, 0.2))
def test_holm_rejects_what_the_procedure_as_published_rejects(p_values, alpha):
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - rank) * p_values[index] > alpha:
            break
        rejected.add(index)
    adjusted = statistics.holm(p_values)
    assert {index for index, p_value in enumerate(adjusted) if p_value <= alpha} == rejected


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 9), (10, 10), (40, 61)])
def test_mcnemar_is_the_binomial_sum(only_a, only_b):
    correct_a = [True] * 7 + [True] * only_a + [False] * only_b + [False] * 3
    correct_b = [True] * 7 + [False] * only_a + [True] * only_b + [False] * 3
    total, less = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(total, count) for count in range(less + 1)) / 2**total
    got = statistics.mcnemar_exact(correct_a, correct_b)
    assert got == pytest.approx(min(1.0, 2 * tail))
    assert statistics.mcnemar_exact(correct_b, correct_a) == got


def test_the_bootstrap_of_three_images_is_the_one_over_all_samples():
    values = (0.0, 1.0, 5.0)
    means = [np.mean(sample) for sample in itertools.product(values, repeat=3)]
    mean, low, high = statistics.bootstrap_interval(values, 0.8)
    assert mean == pytest.approx(2.0)
    assert (low, high) == pytest.approx(tuple(np.quantile(means, (0.1, 0.9))))


def test_the_bootstrap_of_many_images_nears_the_normal_interval_and_repeats():
    values = np.random.default_rng(0).choice([-1, 0, 1], 10_000, p=(0.04, 0.9, 0.06))
    got = statistics.bootstrap_interval(values)
    reach = 1.96 * values.std() / 100
    assert got == pytest.approx(
        (values.mean(), values.mean() - reach, values.mean() + reach), abs=3e-4
    )
    assert statistics.bootstrap_interval(values) == got
    assert statistics.bootstrap_interval(values, seed=1) != got


def test_the_bootstrap_of_as_many_values_as_images_fits_in_memory():
    values = np.random.default_rng(0).normal(0, 1, 10_000)
    mean, low, high = statistics.bootstrap_interval(values, resamples=1500)
    assert low < mean < high and high - low == pytest.approx(2 * 1.96 / 100, rel=0.1)
