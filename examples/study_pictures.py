r"""Draws the picture of a study for README and docs/: the variants' means, and their differences.

Run:     python examples/study_pictures.py STUDY.json PICTURE.png
         python examples/study_pictures.py studies/results/long_tail.json docs/long-tail.png
Needs:   what --mode study has written: study.json, or a copy of it
"""

import argparse
import io
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caecnn_jax.records import figures  # noqa: E402
from caecnn_jax.reports import study  # noqa: E402


def picture(result: Mapping[str, Any]) -> bytes:
    """PNG of the study's first part: the figure that decides, and what differs, side by side.

    Dots are means, lines their intervals, strokes the single values; baselines are orange.
    """
    drawn = study.dots(result, result["parts"][0]).values()
    charts = [Image.open(io.BytesIO(figures.png(chart))).convert("RGB") for chart, _ in drawn]
    size = sum(chart.width for chart in charts), max(chart.height for chart in charts)
    page = Image.new("RGB", size, "white")
    for index, chart in enumerate(charts):
        page.paste(chart, (sum(before.width for before in charts[:index]), 0))
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=pathlib.Path, help="a study.json")
    parser.add_argument("picture", type=pathlib.Path, help="the PNG file to write")
    args = parser.parse_args()
    args.picture.write_bytes(picture(json.loads(args.study.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
