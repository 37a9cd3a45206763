"""The charts of a comparison: F1 by class, improvement, accuracy over epochs.

They take the numbers of `compare.comparison`; a run's colour and marker are the same in all.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from caecnn_jax.records import drawing, figures

MOST_LETTERS = 28  # of a run's or a variant's name
MARKERS = "osD^vP"  # with the palette's six colours: beyond six runs the pairs repeat


def draw(result: Mapping[str, Any], curves: Mapping[str, Any]) -> dict[str, Any]:
    """SVG charts of the first shared part: cross-validation if all runs hold it, else test."""
    part, rare = result["parts"][0], result["rare_classes"]
    f1 = {name: run[part]["f1"] for name, run in result["runs"].items()}
    gains = {name: run["difference"][part]["f1"] for name, run in result["runs"].items()}
    baseline = f1[result["baseline"]]
    del gains[result["baseline"]]
    # As in a report: of very many classes those with the most to gain.
    shown = figures.hardest(baseline, rare, figures.MOST_CLASSES)

    def only_shown(by_run: Mapping[str, Mapping]) -> dict[str, Any]:
        return {run: {name: of[name] for name in shown} for run, of in by_run.items()}

    return {
        "f1": figures.svg(draw_f1(only_shown(f1), rare), "F1 by class and run"),
        "gains": figures.svg(
            draw_gains(only_shown(gains), rare), "Improvement of F1 by class and run"
        ),
        "scatter": {
            name: figures.svg(
                draw_scatter(baseline, gain, rare, shown), f"Improvement of {name} by F1"
            )
            for name, gain in gains.items()
        },
        "curves": figures.svg(draw_curves(curves), "Accuracy over epochs") if curves else None,
    }


@drawing.settings()
def draw_f1(f1: Mapping[str, Any], rare: Sequence[str]) -> drawing.Figure:
    """A row for each class, in it a marker for each run: {run: {class: F1}}."""
    figure, axes, rows = _class_rows(f1, rare)
    names = short_names(f1)
    for index, (name, by_class) in enumerate(f1.items()):
        axes.plot(by_class.values(), rows[index], label=names[name], ls="", ms=5, **_look(index))
    axes.set_xlabel("F1")
    figure.legend(loc="outside upper left")
    return figure


@drawing.settings()
def draw_gains(gains: Mapping[str, Any], rare: Sequence[str]) -> drawing.Figure:
    """A row for each class, in it each run's F1 minus the baseline's with its interval."""
    figure, axes, rows = _class_rows(gains, rare)
    axes.axvline(0, color=drawing.COLORS["ink"], linewidth=1)
    names = short_names(gains)
    for index, (name, by_class) in enumerate(gains.items()):
        look = _look(index + 1)  # the baseline has the first
        means = [gain["mean"] for gain in by_class.values()]
        axes.plot(means, rows[index], label=names[name], ls="", ms=5, **look)
        ends = [
            (row, gain["low"], gain["high"])
            for row, gain in zip(rows[index], by_class.values(), strict=True)
            if gain["low"] is not None
        ]
        if ends:
            axes.hlines(*zip(*ends, strict=True), color=look["color"], linewidth=1.4)
    axes.set_xlabel("improvement of F1 over the baseline")
    figure.legend(loc="outside upper left")
    return figure


@drawing.settings()
def draw_scatter(
    baseline: Mapping[str, float],
    gain: Mapping[str, Any],
    rare: Sequence[str],
    named: Sequence[str],
) -> drawing.Figure:
    """Each class at the baseline's F1 and its improvement by one run; some are named."""
    figure = drawing.Figure(figsize=(figures.WIDTH, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color=drawing.COLORS["ink"], linewidth=1)
    points = {name: (baseline[name], gain[name]["mean"]) for name in baseline}
    for name, point in points.items():
        marker, color = ("D", figures.RARE) if name in rare else ("o", figures.USUAL)
        axes.plot(*point, marker, color=color, ms=5)
    points = {name: points[name] for name in named}
    for name, (across, up) in label_offsets(points).items():
        style = {"ha": "center", "va": "center", "size": 7, "textcoords": "offset points"}
        axes.annotate(figures.short(name), points[name], xytext=(across, up), **style)
    axes.margins(0.12, 0.15)
    axes.set(xlabel="F1 of the baseline", ylabel="improvement of F1")
    return figure


@drawing.settings()
def draw_curves(curves: Mapping[str, Sequence[tuple[int, float]]]) -> drawing.Figure:
    """Accuracy over epochs, a line for each run: {run: [(epoch, accuracy), ...]}."""
    figure = drawing.Figure(figsize=(figures.WIDTH, 3), layout="constrained")
    axes = figure.add_subplot()
    names = short_names(curves)
    for index, (name, curve) in enumerate(curves.items()):
        every = max(1, len(curve) // 8)
        axes.plot(*zip(*curve, strict=True), label=names[name], markevery=every, **_look(index))
    axes.xaxis.set_major_locator(drawing.MaxNLocator(integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel="accuracy")
    figure.legend(loc="outside upper left")
    return figure


def short_names(names: Iterable[str]) -> dict[str, str]:
    """What stands for each name in a chart: of a long one its ends, numbered where they coincide.

    Whole names of 60 letters would leave no room for the chart.
    """
    found: dict[str, str] = {}
    for name in names:
        short = figures.short(name, MOST_LETTERS)
        numbered = (f"{short} ({number})" for number in itertools.count(2))
        taken = {*found.values()}
        found[name] = next(one for one in itertools.chain([short], numbered) if one not in taken)
    return found


def label_offsets(points: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """For each named point the place of its label, in typographic points from it.

    Of above, below, right and left the first where the label meets no point and no label placed
    before, else above; reckoned on a chart whose points span 210 x 130 typographic points.
    """
    low, high = np.min(list(points.values()), axis=0), np.max(list(points.values()), axis=0)
    scale = np.array([210, 130]) / np.maximum(high - low, 1e-9)
    centres = {name: (np.array(point) - low) * scale for name, point in points.items()}
    taken = [(centre, np.array([7.0, 7.0])) for centre in centres.values()]
    offsets: dict[str, tuple[float, float]] = {}
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
