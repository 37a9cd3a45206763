"""Checks a config before any data is read: every field's type and range, and how fields agree."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_collections

from caecnn_jax import blocks, errors, fields

MAX_BATCH = 50_000  # images
MAX_EPOCHS = 1_000_000
DTYPES = ("float32", "bfloat16", "float64")
MATMUL_PRECISIONS = ("default", "high", "highest")
DATA_SOURCES = ("auto", "tfds", "archive", "download", "npm")
DATASET_NAMES = ("cifar10", "cifar100", "cifar100:coarse")  # beside tfds:NAME
FITS = ("crop", "pad", "stretch")
IMBALANCES = ("none", "exp", "step")
SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
SCHEDULES = ("constant", "cosine", "step")


ConfigError = errors.ConfigError  # what `validate` raises


class Free(NamedTuple):
    """A field that may differ when a run goes on: it changes nothing of what was trained so far."""

    check: Callable


_OPT = {
    "name": fields.one_of(("adam", "adamw", "sgd")),
    "lr": fields.rate,
    "betas": fields.betas,
    "momentum": fields.below_one,
    "nesterov": fields.flag,
    "weight_decay": fields.number(0, 1e3),
    "clip_norm": fields.number(0, 1e9),
}
_LOSS = {
    "name": fields.one_of(("cross_entropy", "focal", "ldam")),
    "class_weights": fields.one_of(("none", "inverse", "effective")),
    "effective_beta": fields.inner_share,
    "focal_gamma": fields.number(0, 100),
    "ldam_margin": fields.number(0, 1),
    "ldam_scale": fields.number(1, 1000),
    "label_smoothing": fields.below_one,
    "deferred_until": fields.whole(0, MAX_EPOCHS),
    "logit_adjustment": fields.number(0, 10),
}
# What each field must be by itself, and whether it is free; how they agree is checked below.
SCHEMA = {
    "use_cnn": fields.flag,
    "use_cae": fields.flag,
    "only_train_cae_until": fields.whole(0, MAX_EPOCHS),
    "train_data_regulation": fields.by_class(fields.whole(1)),
    "train_data_expansion": fields.by_class(fields.extra_images),
    "imbalance": {"type": fields.one_of(IMBALANCES), "factor": fields.number(1, 1e6)},
    "expand_for_test": fields.flag,
    "is_local": fields.flag,
    "use_aug": fields.flag,
    "aug": {
        "max_angle": fields.number(0, 180),
        "scale_range": fields.scales,
        "flip_probability": fields.number(0, 1),
        "max_shift": fields.whole(0, blocks.MAX_IMAGE_SIZE // 2),
        "hole_probability": fields.number(0, 1),
    },
    "cnn": {
        "use_mixed_input": fields.flag,
        "input_resolution": fields.whole(0),
        "block_sizes": fields.blocks(int, int, bool),
        "opt": _OPT,
        "head": fields.one_of(("linear", "cosine")),
        "loss": _LOSS,
    },
    "cae": {
        "enc_block_sizes": fields.blocks(int, int),
        "dec_block_sizes": fields.blocks(int, int, filled=fields.giving),
        "opt": _OPT,
        "loss_weight": fields.number(0, 1e6),
    },
    "do_cv": fields.flag,
    "do_test": fields.flag,
    "num_folds": fields.whole(2),
    "run_folds": fields.whole(0),
    "num_epoch": fields.whole(1),
    "image_budget": fields.whole(0, 10**12),
    "cv_early_stopping": fields.flag,
    "test_early_stopping": fields.flag,
    "lr_schedule": fields.one_of(SCHEDULES),
    "lr_ramp_epochs": fields.whole(0, MAX_EPOCHS),
    "lr_milestones": fields.milestones(MAX_EPOCHS),
    "lr_factors": fields.step_factors,
    "balanced_batches_from": fields.whole(0, MAX_EPOCHS),
    "mixup_alpha": fields.mixup,
    "refine_epochs": fields.whole(0, MAX_EPOCHS),
    "ema_decay": fields.below_one,
    "selection_metric": fields.one_of(SELECTION_METRICS),
    "batch_size": fields.whole(1, MAX_BATCH),
    "save_img_per_epoch": Free(fields.whole(0)),
    "seed": fields.whole(0, 2**32 - 1),
    "dtype": fields.one_of(DTYPES),
    "matmul_precision": fields.one_of(MATMUL_PRECISIONS),
    "dataset": Free(fields.path),  # of paths a digest decides whether these are the same images
    "image_size": fields.whole(1, blocks.MAX_IMAGE_SIZE),
    "fit": fields.one_of(FITS),
    "channels": fields.one_of((0, 1, 3)),
    "test_share": fields.number(0.001, 0.9),
    "data_source": Free(fields.one_of(DATA_SOURCES)),
    "data_dir": Free(fields.text),
    "steps_per_call": Free(fields.whole(0, 1_000_000)),
    "devices_per_run": Free(fields.whole(0)),
    "keep_checkpoints": Free(fields.whole(1)),
}


def validate(config: ml_collections.ConfigDict) -> None:
    """Returns None, or raises ConfigError naming the first field that cannot be run."""
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"a config must be a ConfigDict, not {type(config).__name__}")
    check_schema(config.to_dict())
    _check_parts(config)
    _check_optimization(config)
    if config.use_cnn:
        _check_loss(config)
    blocks.resolved(config, blocks.image_channels(config))


def check_schema(values: Mapping[str, Any]) -> None:
    """Raises ConfigError where a field is missing, unknown, or by itself cannot be."""
    _check_group(SCHEMA, values, "")


def _check_group(schema: dict, values, prefix: str) -> None:
    is_group = isinstance(values, dict)
    fields.require(is_group, prefix.rstrip("."), values, "must be a group of fields")
    for name in values:
        fields.known(f"{prefix}{name}", name, tuple(schema), "is no field of the config")
    for name, kind in schema.items():
        if name not in values:
            raise ConfigError(f"config.{prefix}{name} is missing (configs/default.py has it)")
        if isinstance(kind, dict):
            _check_group(kind, values[name], f"{prefix}{name}.")
        else:
            check = kind.check if isinstance(kind, Free) else kind
            check(f"{prefix}{name}", values[name])


def _check_parts(config) -> None:
    if not (config.use_cnn or config.use_cae):
        raise ConfigError(
            "config.use_cnn=False and config.use_cae=False leave nothing to train: set one to True"
        )
    if not (config.do_cv or config.do_test):
        raise ConfigError(
            "config.do_cv=False and config.do_test=False leave nothing to run: set one to True"
        )
    fields.whole(0, config.image_size // 2)("aug.max_shift", config.aug.max_shift)
    fields.whole(0, config.num_folds)("run_folds", config.run_folds)
    fields.require(
        config.num_epoch <= MAX_EPOCHS, "num_epoch", config.num_epoch, f"at most {MAX_EPOCHS}"
    )
    if config.only_train_cae_until and not config.use_cae:
        raise ConfigError(
            f"config.only_train_cae_until={config.only_train_cae_until}: warm-up trains the CAE "
            "alone, so it must be 0 unless config.use_cae=True"
        )
    if config.use_cae and not config.cae.loss_weight:
        fields.require(
            config.use_cnn and not config.only_train_cae_until,
            "cae.loss_weight",
            config.cae.loss_weight,
            "leaves the CAE alone, or warm-up, without a loss: must be above 0",
        )


def _check_optimization(config) -> None:
    """How the fields of optimizers and schedule agree."""
    for part in ("cae", "cnn"):
        opt = config[part].opt
        field = f"{part}.opt.nesterov"
        ok = not opt.nesterov or (opt.name == "sgd" and opt.momentum)
        fields.require(
            ok, field, opt.nesterov, f"needs config.{part}.opt.name='sgd' and momentum above 0"
        )
        field = f"{part}.opt.momentum"
        ok = not opt.momentum or opt.name == "sgd"
        fields.require(
            ok, field, opt.momentum, f"is sgd's: {opt.name} has betas, set momentum to 0"
        )
    milestones = config.lr_milestones
    stepwise = config.lr_schedule == "step"
    fields.require(
        bool(milestones) == stepwise and (not milestones or milestones[0] > config.lr_ramp_epochs),
        "lr_milestones",
        milestones,
        "must be epochs after lr_ramp_epochs with lr_schedule='step', and () without",
    )
    fields.require(
        len(config.lr_factors) == len(milestones),
        "lr_factors",
        config.lr_factors,
        f"must be as many as config.lr_milestones, {len(milestones)}",
    )


def _check_loss(config) -> None:
    """How the CNN's loss and what else corrects for rare classes agree."""
    loss = config.cnn.loss
    fields.require(
        loss.name != "ldam" or config.cnn.head == "cosine",
        "cnn.head",
        config.cnn.head,
        'config.cnn.loss.name="ldam" takes its margins from cosines: must be "cosine"',
    )
    fields.require(
        not loss.label_smoothing or loss.name == "cross_entropy",
        "cnn.loss.label_smoothing",
        loss.label_smoothing,
        f"goes with config.cnn.loss.name='cross_entropy' only, not {loss.name!r}: set it to 0",
    )
    fields.require(
        not loss.deferred_until or loss.class_weights != "none",
        "cnn.loss.deferred_until",
        loss.deferred_until,
        "defers class weights, but config.cnn.loss.class_weights is 'none'",
    )
    fields.require(
        not config.balanced_batches_from or len(corrected_by(config)) == 1,
        "balanced_batches_from",
        config.balanced_batches_from,
        "draws every class as often, so that class_weights and logit_adjustment would correct a "
        "second time: leave one out",
    )


