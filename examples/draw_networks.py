r"""Draws the two networks and how code and mixed mode join them: docs/networks.png and .svg.

Run:     python examples/draw_networks.py [--output docs]
Sizes:   from configs/code.py and configs/mixed.py, so that the drawing follows them
"""

import argparse
import pathlib
import sys

import matplotlib.colors
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image, ImageFilter

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caecnn_jax.records import drawing  # noqa: E402
from configs import code, mixed  # noqa: E402

INK, MUTED, PAPER = (drawing.COLORS[name] for name in ("ink", "muted", "paper"))
CNN, DECODER, ENCODER, DENSE = drawing.SERIES[:4]
WIDTH, HEIGHT = 100, 98.6  # of the drawing, in the units that everything is placed in
STEPS = {
    ENCODER: "Encoder block: conv 3×3, max-pool 2×2, LeakyReLU, BatchNorm",
    DECODER: "Decoder block: transposed conv 4×4, LeakyReLU, BatchNorm",
    CNN: "CNN block: conv 3×3, max-pool 2×2 (but for code mode's first), LeakyReLU, BatchNorm",
    DENSE: "Dense layer and softmax: the ten classes",
}
LOSSES = (
    "Losses, added up: the CNN's gradient flows back through the code, so both train the encoder"
)


def tint(color: str, strength: float) -> np.ndarray:
    """The colour mixed with white, RGB in 0..1."""
    return 1 - strength * (1 - np.array(matplotlib.colors.to_rgb(color)))


def picture() -> np.ndarray:
    """A small ship at sea, uint8 [32, 32, 3], for want of a photograph of our own."""
    row, column = np.mgrid[:32, :32]
    pixels = np.stack([150 + 2 * row, 190 + row, 0 * row + 238], axis=-1).astype(np.uint8)
    sea = row >= 22
    pixels[sea] = np.stack([30 + 2 * (column % 5), 90 + 3 * (row % 4), 150 + 0 * row], axis=-1)[sea]
    pixels[(row >= 18) & (row < 24) & (abs(column - 15) < 31 - row)] = (176, 58, 46)
    pixels[(row >= 13) & (row < 18) & (abs(column - 14) < 8)] = (245, 245, 240)
    pixels[(row >= 14) & (row < 16) & (abs(column - 14) < 7) & (column % 3 == 0)] = (70, 90, 110)
    pixels[(row >= 6) & (row < 13) & (abs(column - 17) < 3)] = (52, 73, 94)
    pixels[(row >= 8) & (row < 10) & (abs(column - 17) < 3)] = (230, 126, 34)
    return pixels


