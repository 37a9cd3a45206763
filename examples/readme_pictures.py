r"""Draws a trained run's pictures for README and docs/: its reconstructions, or three in one.

Run:     python examples/readme_pictures.py --workdir runs/demo --output docs/reconstructions.png
         python examples/readme_pictures.py --workdir runs/fashion --together docs/own-images.png
Needs:   a finished run, and the images that it was trained on

It also shows how a run is used from Python: `predict.load`, `classify` and `reconstruct`.
"""

import argparse
import io
import pathlib
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from caecnn_jax import errors, run_names  # noqa: E402
from caecnn_jax.data import dataset  # noqa: E402
from caecnn_jax.records import figures, pictures, runs, workdir  # noqa: E402
from caecnn_jax.reports import report  # noqa: E402
from caecnn_jax.results import predict  # noqa: E402


def reconstructions(folder: pathlib.Path, fold: str | None) -> bytes:
    """PNG of a test image of each class over its reconstruction, with what it was taken for."""
    model = predict.load(folder, fold=fold)
    data = dataset.load(model.config)
    labels = data.labels[data.num_train :]
    _, firsts = np.unique(labels, return_index=True)
    images = data.images[data.num_train + firsts]
    captions = [data.class_names[label] for label in labels[firsts]]
    if model.config.use_cnn:
        tops = model.classify(images).argmax(axis=1)
        captions = [data.class_names[top] for top in tops]
    return pictures.reconstructions(images, model.reconstruct(images), captions)


def drawn(folder: pathlib.Path, fold: str | None) -> dict[str, bytes]:
    """The three PNG files by name."""
    run = runs.read(folder)
    name = fold or list(run.history)[-1]
    records = run.history[run_names.of_number(int(name)) if name.isdigit() else name]
    matrix = list(report.confusion_matrices(run).values())[-1]  # of the test set, if any
    return {
        "reconstructions": reconstructions(folder, fold),
        "confusion_matrix": figures.confusion_matrix(matrix, run.class_names),
        "learning_curves": figures.learning_curves(records),
    }


def together(files: dict[str, bytes], width: int = 1400) -> bytes:
    """PNG of reconstructions, `width` pixels wide, over confusion matrix and learning curves."""
    above, *below = (
        Image.open(io.BytesIO(files[name])).convert("RGB")
        for name in ("reconstructions", "confusion_matrix", "learning_curves")
    )
    above = above.resize((width, above.height * width // above.width), Image.Resampling.LANCZOS)
    height = min(picture.height * width // (2 * picture.width) for picture in below)
    page = Image.new("RGB", (width, above.height + height), "white")
    page.paste(above)
    for index, picture in enumerate(below):
        scaled = picture.resize(
            (picture.width * height // picture.height, height), Image.Resampling.LANCZOS
        )
        page.paste(scaled, (index * width // 2 + (width // 2 - scaled.width) // 2, above.height))
    buffer = io.BytesIO()
    page.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--fold", help="of curves and reconstructions; default: the test run")
    parser.add_argument("--output", help="a file for the reconstructions")
    parser.add_argument("--together", help="a file for them, confusion matrix and curves in one")
    args = parser.parse_args()
    folder = workdir.resolve(args.workdir)
    if args.output:
        workdir.write_bytes(workdir.resolve(args.output), reconstructions(folder, args.fold))
    if args.together:
        picture = together(drawn(folder, args.fold))
        workdir.write_bytes(workdir.resolve(args.together), picture)


if __name__ == "__main__":
    try:
        main()
    except errors.UserError as error:
        sys.exit(f"error: {error}")
