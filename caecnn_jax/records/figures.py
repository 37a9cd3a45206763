"""Figures: confusion matrix, learning curves, per-class and comparison charts.

Pure functions from arrays and dicts to matplotlib Figures (`draw_*`), PNG bytes or inline SVG.
C is the number of classes, from 2 to many, N of images; matrices have true classes in rows.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

import numpy as np

from caecnn_jax import legible
from caecnn_jax.records import drawing
from caecnn_jax.records.drawing import COLORS, SERIES
from caecnn_jax.results import calibration, metrics
from caecnn_jax.results.calibration import Reliability

USUAL, RARE = SERIES[0], SERIES[1]
MOST_CLASSES = 30  # that a chart names one by one
MOST_CURVES = 2 * len(SERIES)  # of classes in one chart: each colour, drawn through and dashed
MOST_LETTERS = 20  # of a class's name
PANELS = {  # of the learning curves, by the history's keys
    "accuracy": "Accuracy",
    "loss_cnn": "Classification loss",
    "loss_cae": "Reconstruction loss",
}
WIDTH = 4.3  # inches: with 8 point text legible on a phone and at half a page
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")

Record = Mapping  # one line of history.jsonl
Values = Mapping[str, float]  # by class


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """PNG of a confusion matrix, counts [C, C], true classes in rows."""
    return png(draw_confusion_matrix(matrix, class_names))


def reliability(diagram: Reliability) -> bytes:
    """PNG of a reliability diagram."""
    return png(draw_reliability(diagram))


def learning_curves(records: Sequence[Record], class_names: Sequence[str] | None = None) -> bytes:
    """PNG of one run's learning curves from its history records.

    With `class_names` and records that hold a "confusion_matrix", F1 by class joins them.
    """
    return png(draw_learning_curves(records, class_names=class_names))


@drawing.settings()
def draw_confusion_matrix(matrix: np.ndarray, class_names: Sequence[str]) -> drawing.Figure:
    """Per cent of each true class (a row) by predicted class; the row's count at its end.

    Beyond MOST_CLASSES it is a picture without numbers, and not every class is named.
    """
    matrix = np.asarray(matrix, dtype=float)
    totals, count = matrix.sum(axis=1), len(matrix)
    share = 100 * matrix / np.maximum(totals, 1)[:, None]
    size = WIDTH * min(max(1, count / 14), 2)  # two digits in a cell need some room
    figure = drawing.Figure(figsize=(size, size * 0.9), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    look = {"cmap": "Blues", "vmin": 0, "vmax": 100}
    if count <= MOST_CLASSES:
        axes.pcolormesh(share, edgecolors="white", linewidth=0.8, **look)
        _write_counts(axes, matrix, share, totals)
    else:
        axes.imshow(share, interpolation="nearest", extent=(0, count, count, 0), **look)
    every = math.ceil(count / MOST_CLASSES)
    ticks = np.arange(0, count, every) + 0.5
    labels = [short(name) for name in class_names[::every]]
    axes.set_xticks(ticks, labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true", aspect="equal", xlim=(0, count), ylim=(count, 0))
    return figure


def _write_counts(axes, matrix: np.ndarray, share: np.ndarray, totals: np.ndarray) -> None:
    """The per cents in the cells, and the images of each row at its end."""
    for row, column in np.argwhere(matrix > 0):
        value = share[row, column]
        text = f"{value:.0f}" if value > 0.5 else "<1"
        color = "white" if value > 55 else "#08306b"
        axes.text(column + 0.5, row + 0.5, text, color=color, ha="center", va="center", size=7.5)
    for row, total in enumerate(totals):
        place = (len(totals) + 0.15, row + 0.5)
        axes.text(*place, f"{total:,.0f}", color=COLORS["muted"], va="center", size=7)
    axes.text(len(totals) + 0.15, -0.15, "images", color=COLORS["muted"], size=7)


@drawing.settings()
def draw_reliability(diagram: Reliability) -> drawing.Figure:
    """Accuracy by confidence, a bar a bin, over each bin's share of the images.

    The hatching reaches from the bin's accuracy to its mean confidence, up or down: that gap,
    weighted by the shares, is the calibration error. Where there is none the probabilities can be
    believed.
    """
    images = np.asarray(diagram["images"], float)
    width = 1 / len(images)
    centers = (np.arange(len(images)) + 0.5) * width
    figure = drawing.Figure(figsize=(WIDTH, 0.95 * WIDTH), layout="constrained")
    bars, shares = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    held = [place for place, count in enumerate(images) if count]
    accuracy, confidence = (
        np.array([diagram[name][place] for place in held], float)
        for name in ("accuracy", "confidence")
    )
    bars.bar(centers[held], accuracy, 0.92 * width, color=USUAL, label="accuracy")
    bars.bar(
        centers[held],
        confidence - accuracy,
        0.92 * width,
        bottom=accuracy,
        facecolor="none",
        edgecolor=RARE,
        hatch="////",
        label="gap to confidence",
    )
    bars.plot((0, 1), (0, 1), "--", color=COLORS["muted"], linewidth=1)
    error = calibration.error_from_bins(*calibration.sums(diagram))
    bars.set(ylim=(0, 1), ylabel="accuracy", title=f"Calibration error {error:.4f}")
    bars.legend(loc="upper left")
    shares.bar(centers, images / max(images.sum(), 1), 0.92 * width, color=COLORS["muted"])
    shares.set(xlim=(0, 1), xlabel="confidence", ylabel="images")
    shares.yaxis.set_major_formatter(drawing.PercentFormatter(1, decimals=0))
    return figure


@drawing.settings()
def draw_learning_curves(
    records: Sequence[Record],
    limits_from: Sequence[Record] | None = None,
    class_names: Sequence[str] | None = None,
) -> drawing.Figure:
    """Accuracy and losses over epochs, a panel each, warm-up epochs shaded.

    A quantity that no record holds gets no panel. Charts drawn one by one have the same scales
    if `limits_from` is the same: the records of all folds.
    """
    sides = {"train": (SERIES[0], "--"), "valid": (SERIES[1], "-")}
    panels = [key for key in PANELS if any(finite(records, side, key) for side in sides)]
    class_names = class_names or ()
    by_class = class_names and any(metrics.f1_of(record) for record in records)
    count = max(1, len(panels) + bool(by_class))
    height = 0.5 + 1.35 * count + (0.45 if by_class else 0)  # the classes' legend
    figure = drawing.Figure(figsize=(WIDTH, height), layout="constrained")
    all_axes = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    marker = "o" if len(records) <= 20 else None
    for axes, key in zip(all_axes, panels, strict=False):
        for side, (color, line) in sides.items():
            if points := finite(records, side, key):
                axes.plot(*zip(*points, strict=True), line, color=color, marker=marker, label=side)
        axes.set_title(PANELS[key])
        axes.set_ylim(_limits(limits_from or records, key))
    if by_class:
        _draw_f1_by_class(all_axes[-1], records, class_names)
    if panels:  # above the charts, clear of the curves; the last panel, a loss, has both sides
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0, "ncols": 2}
        all_axes[0].legend(*all_axes[len(panels) - 1].get_legend_handles_labels(), **place)
    _shade_warmup(all_axes, records, limits_from or records)
    all_axes[-1].set_xlabel("epoch")
    return figure


@drawing.settings()
def draw_per_class_bars(
    f1: Values,
    spread: Values | None = None,
    points: Values | None = None,
    rare: Iterable[str] = (),
) -> drawing.Figure:
    """A bar of F1 for each class, rare classes in another colour.

    spread is half an error bar (the standard deviation over folds), points F1 on the test set. Of
    more than MOST_CLASSES the `hardest` are shown.
    """
    names = hardest(f1, rare, MOST_CLASSES)
    rows, values = np.arange(len(names)), [f1[name] for name in names]
    figure = drawing.Figure(figsize=(WIDTH, 0.8 + 0.27 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    colors = [RARE if name in rare else USUAL for name in names]
    axes.barh(rows, values, color=colors, height=0.66)
    if spread:
        style = {"fmt": "none", "ecolor": COLORS["ink"], "elinewidth": 1, "capsize": 2}
        axes.errorbar(values, rows, xerr=[spread[name] for name in names], **style)
    if points:
        style = {"color": COLORS["paper"], "edgecolors": COLORS["ink"], "marker": "D"}
        style |= {"s": 18, "clip_on": False}
        axes.scatter([points[name] for name in names], rows, label="test", zorder=3, **style)
        figure.legend(loc="outside upper right")
    axes.set_yticks(rows, class_labels(names, rare))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 1), xlabel="F1")
    if len(names) < len(f1):
        axes.set_title(f"{len(names)} of {len(f1)} classes: rare, then lowest F1")
    axes.invert_yaxis()
    return figure


def png(figure: drawing.Figure) -> bytes:
    """The figure as PNG, 160 dots an inch, on an opaque light ground."""
    buffer = io.BytesIO()
    with drawing.settings():
        figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def svg(figure: drawing.Figure, label: str) -> str:
    """The figure as an SVG element to stand inside HTML: small, sharp at any size, transparent.

    Its colours are CSS variables named as in COLORS. `label` says what the chart shows to readers
    who do not see it, and is unique in its page.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with drawing.settings(svg_hashsalt=label):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {"role": "img", "aria-label": label}
    for group in root.iter(f"{{{SVG}}}g"):
        group.attrib.pop("id", None)  # figure_1 and the like, the same in every chart
    text = ElementTree.tostring(root, encoding="unicode")
    for name, color in COLORS.items():
        text = text.replace(f": {color}", f": var(--{name}, {color})")
    return text