def corrected_by(config: ml_collections.ConfigDict) -> list[str]:
    """The fields by which training corrects for the prior of classes that an epoch visits."""
    found = {
        "cnn.loss.class_weights": config.cnn.loss.class_weights != "none",
        "cnn.loss.logit_adjustment": config.cnn.loss.logit_adjustment,
        "balanced_batches_from": config.balanced_batches_from,
    }
    return [name for name, used in found.items() if used]


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"cnn": {"opt": {"lr": 1}}} as {"cnn.opt.lr": 1}; an empty group stays as it is."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def warmup_epochs(config: ml_collections.ConfigDict) -> int:
    """The first epochs, in which the CAE trains alone; 0 where there is no CNN to wait for it."""
    return config.only_train_cae_until if config.use_cae and config.use_cnn else 0


def is_path(dataset: str) -> bool:
    """Whether config.dataset is a path, not the name of a data set."""
    return dataset not in DATASET_NAMES and not dataset.startswith("tfds:")


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flattened fields of a config that decide what is trained: all but those that are free."""
    free = _free_fields()
    return {name: value for name, value in flatten(config).items() if name not in free}


def _free_fields() -> set[str]:
    return {name for name, check in flatten(SCHEMA).items() if isinstance(check, Free)}


def differences(saved: ml_collections.ConfigDict, given: ml_collections.ConfigDict) -> list[str]:
    """What keeps a run of the config `saved` from going on under `given`, a sentence a field.

    More epochs are no obstacle at a constant learning rate and without refinement; a falling rate
    would have fallen more slowly, and the last epochs would not have been the last.
    """
    old, new = flatten(saved.to_dict()), flatten(given.to_dict())
    free = _free_fields()
    # With a budget fewer than four epochs have no ramp, which more would have had.
    ramp_differs = saved.image_budget and saved.lr_ramp_epochs and saved.num_epoch < 4
    longer = given.num_epoch > saved.num_epoch
    depends = saved.lr_schedule != "constant" or saved.refine_epochs
    if longer and not depends and not ramp_differs:
        free.add("num_epoch")
    if not (is_path(saved.dataset) and is_path(given.dataset)):
        free.remove("dataset")  # a name means the same images anywhere
    # A table of classes that is empty is a field of that name, else each class is one.
    return [
        f"config.{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if name not in free and old.get(name, {}) != new.get(name, {})
    ]
