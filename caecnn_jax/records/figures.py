"""Figures: reconstructions, confusion matrix, learning curves, per-class and comparison charts.

Pure functions from arrays and dicts to matplotlib Figures (`draw_*`), PNG bytes or inline SVG.
C is the number of classes, N of images; matrices have true classes in rows. No pyplot, so
nothing is shared between calls and nothing needs closing.
"""

import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree

import matplotlib
import matplotlib.figure
import matplotlib.ticker
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from caecnn_jax.results import metrics

# Okabe and Ito's colours, which stay apart for colour-blind readers, and neutral greys. In SVG
# they become CSS variables of these names, so that a page can redefine them for a dark theme.
COLORS = {
    "ink": "#1c2430",
    "muted": "#5b6672",
    "grid": "#d5dbe1",
    "shade": "#eceff3",
    "paper": "#fefefe",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#b3589a",
    "series-5": "#3a9bd9",
    "series-6": "#c98a00",
}
SERIES = [color for name, color in COLORS.items() if name.startswith("series")]
USUAL, RARE = SERIES[0], SERIES[1]
PANELS = {  # of the learning curves, by the history's keys
    "accuracy": "Accuracy",
    "loss_cnn": "Classification loss",
    "loss_cae": "Reconstruction loss",
}
WIDTH = 4.3  # inches: with 8 point text legible on a phone and at half a page
STYLE = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["ink"],
    "figure.facecolor": COLORS["paper"],
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.labelcolor": COLORS["ink"],
    "svg.fonttype": "none",
}
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")

Record = Mapping  # one line of history.jsonl
Values = Mapping[str, float]  # by class


def reconstructions(
    originals: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str] | None = None
) -> bytes:
    """PNG of originals over their reconstructions, uint8 [N, H, W, 3] each, captions below.

    At most ten in a row, rows evenly filled, each enlarged by a whole factor to stay crisp.
    """
    if originals.shape != reconstructions.shape or originals.ndim != 4 or not len(originals):
        raise ValueError(f"shapes {originals.shape} and {reconstructions.shape}: not [N, H, W, 3]")
    count, height, width, _ = originals.shape
    columns = math.ceil(count / math.ceil(count / 10))
    factor = max(1, 96 // max(height, width))
    tile_h, tile_w, gap, margin, caption_h = factor * height, factor * width, 4, 104, 24
    band = 2 * (tile_h + gap) + (caption_h if captions else 8)
    size = (margin + columns * (tile_w + gap), gap + math.ceil(count / columns) * band)
    canvas = Image.new("RGB", size, COLORS["paper"])
    draw = ImageDraw.Draw(canvas)
    fonts = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    font = ImageFont.truetype(fonts / "DejaVuSans.ttf", 13)
    for top in range(gap, size[1] - gap, band):
        for row, name in enumerate(("original", "reconstruction")):
            middle = top + row * (tile_h + gap) + tile_h // 2
            draw.text((margin - 6, middle), name, COLORS["muted"], font, anchor="rm")
    for index in range(count):
        left = margin + index % columns * (tile_w + gap)
        top = gap + index // columns * band
        for row, images in enumerate((originals, reconstructions)):
            image = Image.fromarray(np.ascontiguousarray(images[index], dtype=np.uint8))
            enlarged = image.resize((tile_w, tile_h), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (left, top + row * (tile_h + gap)))
        if captions:
            caption = str(captions[index])
            while font.getlength(caption) > tile_w and len(caption) > 1:
                caption = caption.rstrip("…")[:-1] + "…"
            place = (left + tile_w // 2, top + 2 * (tile_h + gap) + 1)
            draw.text(place, caption, COLORS["ink"], font, anchor="ma")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """PNG of a confusion matrix, counts [C, C], true classes in rows."""
    return png(draw_confusion_matrix(matrix, class_names))


def learning_curves(records: Sequence[Record], class_names: Sequence[str] | None = None) -> bytes:
    """PNG of one run's learning curves from its history records.

    With `class_names` and records that hold a "confusion_matrix", F1 by class joins them.
    """
    return png(draw_learning_curves(records, class_names=class_names))


@matplotlib.rc_context(STYLE)
def draw_confusion_matrix(
    matrix: np.ndarray, class_names: Sequence[str]
) -> matplotlib.figure.Figure:
    """Per cent of each true class (a row) by predicted class; the row's count at its end."""
    matrix = np.asarray(matrix, dtype=float)
    totals = matrix.sum(axis=1)
    share = 100 * matrix / np.maximum(totals, 1)[:, None]
    figure = matplotlib.figure.Figure(figsize=(WIDTH, WIDTH * 0.9), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=100, edgecolors="white", linewidth=0.8)
    for row, column in np.argwhere(matrix > 0):
        value = share[row, column]
        text = f"{value:.0f}" if value >= 0.5 else "<1"
        color = "white" if value > 55 else "#08306b"
        axes.text(column + 0.5, row + 0.5, text, color=color, ha="center", va="center", size=7.5)
    for row, total in enumerate(totals):
        place = (len(totals) + 0.15, row + 0.5)
        axes.text(*place, f"{total:,.0f}", color=COLORS["muted"], va="center", size=7)
    axes.text(len(totals) + 0.15, -0.15, "images", color=COLORS["muted"], size=7)
    ticks = np.arange(len(class_names)) + 0.5
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, class_names)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted", ylabel="true", aspect="equal")
    axes.invert_yaxis()
    return figure


@matplotlib.rc_context(STYLE)
def draw_learning_curves(
    records: Sequence[Record],
    limits_from: Sequence[Record] | None = None,
    class_names: Sequence[str] | None = None,
) -> matplotlib.figure.Figure:
    """Accuracy and losses over epochs, a panel each, warm-up epochs shaded.

    A quantity that no record holds gets no panel. Charts drawn one by one have the same scales
    if `limits_from` is the same: the records of all folds.
    """
    sides = {"train": (SERIES[0], "--"), "valid": (SERIES[1], "-")}
    panels = [key for key in PANELS if any(finite(records, side, key) for side in sides)]
    by_class = class_names and any(record.get("confusion_matrix") for record in records)
    count = max(1, len(panels) + bool(by_class))
    figure = matplotlib.figure.Figure(figsize=(WIDTH, 0.5 + 1.35 * count), layout="constrained")
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


@matplotlib.rc_context(STYLE)
def draw_per_class_bars(
    f1: Values,
    spread: Values | None = None,
    points: Values | None = None,
    rare: Iterable[str] = (),
) -> matplotlib.figure.Figure:
    """A bar of F1 for each class, rare classes in another colour.

    spread is half an error bar (the standard deviation over folds), points F1 on the test set.
    """
    names, rows = list(f1), np.arange(len(f1))
    figure = matplotlib.figure.Figure(figsize=(WIDTH, 0.8 + 0.27 * len(f1)), layout="constrained")
    axes = figure.add_subplot()
    colors = [RARE if name in rare else USUAL for name in names]
    axes.barh(rows, f1.values(), color=colors, height=0.66)
    if spread:
        style = {"fmt": "none", "ecolor": COLORS["ink"], "elinewidth": 1, "capsize": 2}
        axes.errorbar(list(f1.values()), rows, xerr=[spread[name] for name in names], **style)
    if points:
        style = {"color": COLORS["paper"], "edgecolors": COLORS["ink"], "marker": "D"}
        style |= {"s": 18, "clip_on": False}
        axes.scatter([points[name] for name in names], rows, label="test", zorder=3, **style)
        figure.legend(loc="outside upper right")
    axes.set_yticks(rows, class_labels(names, rare))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 1), xlabel="F1")
    axes.invert_yaxis()
    return figure


