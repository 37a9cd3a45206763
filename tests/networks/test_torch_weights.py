"""Tests of caecnn_jax.networks.torch_weights; test_golden shows that the layouts are PyTorch's."""

import jax
import numpy as np
import pytest
from builders import KINDS, tiny_config

from caecnn_jax import config as config_lib
from caecnn_jax.networks import models, torch_weights

KEY = jax.random.key(0)


def variables_of(config):
    """Random arrays in the shapes of the config's model, of 7 classes but for CIFAR-10."""
    model = models.from_config(config, num_classes=None if config.dataset == "cifar10" else 7)
    shapes = jax.eval_shape(model.init, KEY, np.zeros((1, *model.image_shape)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


def deeper_cae():
    sizes = {"enc_block_sizes": ((3, 4), (4, 5)), "dec_block_sizes": ((5, 4), (4, 3))}
    return tiny_config("cae", cae=sizes)


def one_mixed_block():
    return tiny_config("mixed", cnn={"block_sizes": ((3, 4, True),)})


def grey(kind):
    """For grey images of 28x28 pixels; the blocks leave the channels open."""
    config = tiny_config(kind, dataset="/photos", image_size=28, channels=1)
    config.cae.enc_block_sizes, config.cae.dec_block_sizes = ((0, 2),), ((2, 0),)
    (_, *first), *later = config.cnn.block_sizes
    config.cnn.block_sizes, config.cnn.input_resolution = ((0, *first), *later), 0
    return config


CONFIGS = {kind: tiny_config(kind) for kind in KINDS} | {
    "deeper cae": deeper_cae(),
    "one mixed block": one_mixed_block(),
    "cosine": tiny_config("mixed", cnn={"head": "cosine"}),
    "odd": tiny_config("cnn", image_size=6, cnn={"block_sizes": ((3, 4, True), (4, 5, False))}),
    **{f"grey {kind}": grey(kind) for kind in KINDS},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_weights_survive_the_way_to_torch_and_back(config):
    variables = variables_of(config)
    state_dict = torch_weights.to_torch(variables, config)
    back = torch_weights.from_torch(state_dict, config)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    again = torch_weights.to_torch(back, config)
    assert again.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)


def test_the_names_and_shapes_are_the_references():
    state_dict = torch_weights.to_torch(variables_of(CONFIGS["mixed"]), CONFIGS["mixed"])
    shapes = {name: array.shape for name, array in state_dict.items()}
    assert shapes["cae.encoder.0.weight"] == (2, 3, 3, 3)  # out, in, row, column
    assert shapes["cae.decoder.0.weight"] == (2, 3, 4, 4)  # in, out, row, column
    assert shapes["cnn.conv1.weight"] == (4, 3, 3, 3)
    assert shapes["cnn.bn1.running_var"] == (6,)  # with the code's channels
    assert shapes["cnn.linear.weight"] == (10, 6 * 8 * 8)
    assert torch_weights.to_torch(variables_of(CONFIGS["cnn"]), CONFIGS["cnn"]).keys() >= {
        "main.0.weight", "main.3.running_mean", "main.4.bias", "main.7.weight", "main.9.weight",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_arrays_tell_classes_and_channels(kind):
    config = CONFIGS[f"grey {kind}"]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    config = config.copy_and_resolve_references()
    config.channels = 0  # nothing but the arrays says so now: there is no such data set
    params = torch_weights.from_torch(state_dict, config)["params"]
    if kind != "code":
        part = params["cnn"] if kind == "cnn" else params["cae"]["encoder"]
        assert part["conv_1"]["kernel"].shape[2] == 1
    if kind != "cae":
        assert params["cnn"]["dense"]["kernel"].shape == (6 * 7 * 7, 7)


def test_a_cosine_head_has_no_bias():
    config = CONFIGS["cosine"]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    assert "cnn.linear.bias" not in state_dict
    with pytest.raises(config_lib.ConfigError, match=r"hold 'cnn\.linear\.bias', which"):
        torch_weights.from_torch(state_dict | {"cnn.linear.bias": np.zeros(10)}, config)


def test_weights_of_too_few_dimensions_are_a_config_error():
    config = CONFIGS["mixed"]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    for name in ("cae.encoder.0.weight", "cnn.linear.weight"):
        flat = state_dict | {name: np.zeros(3)}
        with pytest.raises(config_lib.ConfigError, match=rf"'{name}' has shape \(3,\)"):
            torch_weights.from_torch(flat, config)


def test_the_dense_layer_reads_channels_first():
    config = CONFIGS["cnn"]  # 6 channels of 8 x 8
    state_dict = torch_weights.to_torch(variables_of(config), config)
    weight = np.zeros_like(state_dict["main.9.weight"])
    weight[7, (2 * 8 + 3) * 8 + 5] = 1  # channel 2, row 3, column 5
    state_dict["main.9.weight"] = weight
    kernel = torch_weights.from_torch(state_dict, config)["params"]["cnn"]["dense"]["kernel"]
    assert np.argwhere(kernel).tolist() == [[(3 * 8 + 5) * 6 + 2, 7]]


def test_the_dense_layer_reads_channels_first_of_28_pixels_too():
    config = CONFIGS["grey code"]  # a code of 14 x 14, then 6 channels of 7 x 7
    state_dict = torch_weights.to_torch(variables_of(config), config)
    weight = np.zeros((2, 6 * 7 * 7))  # of two classes
    weight[1, (4 * 7 + 3) * 7 + 5] = 1  # channel 4, row 3, column 5
    (name,) = (name for name, array in state_dict.items() if array.ndim == 2)
    two = {name: weight, name.replace("weight", "bias"): np.zeros(2)}
    kernel = torch_weights.from_torch(state_dict | two, config)["params"]["cnn"]["dense"]["kernel"]
    assert np.argwhere(kernel).tolist() == [[(3 * 7 + 5) * 6 + 4, 1]]


def test_a_transposed_convolution_is_mirrored():
    config = CONFIGS["cae"]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    state_dict["decoder.0.weight"] = np.zeros((2, 3, 4, 4))
    state_dict["decoder.0.weight"][1, 2, 0, 1] = 1
    params = torch_weights.from_torch(state_dict, config)["params"]
    assert np.argwhere(params["cae"]["decoder"]["conv_1"]["kernel"]).tolist() == [[3, 2, 1, 2]]


def test_the_dtype_is_kept():
    config = CONFIGS["cae"]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    halves = {name: array.astype(np.float16) for name, array in state_dict.items()}
    back = torch_weights.from_torch(halves, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(back)} == {np.dtype(np.float16)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_or_extra_name_is_a_config_error(kind):
    config = CONFIGS[kind]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    for name in state_dict:
        fewer = {other: array for other, array in state_dict.items() if other != name}
        with pytest.raises(config_lib.ConfigError, match=f"weights lack '{name}'"):
            torch_weights.from_torch(fewer, config)
    with pytest.raises(config_lib.ConfigError, match=r"hold 'head\.weight', which"):
        torch_weights.from_torch(state_dict | {"head.weight": np.zeros(1)}, config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_that_disagrees_is_a_config_error(kind):
    config = CONFIGS[kind]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    for name, array in state_dict.items():
        wider = state_dict | {name: np.concatenate([array, array])}
        # The dense layer's weight tells how many classes there are: its bias then disagrees.
        wrong = name.replace("weight", "bias") if array.ndim == 2 else name
        with pytest.raises(config_lib.ConfigError, match=f"{wrong}.* shape"):
            torch_weights.from_torch(wider, config)


def test_batch_counters_of_pytorch_are_left_out():
    config = CONFIGS["cae"]
    state_dict = torch_weights.to_torch(variables_of(config), config)
    counters = {"encoder.3.num_batches_tracked": np.array(7)}
    back = torch_weights.from_torch(state_dict | counters, config)
    assert torch_weights.to_torch(back, config).keys() == state_dict.keys()


def test_weights_of_another_config_are_refused():
    state_dict = torch_weights.to_torch(variables_of(CONFIGS["code"]), CONFIGS["code"])
    with pytest.raises(config_lib.ConfigError, match=r"lack 'cnn\.conv1\.weight'"):
        torch_weights.from_torch(state_dict, CONFIGS["mixed"])