class Panel:
    """One mode's drawing, between `bottom` and the rows above it."""

    def __init__(self, axes, bottom: float, title: str, subtitle: str):
        self.axes = axes
        self.cae, self.cnn = bottom + 26.5, bottom + 7.5  # the middles of the rows
        frame = FancyBboxPatch(
            (0.8, bottom - 2.2), WIDTH - 1.6, 39, boxstyle="round,pad=0,rounding_size=1.2"
        )
        frame.set(facecolor="white", edgecolor=drawing.COLORS["grid"], linewidth=1)
        axes.add_patch(frame)
        axes.text(2.5, bottom + 34.2, title, size=12, weight="bold", va="center")
        axes.text(17, bottom + 34.1, subtitle, size=9, color=MUTED, va="center")

    def maps(self, x: float, y: float, size: int, parts: list[tuple[int, str]], name="") -> float:
        """Feature maps of `size` pixels as a stack of sheets; returns half its width.

        `parts`: the channels and colour of what was concatenated, from the front.
        """
        side = {32: 10.5, 16: 8, 8: 6, 4: 4.6}[size]
        sheets = [color for count, color in parts for _ in range(max(1, round(np.log2(count) - 1)))]
        shift = 0.62
        left = x - (side + shift * (len(sheets) - 1)) / 2
        low = y - (side + shift * (len(sheets) - 1)) / 2
        for index, color in reversed(list(enumerate(sheets))):
            place = (left + shift * index, low + shift * index)
            style = {"facecolor": tint(color, 0.3), "edgecolor": color, "linewidth": 0.8}
            self.axes.add_patch(Rectangle(place, side, side, **style))
        channels = " + ".join(str(count) for count, _ in parts)
        self.label(x, low, f"{size}×{size}×{channels}", name)
        return (side + shift * (len(sheets) - 1)) / 2

    def image(self, x: float, y: float, pixels: np.ndarray, name: str) -> float:
        """A picture with its name; returns half its width."""
        half = 5.25
        place = (x - half, x + half, y - half, y + half)
        self.axes.imshow(pixels, extent=place, interpolation="nearest", zorder=2)
        self.axes.add_patch(
            Rectangle(
                (x - half, y - half), 2 * half, 2 * half, fill=False, ec=MUTED, lw=0.8, zorder=3
            )
        )
        self.label(x, y - half, "32×32×3", name)
        return half

    def label(self, x: float, low: float, text: str, name: str) -> None:
        """The size under a stack and, under that, its name."""
        if name:
            self.axes.text(x, low - 0.7, name, size=9, weight="bold", ha="center", va="top")
        drop = 2.9 if name else 0.7
        self.axes.text(x, low - drop, text, size=8, color=MUTED, ha="center", va="top")

    def arrow(self, start, end, color: str, bend: str | None = None) -> None:
        """An arrow; `bend` is a connection style of matplotlib."""
        style = {"arrowstyle": "-|>,head_length=5,head_width=3", "shrinkA": 0, "shrinkB": 0}
        style |= {"color": color, "linewidth": 2.2, "zorder": 4, "joinstyle": "round"}
        bend = bend or "arc3,rad=0"
        self.axes.add_patch(FancyArrowPatch(start, end, connectionstyle=bend, **style))

    def row(self, y: float, stops: list[tuple[float, float]], colors: list[str]) -> None:
        """Arrows between neighbours, which are (middle, half width) along x."""
        for (left, half), (right, other), color in zip(stops, stops[1:], colors, strict=False):
            self.arrow((left + half + 0.7, y), (right - other - 0.7, y), color)

    def classes(self, x: float, y: float) -> float:
        """The ten class probabilities as bars; returns half their width."""
        values = np.array([0.6, 0.2, 0.25, 0.1, 0.3, 0.15, 0.1, 0.2, 2.6, 0.9])
        for index, value in enumerate(values):
            place = (x - 2, y + 3.6 - 0.8 * index)
            color = DENSE if value == values.max() else tint(DENSE, 0.35)
            self.axes.add_patch(Rectangle(place, 1.3 * value + 0.3, 0.56, color=color))
        self.label(x, y - 3.6, "10", "classes")
        return 2

    def loss(self, x: float, y: float, text: str, source: float | None = None) -> None:
        """What is minimised, in a rounded box, with a dotted line from `source` on."""
        if source is not None:
            self.axes.plot((source + 1, x - 4), (y, y), ":", color=MUTED, lw=1.3)
        box = {
            "boxstyle": "round,pad=0.4",
            "facecolor": drawing.COLORS["shade"],
            "edgecolor": "none",
        }
        self.axes.text(x, y, text, size=8.5, ha="center", va="center", bbox=box)


def draw_autoencoder(panel: Panel, config, top: float) -> tuple[float, float]:
    """Image, code and reconstruction along the upper row; returns the code's place and half."""
    channels = config.cae.enc_block_sizes[-1][1]
    image = panel.image(9, top, picture(), "image")
    code = panel.maps(37, top, 16, [(channels, ENCODER)], "code")
    blurred = Image.fromarray(picture()).filter(ImageFilter.GaussianBlur(1.1))
    reconstruction = panel.image(65, top, np.asarray(blurred), "reconstruction")
    stops = [(9, image), (37, code), (65, reconstruction)]
    panel.row(top, stops, [ENCODER, DECODER])
    panel.axes.text(23.2, top + 1.6, "encoder", size=9, ha="center", color=ENCODER)
    panel.axes.text(50.6, top + 1.6, "decoder", size=9, ha="center", color=DECODER)
    panel.loss(86, top, "mean squared error\nwith the image", 65 + reconstruction)
    return 37, code


