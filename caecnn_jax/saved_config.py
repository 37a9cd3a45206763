"""A run's config.json: written with the number of its format, read whatever version wrote it."""

import json
from typing import Any

import ml_collections

from caecnn_jax import config as config_lib
from caecnn_jax import errors

FORMAT = 2  # what an earlier one holds is read by `_upgraded`
_ADDED_TO_FORMAT_2: dict[str, Any] = {"cv_early_stopping": True, "refine_epochs": 0}

_REMEDY = "restore it, or train again in another --workdir"


def to_text(config: ml_collections.ConfigDict) -> str:
    """The config as readable JSON text with its format's number; `from_text` reads it back."""
    return json.dumps({"format": FORMAT} | config.to_dict(), indent=2) + "\n"


def from_text(text: str) -> ml_collections.ConfigDict:
    """The validated config that `to_text` wrote, now or in an earlier version of the program.

    Raises ConfigError if it is anything else.
    """
    try:
        fields = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise errors.ConfigError(f"the saved config is no JSON ({error}): {_REMEDY}") from error
    if not isinstance(fields, dict):
        raise errors.ConfigError(f"the saved config holds no fields: {_REMEDY}")
    fields = _upgraded(as_tuples(fields))
    config_lib.check_schema(fields)  # before a ConfigDict refuses names in its own words
    config = ml_collections.ConfigDict(fields, allow_dotted_keys=True)  # as "E. coli"
    config_lib.validate(config)
    return config


# What format 1 did where it had no field for it, and what it had and nothing has now.
_OPT_OF_FORMAT_1 = {
    "name": "adam",
    "momentum": 0.0,
    "nesterov": False,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}
_LOSS_OF_FORMAT_1 = {
    "name": "cross_entropy",
    "class_weights": "none",
    "effective_beta": 0.9999,
    "focal_gamma": 1.0,
    "ldam_margin": 0.5,
    "ldam_scale": 30.0,
    "label_smoothing": 0.0,
    "deferred_until": 0,
    "logit_adjustment": 0.0,
}
_MEANT_BY_FORMAT_1: dict[str, Any] = {
    "dataset": "cifar10",
    "image_size": 32,
    "fit": "stretch",
    "channels": 3,
    "test_share": 0.2,
    "imbalance": {"type": "none", "factor": 100.0},
    "aug": {"flip_probability": 0.5},
    "run_folds": 0,
    "image_budget": 0,
    "matmul_precision": "default",
    "devices_per_run": 0,
    "cnn": {"opt": _OPT_OF_FORMAT_1, "head": "linear", "loss": _LOSS_OF_FORMAT_1},
    "cae": {"opt": _OPT_OF_FORMAT_1},
    "lr_milestones": (),
    "lr_factors": (),
    "balanced_batches_from": 0,
    "mixup_alpha": 0.0,
    "ema_decay": 0.0,
    "selection_metric": "accuracy",
}
_GONE_SINCE_FORMAT_1 = ("folds_side_by_side",)


def _upgraded(fields: dict) -> dict:
    """The fields of a saved config in today's format, which the result no longer names."""
    number = fields.get("format", 1)
    if number not in range(1, FORMAT + 1):
        raise errors.ConfigError(
            f"the saved config is of format {number!r}, which this version cannot read: use the "
            "version of the program that wrote it, or a later one"
        )
    gone = ("format", *(_GONE_SINCE_FORMAT_1 if number == 1 else ()))
    fields = {name: value for name, value in fields.items() if name not in gone}
    if number == 1:
        fields = merged(_MEANT_BY_FORMAT_1, _moved(fields))
    return merged(_ADDED_TO_FORMAT_2, fields)


def _moved(fields: dict) -> dict:
    """Format 1's fields, those that have another place now in it."""
    cnn = fields.get("cnn")
    if not isinstance(cnn, dict) or "logit_adjustment" not in cnn:
        return fields
    cnn = {**cnn, "loss": {"logit_adjustment": cnn["logit_adjustment"]}}
    del cnn["logit_adjustment"]
    return {**fields, "cnn": cnn}


def merged(old: dict, new: dict) -> dict:
    """`old` with the fields of `new`, which replace it but where both are groups of fields."""
    both = {
        name: merged(old[name], value)
        for name, value in new.items()
        if isinstance(value, dict) and isinstance(old.get(name), dict)
    }
    return old | new | both


def as_tuples(value):
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
