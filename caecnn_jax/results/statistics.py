"""What may be concluded from differences between runs: intervals and p-values, with their sources.

k: folds; n: results. A difference is one run's figure minus the other's, on the same images.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of every interval
RESAMPLES = 10_000  # of the bootstrap


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


class Estimate(NamedTuple):
    """A mean, its interval's ends, and the p-value of its being 0; None where not to be had."""

    mean: float
    low: float | None
    high: float | None
    p: float | None


def fold_interval(
    differences: Sequence[float],
    test_share_over_train_share: float,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The mean of one difference a fold, with its corrected t interval; two folds or more.

    The variance of the mean is s^2 (1/n + n_test/n_train), s the sample standard deviation: Nadeau
    and Bengio 2003, "Inference for the generalization error". s^2/n alone takes the
    folds for independent, but each two share most of their training images. Of r times repeated k
    folds give all n = r k differences: the corrected repeated k-fold test, n - 1 degrees of
    freedom, of Bouckaert and Frank 2004, "Evaluating the replicability of significance tests for
    comparing learning algorithms".

    `test_share_over_train_share`: validation images over training images, 1 / (k - 1) of k equal
    folds; 0 gives the plain t interval, of independent results such as test runs of several seeds.
    Raises ValueError for fewer than two differences.
    """
    mean, error, freedom = _corrected(differences, test_share_over_train_share)
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * error
    return Interval(mean, float(mean - reach), float(mean + reach))


def fold_p_value(differences: Sequence[float], test_share_over_train_share: float) -> float:
    """The two-sided p-value of `fold_interval`'s t test of no difference.

    Below 1 - confidence exactly where that interval leaves out 0. Of equal differences 0, or 1
    where they are 0.
    """
    mean, error, freedom = _corrected(differences, test_share_over_train_share)
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def estimate(values: Sequence[float], test_share_over_train_share: float) -> Estimate:
    """What one value or more tell, as by `fold_interval` and `fold_p_value`.

    One value, or several that are equal, tell of no spread: they have neither interval nor p.
    """
    if np.ptp(values) <= 1e-12:  # what rounding makes of equal ones
        return Estimate(float(np.mean(values)), None, None, None)
    interval = fold_interval(values, test_share_over_train_share)
    return Estimate(*interval, fold_p_value(values, test_share_over_train_share))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given; at most 1.

    The i-th smallest of m becomes the greatest of (m - j + 1) p_j over j <= i: Holm 1979, "A simple
    sequentially rejective multiple test procedure". Where one below alpha counts as a difference,
    the chance of any false one among all m is at most alpha, however they depend on each other.
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given, kind="stable")
    factors = np.arange(len(given), 0, -1)
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * given[order]), 1)
    return adjusted.tolist()


def mcnemar_exact(
    correct_a: Sequence[bool] | np.ndarray, correct_b: Sequence[bool] | np.ndarray
) -> float:
    """The exact two-sided p-value that two classifiers are right equally often; bool [N] each.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions": of
    the images that just one of them gets right, a half is expected for each, by the binomial
    distribution. 1 where there is no such image.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    confidence: float = CONFIDENCE,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean over images with its percentile bootstrap interval: Efron 1979, "Bootstrap methods".

    `values` [N] are a number an image, such as one run's correctness minus another's: -1, 0 or 1.
    It holds the choice of the images, not training's randomness. The same seed, the same interval.
    """
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    total = int(counts.sum())
    rng = np.random.default_rng(seed)
    # Drawing N images with replacement draws how often each distinct value comes.
    size = max(1, min(resamples, 10_000_000 // len(distinct)))
    means = []
    for start in range(0, resamples, size):
        drawn = rng.multinomial(total, counts / total, min(size, resamples - start))
        means.append(drawn @ distinct / total)
    tails = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), (tails, 1 - tails))
    return Interval(float(counts @ distinct / total), float(low), float(high))


def _corrected(differences: Sequence[float], ratio: float) -> tuple[float, float, int]:
    """Mean, its corrected standard error, and the degrees of freedom."""
    values = np.asarray(differences, np.float64)
    number = len(values)
    if number < 2:
        raise ValueError(f"an interval needs two differences or more, not {number}")
    error = np.std(values, ddof=1) * math.sqrt(1 / number + ratio)
    return float(values.mean()), float(error), number - 1
