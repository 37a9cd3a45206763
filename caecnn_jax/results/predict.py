"""Use of a trained run from Python: classify, reconstruct and encode arrays of images.

    from caecnn_jax.results import predict
    model = predict.load("runs/mixed", fold="test", checkpoint="best")
    probabilities = model.classify(images)  # uint8 [N, H, W, C] to float32 [N, K]

N: images; H, W, C: of an image; K: classes; h, w, c: of the code.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from caecnn_jax import errors, run_names
from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.data.description import Description
from caecnn_jax.networks import losses, models
from caecnn_jax.results import trained as trained_lib
from caecnn_jax.results.corrections import NONE, Correction
from caecnn_jax.training import devices

BATCH_SIZE = 256  # images; the last batch is padded, so that one program serves all


class PredictError(errors.UserError):
    """Something that the run's networks cannot do, or that its folder does not have."""


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
        description: Description,
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
        self.model = trained_lib.networks(config, description)
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
            with devices.precision(self.config.matmul_precision):
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
    trained = trained_lib.open_folder(workdir)
    names = sampling.fold_names(trained.config)
    if fold != "all":
        names = [trained.run_name(None if fold is None else str(fold))]
    elif not names:
        raise PredictError(f"--fold=all: {trained.folder} has no folds (config.do_cv=False)")
    variables = []
    for name in names:
        restored = trained.restore(name, checkpoint=str(checkpoint), weights=weights)
        if trained.config.use_cnn and not restored.has_cnn:
            raise PredictError(
                f"the checkpoint of {name} is of warm-up, in which the CNN is not trained: choose "
                "a later --checkpoint, or train on"
            )
        trained.check_correction(correction, name, has_cnn=restored.has_cnn)
        variables.append(restored.variables)
    data = trained.own_data() if correction.calibrate else None
    corrections = [
        trained.post_hoc(one, name, correction, data)
        for name, one in zip(names, variables, strict=True)
    ]

    def held_out() -> tuple[dataset.Dataset, np.ndarray]:
        data = trained.own_data()
        run = run_names.TEST if fold == "all" else names[0]
        return data, trained.indices(data, run=run, split=None)

    return Predictor(trained.config, trained.description, variables, corrections, held_out)
