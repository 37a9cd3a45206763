"""From a confusion matrix int [C, C] (a row a true class, a column a predicted one) to figures."""

import operator
from collections.abc import Callable, Mapping, Sequence

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


def mean_losses(by_step: Mapping[str, Sequence]) -> dict[str, float | None]:
    """{"loss_cae", "loss_cnn"}: means over images from each step's batch means and "images".

    None where a part did not run. The reference divides the sum of batch means by the number of
    images instead.
    """
    images = np.asarray(by_step["images"], np.float64)
    return {
        name: float(np.dot(by_step[name], images) / images.sum()) if name in by_step else None
        for name in ("loss_cae", "loss_cnn")
    }


def evaluation(by_step: Mapping[str, np.ndarray]) -> dict:
    """A record's {"valid", "confusion_matrix"} from an evaluation's metrics by step."""
    confusion = by_step["confusion"].sum(axis=0) if "confusion" in by_step else None
    return {
        "valid": {
            **mean_losses(by_step),
            "accuracy": None if confusion is None else accuracy(confusion),
        },
        "confusion_matrix": None if confusion is None else confusion.tolist(),
    }


def best_epoch(records: Sequence[dict]) -> int | None:
    """Index into `records` of the best epoch, the earliest among equals.

    The best has the highest validation accuracy, or, where the CNN never ran, the lowest validation
    loss. None when there is no record.
    """
    accuracies = [(record["valid"]["accuracy"], -i) for i, record in enumerate(records)]
    accuracies = [pair for pair in accuracies if pair[0] is not None]
    if accuracies:
        return -max(accuracies)[1]
    losses = [(record["valid"]["loss_cae"], i) for i, record in enumerate(records)]
    return min(losses)[1] if losses else None


def result(record: dict, class_names: Sequence[str]) -> dict:
    """One evaluation's figures from its record {"valid", "confusion_matrix"}; None where absent."""
    confusion = record["confusion_matrix"]
    table = None if confusion is None else per_class(confusion, class_names)
    return {
        "accuracy": record["valid"]["accuracy"],
        "macro_f1": None if table is None else macro_f1(table),
        "loss_cae": record["valid"]["loss_cae"],
        "loss_cnn": record["valid"]["loss_cnn"],
        "confusion_matrix": confusion,
        "per_class": table,
    }


def run_result(records: Sequence[dict], class_names: Sequence[str]) -> dict:
    """A run's figures: its last epoch's, as the reference reports, and "best", the best epoch's."""
    best = best_epoch(records)
    epochs = {"epochs": len(records), "best_epoch": records[best]["epoch"]}
    return {
        **result(records[-1], class_names),
        **epochs,
        "best": {**result(records[best], class_names), "epoch": records[best]["epoch"]},
    }


def summarize(records: Mapping[str, Sequence[dict]], class_names: Sequence[str]) -> dict:
    """What metrics.json holds, from every run's records by its name: fold_1, ..., test.

    {"cv": {"folds", "mean", "std"} (the sample standard deviation) or None, "test": or None}.
    """
    results = {run: run_result(of_run, class_names) for run, of_run in records.items()}
    folds = [
        {"fold": int(name.removeprefix("fold_")), **result}
        for name, result in results.items()
        if name != "test"
    ]
    cv = {"folds": folds, "mean": _over(folds, np.mean), "std": _over(folds, _std)}
    return {"cv": cv if folds else None, "test": results.get("test")}


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _over(folds: Sequence[dict], statistic: Callable) -> dict:
    """`statistic` over the folds of each figure, None where the folds have none."""
    figures = {}
    for name in ("accuracy", "macro_f1", "loss_cae", "loss_cnn"):
        values = [fold[name] for fold in folds if fold[name] is not None]
        figures[name] = float(statistic(values)) if values else None
    tables = [fold["per_class"] for fold in folds if fold["per_class"] is not None]
    figures["per_class"] = {
        class_name: {
            measure: float(statistic([table[class_name][measure] for table in tables]))
            for measure in ("precision", "recall", "f1")
        }
        for class_name in (tables[0] if tables else ())
    } or None
    return figures


def text_table(result: dict) -> str:
    """A result as lines of text: accuracy and losses, then a row a class."""
    names = ("accuracy", "macro_f1", "loss_cae", "loss_cnn")
    figures = [f"{name} {result[name]:.4f}" for name in names if result[name] is not None]
    lines = ["  ".join(figures)]
    if result["per_class"]:
        lines.append(f"{'class':<12}{'precision':>10}{'recall':>10}{'F1':>10}")
    for name, row in (result["per_class"] or {}).items():
        support = f"  of {row['support']} images" if "support" in row else ""
        columns = "".join(f"{row[measure]:>10.4f}" for measure in ("precision", "recall", "f1"))
        lines.append(f"{name:<12}{columns}{support}")
    return "\n".join(lines)


def summary_table(summary: dict) -> str:
    """What metrics.json holds as lines of text: a row a figure or class, a column a run.

    The folds are followed by their mean ± standard deviation, and that by the test run; F1 stands
    for a class.
    """
    cv, test = summary["cv"], summary["test"]
    folds = cv["folds"] if cv else []
    headings = ["", *(f"fold {fold['fold']}" for fold in folds)]
    headings += ["mean ± std"] * bool(cv) + ["test"] * bool(test)
    any_result = test or folds[0]

    def line(name: str, value: Callable[[dict], float]) -> list[str]:
        cells = [name, *(f"{value(fold):.4f}" for fold in folds)]
        if cv:
            cells.append(f"{value(cv['mean']):.4f} ± {value(cv['std']):.4f}")
        return cells + ([f"{value(test):.4f}"] if test else [])

    rows = [headings, ["epochs", *(str(fold["epochs"]) for fold in folds)]]
    rows[-1] += [""] * bool(cv) + ([str(test["epochs"])] if test else [])
    for name in ("accuracy", "macro_f1", "loss_cae", "loss_cnn"):
        if any_result[name] is not None:
            rows.append(line(name, operator.itemgetter(name)))
    for name in any_result["per_class"] or ():
        rows.append(line(f"F1 {name}", lambda result, name=name: result["per_class"][name]["f1"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip()
        for cells in rows
    )