def png(figure: matplotlib.figure.Figure) -> bytes:
    """The figure as PNG, 160 dots an inch, on an opaque light ground."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def svg(figure: matplotlib.figure.Figure, label: str) -> str:
    """The figure as an SVG element to stand inside HTML: small, sharp at any size, transparent.

    Its colours are CSS variables named as in COLORS. `label` says what the chart shows to readers
    who do not see it, and is unique in its page.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": label}):
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
    """Tick labels that name the rare classes as such."""
    rare = set(rare)
    return [f"{name} (rare)" if name in rare else name for name in class_names]


def finite(records: Sequence[Record], side: str, key: str) -> list[tuple[int, float]]:
    """(epoch, value) where the record holds a finite value: nothing in absent parts."""
    points = [(record["epoch"], (record[side] or {}).get(key)) for record in records]
    return [(epoch, y) for epoch, y in points if y is not None and math.isfinite(y)]


def _draw_f1_by_class(axes, records: Sequence[Record], class_names: Sequence[str]) -> None:
    held = [record for record in records if record.get("confusion_matrix")]
    tables = [metrics.per_class(record["confusion_matrix"], class_names) for record in held]
    for index, name in enumerate(class_names):
        curve = [record["epoch"] for record in held], [table[name]["f1"] for table in tables]
        line = ("-", "--")[index // len(SERIES) % 2]
        axes.plot(*curve, line, color=SERIES[index % len(SERIES)], label=name)
    axes.set(title="F1 by class", ylim=(0, 1))
    axes.legend(ncols=4, fontsize=6)


def _shade_warmup(all_axes: Sequence, records: Sequence[Record], span: Sequence[Record]) -> None:
    end = max((record["epoch"] for record in records if record["phase"] == "warmup"), default=0)
    for axes in all_axes:
        axes.set_xlim(0.5, max((record["epoch"] for record in span), default=1) + 0.5)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True, min_n_ticks=1))
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
