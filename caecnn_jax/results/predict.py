"""Use of a trained run: classify and reconstruct arrays, or image files (--mode predict).

    from caecnn_jax.results import predict
    model = predict.load("runs/mixed", fold="test", checkpoint="best")
    probabilities = model.classify(images)  # uint8 [N, H, W, C] to float32 [N, K]

N: images; H, W, C: of an image; K: classes; h, w, c: of the code.
"""

import csv
import functools
import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from caecnn_jax import errors
from caecnn_jax.data import augment, dataset, image_files, image_search, sampling
from caecnn_jax.networks import losses, models
from caecnn_jax.records import about
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import evaluate
from caecnn_jax.results.corrections import NONE, Correction

BATCH_SIZE = 256  # images; the last batch is padded, so that one program serves all


class PredictError(errors.UserError):
    """Something that the run's networks cannot do, or results that cannot be written."""


class HeldOut(NamedTuple):
    """N images of a run's own data that its model was not trained on."""

    images: np.ndarray  # uint8 [N, H, W, C], as the networks read them
    labels: np.ndarray  # int32 [N], places in `class_names`
    files: tuple[pathlib.Path, ...]  # of each image; none where the data are no image files


class Recipe(NamedTuple):
    """How a model is used, in what jit can hold static."""

    model: models.Classifier
    statistics: augment.Statistics  # that images are normalised by
    loss: losses.Loss  # that its logits were trained with
    corrections: tuple[losses.PostHoc | None, ...]  # of each model's logits


@functools.partial(jax.jit, static_argnames="recipe")
def forward(
    recipe: Recipe,
    variables: Sequence[dict[str, Any]],
    images: jax.Array,
) -> dict[str, jax.Array]:
    """What the model gives for images uint8 [N, H, W, C], averaged over the `variables`.

    "probabilities" float32 [N, K]; "reconstruction" uint8, shaped like the images;
    "reconstruction_error" float32 [N], the mean squared error of normalised pixels; "code" [N, h,
    w, C] of one model only, since codes of different models have nothing in common. Parts that the
    model lacks are left out.
    """
    model, statistics, loss, corrections = recipe
    normalized = augment.normalize(images, statistics)
    outputs: list[Any] = [model.apply(one, normalized) for one in variables]
    result: dict[str, Any] = {}
    if model.cnn is not None:
        logits = [
            losses.scores(one.logits.astype(jnp.float32), loss, correction)
            for one, correction in zip(outputs, corrections, strict=True)
        ]
        result["probabilities"] = sum(map(jax.nn.softmax, logits)) / len(outputs)
    if model.cae is not None:
        total: Any = sum(output.reconstruction.astype(jnp.float32) for output in outputs)
        reconstruction = total / len(outputs)
        result["reconstruction"] = augment.denormalize(reconstruction, statistics)
        result["reconstruction_error"] = losses.reconstruction_error(normalized, reconstruction)
        if len(outputs) == 1:
            result["code"] = outputs[0].code
    return result


