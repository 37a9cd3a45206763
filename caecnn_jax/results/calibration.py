"""How well probabilities agree with what is right, and the temperature that mends them.

N: images; K: classes; bins: intervals of equal width of the greatest probability, the confidence.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

NUM_BINS = 15  # as long-tailed learning's papers have it
LEAST, MOST = 0.01, 100.0  # of a temperature


class Reliability(TypedDict):
    """A reliability diagram: for each bin of confidence, None where it is empty."""

    images: list[int]
    confidence: list[float | None]  # mean
    accuracy: list[float | None]


def by_bin(
    confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each bin's images, summed confidence and right images, [num_bins] each.

    `confidence` float [N]; `correct` bool [N]. Each bin holds its upper end.
    """
    index = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    images, summed, right = (
        np.bincount(index, weights, num_bins) for weights in (None, confidence, correct)
    )
    return images, summed, right


def error_from_bins(images: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> float:
    """`metrics.calibration_error` from the sums of `by_bin`."""
    gaps = np.abs(np.asarray(correct, np.float64) - np.asarray(confidence, np.float64))
    return float(gaps.sum() / max(np.sum(images), 1))


def reliability(images: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> Reliability:
    """The diagram of the sums of `by_bin`."""

    def means(sums: np.ndarray) -> list[float | None]:
        pairs = zip(np.asarray(sums).tolist(), np.asarray(images).tolist(), strict=True)
        return [value / count if count else None for value, count in pairs]

    return {
        "images": np.asarray(images, int).tolist(),
        "confidence": means(confidence),
        "accuracy": means(correct),
    }


def sums(diagram: Reliability) -> np.ndarray:
    """What `reliability` makes the diagram of, each bin's three sums: float64 [3, bins]."""
    images = np.asarray(diagram["images"], np.float64)
    means = [[mean or 0.0 for mean in diagram[name]] for name in ("confidence", "accuracy")]
    return images * np.array([np.ones(len(images)), *means])


def pooled(diagrams: Sequence[Reliability]) -> Reliability:
    """The diagram of all the images of these diagrams, of as many bins each."""
    return reliability(*np.sum([sums(one) for one in diagrams], axis=0))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, LEAST to MOST, by which logits [N, K] have the least mean NLL, in float64.

    Guo et al. 2017, section 4.2. Labels int [N]. The NLL is unimodal in the temperature's logarithm
    (it is convex in its inverse), so that a bounded scalar search finds the least.
    """
    from scipy import optimize, special  # slow to import, and few need it

    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)

    def nll(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        true = np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
        return float(np.mean(special.logsumexp(scaled, axis=1) - true))

    bounds = (np.log(LEAST), np.log(MOST))
    found = optimize.minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
