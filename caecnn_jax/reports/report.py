"""The report of a run: reads the run's folder and writes report.html, one self-contained file."""

import base64
import collections
import io
import re
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from caecnn_jax import legible, run_names
from caecnn_jax.records import figures, runs
from caecnn_jax.reports import pages
from caecnn_jax.results import calibration, groups, metrics, schema

NUM_RECONSTRUCTIONS = 6  # epochs shown; all are in the folder images/
HEADLINE = {"accuracy": "accuracy", "macro_f1": "macro F1", "loss_cae": "reconstruction loss"}
MORE = {
    "balanced_accuracy": "balanced accuracy",
    "g_mean": "G-mean of recalls",
    "nll": "negative log-likelihood",
    "calibration_error": "calibration error",
}
GROUPS = {
    "shots": {
        "many": f"accuracy, more than {groups.MANY} training images",
        "medium": f"accuracy, {groups.FEW} to {groups.MANY} training images",
        "few": f"accuracy, under {groups.FEW} training images",
    },
    "thirds": {
        "head": "accuracy, largest third of the classes",
        "middle": "accuracy, middle third",
        "tail": "accuracy, smallest third",
    },
}


def write(workdir: epath.PathLike, output: epath.PathLike | None = None) -> epath.Path:
    """Writes report.html into `output`, or else the run's folder, and returns its path."""
    run = runs.read(workdir)
    folder = run.workdir if output is None else epath.Path(output)
    return pages.write_page(folder / "report.html", "report.html.jinja", page(run))


def page(run: runs.Run) -> dict[str, Any]:
    """Everything that the template shows, by the template's names."""
    everything = [record for records in run.history.values() for record in records]
    curves = {
        name: figures.svg(
            figures.draw_learning_curves(records, limits_from=everything),
            f"Learning curves of {pages.title(name)}",
        )
        for name, records in run.history.items()
    }
    matrices = {
        part: figures.svg(
            figures.draw_confusion_matrix(matrix, run.class_names), f"Confusion matrix, {part}"
        )
        for part, matrix in confusion_matrices(run).items()
    }
    return {
        "run": run,
        "headline": headline(run),
        "rows": result_rows(run),
        "per_class_bars": per_class_bars(run),
        "curves": curves,
        "matrices": matrices,
        "figures": figure_rows(run),
        "reliability": {
            part: figures.svg(figures.draw_reliability(diagram), f"Reliability diagram, {part}")
            for part, diagram in reliability_diagrams(run).items()
        },
        "pictures": reconstructions(run),
        "count_groups": count_groups(run.info.get("class_counts") or {}),
        "environment": run.info.get("environment") or {},
        "seconds": run.info.get("seconds") or seconds(run),
        "speeds": speeds(everything),
    }


def headline(run: runs.Run) -> list[dict[str, Any]]:
    """The numbers to see first: folds' mean and spread, and test; or an unfinished run's last."""
    # In words, the figures and their spreads, which unfinished runs lack, and a note.
    sources: list[tuple[str, Mapping[str, Any], Mapping[str, Any], str]] = []
    if run.cv:
        folds = len(run.folds)
        note = f"mean ± standard deviation over {folds} folds" if folds > 1 else "one fold"
        sources.append(("Validation", run.cv["mean"], run.cv["std"] if folds > 1 else {}, note))
    if run.test:
        sources.append(("Test", run.test, {}, f"after {run.test['epochs']} epochs"))
    if not run.metrics and run.history:
        name, records = list(run.history.items())[-1]
        epoch, most = records[-1]["epoch"], run.config["num_epoch"]
        note = f"{pages.title(name)}, epoch {epoch} of at most {most}"
        sources.append(("Latest", records[-1]["valid"] or {}, {}, note))
    return [
        {"label": f"{part} {label}", "value": values[key], "spread": spreads.get(key), "note": note}
        for key, label in HEADLINE.items()
        for part, values, spreads, note in sources
        if values.get(key) is not None
    ]


def selection_metric(config: Mapping[str, Any]) -> str:
    """What the best epoch is best in; runs of format 1 went by accuracy."""
    return config.get("selection_metric", "accuracy")


def result_rows(run: runs.Run) -> list[dict[str, Any]]:
    """A row for each fold and the test run: its result or, while unfinished, its last epoch."""
    rows = []
    for name in dict.fromkeys([*run.history, *run.results]):
        records = run.history.get(name, ())
        result: Any = run.results.get(name)
        row: dict[str, Any]
        if result:
            row = {key: result[key] for key in (*runs.SCALARS, "epochs", "best_epoch")}
            row["best"] = result.get("best") or {}
        else:
            last: Mapping[str, Any] = records[-1]["valid"] or {}
            row = {key: last.get(key) for key in runs.SCALARS}
            index = metrics.best_epoch(records, selection_metric(run.config))
            best = records[index or 0]
            row |= {"epochs": records[-1]["epoch"], "best_epoch": best["epoch"]}
            row["best"] = best["valid"] or {}
        rows.append(row | {"name": name, "seconds": sum(r["seconds"] or 0 for r in records)})
    return rows