class Predictor:
    """A run's model with its weights, or its folds' models, whose outputs are averaged."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        description: dataset.Description,
        variables: Sequence[dict[str, Any]],
        corrections: Sequence[losses.PostHoc | None] = (),
        held_out: Callable[[], tuple[dataset.Dataset, np.ndarray]] | None = None,
    ):
        """`variables`: {"params", "batch_stats"} of each model; `corrections` of their logits.

        float64 runs compute in float32. `held_out` reads the run's data, with the indices of what
        the models were not trained on.
        """
        config = config.copy_and_resolve_references()
        if config.dtype == "float64":
            config.dtype = "float32"
            variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
        self.config = config
        self.variables = list(variables)
        self.model = evaluate.networks(config, description)
        statistics = augment.Statistics(description.mean, description.std)
        made = tuple(corrections) or (None,) * len(self.variables)
        self.recipe = Recipe(self.model, statistics, losses.Loss(**config.cnn.loss), made)
        self.class_names = description.class_names
        self._held_out = held_out

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """H, W and C of the images that the networks read."""
        return self.model.image_shape

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All that `forward` gives, as host arrays; raises ValueError for any other images."""
        images = np.asarray(images)
        shape = self.image_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            raise ValueError(
                f"images must be uint8 [N, {', '.join(map(str, shape))}], "
                f"not {images.dtype} {list(images.shape)}"
            )
        parts = []
        for start in range(0, max(len(images), 1), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            padded = np.zeros((BATCH_SIZE, *shape), np.uint8)
            padded[: len(batch)] = batch
            part = jax.device_get(forward(self.recipe, self.variables, padded))
            parts.append({name: value[: len(batch)] for name, value in part.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Probabilities float32 [N, K], in the order of `class_names`, of uint8 [N, H, W, C]."""
        return self._output("probabilities", images, "this run trained no CNN: nothing classifies")

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """The CAE's reconstructions, uint8 [N, H, W, C] like the images."""
        return self._output("reconstruction", images, "this run trained no CAE to reconstruct with")

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The CAE's codes, float [N, h, w, c], of uint8 [N, H, W, C]."""
        return self._output("code", images, "only one model with a CAE has a code: choose one fold")

    def held_out(self) -> HeldOut:
        """The images that the model was judged by: of a fold its validation part, else the test's.

        Reads the run's data where they lay when it was trained; raises a UserError where they are
        no more, or others.
        """
        if self._held_out is None:
            raise PredictError("a model of no run's folder has no images: see predict.load")
        data, indices = self._held_out()
        files = tuple(data.files[index] for index in indices) if data.files else ()
        return HeldOut(data.images[indices], data.labels[indices], files)

    def _output(self, name: str, images: np.ndarray, missing: str) -> np.ndarray:
        outputs = self.outputs(images)
        if name not in outputs:
            raise PredictError(missing)
        return outputs[name]


def load(
    workdir: str | os.PathLike,
    *,
    fold: str | int | None = None,
    checkpoint: str | int = "last",
    weights: str | None = None,
    correction: Correction = NONE,
) -> Predictor:
    """The model of a run's folder.

    `fold` is a number, "test" or "all", which averages the folds' models; None: the test run if
    there is one, else fold 1. `checkpoint` is "last", "best" or an epoch; `weights` "raw" or "ema",
    where the run kept averages; `correction` what is done to the logits. Raises a UserError where
    the folder, the fold or the checkpoint is not there or damaged.
    """
    folder = workdir_lib.resolve(workdir)
    config = workdir_lib.read_config(folder)
    if fold == "all":
        if not config.do_cv:
            raise PredictError(f"--fold=all: {folder} has no folds (config.do_cv=False)")
        names = [sampling.run_name(number) for number in range(1, config.num_folds + 1)]
    else:
        names = [evaluate.run_name(config, None if fold is None else str(fold))]
    description = about.read_description(folder)
    variables = [
        evaluate.restore(
            folder, config, description, run=name, checkpoint=str(checkpoint), weights=weights
        )
        for name in names
    ]
    for name in names:
        evaluate.check_correction(config, correction, name)
    data = evaluate.own_data(folder, config, description) if correction.calibrate else None
    corrections = [
        evaluate.post_hoc(folder, config, description, one, name, correction, data)
        for name, one in zip(names, variables, strict=True)
    ]
    judged = sampling.TEST if fold == "all" else names[0]
    held_out = functools.partial(evaluate.held_out, folder, config, description, judged)
    return Predictor(config, description, variables, corrections, held_out)


def predict(
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
    not be read. Raises a UserError when there is nothing to read or to predict with, or nowhere to
    write.
    """
    paths, passed_over = image_search.find(images)
    predictor = load(
        workdir, fold=fold, checkpoint=checkpoint, weights=weights, correction=correction
    )
    if passed_over:
        logging.info("passed over: %s", image_search.in_words(passed_over))
    if save_reconstructions and predictor.model.cae is None:
        raise PredictError(f"--save_reconstructions: {workdir} trained no CAE to reconstruct with")
    size, _, channels = predictor.image_shape
    fit = predictor.config.fit
    pictures, skipped = image_files.read_all(paths, size, fit=fit, channels=channels)
    for one in skipped:
        logging.warning("skipped %s: %s", one["file"], one["reason"])
    pixels = [picture.pixels for picture in pictures]
    outputs = predictor.outputs(np.asarray(pixels, np.uint8).reshape(-1, *predictor.image_shape))
    rows = [
        row(picture, outputs, index, predictor.class_names)
        for index, picture in enumerate(pictures)
    ]
    folder = workdir_lib.resolve(output) if output else workdir / "predictions"
    try:
        workdir_lib.make_folder(folder)
        if save_reconstructions:
            _write_reconstructions(folder / "reconstructions", rows, pixels, outputs)
        content = {
            "workdir": str(workdir),
            "fold": fold or evaluate.run_name(predictor.config, None),
            "checkpoint": checkpoint,
            "weights": evaluate.weights_of(predictor.config, weights),
            "post_hoc": [evaluate.as_json(made) for made in predictor.recipe.corrections],
            "predictions": rows,
            "skipped": skipped,
        }
        workdir_lib.write_json(folder / "predictions.json", content)
        workdir_lib.write_bytes(folder / "predictions.csv", as_csv(rows))
    except OSError as error:
        reason = error.strerror or error
        raise PredictError(f"cannot write {folder} ({reason}): choose another --output") from error
    resized = sum((picture.width, picture.height) != (size, size) for picture in pictures)
    notes = []
    if resized:
        notes.append(
            f"{resized} of {len(rows)} images were resized, antialiased, to {size}x{size} pixels, "
            "all that the networks see"
        )
    return _summary(rows, notes, skipped, folder), len(skipped)


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
    """The rows as CSV in UTF-8, a column for each class's probability, a header if any row."""
    flat = [
        {name: value for name, value in row.items() if name != "probabilities"}
        | row.get("probabilities", {})
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, flat[0] if flat else ["file"])
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode(errors="surrogateescape")  # a file's name may be any bytes


def _write_reconstructions(folder: epath.Path, rows, pixels, outputs) -> None:
    """A PNG for each image, and its place in the image's row."""
    workdir_lib.make_folder(folder)
    for index, (row, original) in enumerate(zip(rows, pixels, strict=True)):
        # Numbered, since images of different folders may have the same name.
        path = folder / f"{index + 1:04d}-{shortened(epath.Path(row['file']).stem)}.png"
        png = image_files.side_by_side(original, outputs["reconstruction"][index])
        workdir_lib.write_bytes(path, png)
        row["reconstruction"] = str(path)


def shortened(name: str, most: int = 150) -> str:
    """The name cut to so many bytes: file systems take 255, and more is added to it."""
    encoded = name.encode(errors="surrogateescape")
    return name if len(encoded) <= most else encoded[:most].decode(errors="ignore")


def _summary(rows, notes: list[str], skipped, folder: epath.Path, most: int = 20) -> str:
    """The first predictions, a line each, and what else there is to say."""
    lines = []
    for row in rows[:most]:
        parts = [row["file"].encode(errors="backslashreplace").decode()]
        if "top_class" in row:
            parts.append(f"{row['top_class']} {row['top_probability']:.3f}")
        if "reconstruction_error" in row:
            parts.append(f"reconstruction error {row['reconstruction_error']:.4f}")
        lines.append("  ".join(parts))
    if len(rows) > most:
        lines.append(f"... and {len(rows) - most} more")
    lines += notes
    if skipped:
        lines.append(f"{len(skipped)} of {len(rows) + len(skipped)} files were skipped, see above")
    lines.append(f"written to {folder}: predictions.csv and predictions.json")
    return "\n".join(lines)
