"""Comparison of runs on the same data and folds: F1 by class, improvement, paired differences.

The first run is the baseline; a difference is always another run minus the baseline. Writes
comparison.html and comparison.json.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from scipy import stats

from caecnn_jax.records import drawing, figures, runs
from caecnn_jax.reports import report

CONFIDENCE = 0.95
MARKERS = "osD^vP"  # with the palette's six colours: beyond six runs the pairs repeat
SCORES = ("accuracy", "macro_f1")


def write(workdirs: Sequence[epath.PathLike], output: epath.PathLike) -> epath.Path:
    """Compares runs, the first as baseline; returns the path of comparison.html in `output`."""
    compared = [runs.read(workdir) for workdir in workdirs]
    check(compared)
    result = comparison(compared)
    output = epath.Path(output)
    report.write_file(output / "comparison.json", json.dumps(result, indent=2) + "\n")
    values = {"result": result, "charts": charts(result, accuracy_curves(compared))}
    return report.write_page(output / "comparison.html", "comparison.html.jinja", values)


def check(compared: Sequence[runs.Run]) -> None:
    """Refuses runs whose numbers cannot be set side by side."""
    if len({run.workdir for run in compared}) < max(2, len(compared)):
        raise runs.ReportError("a comparison needs two or more different folders: see --runs")
    baseline = compared[0]
    for run in compared:
        both = f"{run.workdir} and {baseline.workdir}"
        if not run.config["use_cnn"]:
            problem = f"{run.workdir} trained no CNN, so it has no F1 to compare: leave it out"
        elif not run.metrics:
            problem = f"{run.workdir} is unfinished (no metrics.json): resume it or leave it out"
        elif not run.info.get("data_digest") or not run.info.get("fold_digests"):
            problem = (
                f"{run.workdir}/run.json lacks data_digest or fold_digests, so nobody knows "
                "whether data and folds are the same: train again or leave it out"
            )
        elif run.info["data_digest"] != baseline.info["data_digest"]:
            problem = (
                f"{both} were trained on different data: "
                "compare runs with the same seed, is_local and train_data_regulation"
            )
        elif not same_folds(run, baseline):
            problem = f"{both} have different folds: compare runs with the same seed and num_folds"
        elif not parts([run, baseline]):
            problem = f"{both} share neither folds nor test: give them the same do_cv and do_test"
        else:
            continue
        raise runs.ReportError(problem)
    if not parts(compared):
        raise runs.ReportError("the runs share neither folds nor test: leave out those without")


def same_folds(run: runs.Run, baseline: runs.Run) -> bool:
    """Whether what both runs hold, folds or test, was evaluated on the same images."""
    if run.cv and baseline.cv and len(run.cv["folds"]) != len(baseline.cv["folds"]):
        return False
    mine, theirs = run.info["fold_digests"], baseline.info["fold_digests"]
    shared = run.results.keys() & baseline.results.keys()
    return all(mine.get(name) == theirs.get(name) for name in shared)


def parts(compared: Sequence[runs.Run]) -> list[str]:
    """What all runs hold of cv and test."""
    return [part for part in ("cv", "test") if all(run.metrics[part] for run in compared)]


def comparison(compared: Sequence[runs.Run]) -> dict[str, Any]:
    """All numbers of the comparison, as comparison.json holds them."""
    shared, baseline = parts(compared), compared[0]
    return {
        "baseline": names(compared)[0],
        "classes": baseline.class_names,
        "rare_classes": [name for name in baseline.class_names if name in baseline.rare],
        "parts": shared,
        "num_folds": len(baseline.cv["folds"]) if "cv" in shared else 0,
        "confidence": CONFIDENCE,
        "runs": {
            name: {
                "workdir": str(run.workdir),
                "model": report.model_name(run.config),
                **{part: _scores(run, part) for part in shared},
                "difference": {part: differences(run, baseline, part) for part in shared},
            }
            for name, run in zip(names(compared), compared, strict=True)
        },
    }


def names(compared: Sequence[runs.Run]) -> list[str]:
    """The folders' names, or their whole paths where two have the same name."""
    short = [run.name for run in compared]
    return short if len(set(short)) == len(short) else [str(run.workdir) for run in compared]


