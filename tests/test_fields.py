"""Tests of caecnn_jax.fields; test_config and test_bad_input have more, by the config's fields."""

import ml_collections
import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax import config as config_lib
from caecnn_jax import fields


def test_a_zero_where_images_come_in_or_go_out_is_filled_and_no_other():
    assert fields.reading(3, ((0, 2, True), (0, 4, False))) == ((3, 2, True), (0, 4, False))
    assert fields.reading(3, ((1, 0, True),)) == ((1, 0, True),)
    assert fields.giving(3, ((0, 2), (4, 0))) == ((0, 2), (4, 3))
    assert fields.giving(3, ((0, 1),)) == ((0, 1),)


NAN, INF = float("nan"), float("inf")
ENCODER, DECODER = fields.blocks(int, int), fields.blocks(int, int, filled=fields.giving)
# A check, what it lets pass, what it refuses, and how it says what is allowed.
CHECKS = [
    (fields.whole(2), [2, 10**400], [1, 2.0, True, "2"], "must be a whole number, 2 or more"),
    (fields.whole(0, 5), [0, 5], [-1, 6, False], "must be a whole number from 0 to 5"),
    (fields.number(0, 180), [0, 180.0], [-0.1, 180.1, NAN, True], "must be a number from 0 to 180"),
    (
        fields.betas,
        [(0, 0.999), (0.9, 0)],
        [(0.9,), (0, 0.9, 0.9), [0, 0.9], (0, 1), (-0.1, 0), (0, NAN), (False, 0.9), 0.9],
        "must be two numbers from 0 to below 1, such as (0.0, 0.999)",
    ),
    (fields.below_one, [0, 0.999], [1, -0.1, NAN, False], "must be a number from 0 to below 1"),
    (fields.inner_share, [0.001, 0.999], [0, 1, True], "must be a number between 0 and 1"),
    (fields.mixup, [0, 0.001, 100], [0.0009, 101, -1], "must be 0, or a number from 0.001 to 100"),
    (
        fields.milestones(200),
        [(), (1,), (160, 200)],
        [(0,), (201,), (180, 160), (160, 160), [160], (160.0,), (True,), 160],
        "must be rising epochs from 1 to 200, such as (160, 180)",
    ),
    (
        fields.step_factors,
        [(), (0.01, 2)],
        [(0.1, 0), (-0.1,), (INF,), (True,), [0.1], 0.1],
        "must be numbers above 0, such as (0.01, 0.0001)",
    ),
    (
        fields.scales,
        [(0.1, 10), (1, 1)],
        [(0.09, 1), (1, 10.1), (1.2, 0.8), (1,), [1, 1]],
        "must be low and high, from 0.1 to 10, such as (0.75, 1.25)",
    ),
    (fields.one_of((0, 1, 3)), [0, 3], [2, 1.0, False, "1"], "must be one of 0, 1, 3"),
    (fields.text, ["", "a"], [None, b"a", 1], "must be a text"),
    (
        ENCODER,
        [((0, 6), (6, 4096))],
        [((3, 4097),), ((3, 0),), ((3, 6), (0, 6)), ((True, 6),), ([3, 6],), ((3, 6, True),), ()],
        "must be a tuple of blocks such as ((3, 6), (6, 12)), 1 to 4096 channels, first perhaps 0 "
        "for the image's",
    ),
    (
        DECODER,
        [((12, 6), (6, 0))],
        [((0, 3),), ((12, 0), (6, 3)), [(6, 3)]],
        "must be a tuple of blocks such as ((3, 6), (6, 12)), 1 to 4096 channels, last perhaps 0 "
        "for the image's",
    ),
]


@pytest.mark.parametrize(("check", "passing", "refused", "allowed"), CHECKS)
def test_a_check_names_the_field_its_value_and_what_is_allowed(check, passing, refused, allowed):
    for value in passing:
        assert check("a.b", value) is None
    for value in refused:
        with pytest.raises(config_lib.ConfigError) as error:
            check("a.b", value)
        assert str(error.value) == f"config.a.b={value!r}: {allowed}"


@pytest.mark.parametrize(
    ("field", "smallest", "largest"),
    [("train_data_regulation", 1, 10**9), ("train_data_expansion", 0, fields.MAX_EXTRA)],
)
def test_counts_of_classes_have_bounds_of_their_own(field, smallest, largest):
    check = config_lib.SCHEMA[field]
    check(field, {})
    check(field, {"cat": smallest, "dog": largest})
    wrong = [smallest - 1, True, np.int64(5), np.ones(2)] + [largest + 1] * ("expansion" in field)
    for count in wrong:
        with pytest.raises(
            config_lib.ConfigError, match=rf"config\.{field}\.dog=.*: must be a who"
        ):
            check(field, {"cat": smallest, "dog": count})
    with pytest.raises(config_lib.ConfigError, match=rf"{field}=\['cat'\]: must map class names"):
        check(field, ["cat"])


def test_a_name_that_is_not_known_is_told_with_the_nearest_or_with_all():
    fields.known("aug.angle", "angle", ("angle", "shift"), "is no field")
    for name, hint in (("angel", "did you mean 'angle'?"), ("x", "known are angle, shift")):
        with pytest.raises(config_lib.ConfigError) as error:
            fields.known(f"aug.{name}", name, ("angle", "shift"), "is no field")
        assert str(error.value) == f"config.aug.{name} is no field: {hint}"


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), float("nan"), float("inf"), True, "1"], ids=range(6)
)
def test_a_learning_rate_that_no_float_can_hold_is_a_config_error(value):
    values = tiny_config("cae").to_dict()
    values["cae"]["opt"]["lr"] = value
    with pytest.raises(config_lib.ConfigError, match=r"config\.cae\.opt\.lr=.*: must be a number"):
        config_lib.validate(ml_collections.ConfigDict(values))
