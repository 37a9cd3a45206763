"""Tests of caecnn_jax.config; test_bad_input has the table of what it refuses."""

import json

import ml_collections
import pytest
from builders import KINDS, tiny_config

from caecnn_jax import config as config_lib
from caecnn_jax import saved_config
from configs import mixed


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_config_validates(kind):
    assert config_lib.validate(tiny_config(kind)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "float64"},
        {"dtype": "bfloat16"},
        {"only_train_cae_until": 0},
        {"save_img_per_epoch": 0},
        {"seed": 2**32 - 1},
        {"batch_size": 1},
        {"do_cv": False},
        {"do_test": False},
        {"train_data_regulation": {"all": 2, "cat": 5000}},
        {"train_data_expansion": {"all": 0}},
        {"train_data_expansion": {"all": "largest", "cat": 3}},
        {"dataset": "~/my photos", "fit": "pad", "test_share": 0.5, "channels": 3},
        {"imbalance.type": "exp", "imbalance.factor": 1},
        {"aug.max_angle": 0, "aug.scale_range": (1, 1), "aug.max_shift": 16},
        {"aug.hole_probability": 1},
        {"lr_schedule": "cosine", "lr_ramp_epochs": 1_000_000},
        {"num_epoch": 1_000_000},
        {"cae.loss_weight": 0, "cnn.loss.logit_adjustment": 0, "only_train_cae_until": 0},
    ],
)
def test_the_ends_of_what_is_allowed_are_allowed(changes):
    config = tiny_config("mixed")
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    config_lib.validate(config)


def test_fields_of_a_part_that_is_not_trained_need_not_connect():
    config = tiny_config("cnn")
    config.cae.enc_block_sizes = ((7, 8),)
    config_lib.validate(config)
    config.use_cae = True
    with pytest.raises(config_lib.ConfigError, match="block 1 takes 7 channels"):
        config_lib.validate(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 0, "must be a whole number from 1 to 1024"),
        ("image_size", 1025, "must be a whole number from 1 to 1024"),
        ("channels", 2, "must be one of 0, 1, 3"),
        ("channels", True, "must be one of 0, 1, 3"),
        ("cnn.block_sizes", ((3, 4, True), (0, 6, True)), "first perhaps 0 for the image's"),
        ("cnn.block_sizes", ((0, 0, True),), "first perhaps 0 for the image's"),
        ("cae.dec_block_sizes", ((0, 3),), "last perhaps 0 for the image's"),
        ("cnn.loss.name", "ldam", 'cnn.head=.*takes its margins from cosines: must be "cosine"'),
    ],
)
def test_what_own_images_cannot_be_is_said(field, value, message):
    config = tiny_config("mixed")
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(config_lib.ConfigError, match=message):
        config_lib.validate(config)


def test_a_config_survives_json():
    config = tiny_config("mixed")
    back = saved_config.from_text(saved_config.to_text(config))
    assert back == config
    assert back.cnn.block_sizes == ((3, 4, True), (6, 6, True))  # tuples, not lists


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON .*: restore it, or train again in another --workdir"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "holds no fields: restore it"),
        ("{}", "config.use_cnn is missing"),
        ('{"use_cnn": 1}', "config.use_cnn=1: must be True or False"),
        ('{"items": 1}', "config.items is no field"),
        ('{"a.b": 1}', r"config\.a\.b is no field"),
    ],
)
def test_a_saved_config_that_is_damaged_is_a_config_error(text, message):
    with pytest.raises(config_lib.ConfigError, match=message):
        saved_config.from_text(text)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("aug.max_angle", -1.0, "must be a number from 0 to 180"),
        ("aug.max_angle", float("nan"), "must be a number from 0 to 180"),
        ("aug.scale_range", (1.2, 0.8), "must be low and high"),
        ("aug.scale_range", (0.0, 1.0), "must be low and high"),
        ("aug.scale_range", 1.0, "must be low and high"),
        ("aug.max_shift", 2.5, "must be a whole number"),
        ("aug.max_shift", 17, "must be a whole number from 0 to 16"),
        ("aug.hole_probability", 1.1, "must be a number from 0 to 1"),
        ("lr_schedule", "linear", "must be one of constant, cosine"),
        ("lr_ramp_epochs", -1, "must be a whole number from 0 to 1000000"),
        ("num_epoch", 10**400, "at most 1000000"),
        ("image_budget", 10**400, "must be a whole number from 0 to 1000000000000"),
        ("steps_per_call", 10**400, "must be a whole number from 0 to 1000000"),
        ("lr_milestones", (10**400,), "must be rising epochs from 1 to 1000000"),
        ("mixup_alpha", 1e-38, "must be 0, or a number from 0.001 to 100"),
        ("cae.loss_weight", 0, "leaves the CAE alone, or warm-up, without a loss"),
        ("cae.loss_weight", -0.1, "must be a number from 0 to 1e"),
        ("cnn.loss.logit_adjustment", 10.5, "must be a number from 0 to 10"),
    ],
)
def test_settings_out_of_range_are_named_with_what_is_allowed(field, value, allowed):
    config = tiny_config("mixed")
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(config_lib.ConfigError, match=rf"config\.{field}=.*: {allowed}"):
        config_lib.validate(config)


