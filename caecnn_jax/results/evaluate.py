"""Evaluation of a trained run, rebuilt from its own files, on its data or on others."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.networks import losses, models
from caecnn_jax.records import about, checkpoints
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import calibration, corrections, metrics
from caecnn_jax.training import devices, epochs, optimizers, steps, trainer

SPLITS = ("train", "valid", "test")
ELSEWHERE = ("dataset", "data_dir", "data_source")  # the fields that may say where data lie now


class EvaluateError(errors.UserError):
    """A fold, split, checkpoint or data that the run does not have."""


def run_name(config: ml_collections.ConfigDict, fold: str | None) -> str:
    """The run that --fold names by number or "test"; None: the test run if there is one, else 1."""
    if fold is None:
        return sampling.run_name(0 if config.do_test else 1)
    return sampling.run_name(int(fold)) if fold.isdigit() else fold


def networks(
    config: ml_collections.ConfigDict, description: dataset.Description
) -> models.Classifier:
    """The networks of a run."""
    return models.from_config(
        config, num_classes=len(description.class_names), channels=description.channels
    )


def restore(
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    description: dataset.Description,
    *,
    run: str,
    checkpoint: str,
    weights: str | None = None,
) -> dict[str, Any]:
    """The variables {"params", "batch_stats"} of a checkpoint that are evaluated, host arrays.

    `run` is "fold_1", ... or "test"; `checkpoint` is "last", "best" or an epoch's number; `weights`
    "raw" or "ema" (None: the averages where the run keeps any). Where the run still trains and
    removes that checkpoint, looks again. Raises EvaluateError or CheckpointError when there is no
    such checkpoint, or it is damaged.
    """
    if weights == "ema" and not config.ema_decay:
        raise EvaluateError("--weights=ema: this run kept no averages (config.ema_decay is 0)")
    model = networks(config, description)
    with jax.enable_x64(config.dtype == "float64"):  # else the shapes would be those of float32
        variables = jax.eval_shape(lambda key: steps.init(model, key), jax.random.key(0))
        template = {"variables": variables}
        if weights_of(config, weights) == "ema":
            template = {"averages": jax.eval_shape(optimizers.first_averages, variables)}
    restore_one = functools.partial(_restore, workdir, template, run, checkpoint, config)
    for _ in range(checkpoints.TRIES - 1):
        with contextlib.suppress(checkpoints.GoneError):
            return restore_one()
    return restore_one()


def _restore(
    workdir: epath.Path,
    template: dict[str, Any],
    run: str,
    checkpoint: str,
    config: ml_collections.ConfigDict,
) -> dict[str, Any]:
    """One try of `restore`, shaped like `template`."""
    if not (workdir / run).exists():
        raise EvaluateError(f"{workdir} holds no run {run!r}: choose another --fold")
    saved = checkpoints.Checkpoints(workdir / run, read_only=True)
    epochs_saved = [str(step) for step in saved.steps()]
    if not epochs_saved:
        raise EvaluateError(f"{workdir / run} holds no checkpoint yet: train the run first")
    if checkpoint not in ("last", "best", *epochs_saved):
        raise EvaluateError(
            f"--checkpoint={checkpoint}: {workdir / run} has last, best and "
            f"{', '.join(epochs_saved)}"
        )
    epoch = int(epochs_saved[-1] if checkpoint in ("last", "best") else checkpoint)
    if checkpoint == "best":
        records = saved.restore(epoch, {}).progress["records"]
        epoch = records[metrics.best_epoch(records, config.selection_metric)]["epoch"]
    return steps.evaluated(saved.restore(epoch, template).arrays)


def evaluate(
    workdir: epath.Path,
    *,
    fold: str | None = None,
    checkpoint: str = "last",
    split: str | None = None,
    elsewhere: Mapping[str, str] | None = None,
    weights: str | None = None,
    correction: corrections.Correction = corrections.NONE,
) -> tuple[str, metrics.Result]:
    """Evaluates a run's checkpoint on one of its splits, or on other data of the same classes.

    `fold` is a number or "test" (None: the test run if there is one, else fold 1), `split` one of
    SPLITS (None: what the run was validated on). `elsewhere` {"dataset" or "data_dir": value} says
    where the data lie now, or which others to take. Returns the result's name,
    RUN-SPLIT-CHECKPOINT, and the RESULT, with "data" where they are others.
    """
    config = workdir_lib.read_config(workdir)
    description = about.read_description(workdir)
    run = run_name(config, fold)
    variables = restore(
        workdir, config, description, run=run, checkpoint=checkpoint, weights=weights
    )
    judged = split or ("test" if run == sampling.TEST else "valid")
    check_correction(config, correction, run, split=judged)
    data = _load(config, description, elsewhere or {})
    name = f"{run}-{judged}-{checkpoint}{f'-{weights}' if weights else ''}{correction.suffix}"
    same = _is_own(data, description)
    if correction.calibrate:
        _check_own(data, workdir, description)
    made = post_hoc(workdir, config, description, variables, run, correction, data)
    if same:
        indices = _of_run(config, data, run, split)
    else:
        indices = _of_others(data, description, workdir, split)
        name += f"-on-{pathlib.PurePath(data.name).name}"
    counts = about.train_counts(workdir, run)
    record = _evaluation(config, description, data, variables, indices, made, counts)
    result = metrics.result(record, description.class_names)
    if not same:
        result["data"] = {
            "name": data.name,
            "digest": data.digest,
            "trained_on": description.digest,
        }
    result["weights"] = weights_of(config, weights)
    result["post_hoc"] = as_json(made)
    return name, result


def weights_of(config: ml_collections.ConfigDict, weights: str | None) -> str:
    """Which weights `restore` takes: "ema" or "raw"."""
    return weights or ("ema" if config.ema_decay else "raw")


def as_json(made: losses.PostHoc | None) -> dict[str, float] | None:
    """What was done to the logits, as a result's "post_hoc" says it; None: nothing."""
    return None if made is None else {"tau": made.tau, "temperature": made.temperature}