def differences(run: runs.Run, baseline: runs.Run, part: str) -> dict[str, Any]:
    """Paired differences run - baseline of accuracy, macro F1 and every class's F1."""
    pairs = [
        (run.results[name], result)
        for name, result in baseline.results.items()
        if (name == "test") == (part == "test")
    ]
    scores = {
        key: paired_difference([mine[key] - theirs[key] for mine, theirs in pairs])
        for key in SCORES
    }
    by_class = [(runs.f1_by_class(mine), runs.f1_by_class(theirs)) for mine, theirs in pairs]
    return scores | {
        "f1": {
            name: paired_difference([mine[name] - theirs[name] for mine, theirs in by_class])
            for name in baseline.class_names
        }
    }


def paired_difference(by_fold: Sequence[float]) -> dict[str, Any]:
    """Mean of one difference a fold, with the t interval that two or more folds allow.

    mean -+ t(97.5 %, n - 1) s / sqrt(n), s the sample standard deviation of the n differences.
    """
    mean, low, high = float(np.mean(by_fold)), None, None
    if len(by_fold) > 1:
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(by_fold) - 1)
        reach *= np.std(by_fold, ddof=1) / math.sqrt(len(by_fold))
        low, high = float(mean - reach), float(mean + reach)
    return {"folds": list(by_fold), "mean": mean, "low": low, "high": high}


def accuracy_curves(compared: Sequence[runs.Run]) -> dict[str, list[tuple[int, float]]]:
    """(epoch, validation accuracy) of each run, averaged over folds; or of the test run.

    A fold that stopped early keeps its last accuracy, so that a curve ends at the run's mean.
    """
    wanted = "fold_" if "cv" in parts(compared) else "test"
    curves = {}
    for name, run in zip(names(compared), compared, strict=True):
        by_fold = [
            dict(points)
            for key, records in run.history.items()
            if key.startswith(wanted) and (points := figures.finite(records, "valid", "accuracy"))
        ]
        epochs = sorted(set().union(*by_fold))
        curves[name] = [
            (epoch, float(np.mean([fold.get(epoch, fold[max(fold)]) for fold in by_fold])))
            for epoch in epochs
        ]
    return {name: curve for name, curve in curves.items() if curve}


def charts(result: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, Any]:
    """SVG charts of the first shared part: cross-validation if all runs hold it, else test."""
    part, rare = result["parts"][0], result["rare_classes"]
    f1 = {name: run[part]["f1"] for name, run in result["runs"].items()}
    gains = {name: run["difference"][part]["f1"] for name, run in result["runs"].items()}
    baseline = f1[result["baseline"]]
    del gains[result["baseline"]]
    return {
        "f1": figures.svg(draw_f1(f1, rare), "F1 by class and run"),
        "gains": figures.svg(draw_gains(gains, rare), "Improvement of F1 by class and run"),
        "scatter": {
            name: figures.svg(draw_scatter(baseline, gain, rare), f"Improvement of {name} by F1")
            for name, gain in gains.items()
        },
        "curves": figures.svg(draw_curves(curves), "Accuracy over epochs") if curves else None,
    }


@drawing.settings()
def draw_f1(f1: Mapping[str, Any], rare: Sequence[str]) -> drawing.Figure:
    """A row for each class, in it a marker for each run: {run: {class: F1}}."""
    figure, axes, rows = _class_rows(f1, rare)
    for index, (name, by_class) in enumerate(f1.items()):
        axes.plot(by_class.values(), rows[index], label=name, ls="", ms=5, **_look(index))
    axes.set_xlabel("F1")
    figure.legend(loc="outside upper left")
    return figure


@drawing.settings()
def draw_gains(gains: Mapping[str, Any], rare: Sequence[str]) -> drawing.Figure:
    """A row for each class, in it each run's F1 minus the baseline's with its interval."""
    figure, axes, rows = _class_rows(gains, rare)
    axes.axvline(0, color=drawing.COLORS["ink"], linewidth=1)
    for index, (name, by_class) in enumerate(gains.items()):
        look = _look(index + 1)  # the baseline has the first
        means = [gain["mean"] for gain in by_class.values()]
        axes.plot(means, rows[index], label=name, ls="", ms=5, **look)
        ends = [(gain["low"], gain["high"]) for gain in by_class.values()]
        if None not in ends[0]:
            axes.hlines(rows[index], *zip(*ends, strict=True), color=look["color"], linewidth=1.4)
    axes.set_xlabel("improvement of F1 over the baseline")
    figure.legend(loc="outside upper left")
    return figure


