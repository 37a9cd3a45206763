"""Comparison of runs on the same data and folds: F1 by class, improvement, paired differences.

An entry is one run, or several of one config under several seeds. The first entry is the baseline;
a difference is always another entry minus the baseline, under the same seed. Writes comparison.html
and comparison.json.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from caecnn_jax import run_names
from caecnn_jax.records import figures, runs
from caecnn_jax.reports import charts, entries, pages
from caecnn_jax.results import metrics, schema, statistics

SCORES = ("accuracy", "balanced_accuracy", "macro_f1")


def write(given: Sequence[epath.PathLike], output: epath.PathLike) -> epath.Path:
    """Compares the entries that `given` stands for; returns the path of comparison.html."""
    compared = entries.read(given)
    entries.check(compared)
    result = comparison(compared)
    output = epath.Path(output)
    pages.write_file(output / "comparison.json", json.dumps(result, indent=2) + "\n")
    curves = {one.name: runs.accuracy_curve(one.runs, result["parts"][0]) for one in compared}
    drawn = charts.draw(result, {name: curve for name, curve in curves.items() if curve})
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
        "test_share_over_train_share": first.share_held_out("cv") if "cv" in shared else None,
        "confidence": statistics.CONFIDENCE,
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
        if run_names.belongs(name, part)
    ]
    # Folds share training images; test runs of several seeds are independent of each other.
    ratio = baseline.runs[0].share_held_out(part)
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
    _, low, high = statistics.bootstrap_interval(gains)
    return {
        "low": low,
        "high": high,
        "p": statistics.mcnemar_exact(right, theirs_right),
        "only_this_right": int((gains > 0).sum()),
        "only_baseline_right": int((gains < 0).sum()),
    }


def paired_difference(values: Sequence[float], ratio: float) -> dict[str, Any]:
    """Mean of the differences, one a fold or a seed, with what two or more of them allow.

    That is the t interval and p-value of `statistics.estimate`, corrected by `ratio`.
    """
    return {"values": list(values), **statistics.estimate(values, ratio)._asdict()}


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
    ratio = first.share_held_out(part)
    of_seeds = [[run.results["test"]] if part == "test" else run.folds for run in entry.runs]
    each = [_flat(result) for results in of_seeds for result in results]
    intervals = {
        key: statistics.estimate([values[key] for values in each], ratio)
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
