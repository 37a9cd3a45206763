"""How fast photographs are decoded on all cores, and how soon they come from the cache after that.

Run:  python benchmarks/decoding.py [--count 600]

They are synthetic JPEGs of 1152x864 pixels in two classes. Written is
benchmarks/results/decoding.json.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import worker
from caecnn_jax.data import dataset, image_files
from configs import own_images

WIDTH, HEIGHT = 1152, 864
SIZES = (32, 64)


def write_photographs(folder: pathlib.Path, count: int) -> None:
    """Smooth pictures with grain, so that a file is about as large as a camera's."""
    rng = np.random.default_rng(0)
    for number in range(count):
        levels = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(levels.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
        pixels = smooth + rng.integers(-12, 13, smooth.shape, np.int16)
        place = folder / f"class {number % 2}" / f"{number}.jpg"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place, quality=90)


def measure(folder: pathlib.Path, count: int, size: int) -> dict[str, float]:
    """Images a second where nothing is cached, and seconds where all are."""
    config = own_images.get_config()
    config.dataset, config.image_size = str(folder), size
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        data = dataset.open_source(config).read()
        seconds.append(time.perf_counter() - began)
        assert len(data.images) == count
    return {"images_per_second": round(count / seconds[0], 1), "cached_seconds": seconds[1]}


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=600, help="of photographs")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        photographs = pathlib.Path(folder) / "photographs"
        photographs.mkdir()
        write_photographs(photographs, count)
        result = {
            "photographs": count,
            "pixels": [WIDTH, HEIGHT],
            "bytes_a_file": sum(p.stat().st_size for p in photographs.rglob("*.jpg")) // count,
            "cores": image_files.num_cores(),
            "sizes": {size: measure(photographs, count, size) for size in SIZES},
        }
    text = json.dumps(result, indent=1)
    (worker.PROJECT / "benchmarks" / "results" / "decoding.json").write_text(f"{text}\n")
    print(text)


if __name__ == "__main__":
    main()