def check_correction(
    config: ml_collections.ConfigDict,
    correction: corrections.Correction,
    run: str,
    split: str | None = None,
) -> None:
    """Raises CorrectionError where `correction` cannot be made for a run, or judged on `split`."""
    folds = range(1, config.num_folds + 1) if config.do_cv else ()
    names = tuple(sampling.run_name(number) for number in folds)
    correction.check(run, has_cnn=config.use_cnn, folds=names, split=split)


def own_data(
    workdir: epath.Path, config: ml_collections.ConfigDict, description: dataset.Description
) -> dataset.Dataset:
    """The data that a run was trained on; raises EvaluateError where others lie there now."""
    data = _load(config, description, {})
    _check_own(data, workdir, description)
    return data


def held_out(
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    description: dataset.Description,
    run: str,
) -> tuple[dataset.Dataset, np.ndarray]:
    """`own_data`, and the indices of the images that a run was not trained on but judged by."""
    data = own_data(workdir, config, description)
    return data, _of_run(config, data, run, None)


def _is_own(data: dataset.Dataset, description: dataset.Description) -> bool:
    return not description.digest or data.digest == description.digest


def _check_own(
    data: dataset.Dataset, workdir: epath.Path, description: dataset.Description
) -> None:
    if not _is_own(data, description):
        raise EvaluateError(
            f"{data.name} holds other images than {workdir} was trained on, so nobody knows which "
            "of them were held out: put the old ones back (a --temperature that --calibrate finds "
            "on those may be given for others)"
        )


def post_hoc(
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    description: dataset.Description,
    variables: dict[str, Any],
    run: str,
    correction: corrections.Correction,
    data: dataset.Dataset | None,
) -> losses.PostHoc | None:
    """What is to be done to the logits of a run's `variables`; None: nothing.

    `check_correction` comes before. Only calibration needs the `data`, the run's own.
    """
    if correction == corrections.NONE:
        return None
    counts = about.train_counts(workdir, run, visited=True) if correction.tau else []
    if counts is None:
        raise EvaluateError(
            f"--tau needs the training images of each class, which {workdir / 'run.json'} lacks"
        )
    temperature = correction.temperature
    if correction.calibrate:
        assert data is not None
        indices = _of_run(config, data, run, "valid")
        logits = _logits(config, description, data, variables, indices)
        temperature = calibration.fit_temperature(logits, data.labels[indices])
        logging.info("temperature %.4f, fitted on %s's validation part", temperature, run)
    return losses.PostHoc(tuple(counts), correction.tau, temperature)


