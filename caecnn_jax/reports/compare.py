"""Comparison of runs on the same data and folds: F1 by class, improvement, paired differences.

An entry is one run, or several of one config under several seeds. The first entry is the baseline;
a difference is always another entry minus the baseline, under the same seed. Writes comparison.html
and comparison.json.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from caecnn_jax import run_names
from caecnn_jax.records import figures, runs
from caecnn_jax.reports import charts, entries, pages
from caecnn_jax.results import metrics, schema, statistics

CONFIDENCE = 0.95
SCORES = ("accuracy", "balanced_accuracy", "macro_f1")


def write(given: Sequence[epath.PathLike], output: epath.PathLike) -> epath.Path:
    """Compares the entries that `given` stands for; returns the path of comparison.html."""
    compared = entries.read(given)
    entries.check(compared)
    result = comparison(compared)
    output = epath.Path(output)
    pages.write_file(output / "comparison.json", json.dumps(result, indent=2) + "\n")
    drawn = charts.draw(result, accuracy_curves(compared))
    values = {"result": result, "charts": drawn, "most_classes": figures.MOST_CLASSES}
    return pages.write_page(output / "comparison.html", "comparison.html.jinja", values)


def comparison(compared: Sequence[entries.Entry]) -> dict[str, Any]:
    """All numbers of the comparison, as comparison.json holds them."""
    shared, baseline = entries.parts(compared), compared[0]
    first = baseline.runs[0]
    return {
        "baseline": baseline.name,
        "classes": first.class_names,
        "rare_classes": [name for name in first.class_names if name in first.rare],
        "parts": shared,
        "num_folds": len(first.folds) if "cv" in shared else 0,
        "num_seeds": len(baseline.runs),
        "test_share_over_train_share": share_held_out(first) if "cv" in shared else None,
        "confidence": CONFIDENCE,
        "runs": {
            entry.name: {
                "workdirs": [str(run.workdir) for run in entry.runs],
                "model": pages.model_name(entry.runs[0].config),
                **{part: scores(entry, part) for part in shared},
                "difference": {part: differences(entry, baseline, part) for part in shared},
            }
            for entry in compared
        },
    }


def share_held_out(run: runs.Run) -> float:
    """Validation images over training images, a mean over the folds; of old runs 1 / (folds - 1).

    The training images of a fold count once each, whatever the expansion.
    """
    names = [name for name in run.results if run_names.is_fold(name)]
    counts = run.info.get("class_counts") or {}
    if not all(name in counts for name in names):
        return 1 / max(len(names) - 1, 1)
    sums = [{part: sum(counts[n][part].values()) for part in ("train", "valid")} for n in names]
    return float(np.mean([one["valid"] / one["train"] for one in sums]))


def differences(entry: entries.Entry, baseline: entries.Entry, part: str) -> dict[str, Any]:
    """Paired differences entry - baseline of accuracy, macro F1 and every class's F1.

    A pair has the same seed, and in cross-validation the same fold. The classes' p-values are
    Holm's besides: of all classes together. Of one pair of test runs the images tell how sure the
    difference in accuracy is.
    """
    pairs = [
        (run.results[name], result)
        for run, other in zip(entry.runs, baseline.runs, strict=True)
        for name, result in other.results.items()
        if run_names.is_fold(name) == (part == "cv")
    ]
    # Folds share training images; test runs of several seeds are independent of each other.
    ratio = share_held_out(baseline.runs[0]) if part == "cv" else 0.0
    scores_of = [(_flat(mine), _flat(theirs)) for mine, theirs in pairs]
    found = _nested(
        {
            key: paired_difference([mine[key] - theirs[key] for mine, theirs in scores_of], ratio)
            for key in scores_of[0][0]
            if all(key in mine and key in theirs for mine, theirs in scores_of)
        }
    )
    if part == "test" and len(pairs) == 1:
        found["accuracy"] |= on_the_same_images(*pairs[0])
    by_class = [value for value in found["f1"].values() if value["p"] is not None]
    adjusted = statistics.holm([value["p"] for value in by_class])
    for value, p_value in zip(by_class, adjusted, strict=True):
        value["p_holm"] = p_value
    return found


def on_the_same_images(mine: schema.RunResult, theirs: schema.RunResult) -> dict[str, Any]:
    """What the images say of one difference in accuracy; {} unless both say which are right.

    "low" and "high" of the bootstrap, "p" of McNemar's exact test, and how many images just one of
    the two gets right.
    """
    right, theirs_right = metrics.correctness(mine), metrics.correctness(theirs)
    if right is None or theirs_right is None:
        return {}
    gains = right.astype(int) - theirs_right
    _, low, high = statistics.bootstrap_interval(gains, CONFIDENCE)
    return {
        "low": low,
        "high": high,
        "p": statistics.mcnemar_exact(right, theirs_right),
        "only_this_right": int((gains > 0).sum()),
        "only_baseline_right": int((gains < 0).sum()),
    }


def paired_difference(values: Sequence[float], ratio: float) -> dict[str, Any]:
    """Mean of the differences, one a fold or a seed, with what two or more of them allow.

    That is the t interval and p-value of `statistics.fold_interval`, corrected by `ratio`; equal
    differences have neither.
    """
    mean, low, high, p_value = float(np.mean(values)), None, None, None
    if statistics.vary(values):
        _, low, high = statistics.fold_interval(values, ratio, CONFIDENCE)
        p_value = statistics.fold_p_value(values, ratio)
    return {"values": list(values), "mean": mean, "low": low, "high": high, "p": p_value}


def accuracy_curves(compared: Sequence[entries.Entry]) -> dict[str, list[tuple[int, float]]]:
    """(epoch, validation accuracy) of each entry, averaged over seeds and folds; or test runs.

    A fold that stopped early keeps its last accuracy, so that a curve ends at the entry's mean.
    """
    of_folds = "cv" in entries.parts(compared)
    curves = {}
    for entry in compared:
        by_fold = [
            dict(points)
            for run in entry.runs
            for key, records in run.history.items()
            if run_names.is_fold(key) == of_folds
            and (points := figures.finite(records, "valid", "accuracy"))
        ]
        epochs = sorted(set().union(*by_fold))
        curves[entry.name] = [
            (epoch, float(np.mean([fold.get(epoch, fold[max(fold)]) for fold in by_fold])))
            for epoch in epochs
        ]
    return {name: curve for name, curve in curves.items() if curve}


def scores(entry: entries.Entry, part: str) -> dict[str, Any]:
    """Accuracy, macro F1 and F1 by class: means over the seeds with "low" and "high" of each.

    Of one run alone they are the test run's, or the folds' means with their standard deviation.
    """
    first = entry.runs[0]
    if len(entry.runs) == 1:
        if part == "test" or not first.cv:
            return _nested(_flat(first.results["test"]))
        found = _nested(_flat(first.cv["mean"]))
        if len(first.folds) > 1:
            found["std"] = _nested(_flat(first.cv["std"]))
        return found
    # As for differences: all folds of all seeds share training images.
    ratio = share_held_out(first) if part == "cv" else 0.0
    of_seeds = [[run.results["test"]] if part == "test" else run.folds for run in entry.runs]
    each = [_flat(result) for results in of_seeds for result in results]
    intervals = {
        key: statistics.fold_interval([values[key] for values in each], ratio, CONFIDENCE)
        for key in each[0]
        if all(key in values for values in each)
    }
    low, high = (
        _nested({key: getattr(interval, end) for key, interval in intervals.items()})
        for end in ("low", "high")
    )
    means = _nested({key: interval.mean for key, interval in intervals.items()})
    return means | {"low": low, "high": high}


def _flat(result: schema.RunResult | schema.OverFolds) -> dict[tuple[str, ...], float]:
    """The figures by (name,) and ("f1", class) of a run that `entries.check` let pass."""
    by_name: Mapping[str, Any] = result
    by_class = runs.f1_by_class(result)
    assert by_class is not None
    figures: dict[tuple[str, ...], float] = {
        (key,): by_name[key] for key in SCORES if by_name.get(key) is not None
    }  # a run of an earlier version has no balanced accuracy
    return figures | {("f1", name): value for name, value in by_class.items()}


def _nested(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """{those of SCORES, "f1": {class: of its F1}} from what is kept as by `_flat`."""
    return {key: flat[key,] for key in SCORES if (key,) in flat} | {
        "f1": {key[1]: value for key, value in flat.items() if key[0] == "f1"}
    }