@pytest.mark.parametrize("value", [None, 3, {}, "mixed"])
def test_only_a_config_dict_is_a_config(value):
    with pytest.raises(config_lib.ConfigError, match="must be a ConfigDict, not"):
        config_lib.validate(value)


def test_a_missing_field_is_named():
    fields = tiny_config("cnn").to_dict()
    del fields["cnn"]["opt"]["lr"]
    with pytest.raises(config_lib.ConfigError, match=r"config\.cnn\.opt\.lr is missing"):
        config_lib.validate(ml_collections.ConfigDict(fields))


def test_the_schema_has_the_fields_of_the_defaults():
    def names(tree):
        return {key: names(value) for key, value in tree.items() if isinstance(value, dict)} | {
            key: None for key, value in tree.items() if not isinstance(value, dict)
        }

    fields = tiny_config("cnn").to_dict()
    fields["train_data_regulation"] = fields["train_data_expansion"] = None
    assert names(config_lib.SCHEMA) == names(fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": ""}, "dataset='': must be cifar10, cifar100, tfds:NAME or a path"),
        ({"image_size": 0}, "image_size=0: must be a whole number from 1"),
        ({"fit": "wide"}, "fit='wide': must be one of crop, pad, stretch"),
        ({"channels": 2}, "channels=2: must be one of 0, 1, 3"),
        ({"channels": True}, "channels=True: must be one of 0, 1, 3"),
        ({"test_share": 1.0}, "test_share=1.0: must be a number from"),
        ({"imbalance.type": "long"}, "imbalance.type='long': must be one of none, exp, step"),
        ({"imbalance.factor": 0.5}, "imbalance.factor=0.5: must be a number from 1"),
        ({"train_data_expansion": {"cat": "most"}}, "expansion.cat='most': must be a whole number"),
        ({"train_data_expansion": {"cat": 7.5}}, "cat=7.5: must be .* 100000, or 'largest'"),
        (
            {"train_data_regulation": {"cat": "largest"}},
            "regulation.cat='largest': must be a whol",
        ),
    ],
)
def test_what_no_data_set_could_be_is_refused(changes, message):
    config = tiny_config()
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    with pytest.raises(config_lib.ConfigError, match=message):
        config_lib.validate(config)


def test_a_saved_config_without_fields_that_came_later_means_what_it_did():
    fields = json.loads(saved_config.to_text(mixed.get_config()))
    del fields["cv_early_stopping"], fields["refine_epochs"]
    assert saved_config.from_text(json.dumps(fields)) == mixed.get_config()


def test_a_class_that_joins_an_empty_table_is_one_difference():
    saved, given = (tiny_config("cnn", train_data_expansion={}) for _ in range(2))
    given.train_data_expansion.cat = 3
    said = ["config.train_data_expansion.cat was None and is 3"]
    assert config_lib.differences(saved, given) == said
