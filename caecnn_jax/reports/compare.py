"""Comparison of runs on the same data and folds: F1 by class, improvement, paired differences.

An entry is one run, or several of one config under several seeds. The first entry is the baseline;
a difference is always another entry minus the baseline, under the same seed. Writes comparison.html
and comparison.json.
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from caecnn_jax.records import about, figures, runs
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.reports import charts, pages
from caecnn_jax.results import metrics, schema, statistics

CONFIDENCE = 0.95
SCORES = ("accuracy", "macro_f1")


class Entry(NamedTuple):
    """What is compared under one name: runs of one config, a seed each, in the seeds' order."""

    name: str
    runs: tuple[runs.Run, ...]


def write(given: Sequence[epath.PathLike], output: epath.PathLike) -> epath.Path:
    """Compares what `entries` makes of `given`; returns the path of comparison.html in `output`."""
    compared = entries(given)
    check(compared)
    result = comparison(compared)
    output = epath.Path(output)
    pages.write_file(output / "comparison.json", json.dumps(result, indent=2) + "\n")
    drawn = charts.draw(result, accuracy_curves(compared))
    values = {"result": result, "charts": drawn}
    return pages.write_page(output / "comparison.html", "comparison.html.jinja", values)


def entries(given: Sequence[epath.PathLike]) -> list[Entry]:
    """The entries that folders, and NAME=FOLDER or NAME=PATTERN, stand for.

    In a PATTERN the folder's last part has * or ?; the same NAME may come again. A folder without a
    NAME is an entry under its own, or its path where two have the same. Raises ReportError.
    """
    named: dict[str, list[epath.Path]] = {}
    single = []
    for item in map(str, given):
        name, equals, pattern = item.partition("=")
        if equals and not workdir_lib.resolve(item).exists():
            named.setdefault(name, []).extend(_matching(item, pattern))
        else:
            single.append(workdir_lib.resolve(item))
    short = [folder.name for folder in single]
    distinct = len({*short, *named}) == len(short) + len(named)
    for folder in single:
        named.setdefault(folder.name if distinct else str(folder), []).append(folder)
    return [
        Entry(name, tuple(sorted(map(runs.read, folders), key=lambda run: run.config["seed"])))
        for name, folders in named.items()
    ]


def _matching(item: str, pattern: str) -> list[epath.Path]:
    """The runs' folders that a pattern stands for."""
    place = workdir_lib.resolve(pattern)
    if place.exists():
        return [place]
    parent = place.parent
    found = [
        folder
        for folder in sorted(parent.iterdir() if parent.exists() else ())
        if fnmatch.fnmatch(folder.name, place.name) and (folder / "config.json").exists()
    ]
    if not found:
        raise pages.ReportError(f"--runs {item}: no run's folder is called {place}")
    return found


def check(compared: Sequence[Entry]) -> None:
    """Refuses entries whose numbers cannot be set side by side."""
    folders = [run.workdir for entry in compared for run in entry.runs]
    if len(compared) < 2 or len(set(folders)) < len(folders):
        raise pages.ReportError("a comparison needs two or more different folders: see --runs")
    baseline = compared[0]
    for entry in compared:
        seeds, theirs = ([run.config["seed"] for run in one.runs] for one in (entry, baseline))
        if len(entry.runs) > 1 and len(set(seeds)) < len(seeds):
            raise pages.ReportError(
                f"{entry.name} holds two runs of one seed: give each seed's run once"
            )
        if max(len(seeds), len(theirs)) > 1 and seeds != theirs:
            raise pages.ReportError(
                f"{entry.name} has the seeds {_listed(seeds)} and {baseline.name} "
                f"{_listed(theirs)}: compare runs of the same seeds"
            )
        for run, other in zip(entry.runs, baseline.runs, strict=True):
            _check_pair(run, other)
    if not parts(compared):
        raise pages.ReportError("the runs share neither folds nor test: leave out those without")


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _check_pair(run: runs.Run, baseline: runs.Run) -> None:
    both = f"{run.workdir} and {baseline.workdir}"
    if not run.config["use_cnn"]:
        problem = f"{run.workdir} trained no CNN, so it has no F1 to compare: leave it out"
    elif not run.metrics:
        problem = f"{run.workdir} is unfinished (no metrics.json): resume it or leave it out"
    elif any(result["accuracy"] is None for result in run.results.values()):
        problem = f"{run.workdir} trained its CNN in no epoch (warm-up took all): leave it out"
    elif not run.info.get("data_digest") or not run.info.get("fold_digests"):
        problem = (
            f"{run.workdir}/run.json lacks data_digest or fold_digests, so nobody knows "
            "whether data and folds are the same: train again or leave it out"
        )
    elif _data_of(run) != _data_of(baseline):
        problem = (
            f"{both} were trained on different data: "
            "compare runs with the same seed, is_local and train_data_regulation"
        )
    elif not same_folds(run, baseline):
        problem = f"{both} have different folds: compare runs with the same seed and num_folds"
    elif not _parts_of([run, baseline]):
        problem = f"{both} share neither folds nor test: give them the same do_cv and do_test"
    else:
        return
    raise pages.ReportError(problem)


