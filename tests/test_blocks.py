"""Tests of caecnn_jax.blocks; test_bad_input has more of what does not connect."""

import pytest
from builders import KINDS, tiny_config

from caecnn_jax import blocks as blocks_lib
from caecnn_jax import config as config_lib


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_the_code_halves_with_each_encoder_block(blocks):
    config = tiny_config("cae")
    config.cae.enc_block_sizes = ((3, 4), *[(4, 4)] * (blocks - 1))
    config.cae.dec_block_sizes = (*[(4, 4)] * (blocks - 1), (4, 3))
    config_lib.validate(config)
    assert blocks_lib.code_resolution(config) == 32 // 2**blocks


OPEN = {
    "cae.enc_block_sizes": ((0, 2),),
    "cae.dec_block_sizes": ((2, 0),),
    "cnn.input_resolution": 0,
}
ALL_OPEN = {
    "cae": OPEN,
    "cnn": OPEN | {"cnn.block_sizes": ((0, 4, True), (4, 6, True))},
    "code": OPEN | {"cnn.block_sizes": ((0, 4, False), (4, 6, True))},
    "mixed": OPEN | {"cnn.block_sizes": ((0, 4, True), (6, 6, True))},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 3), (4, 0), (1024, 0)])
def test_zeros_stand_for_what_is_read(kind, size, channels):
    config = tiny_config(kind, dataset="/photos", image_size=size, channels=channels)
    config.aug.max_shift = 0
    config.update_from_flattened_dict(ALL_OPEN[kind])
    config_lib.validate(config)
    assert blocks_lib.image_channels(config) == channels  # 0: the data decide
    blocks = blocks_lib.resolved(config, channels or 1)
    assert blocks.encoder == ((channels or 1, 2),)
    assert blocks.decoder == ((2, channels or 1),)
    if kind != "cae":
        assert blocks.cnn[0][0] == (2 if kind == "code" else channels or 1)
        assert blocks.input_resolution == (size // 2 if kind == "code" else size)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"dataset": "cifar10"}, 3),
        ({"dataset": "cifar10", "channels": 1}, 1),
        ({"dataset": "/photos"}, 3),  # the tiny config's blocks say 3
        ({"dataset": "/photos", "channels": 1}, 1),
        ({"dataset": "/photos", "cae.enc_block_sizes": ((1, 2),)}, 1),
        ({"dataset": "/photos", "cae.enc_block_sizes": ((0, 2),)}, 3),
        ({"dataset": "/photos"} | ALL_OPEN["mixed"], 0),
        ({"dataset": "/photos"} | ALL_OPEN["mixed"] | {"cae.dec_block_sizes": ((2, 1),)}, 1),
        ({"dataset": "/photos"} | OPEN, 3),  # the CNN's blocks say 3
        ({"dataset": "/photos"} | OPEN | {"cnn.use_mixed_input": False}, 0),  # ... of the code
        ({"dataset": "/photos", "cae.enc_block_sizes": ((5, 2),)}, 3),  # no image has 5
    ],
)
def test_the_channels_that_a_config_tells(changes, wanted):
    config = tiny_config("mixed")
    config.update_from_flattened_dict(changes)
    assert blocks_lib.image_channels(config) == wanted


def test_blocks_that_do_not_chain_are_told_with_both_counts():
    config = tiny_config("mixed", cnn={"block_sizes": ((3, 4, True), (6, 6, True), (7, 8, False))})
    third = r"config\.cnn\.block_sizes=.*: block 3 takes 7 channels, but block 2's output has 6$"
    with pytest.raises(config_lib.ConfigError, match=third):
        blocks_lib.resolved(config, 3)
    with pytest.raises(config_lib.ConfigError, match=r"has 1; 0 stands for the image's$"):
        blocks_lib.resolved(config, 1)
    config = tiny_config("cnn", cnn={"block_sizes": ((3, 4, True), (5, 6, True))})
    with pytest.raises(config_lib.ConfigError, match=r"block 2 takes 5 .*, but block 1's .* 4$"):
        blocks_lib.resolved(config, 3)


FOUR = {
    "cae.enc_block_sizes": ((3, 2), (2, 2)),
    "cae.dec_block_sizes": ((2, 2), (2, 3)),
    "cnn.input_resolution": 0,
}


@pytest.mark.parametrize(
    ("kind", "size", "changes", "message"),
    [
        ("cae", 31, {}, "1 block halves the 31 pixels too often.*image_size=30 or 32 would do"),
        ("cae", 30, FOUR, "2 blocks halve the 30 .*most 1 are.*image_size=28 or 32 would do"),
        ("cae", 3, FOUR, "image_size=4 would do"),
        ("cnn", 30, {}, "block 2 cannot pool 15x15 pixels.*image_size=28 or 32 would do"),
        ("mixed", 30, {}, "block 2 cannot pool 15x15 pixels.*image_size=28 or 32 would do"),
        # The encoder halves, and then the CNN once more what it reads.
        ("code", 30, {}, "block 2 cannot pool 15x15 pixels.*image_size=28 or 32 would do"),
        ("code", 28, FOUR, "block 2 cannot pool 7x7 pixels.*image_size=24 or 32 would do"),
        ("code", 1023, FOUR, "2 blocks halve the 1023 pixels.*image_size=1016 or 1024 would do"),
    ],
)
def test_a_size_that_cannot_be_halved_is_told_with_those_that_can(kind, size, changes, message):
    config = tiny_config(kind, image_size=size)
    config.cnn.input_resolution = 0
    config.aug.max_shift = 0
    config.update_from_flattened_dict(changes)
    with pytest.raises(config_lib.ConfigError, match=message):
        config_lib.validate(config)
    for near in message.split("image_size=")[1].removesuffix(" would do").split(" or "):
        config.image_size = int(near)
        config_lib.validate(config)


def test_more_halvings_than_any_size_has_leave_one_remedy():
    config = tiny_config("cae")
    config.cae.enc_block_sizes = ((3, 2), *[(2, 2)] * 10)
    with pytest.raises(config_lib.ConfigError, match=r"11 blocks.*; use fewer blocks"):
        config_lib.validate(config)
