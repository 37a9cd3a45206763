"""From a confusion matrix int [C, C] (a row a true class, a column a predicted one) to figures."""

from collections.abc import Sequence

import numpy as np


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is nothing to divide by (scikit-learn's zero_division=0)."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def accuracy(confusion: np.ndarray) -> float:
    """The share of images that are predicted right."""
    return float(np.trace(confusion) / max(np.sum(confusion), 1))


def per_class(confusion: np.ndarray, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """{class: {"precision", "recall", "f1", "support"}}; support is the class's image count."""
    confusion = np.asarray(confusion)
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    f1 = _ratio(2.0 * hits, support + predicted)
    return {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(class_names)
    }


def macro_f1(table: dict[str, dict[str, float]]) -> float:
    """The unweighted mean over classes of F1, from `per_class`."""
    return float(np.mean([row["f1"] for row in table.values()]))
