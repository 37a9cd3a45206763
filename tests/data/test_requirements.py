"""Tests of caecnn_jax.data.requirements: configs that do not agree with their data."""

import pytest

from caecnn_jax import config as config_lib
from caecnn_jax.data import requirements
from configs import default

NAMES = ("ant", "bee", "cat")
TRAIN, TEST = (100, 40, 8), (10, 4, 2)


def config_of(**changes):
    config = default.get_config()
    config.train_data_regulation = {}
    config.update(changes)
    return config


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train_data_regulation": {"ant": 100, "cat": 5}},
        {"train_data_regulation": {"all": 8}},
        {"train_data_regulation": {"all": 40, "cat": 8}},
        {"train_data_expansion": {"all": "largest", "bee": 3}},
        {"num_folds": 8},
        {"num_folds": 99, "do_cv": False},
        {"is_local": True},
        {"imbalance": {"type": "exp", "factor": 20.0}},
    ],
)
def test_what_the_data_allow_is_allowed(changes):
    assert requirements.check(config_of(**changes), NAMES, TRAIN, TEST) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data_regulation": {"cta": 5}}, "regulation.cta is no class of the data: .*'cat'"),
        (
            {"train_data_expansion": {"xyz": 5}},
            r"known are ant, b.*; --config.*expansion=\{\} names",
        ),
        ({"train_data_regulation": {"bee": 41}}, "bee=41: class 'bee' has only 40 training images"),
        ({"train_data_regulation": {"all": 9}}, "all=9: class 'cat' has only 8 training images"),
        (
            {"train_data_regulation": {"bee": 4}},
            "bee=4: leaves 4 images .* fewer than the 5 nee",
        ),
        ({"num_folds": 9}, "num_folds=9: must be at most 8, the training images of class 'cat': l"),
        (
            {"imbalance": {"type": "exp", "factor": 50.0}},
            "num_folds=5: must be at most 2, .* of class 'cat' after config.imbalance",
        ),
        (
            {"imbalance": {"type": "exp", "factor": 200.0}, "do_cv": False},
            "imbalance.factor=200.0: leaves no 'cat'",
        ),
    ],
)
def test_what_the_data_do_not_allow_is_a_config_error(changes, message):
    with pytest.raises(config_lib.ConfigError, match=message):
        requirements.check(config_of(**changes), NAMES, TRAIN, TEST)


def test_a_class_may_be_called_all_and_is_checked_as_the_others_are():
    config = config_of(train_data_regulation={"all": 9})
    requirements.check(config, ("all", "bee"), (9, 20), (1, 1))
    with pytest.raises(config_lib.ConfigError, match="all=9: class 'all' has only 8"):
        requirements.check(config, ("all", "bee"), (8, 20), (1, 1))


def test_a_test_run_needs_test_images():
    with pytest.raises(config_lib.ConfigError, match="do_test=True: the data have no test images"):
        requirements.check(config_of(), NAMES, TRAIN, (0, 0, 0))
    requirements.check(config_of(do_test=False), NAMES, TRAIN, (0, 0, 0))
