"""Evaluation of a trained run, rebuilt from its own config.json and checkpoints."""

from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath

from caecnn_jax import errors
from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.networks import models
from caecnn_jax.records import checkpoints, figures
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import metrics
from caecnn_jax.training import steps
from caecnn_jax.training.group import Group

SPLITS = ("train", "valid", "test")


class EvaluateError(errors.UserError):
    """A fold, split or checkpoint that the run does not have."""


def run_name(config: ml_collections.ConfigDict, fold: str | None) -> str:
    """The run that --fold names by number or "test"; None: the test run if there is one, else 1."""
    fold = fold or ("test" if config.do_test else "1")
    return f"fold_{fold}" if fold.isdigit() else fold


def restore(
    workdir: epath.Path, config: ml_collections.ConfigDict, run: str, which: str
) -> dict[str, Any]:
    """The variables {"params", "batch_stats"} of a run's checkpoint, as host arrays.

    `run` is "fold_1", ... or "test"; `which` is "last", "best" or an epoch's number. Raises
    EvaluateError or CheckpointError when there is no such checkpoint, or it is damaged.
    """
    if not (workdir / run).exists():
        raise EvaluateError(f"{workdir} holds no run {run!r}: choose another --fold")
    saved = checkpoints.Checkpoints(workdir / run, read_only=True)
    epochs = [str(step) for step in saved.steps()]
    if not epochs:
        raise EvaluateError(f"{workdir / run} holds no checkpoint yet: train the run first")
    if which not in ("last", "best", *epochs):
        raise EvaluateError(
            f"--checkpoint={which}: {workdir / run} has last, best and {', '.join(epochs)}"
        )
    epoch = int(epochs[-1] if which in ("last", "best") else which)
    if which == "best":
        records = saved.restore(epoch, {}).progress["records"]
        epoch = records[metrics.best_epoch(records)]["epoch"]
    with jax.enable_x64(config.dtype == "float64"):  # else the shapes would be those of float32
        template = jax.eval_shape(
            lambda key: steps.create_state(models.from_config(config), config, key).variables,
            jax.random.key(0),
        )
    return saved.restore(epoch, {"variables": template}).arrays["variables"]


def state_of(config: ml_collections.ConfigDict, variables: dict[str, Any]) -> steps.TrainState:
    """A state to evaluate with."""
    return steps.create_state(models.from_config(config), config, jax.random.key(0), variables)


def autoencode(
    config: ml_collections.ConfigDict, variables: dict[str, Any], images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The CAE's codes float [N, h, w, C] and reconstructions uint8 of images uint8 [N, H, W, 3]."""
    batch = {"image": augment.normalize(images)}
    outputs = steps.eval_step(state_of(config, variables), batch, joint=False)
    return np.asarray(outputs.code), np.asarray(augment.denormalize(outputs.reconstruction))


def evaluate(
    workdir: epath.Path, fold: str | None = None, split: str | None = None, checkpoint: str = "last"
) -> tuple[str, dict]:
    """Evaluates a run's checkpoint and writes evaluations/RUN-SPLIT-CHECKPOINT.json and .png.

    `fold` is a number or "test" (None: the test run if there is one, else fold 1), `split` one of
    SPLITS (None: what the run was validated on). Returns the files' stem and the result.
    """
    config = workdir_lib.read_config(workdir)
    data = dataset.load(config)
    name = run_name(config, fold)
    variables = restore(workdir, config, name, checkpoint)
    config.do_test = True  # a fold's model may be evaluated on the test set too
    _, runs = sampling.splits(config, data.labels, data.num_train, data.class_names)
    by_name = {run.name: run for run in runs}
    run, split = by_name[name], split or ("test" if name == "test" else "valid")
    indices = {"train": run.train, "valid": run.valid, "test": by_name["test"].valid}[split]

    group = Group(config, [run._replace(valid=indices)], data)
    group.put_state([group.new_arrays()[0] | {"variables": variables}])
    by_step = group.get_metrics(list(group.evaluate(joint=config.use_cnn)))[0]
    result = metrics.result(metrics.evaluation(by_step), data.class_names)
    stem = f"{name}-{split}-{checkpoint}"
    folder = workdir / "evaluations"
    folder.mkdir(exist_ok=True)
    workdir_lib.write_json(folder / f"{stem}.json", result)
    if result["confusion_matrix"]:
        png = figures.confusion_matrix(np.asarray(result["confusion_matrix"]), data.class_names)
        workdir_lib.write_bytes(folder / f"{stem}.png", png)
    return stem, result
