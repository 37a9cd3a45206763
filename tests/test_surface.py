"""The functions that other programs call: their parameters' names and defaults stay."""

import inspect

import pytest

from caecnn_jax import config
from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.networks import losses, models, torch_weights
from caecnn_jax.results import metrics, predict, statistics
from caecnn_jax.training import steps, train

SURFACE = [
    (config.validate, ("config",), {}),
    (models.from_config, ("config",), {}),
    (steps.create_state, ("model", "config", "key"), {"variables": None}),
    (steps.train_step, ("state", "batch"), {"joint": True}),
    (steps.eval_step, ("state", "batch"), {}),
    (torch_weights.from_torch, ("state_dict", "config"), {}),
    (torch_weights.to_torch, ("variables", "config"), {}),
    (augment.affine, ("images", "angle_degrees", "scale"), {"plain": None}),
    (sampling.regulate, ("labels", "counts", "class_names", "seed"), {}),
    (sampling.imbalance, ("labels", "type", "factor"), {}),
    (sampling.folds, ("labels", "num_folds", "seed"), {}),
    (sampling.expand, ("train_indices", "labels", "extra", "class_names", "seed"), {}),
    (dataset.load, ("config",), {}),
    (losses.classification, ("logits", "labels", "class_counts", "loss"), {"joint_epoch": 1}),
    (metrics.calibration_error, ("probabilities", "labels"), {"bins": 15}),
    (
        statistics.fold_interval,
        ("differences", "test_share_over_train_share"),
        {"confidence": 0.95},
    ),
    (train.should_stop, ("scores", "window", "higher_is_better"), {}),
    (predict.load, ("workdir",), {"fold": None, "checkpoint": "last"}),
]


@pytest.mark.parametrize(("function", "needed", "defaults"), SURFACE)
def test_parameters_keep_their_names(function, needed, defaults):
    parameters = inspect.signature(function).parameters
    required = [name for name, one in parameters.items() if one.default is one.empty]
    assert tuple(parameters)[: len(needed)] == needed and required == list(needed)
    assert {name: parameters[name].default for name in defaults} == defaults
