"""From what an evaluation counted to figures: a record of each epoch, a result of each run.

K: classes. A confusion matrix is int [K, K], a row a true class, a column a predicted one.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from caecnn_jax import run_names
from caecnn_jax.results import calibration, groups, schema

LOSSES = ("loss_cae", "loss_cnn")
# What a record's "valid" and a result hold as plain numbers, in the order of tables.
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "g_mean", *LOSSES, "calibration_error")
GROUPS = ("shots", "thirds")  # of classes, by their training images

Confusion = np.ndarray | list[list[int]]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is nothing to divide by (scikit-learn's zero_division=0)."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def accuracy(confusion: np.ndarray) -> float:
    """The share of images that are predicted right."""
    return float(np.trace(confusion) / max(np.sum(confusion), 1))


def f1(confusion: Confusion) -> np.ndarray:
    """Each class's F1, float [K], 0 where there is nothing to divide by."""
    confusion = np.asarray(confusion)
    total = confusion.sum(axis=0) + confusion.sum(axis=1)
    return _ratio(2.0 * np.diag(confusion), total)


def f1_of(record: Mapping[str, Any]) -> list[float] | None:
    """Each class's F1 in an epoch's record; None where the CNN did not run."""
    confusion = record.get("confusion_matrix")
    return record.get("f1") if confusion is None else f1(confusion).tolist()


def per_class(confusion: Confusion, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """{class: {"precision", "recall", "f1", "support"}}; support is the class's image count."""
    confusion = np.asarray(confusion)
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _ratio(hits, predicted), _ratio(hits, support)
    of_f1 = f1(confusion)
    return {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(of_f1[index]),
            "support": int(support[index]),
        }
        for index, name in enumerate(class_names)
    }


def macro_f1(confusion: Confusion) -> float:
    """The unweighted mean of F1 over the classes that are there or were predicted."""
    confusion = np.asarray(confusion)
    is_there = (confusion.sum(axis=0) + confusion.sum(axis=1)) > 0
    return groups.mean(np.where(is_there, f1(confusion), np.nan)) or 0.0


def recalls(confusion: Confusion) -> np.ndarray:
    """The share of each class's images that is predicted right, float [K]; nan without images."""
    confusion = np.asarray(confusion)
    support = confusion.sum(axis=1)
    return np.divide(
        np.diag(confusion), support, out=np.full(len(support), np.nan), where=support > 0
    )


def balanced_accuracy(confusion: np.ndarray) -> float:
    """The mean recall of the classes that have images; as scikit-learn's."""
    return groups.mean(recalls(confusion)) or 0.0


def g_mean(confusion: np.ndarray) -> float:
    """The geometric mean of the recalls of the classes that have images.

    Kubat and Matwin 1997, "Addressing the curse of imbalanced training sets", for more classes than
    two as in Sun et al. 2006, "Boosting for learning multiple classes with imbalanced class
    distribution". 0 as soon as a class is never found.
    """
    present = recalls(confusion)
    present = present[~np.isnan(present)]
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(present).mean())) if len(present) else 0.0


def calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = calibration.NUM_BINS
) -> float:
    """The expected calibration error of probabilities [N, K] for int labels [N].

    Guo et al. 2017, "On calibration of modern neural networks", equation 3: the images' mean of
    |accuracy - mean confidence| of their bin, of `bins` of equal width over the greatest
    probability, each holding its upper end.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    return calibration.error_from_bins(*calibration.by_bin(confidence, correct, bins))


def mean_losses(by_step: Mapping[str, Sequence | np.ndarray]) -> schema.Losses:
    """Means over images from each step's batch means and "images"; None where a part did not run.

    The reference divides the sum of batch means by the number of images instead.
    """
    images = np.asarray(by_step["images"], np.float64)

    def mean(name: str) -> float | None:
        return float(np.dot(by_step[name], images) / images.sum()) if name in by_step else None

    return {"loss_cae": mean("loss_cae"), "loss_cnn": mean("loss_cnn")}


def packed(correct: np.ndarray) -> str:
    """Whether each image was predicted right, bool [N], as text: a bit an image, in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def correctness(result: Mapping[str, Any]) -> np.ndarray | None:
    """Whether each image of a result was predicted right, bool [N], in the order of its split.

    None where there was no CNN, or an earlier version wrote the result.
    """
    if not result.get("correct"):
        return None
    bits = np.frombuffer(base64.b64decode(result["correct"]), np.uint8)
    return np.unpackbits(bits, count=int(np.sum(result["confusion_matrix"]))).astype(bool)