def per_class_bars(run: runs.Run) -> str | None:
    """The chart of F1 by class: cross-validation as bars, the test set as marks; or either."""
    cv = run.cv
    means, points = runs.f1_by_class(cv and cv["mean"]), runs.f1_by_class(run.test)
    shown = means or points
    if not shown:
        return None
    figure = figures.draw_per_class_bars(
        shown,
        spread=runs.f1_by_class(cv["std"]) if cv and means and len(run.folds) > 1 else None,
        points=points if means else None,
        rare=run.rare,
    )
    return figures.svg(figure, "F1 by class")


def confusion_matrices(run: runs.Run) -> dict[str, np.ndarray]:
    """Counts [C, C] with true classes in rows: validation, summed over folds, and test."""
    sums: dict[str, Any] = {}
    for name, result in run.results.items():
        if result["confusion_matrix"]:
            part = _part_of(name)
            sums[part] = sums.get(part, 0) + np.asarray(result["confusion_matrix"])
    return sums


def _part_of(name: str) -> str:
    """What a run's figures are pooled in, in words."""
    return "test set" if name == run_names.TEST else "validation, all folds"


def figure_rows(run: runs.Run) -> list[dict[str, Any]]:
    """Rows of balanced figures, groups of classes and calibration, where the run has them.

    Each is {"label", "cv", "std", "test"}, None where there is no such part.
    """
    parts = {"cv": run.cv and run.cv["mean"], "std": run.cv and run.cv["std"], "test": run.test}
    columns = {part: _more_figures(result or {}) for part, result in parts.items()}
    return [
        {"label": label, **{part: columns[part].get(label) for part in columns}}
        for label in dict.fromkeys([*columns["cv"], *columns["test"]])
    ]


def _more_figures(result: Mapping[str, Any]) -> dict[str, float]:
    """What a result has beside the headline, by label; runs of format 1 have none."""
    found = {label: result.get(name) for name, label in MORE.items()}
    for group, labels in GROUPS.items():
        values = result.get(group) or {}
        found |= {label: values.get(name) for name, label in labels.items()}
    return {label: value for label, value in found.items() if value is not None}


def reliability_diagrams(run: runs.Run) -> dict[str, calibration.Reliability]:
    """The reliability diagram of all folds' validation images, and the test set's."""
    held: dict[str, list] = {}
    for name, result in run.results.items():
        if result.get("reliability"):
            held.setdefault(_part_of(name), []).append(result["reliability"])
    return {part: calibration.pooled(diagrams) for part, diagrams in held.items()}


def reconstructions(run: runs.Run) -> dict[str, Any] | None:
    """Pictures of a few epochs, evenly spread, of the test run or of the first fold with any."""
    for name in (run_names.TEST, *run.history):
        folder = run.workdir / "images" / name
        found = {
            int(match[1]): path
            for path in (folder.iterdir() if folder.exists() else ())  # no pattern of a user's path
            if (match := re.fullmatch(r"reconstruction-epoch-(\d+)\.png", path.name))
        }
        if found:
            epochs = sorted(found)
            places = np.linspace(0, len(epochs) - 1, min(NUM_RECONSTRUCTIONS, len(epochs)))
            chosen = [epochs[round(place)] for place in places]
            shown = {epoch: _picture(found[epoch]) for epoch in chosen}
            return {"name": name, "shown": shown, "saved": len(found)}
    return None


def count_groups(counts: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Columns of images by class, before and after regulation and expansion; folds as a range."""
    folds = [split for name, split in counts.items() if run_names.is_fold(name)]
    tests = [counts[run_names.TEST]] if run_names.TEST in counts else []
    training = [counts["all"]["train"]] if "all" in counts else []
    regulated = [counts["regulated"]] if "regulated" in counts else []
    groups = {
        "Training set": {"complete": training, "regulated": regulated},
        "Each fold": _splits(folds, "validation"),
        "Test run": _splits(tests, "test"),
    }
    return {
        group: [
            {
                "heading": heading,
                "cells": {name: _span(split[name] for split in splits) for name in splits[0]},
                "total": _span(sum(split.values()) for split in splits),
            }
            for heading, splits in columns.items()
            if splits
        ]
        for group, columns in groups.items()
        if any(columns.values())
    }


def seconds(run: runs.Run) -> float:
    """Time of all epochs, whether runs trained at the same time or not."""
    return sum(r["seconds"] or 0 for records in run.history.values() for r in records)


def speeds(records: Iterable[schema.Line]) -> dict[str, float]:
    """Median images per second by phase: the median is blind to the epochs that compile."""
    by_phase = collections.defaultdict(list)
    for record in records:
        if record["images_per_second"]:
            by_phase[record["phase"]].append(record["images_per_second"])
    return {phase: statistics.median(values) for phase, values in by_phase.items()}


def _splits(runs_counts: Iterable[Mapping], valid: str) -> dict[str, list[Mapping]]:
    headings = {"training": "train", "expanded": "expanded", valid: "valid"}
    return {heading: [counts[key] for counts in runs_counts] for heading, key in headings.items()}


def _span(numbers: Iterable[int]) -> str:
    return legible.span(numbers, " to ")


def _picture(path: epath.Path) -> str:
    """A PNG file as a data URI."""
    data = path.read_bytes()
    try:
        Image.open(io.BytesIO(data)).verify()
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three
        raise pages.ReportError(
            f"{path} is damaged ({error}): delete it and write the report again"
        ) from error
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