@drawing.settings()
def draw_scatter(
    baseline: Mapping[str, float], gain: Mapping[str, Any], rare: Sequence[str]
) -> drawing.Figure:
    """Each class at the baseline's F1 and its improvement by one run."""
    figure = drawing.Figure(figsize=(figures.WIDTH, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color=drawing.COLORS["ink"], linewidth=1)
    points = {name: (baseline[name], gain[name]["mean"]) for name in baseline}
    for name, point in points.items():
        marker, color = ("D", figures.RARE) if name in rare else ("o", figures.USUAL)
        axes.plot(*point, marker, color=color, ms=5)
    for name, (across, up) in label_offsets(points).items():
        style = {"ha": "center", "va": "center", "size": 7, "textcoords": "offset points"}
        axes.annotate(name, points[name], xytext=(across, up), **style)
    axes.margins(0.12, 0.15)
    axes.set(xlabel="F1 of the baseline", ylabel="improvement of F1")
    return figure


@drawing.settings()
def draw_curves(curves: Mapping[str, Sequence[tuple[int, float]]]) -> drawing.Figure:
    """Accuracy over epochs, a line for each run: {run: [(epoch, accuracy), ...]}."""
    figure = drawing.Figure(figsize=(figures.WIDTH, 3), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, curve) in enumerate(curves.items()):
        every = max(1, len(curve) // 8)
        axes.plot(*zip(*curve, strict=True), label=name, markevery=every, **_look(index))
    axes.xaxis.set_major_locator(drawing.MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel="accuracy")
    figure.legend(loc="outside upper left")
    return figure


def label_offsets(points: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """For each named point the place of its label, in typographic points from it.

    Of above, below, right and left the first where the label meets no point and no label placed
    before, else above; reckoned on a chart whose points span 210 x 130 typographic points.
    """
    low, high = np.min(list(points.values()), axis=0), np.max(list(points.values()), axis=0)
    scale = np.array([210, 130]) / np.maximum(high - low, 1e-9)
    centres = {name: (np.array(point) - low) * scale for name, point in points.items()}
    taken = [(centre, np.array([7.0, 7.0])) for centre in centres.values()]
    offsets = {}
    for name, centre in centres.items():
        size = np.array([4.0 * len(name), 8.0])
        beside = 5 + size[0] / 2
        for offset in ((0, 8), (0, -8), (beside, 0), (-beside, 0), (0, 8)):
            place = centre + offset
            if not any((np.abs(place - c) < (size + s) / 2).all() for c, s in taken):
                break
        taken.append((place, size))
        offsets[name] = offset
    return offsets


def _class_rows(by_run: Mapping[str, Any], rare: Sequence[str]) -> tuple:
    """Figure and axes with a row for each class, and each run's heights within the rows."""
    classes, count = list(next(iter(by_run.values()))), len(by_run)
    size = (figures.WIDTH, 0.6 + 0.17 * count + (0.2 + 0.06 * count) * len(classes))
    figure = drawing.Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(classes)), figures.class_labels(classes, rare))
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    for boundary in np.arange(len(classes) - 1) + 0.5:
        axes.axhline(boundary, color=drawing.COLORS["grid"], linewidth=0.6)
    offsets = 0.7 * (np.arange(count) - (count - 1) / 2) / count
    return figure, axes, offsets[:, None] + np.arange(len(classes))


def _look(index: int) -> dict[str, str]:
    """A run's colour and marker, the same in all charts."""
    return {
        "color": drawing.SERIES[index % len(drawing.SERIES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def _scores(run: runs.Run, part: str) -> dict[str, Any]:
    """Accuracy, macro F1 and F1 by class: of the test run, or the folds' mean with its std."""
    result = run.test if part == "test" else run.cv["mean"]
    scores = {key: result[key] for key in SCORES} | {"f1": runs.f1_by_class(result)}
    if part == "cv" and len(run.cv["folds"]) > 1:
        std = run.cv["std"]
        scores["std"] = {key: std[key] for key in SCORES} | {"f1": runs.f1_by_class(std)}
    return scores
