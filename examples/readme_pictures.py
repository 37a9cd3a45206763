r"""Draws the README's pictures of a trained run: docs/f1.png, learning_curves.png and others.

Run:     python examples/readme_pictures.py --workdir runs/mixed [--output docs]
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

from caecnn_jax import errors  # noqa: E402
from caecnn_jax.data import dataset  # noqa: E402
from caecnn_jax.records import figures, runs, workdir  # noqa: E402
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
    return figures.reconstructions(images, model.reconstruct(images), captions)


def pictures(folder: pathlib.Path, fold: str | None) -> dict[str, bytes]:
    """The PNG files by name, of what the run has got."""
    run = runs.read(folder)
    name = fold or list(run.history)[-1]
    records = run.history[f"fold_{name}" if name.isdigit() else name]
    means = runs.f1_by_class(run.cv and run.cv["mean"])
    spread = runs.f1_by_class(run.cv and run.cv["std"])
    points = runs.f1_by_class(run.test)
    bars = means or points
    files = {"learning_curves": figures.learning_curves(records)}
    if bars:
        several = (spread, points) if means else (None, None)
        files["f1"] = figures.png(figures.draw_per_class_bars(bars, *several, run.rare))
        matrix = list(report.confusion_matrices(run).values())[-1]  # of the test set, if any
        files["confusion_matrix"] = figures.confusion_matrix(matrix, run.class_names)
    if run.config["use_cae"]:
        files["reconstructions"] = reconstructions(folder, fold)
    return files


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
    parser.add_argument("--output", default=ROOT / "docs", help="the pictures' folder")
    parser.add_argument("--together", help="a file: three of the pictures in one, and no others")
    args = parser.parse_args()
    files = pictures(workdir.resolve(args.workdir), args.fold)
    if args.together:
        workdir.write_bytes(workdir.resolve(args.together), together(files))
        print(f"written to {args.together}")
        return
    output = workdir.resolve(args.output)
    output.mkdir(parents=True, exist_ok=True)
    for name, png in files.items():
        workdir.write_bytes(output / f"{name}.png", png)
        print(f"written to {output / name}.png")


if __name__ == "__main__":
    try:
        main()
    except errors.UserError as error:
        sys.exit(f"error: {error}")