def _data_of(run: runs.Run) -> tuple[str, str]:
    """What tells the images that were kept for training: their data's digest, and their own."""
    return about.read_description(run.workdir).digest, run.info["data_digest"]


def same_folds(run: runs.Run, baseline: runs.Run) -> bool:
    """Whether what both runs hold, folds or test, was evaluated on the same images."""
    if run.folds and baseline.folds and len(run.folds) != len(baseline.folds):
        return False
    mine, theirs = run.info["fold_digests"], baseline.info["fold_digests"]
    shared = run.results.keys() & baseline.results.keys()
    return all(mine.get(name) == theirs.get(name) for name in shared)


def parts(compared: Sequence[Entry]) -> list[str]:
    """What all runs hold of cv and test."""
    return _parts_of([run for entry in compared for run in entry.runs])


def _parts_of(every: Sequence[runs.Run]) -> list[str]:
    found = {"cv": all(run.cv for run in every), "test": all(run.test for run in every)}
    return [part for part, in_all in found.items() if in_all]


def comparison(compared: Sequence[Entry]) -> dict[str, Any]:
    """All numbers of the comparison, as comparison.json holds them."""
    shared, baseline = parts(compared), compared[0]
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
    names = [name for name in run.results if name != "test"]
    counts = run.info.get("class_counts") or {}
    if not all(name in counts for name in names):
        return 1 / max(len(names) - 1, 1)
    sums = [{part: sum(counts[n][part].values()) for part in ("train", "valid")} for n in names]
    return float(np.mean([one["valid"] / one["train"] for one in sums]))


def differences(entry: Entry, baseline: Entry, part: str) -> dict[str, Any]:
    """Paired differences entry - baseline of accuracy, macro F1 and every class's F1.

    A pair has the same seed, and in cross-validation the same fold. The classes' p-values are
    Holm's besides: of all classes together. Of one pair of test runs the images tell how sure the
    difference in accuracy is.
    """
    pairs = [
        (run.results[name], result)
        for run, other in zip(entry.runs, baseline.runs, strict=True)
        for name, result in other.results.items()
        if (name == "test") == (part == "test")
    ]
    # Folds share training images; test runs of several seeds are independent of each other.
    ratio = share_held_out(baseline.runs[0]) if part == "cv" else 0.0
    scores_of = [(_flat(mine), _flat(theirs)) for mine, theirs in pairs]
    found = _nested(
        {
            key: paired_difference([mine[key] - theirs[key] for mine, theirs in scores_of], ratio)
            for key in scores_of[0][0]
        }
    )
    if part == "test" and len(pairs) == 1:
        found["accuracy"] |= on_the_same_images(*pairs[0])
    if len(pairs) > 1:
        by_class = found["f1"].values()
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

    That is the t interval and p-value of `statistics.fold_interval`, corrected by `ratio`.
    """
    mean, low, high, p_value = float(np.mean(values)), None, None, None
    if len(values) > 1:
        _, low, high = statistics.fold_interval(values, ratio, CONFIDENCE)
        p_value = statistics.fold_p_value(values, ratio)
    return {"values": list(values), "mean": mean, "low": low, "high": high, "p": p_value}


def accuracy_curves(compared: Sequence[Entry]) -> dict[str, list[tuple[int, float]]]:
    """(epoch, validation accuracy) of each entry, averaged over seeds and folds; or test runs.

    A fold that stopped early keeps its last accuracy, so that a curve ends at the entry's mean.
    """
    wanted = "fold_" if "cv" in parts(compared) else "test"
    curves = {}
    for entry in compared:
        by_fold = [
            dict(points)
            for run in entry.runs
            for key, records in run.history.items()
            if key.startswith(wanted) and (points := figures.finite(records, "valid", "accuracy"))
        ]
        epochs = sorted(set().union(*by_fold))
        curves[entry.name] = [
            (epoch, float(np.mean([fold.get(epoch, fold[max(fold)]) for fold in by_fold])))
            for epoch in epochs
        ]
    return {name: curve for name, curve in curves.items() if curve}


def scores(entry: Entry, part: str) -> dict[str, Any]:
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
    }
    low, high = (
        _nested({key: getattr(interval, end) for key, interval in intervals.items()})
        for end in ("low", "high")
    )
    means = _nested({key: interval.mean for key, interval in intervals.items()})
    return means | {"low": low, "high": high}


def _flat(result: schema.RunResult | schema.OverFolds) -> dict[tuple[str, ...], float]:
    """The figures by (name,) and ("f1", class) of what `check` let pass: its CNN was trained."""
    by_name: Mapping[str, Any] = result
    by_class = runs.f1_by_class(result)
    assert by_class is not None
    figures: dict[tuple[str, ...], float] = {(key,): by_name[key] for key in SCORES}
    return figures | {("f1", name): value for name, value in by_class.items()}


def _nested(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """{"accuracy", "macro_f1", "f1": {class: of its F1}} from what is kept as by `_flat`."""
    return {key: flat[key,] for key in SCORES} | {
        "f1": {key[1]: value for key, value in flat.items() if key[0] == "f1"}
    }
