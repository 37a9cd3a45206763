"""Groups of classes by how many training images they have, and how well each group is found.

K: classes. Recalls are float [K], nan for a class without images to evaluate on; class counts int
[K] are training images, none of them counted twice.
"""

from collections.abc import Sequence

import numpy as np

Counts = Sequence[int] | np.ndarray
MANY, FEW = 100, 20  # training images: above MANY a class is many-shot, under FEW few-shot
SHOTS, THIRDS = ("many", "medium", "few"), ("head", "middle", "tail")


def mean(recalls: np.ndarray) -> float | None:
    """The mean of the recalls that there are, None where there is none."""
    present = recalls[~np.isnan(recalls)]
    return float(present.mean()) if len(present) else None


def shots(recalls: np.ndarray, class_counts: Counts) -> dict[str, float | None]:
    """Mean recall of the many, medium and few-shot classes; None where there is none.

    Classes with more than 100, 20 to 100 and under 20 training images: Liu et al. 2019,
    "Large-scale long-tailed recognition in an open world", and shot_acc in their code.
    """
    counts = np.asarray(class_counts)
    members = (counts > MANY, (counts >= FEW) & (counts <= MANY), counts < FEW)
    return {name: mean(recalls[which]) for name, which in zip(SHOTS, members, strict=True)}


def thirds(recalls: np.ndarray, class_counts: Counts) -> dict[str, float | None]:
    """Mean recall of head, middle and tail: the classes in the order of their training images.

    Head and tail have K // 3 classes each, of ten 3, 4 and 3, as MiSLAS groups CIFAR-10-LT's (Zhong
    et al. 2021, "Improving calibration for long-tailed recognition"). Of equal classes the first
    comes first.
    """
    by_count = recalls[np.argsort(-np.asarray(class_counts), kind="stable")]
    third = len(by_count) // 3
    members = np.split(by_count, [third, len(by_count) - third])
    return {name: mean(which) for name, which in zip(THIRDS, members, strict=True)}