def _logits(config, description, data, variables, indices: np.ndarray) -> np.ndarray:
    """The logits float [N, K] of the images at `indices`, as their loss trained them."""
    model = networks(config, description)
    loss = steps.make_recipe(config).loss
    statistics = augment.Statistics(description.mean, description.std)

    @jax.jit
    def of_batch(images):
        outputs = model.apply(variables, augment.normalize(images, statistics))
        return losses.scores(outputs.logits, loss)

    size = epochs.EVAL_BATCH_SIZE
    parts = []
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        padded = np.resize(part, size)  # repeated, so that one program serves all
        parts.append(np.asarray(of_batch(data.images[padded]))[: len(part)])
    return np.concatenate(parts)


def _load(
    config: ml_collections.ConfigDict,
    description: dataset.Description,
    elsewhere: Mapping[str, str],
) -> dataset.Dataset:
    """The data where they lie now: as given, else where they were, else as TFDS_DATA_DIR says."""
    config = config.copy_and_resolve_references()
    config.channels = description.channels
    moved = config.data_dir and not pathlib.Path(config.data_dir).expanduser().exists()
    if moved and os.environ.get("TFDS_DATA_DIR"):
        logging.info("%s is no more: looking in TFDS_DATA_DIR", config.data_dir)
        config.data_dir = ""
    config.update(elsewhere)
    config_lib.validate(config)
    return dataset.open_source(config).read()


def _of_run(
    config: ml_collections.ConfigDict, data: dataset.Dataset, run: str, split: str | None
) -> np.ndarray:
    """Indices of the images of a run's split."""
    config = config.copy_and_resolve_references()
    config.do_test = True  # a fold's model may be evaluated on the test set too
    _, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
    by_name = {one.name: one for one in splits}
    parts = {
        None: by_name[run].valid,
        "train": by_name[run].train,
        "valid": by_name[run].valid,
        "test": by_name[sampling.TEST].valid,
    }
    return parts[split]


def _of_others(
    data: dataset.Dataset, description: dataset.Description, workdir: epath.Path, split: str | None
) -> np.ndarray:
    """Indices of the images of a part of other data; raises EvaluateError unless it is named."""
    if data.class_names != description.class_names:
        raise EvaluateError(
            f"{data.name} has the classes {_few(data.class_names)}, but {workdir} was trained on "
            f"{_few(description.class_names)}: the names must agree"
        )
    if split not in ("train", "test"):
        raise EvaluateError(
            f"{data.name} holds other images than {workdir} was trained on: add --split train or "
            "--split test to evaluate on a part of them, or set config.dataset or config.data_dir "
            "to the old ones"
        )
    everything = np.arange(len(data.labels))
    return everything[: data.num_train] if split == "train" else everything[data.num_train :]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _evaluation(
    config: ml_collections.ConfigDict,
    description: dataset.Description,
    data: dataset.Dataset,
    variables: dict[str, Any],
    indices: np.ndarray,
    correction: losses.PostHoc | None,
    class_counts: Sequence[int] | None,
) -> dict[str, Any]:
    """The figures of the images at `indices`, as a record has them."""
    (mesh, *_) = devices.lanes(0).meshes
    statistics = augment.Statistics(description.mean, description.std)
    pipeline = epochs.Pipeline(data.images.shape[1:], statistics)
    place = epochs.place(data, pipeline, mesh)
    calls = epochs.evaluate(
        networks(config, description),
        devices.put(mesh, variables),
        place.data,
        place.order(indices, epochs.EVAL_BATCH_SIZE),
        joint=config.use_cnn,
        pipeline=place.pipeline,
        loss=steps.make_recipe(config).loss,
        correction=correction,
    )
    return metrics.evaluation(trainer.by_step(list(calls)), class_counts)


def write(folder: epath.Path, name: str, result: metrics.Result) -> None:
    """Writes a result, its confusion matrix and reliability diagram; raises WorkdirError."""
    with workdir_lib.writing(folder):
        workdir_lib.make_folder(folder)
    workdir_lib.write_json(folder / f"{name}.json", result)
    if result["confusion_matrix"]:
        from caecnn_jax.records import figures  # matplotlib takes a second to import

        matrix, by_class = np.asarray(result["confusion_matrix"]), result["per_class"]
        assert by_class is not None  # it follows from the matrix
        png = figures.confusion_matrix(matrix, list(by_class))
        workdir_lib.write_bytes(folder / f"{name}.png", png)
        if result["reliability"]:
            png = figures.reliability(result["reliability"])
            workdir_lib.write_bytes(folder / f"{name}-reliability.png", png)
