"""Pictures of images beside their reconstructions."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from caecnn_jax.records import drawing
from caecnn_jax.records.drawing import COLORS

MOST_PIXELS = 256  # high and wide


def reconstructions(
    originals: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str] | None = None
) -> bytes:
    """PNG of originals over their reconstructions, uint8 [N, H, W, 1 or 3] each, captions below.

    At most ten in a row, rows evenly filled.
    Small ones are enlarged by a whole factor to stay crisp, those above MOST_PIXELS shrunk.
    """
    if originals.shape != reconstructions.shape or originals.ndim != 4 or not len(originals):
        raise ValueError(
            f"shapes {originals.shape} and {reconstructions.shape}: not [N, H, W, 1 or 3]"
        )
    count, height, width, _ = originals.shape
    columns = math.ceil(count / math.ceil(count / 10))
    longest = max(height, width)
    factor = max(1, 96 // longest) if longest <= MOST_PIXELS else MOST_PIXELS / longest
    tile_h, tile_w = (max(1, round(factor * side)) for side in (height, width))
    gap, margin, caption_h = 4, 104, 24
    band = 2 * (tile_h + gap) + (caption_h if captions else 8)
    size = (margin + columns * (tile_w + gap), gap + math.ceil(count / columns) * band)
    canvas = Image.new("RGB", size, COLORS["paper"])
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.truetype(drawing.FONT, 13)
    for top in range(gap, size[1] - gap, band):
        for row, name in enumerate(("original", "reconstruction")):
            middle = top + row * (tile_h + gap) + tile_h // 2
            draw.text((margin - 6, middle), name, COLORS["muted"], font, anchor="rm")
    for index in range(count):
        left = margin + index % columns * (tile_w + gap)
        top = gap + index // columns * band
        for row, images in enumerate((originals, reconstructions)):
            pixels = np.broadcast_to(images[index], (height, width, 3))
            image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
            how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS
            canvas.paste(image.resize((tile_w, tile_h), how), (left, top + row * (tile_h + gap)))
        if captions:
            caption = " ".join(str(captions[index]).split())  # a line break has no length
            while font.getlength(caption) > tile_w and len(caption) > 1:
                caption = caption.rstrip("…")[:-1] + "…"
            place = (left + tile_w // 2, top + 2 * (tile_h + gap) + 1)
            draw.text(place, caption, COLORS["ink"], font, anchor="ma")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
