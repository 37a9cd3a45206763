"""Evaluation of a trained run, on its data or on others."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from caecnn_jax import run_names
from caecnn_jax.data import dataset
from caecnn_jax.networks import losses
from caecnn_jax.records import about
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import metrics, schema
from caecnn_jax.results import trained as trained_lib
from caecnn_jax.results.corrections import NONE, Correction
from caecnn_jax.training import devices, epochs, trainer


def evaluate(
    workdir: epath.Path,
    *,
    fold: str | None = None,
    checkpoint: str = "last",
    split: str | None = None,
    elsewhere: Mapping[str, str] | None = None,
    weights: str | None = None,
    correction: Correction = NONE,
) -> tuple[str, schema.Result]:
    """Evaluates a run's checkpoint on one of its splits, or on other data of the same classes.

    `fold` is a number or "test" (None: the test run if there is one, else fold 1), `split` "train",
    "valid" or "test" (None: what the run was validated on). `elsewhere` {"dataset" or "data_dir":
    value} says where the data lie now, or which others to take. Returns the result's name,
    RUN-SPLIT-CHECKPOINT, and the RESULT, with "data" where they are others.
    """
    trained = trained_lib.open_folder(workdir)
    run = trained.run_name(fold)
    variables, has_cnn = trained.restore(run, checkpoint=checkpoint, weights=weights)
    judged = split or ("test" if run == run_names.TEST else "valid")
    trained.check_correction(correction, run, has_cnn=has_cnn, split=judged)
    data = trained.data(elsewhere)
    if correction.calibrate:
        trained.check_own(data)
    made = trained.post_hoc(variables, run, correction, data)
    indices = trained.indices(data, run=run, split=split)
    counts = about.train_counts(trained.folder, run)
    with devices.precision(trained.config.matmul_precision):
        record = _evaluation(trained, data, variables, indices, made, counts, joint=has_cnn)
    result = metrics.result(record, trained.description.class_names)
    name = f"{run}-{judged}-{checkpoint}{f'-{weights}' if weights else ''}{correction.suffix}"
    if not trained.is_own(data):
        # The digest too, since data in different places may have the same name.
        name += f"-on-{pathlib.PurePath(data.name).name}-{data.digest[:8]}"
        digests = {"digest": data.digest, "trained_on": trained.description.digest}
        result["data"] = {"name": data.name, **digests}
    result["weights"] = trained.weights_of(weights)
    result["post_hoc"] = trained_lib.as_json(made)
    return name, result


def _evaluation(
    trained: trained_lib.Trained,
    data: dataset.Dataset,
    variables: dict[str, Any],
    indices: np.ndarray,
    correction: losses.PostHoc | None,
    class_counts: Sequence[int] | None,
    *,
    joint: bool,
) -> schema.Evaluation:
    """The figures of the images at `indices`; `joint=False` leaves the CNN out."""
    (mesh, *_) = devices.lanes(0).meshes
    pipeline = epochs.Pipeline(data.images.shape[1:], trained.statistics)
    place = epochs.place(data, pipeline, mesh)
    calls = epochs.evaluate(
        trained.model,
        devices.put(mesh, variables),
        place.data,
        place.order(indices, epochs.EVAL_BATCH_SIZE),
        joint=joint,
        pipeline=place.pipeline,
        loss=trained.loss,
        correction=correction,
    )
    num_classes = len(trained.description.class_names)
    return metrics.evaluation(trainer.by_step(list(calls)), num_classes, class_counts)


def write(folder: epath.Path, name: str, result: schema.Result) -> None:
    """Writes a result, its confusion matrix and reliability diagram; raises WorkdirError."""
    workdir_lib.write_output(folder / f"{name}.json", workdir_lib.as_json(result))
    if result["confusion_matrix"]:
        from caecnn_jax.records import figures  # matplotlib takes a second to import

        matrix, by_class = np.asarray(result["confusion_matrix"]), result["per_class"]
        assert by_class is not None  # it follows from the matrix
        png = figures.confusion_matrix(matrix, list(by_class))
        workdir_lib.write_output(folder / f"{name}.png", png)
        if result["reliability"]:
            png = figures.reliability(result["reliability"])
            workdir_lib.write_output(folder / f"{name}-reliability.png", png)