def evaluation(
    by_step: Mapping[str, np.ndarray],
    num_classes: int,
    class_counts: groups.Counts | None = None,
) -> schema.Evaluation:
    """An evaluation's figures, from what `epochs.evaluate` yields by step.

    That is [steps, ...]: "images", "loss_cae" and "loss_cnn" (batch means), and of each image
    "label", "predicted", "confidence" and "mask"; what belongs to a part that did not run is not
    there. `class_counts` [K]: the training images of each class, without which there are no
    "shots" and no "thirds".
    """
    valid: Any = dict.fromkeys((*FIGURES, *GROUPS)) | mean_losses(by_step)
    made: schema.Evaluation = {
        "valid": valid,
        "confusion_matrix": None,
        "reliability": None,
        "correct": None,
    }
    if "predicted" not in by_step:
        return made
    mask = np.asarray(by_step["mask"])
    labels, predicted, confidence = (
        np.asarray(by_step[name])[mask] for name in ("label", "predicted", "confidence")
    )
    confusion = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    confusion = confusion.reshape(num_classes, num_classes)
    bins = calibration.by_bin(confidence, labels == predicted)
    valid |= of_confusion(confusion, class_counts)
    valid["calibration_error"] = calibration.error_from_bins(*bins)
    made["reliability"] = calibration.reliability(*bins)
    made["correct"] = packed(labels == predicted)
    made["confusion_matrix"] = confusion.tolist()
    return made


def plain(part: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a record's "train" or "valid": without groups, and what is None."""
    return {name: value for name, value in part.items() if value is not None and name not in GROUPS}


def of_confusion(
    confusion: np.ndarray, class_counts: groups.Counts | None = None
) -> dict[str, Any]:
    """The figures that follow from a confusion matrix; with `class_counts` those of groups too."""
    figures = {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "g_mean": g_mean(confusion),
    }
    if class_counts is None:
        return figures
    found = recalls(confusion)
    return figures | {
        "shots": groups.shots(found, class_counts),
        "thirds": groups.thirds(found, class_counts),
    }


def best_epoch(
    records: Sequence[Mapping[str, Any]], selection_metric: str = "accuracy"
) -> int | None:
    """Index into `records` of the best epoch, the earliest among equals.

    The best has the highest `selection_metric` of the validation, or, where the CNN never ran, the
    lowest validation loss. None when there is no record.
    """
    valids: list[Mapping[str, Any]] = [record["valid"] for record in records]
    scores = [valid[selection_metric] for valid in valids]
    scored = [index for index, score in enumerate(scores) if score is not None]
    if scored:
        return max(scored, key=lambda index: scores[index])
    losses = [valid["loss_cae"] for valid in valids]
    return min(range(len(losses)), key=lambda index: losses[index], default=None)


def result(record: schema.Evaluation, class_names: Sequence[str]) -> schema.Result:
    """One evaluation's figures, from its record as `evaluation` makes it."""
    confusion = record["confusion_matrix"]
    of_record: Any = {
        **dict.fromkeys(GROUPS),  # a record of an earlier version has none
        **record["valid"],
        "nll": record["valid"]["loss_cnn"],
        "confusion_matrix": confusion,
        "reliability": record["reliability"],
        "correct": record.get("correct"),
        "per_class": None if confusion is None else per_class(confusion, class_names),
    }
    return of_record


def run_result(
    records: Sequence[schema.Record],
    class_names: Sequence[str],
    selection_metric: str = "accuracy",
) -> schema.RunResult:
    """A run's figures: its last epoch's, as the reference reports, and "best", the best epoch's."""
    index = best_epoch(records, selection_metric)
    assert index is not None  # a run has a record
    best = records[index]
    return {
        **result(records[-1], class_names),
        "epochs": len(records),
        "best_epoch": best["epoch"],
        "best": {**result(best, class_names), "epoch": best["epoch"]},
    }


def summarize(
    records: Mapping[str, Sequence[schema.Record]],
    class_names: Sequence[str],
    selection_metric: str = "accuracy",
) -> schema.Summary:
    """What metrics.json holds, from every run's records by its name: fold_1, ..., test.

    {"cv": {"folds", "mean", "std"} (the sample standard deviation) or None, "test": or None}.
    """
    results = {
        run: run_result(of_run, class_names, selection_metric) for run, of_run in records.items()
    }
    folds: list[schema.FoldResult] = [
        {"fold": run_names.number_of(name), **result}
        for name, result in results.items()
        if name != run_names.TEST
    ]
    cv: schema.Folds = {"folds": folds, "mean": _over(folds, np.mean), "std": _over(folds, _std)}
    return {"cv": cv if folds else None, "test": results.get(run_names.TEST)}


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _over(folds: Sequence[Mapping[str, Any]], statistic: Callable) -> schema.OverFolds:
    """`statistic` over the folds of each figure, None where the folds have none."""

    def each(rows: Sequence[Mapping], names: Sequence[str]) -> dict[str, float | None]:
        values = {name: [row[name] for row in rows if row[name] is not None] for name in names}
        return {name: float(statistic(v)) if v else None for name, v in values.items()}

    figures: Any = each(folds, (*FIGURES, "nll"))
    for group, names in zip(GROUPS, (groups.SHOTS, groups.THIRDS), strict=True):
        rows = [fold[group] for fold in folds if fold[group] is not None]
        figures[group] = each(rows, names) if rows else None
    tables = [fold["per_class"] for fold in folds if fold["per_class"] is not None]
    figures["per_class"] = {
        name: each([table[name] for table in tables], ("precision", "recall", "f1"))
        for name in (tables[0] if tables else ())
    } or None
    return figures