def class_labels(class_names: Iterable[str], rare: Iterable[str]) -> list[str]:
    """Tick labels, shortened, that name the rare classes as such."""
    rare = set(rare)
    return [f"{short(name)} (rare)" if name in rare else short(name) for name in class_names]


def short(name: str, most: int = MOST_LETTERS) -> str:
    """As `legible.short`, for charts.

    What cannot be drawn is replaced; legends leave out what begins with an underscore.
    """
    name = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(name).split()))
    shown = legible.short(name, most)
    return f" {legible.short(name, most - 1)}" if shown.startswith("_") else shown


def hardest(f1: Values, rare: Iterable[str], most: int) -> list[str]:
    """The class names, all in their order; or `most`: rare ones first, then by F1, lowest first."""
    rare = set(rare)
    if len(f1) <= most:
        return list(f1)
    return sorted(f1, key=lambda name: (name not in rare, f1[name]))[:most]


def finite(records: Sequence[Record], side: str, key: str) -> list[tuple[int, float]]:
    """(epoch, value) where the record holds a finite value: nothing in absent parts."""
    points = [(record["epoch"], (record[side] or {}).get(key)) for record in records]
    return [(epoch, y) for epoch, y in points if y is not None and math.isfinite(y)]


def _draw_f1_by_class(axes, records: Sequence[Record], class_names: Sequence[str]) -> None:
    of_epochs = {record["epoch"]: metrics.f1_of(record) for record in records}
    f1 = {
        epoch: dict(zip(class_names, of_one, strict=True))
        for epoch, of_one in of_epochs.items()
        if of_one
    }
    names = hardest(f1[max(f1)], (), MOST_CURVES)
    for index, name in enumerate(names):
        curve = list(f1), [of_one[name] for of_one in f1.values()]
        line = ("-", "--")[index // len(SERIES) % 2]
        axes.plot(*curve, line, color=SERIES[index % len(SERIES)], label=short(name, 12))
    few = len(names) == len(class_names)
    axes.set(title="F1 by class" if few else f"F1 of the {len(names)} lowest classes")
    axes.set_ylim(0, 1)
    # Below the epochs: curves go anywhere between 0 and 1.
    axes.legend(ncols=4, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.45))


def _shade_warmup(all_axes: Sequence, records: Sequence[Record], span: Sequence[Record]) -> None:
    end = max((record["epoch"] for record in records if record["phase"] == "warmup"), default=0)
    for axes in all_axes:
        axes.set_xlim(0.5, max((record["epoch"] for record in span), default=1) + 0.5)
        axes.xaxis.set_major_locator(drawing.MaxNLocator(integer=True, min_n_ticks=1))
        if end:
            axes.axvspan(0.5, end + 0.5, color=COLORS["shade"], linewidth=0, zorder=0)
    if end:
        style = {"xytext": (2, -2), "textcoords": "offset points", "va": "top", "size": 7}
        place = {"xy": (0.5, 1), "xycoords": ("data", "axes fraction"), "color": COLORS["muted"]}
        all_axes[0].annotate("warm-up", **place, **style)


def _limits(records: Sequence[Record], key: str) -> tuple[float, float]:
    values = [y for side in ("train", "valid") for _, y in finite(records, side, key)] or [0.0]
    room = 0.06 * (max(values) - min(values)) or 0.05
    return min(values) - room, max(values) + room
