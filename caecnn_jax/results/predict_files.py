"""Predictions for image files (--mode predict): what each shows, as CSV, JSON and pictures."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from caecnn_jax import legible
from caecnn_jax.data import image_files, image_search
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import predict
from caecnn_jax.results import trained as trained_lib
from caecnn_jax.results.corrections import NONE, Correction


def predict_files(
    workdir: epath.Path,
    *,
    fold: str | None = None,
    checkpoint: str = "last",
    images: Sequence[str],
    output: str | None = None,
    save_reconstructions: bool = False,
    weights: str | None = None,
    correction: Correction = NONE,
) -> tuple[str, int]:
    """Predicts what image files show; writes predictions.csv and .json into `output`.

    `output` None: workdir/predictions. Returns a text for people and the number of files that could
    not be read. Raises a UserError when there is nothing to read or to predict with, or `output`
    cannot be written; that a run's folder cannot is said in the text.
    """
    paths, passed_over = image_search.find(images)
    predictor = predict.load(
        workdir, fold=fold, checkpoint=checkpoint, weights=weights, correction=correction
    )
    if passed_over:
        logging.info("passed over: %s", image_search.in_words(passed_over))
    if save_reconstructions and predictor.model.cae is None:
        raise predict.PredictError(
            f"--save_reconstructions: {workdir} trained no CAE to reconstruct with"
        )
    size, _, channels = predictor.image_shape
    fit = predictor.config.fit
    pictures, skipped = image_files.read_all(paths, size, fit=fit, channels=channels)
    for one in skipped:
        logging.warning("skipped %s: %s", one["file"], one["reason"])
    if not pictures:  # earlier predictions stay
        text = f"nothing written: none of the {len(skipped)} files could be read, see above"
        return text, len(skipped)
    pixels = [picture.pixels for picture in pictures]
    outputs = predictor.outputs(np.asarray(pixels, np.uint8).reshape(-1, *predictor.image_shape))
    rows = [
        row(picture, outputs, index, predictor.class_names)
        for index, picture in enumerate(pictures)
    ]
    trained = trained_lib.open_folder(workdir)
    content = {
        "workdir": str(workdir),
        "fold": fold if fold == "all" else trained.run_name(fold and str(fold)),
        "checkpoint": checkpoint,
        "weights": trained.weights_of(weights),
        "post_hoc": [trained_lib.as_json(made) for made in predictor.recipe.corrections],
        "predictions": rows,
        "skipped": skipped,
    }
    folder = workdir_lib.resolve(output) if output else workdir / "predictions"
    where = f"written to {folder}: predictions.csv and predictions.json"
    try:
        _write(folder, content, paths, pixels, outputs if save_reconstructions else None)
    except workdir_lib.WorkdirError as error:
        if output:
            raise
        where = f"not written: {error}"
    return "\n".join([*_summary(rows, size, skipped), where]), len(skipped)


def row(
    picture: image_files.Picture,
    outputs: dict[str, np.ndarray],
    index: int,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """One image's prediction as predictions.json holds it."""
    result = {"file": str(picture.path), "width": picture.width, "height": picture.height}
    if "probabilities" in outputs:
        probabilities = outputs["probabilities"][index]
        top = int(probabilities.argmax())
        result["top_class"] = class_names[top]
        result["top_probability"] = float(probabilities[top])
        result["probabilities"] = dict(zip(class_names, probabilities.tolist(), strict=True))
    if "reconstruction_error" in outputs:
        result["reconstruction_error"] = float(outputs["reconstruction_error"][index])
    return result


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """The rows as CSV in UTF-8, a column for each class's probability, a header if any row.

    A class with the name of another column has "probability" before it.
    """
    flat = []
    for row in rows:
        fields = {name: value for name, value in row.items() if name != "probabilities"}
        by_class = row.get("probabilities", {})
        flat.append(
            fields | {f"probability {c}" if c in fields else c: p for c, p in by_class.items()}
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, flat[0] if flat else ["file"])
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode(errors="surrogateescape")  # a file's name may be any bytes


def _write(folder: epath.Path, content: dict[str, Any], paths, pixels, outputs) -> None:
    """Writes predictions of the images at `paths`, reconstructions too where there are `outputs`.

    Then removes the reconstructions of the earlier predictions that lay there.
    """
    rows, earlier = content["predictions"], _earlier_reconstructions(folder)
    if outputs is not None:
        _write_reconstructions(folder / "reconstructions", rows, pixels, outputs)
    workdir_lib.write_output(folder / "predictions.json", workdir_lib.as_json(content))
    workdir_lib.write_output(folder / "predictions.csv", as_csv(rows))
    kept = {row.get("reconstruction") for row in rows} | {str(path.absolute()) for path in paths}
    with workdir_lib.writing(folder, "choose another --output"):
        for name in earlier - kept:
            epath.Path(name).unlink(missing_ok=True)


def _write_reconstructions(folder: epath.Path, rows, pixels, outputs) -> None:
    """A PNG for each image, and its place in the image's row."""
    for index, (row, original) in enumerate(zip(rows, pixels, strict=True)):
        # Numbered, since images of different folders may have the same name.
        path = folder / f"{index + 1:04d}-{shortened(epath.Path(row['file']).stem)}.png"
        png = image_files.side_by_side(original, outputs["reconstruction"][index])
        workdir_lib.write_output(path, png)
        row["reconstruction"] = str(path)


def _earlier_reconstructions(folder: epath.Path) -> set[str]:
    """The files in reconstructions/ that the predictions in this folder say they wrote."""
    try:
        rows = workdir_lib.read_json(folder / "predictions.json")["predictions"]
        named = {str(row.get("reconstruction")) for row in rows}
    except (workdir_lib.WorkdirError, OSError, LookupError, TypeError, AttributeError):
        return set()
    return {name for name in named if epath.Path(name).parent == folder / "reconstructions"}


def shortened(name: str, most: int = 150) -> str:
    """The name cut to so many bytes: file systems take 255, and more is added to it."""
    encoded = name.encode(errors="surrogateescape")
    return name if len(encoded) <= most else encoded[:most].decode(errors="ignore")


def _summary(rows, size: int, skipped, most: int = 20) -> list[str]:
    """The first predictions, a line each, and what else there is to say."""
    lines = []
    for row in rows[:most]:
        parts = [legible.printable(row["file"], kept="")]
        if "top_class" in row:
            parts.append(f"{legible.short(row['top_class'])} {row['top_probability']:.3f}")
        if "reconstruction_error" in row:
            parts.append(f"reconstruction error {row['reconstruction_error']:.4f}")
        lines.append("  ".join(parts))
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most} more")
    if resized := sum((row["width"], row["height"]) != (size, size) for row in rows):
        lines.append(
            f"{resized} of {len(rows)} images were resized, antialiased, to {size}x{size} pixels, "
            "all that the networks see"
        )
    if skipped:
        lines.append(f"{len(skipped)} of {len(rows) + len(skipped)} files were skipped, see above")
    return lines