def draw_rest(panel: Panel, config, stops: list[tuple[float, float]]) -> None:
    """The CNN from its second block on, and its loss."""
    size = 8
    for x, (_, channels, _) in zip((55, 69), config.cnn.block_sizes[1:], strict=True):
        stops.append((x, panel.maps(x, panel.cnn, size, [(channels, CNN)])))
        size //= 2
    stops.append((80, panel.classes(80.5, panel.cnn)))
    panel.row(panel.cnn, stops, [CNN] * (len(stops) - 2) + [DENSE])
    panel.loss(92, panel.cnn, "cross-entropy\nwith the label", 82.5)


def draw_mixed(axes, bottom: float) -> None:
    """Mixed mode: the code joins the channels of the CNN's first block."""
    config = mixed.get_config()
    panel = Panel(
        axes,
        bottom,
        "Mixed mode",
        "The CNN sees the image, and the code joins its first feature maps.",
    )
    x, _ = draw_autoencoder(panel, config, panel.cae)
    first, code = config.cnn.block_sizes[0][1], config.cae.enc_block_sizes[-1][1]
    joined = panel.maps(x, panel.cnn, 16, [(first, CNN), (code, ENCODER)])
    corner = (9, panel.cae - 10.2)
    panel.arrow(corner, (x - joined - 0.7, panel.cnn), CNN, "angle,angleA=-90,angleB=180,rad=8")
    panel.arrow((x, panel.cae - 9.8), (x, panel.cnn + joined + 0.7), ENCODER)
    axes.text(x + 1.2, panel.cnn + joined + 2.4, "concatenate", size=9, color=ENCODER, va="bottom")
    draw_rest(panel, config, [(x, joined)])


def draw_code(axes, bottom: float) -> None:
    """Code mode: the CNN reads the code alone."""
    config = code.get_config()
    panel = Panel(axes, bottom, "Code mode", "The CNN sees the encoder's code and nothing else.")
    x, _ = draw_autoencoder(panel, config, panel.cae)
    first = panel.maps(x, panel.cnn, 16, [(config.cnn.block_sizes[0][1], CNN)])
    panel.arrow((x, panel.cae - 9.8), (x, panel.cnn + first + 0.7), CNN)
    draw_rest(panel, config, [(x, first)])


@drawing.settings(svg_fonttype="path", svg_hashsalt="networks")
def draw() -> drawing.Figure:
    """Both modes, one over the other, and what the arrows mean."""
    figure = drawing.Figure(figsize=(9.2, 9.2 * (HEIGHT) / WIDTH))
    figure.patch.set_facecolor(PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_mixed(axes, 59.1)
    draw_code(axes, 17.6)
    for index, (color, text) in enumerate(STEPS.items()):
        y = 12.2 - 2.6 * index
        style = {"arrowstyle": "-|>,head_length=5,head_width=3", "color": color, "linewidth": 2.2}
        axes.add_patch(FancyArrowPatch((2.5, y), (7, y), shrinkA=0, shrinkB=0, **style))
        axes.text(8.5, y, text, size=9, va="center")
    axes.plot((2.5, 7), (y - 2.6, y - 2.6), ":", color=MUTED, lw=1.3)
    axes.text(8.5, y - 2.6, LOSSES, size=9, va="center")
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axes.set_axis_off()
    return figure


def main() -> None:
    """Writes the two files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs", help="the folder")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    with drawing.settings(svg_fonttype="path", svg_hashsalt="networks"):
        draw().savefig(folder / "networks.png", dpi=200)
        draw().savefig(folder / "networks.svg", metadata={"Date": None})
    print(f"written to {folder}: networks.png and networks.svg")


if __name__ == "__main__":
    main()
