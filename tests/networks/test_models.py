"""Tests of caecnn_jax.networks.models; test_golden compares the numbers with the reference's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import KINDS, PROJECT, tiny_config

from caecnn_jax import config as config_lib
from caecnn_jax.data import dataset
from caecnn_jax.networks import models
from caecnn_jax.training import steps
from configs import cae, cnn, code, from_json, mixed

pytestmark = pytest.mark.usefixtures("quick_compilation")

IMAGES = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
FULL = {"cae": cae, "cnn": cnn, "code": code, "mixed": mixed}


@functools.cache
def initialised(kind):
    """The model of a published config and its variables, as host arrays."""
    config = FULL[kind].get_config()
    model = models.from_config(config)
    return model, jax.device_get(steps.create_state(model, config, jax.random.key(0)).variables)


def shapes_of(tree):
    return {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def layers(kind):
    """{path: a layer's parameters} of a published config."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(initialised(kind)[1]["params"]):
        *parents, name = (key.key for key in path)
        found.setdefault("/".join(parents), {})[name] = leaf
    return found


def test_the_parameters_of_the_mixed_model():
    def conv(*kernel):
        return {"kernel": kernel, "bias": kernel[-1:]}

    def norm(channels):
        return {"scale": (channels,), "bias": (channels,)}

    wanted = {
        "cae/encoder/conv_1": conv(3, 3, 3, 6),
        "cae/encoder/norm_1": norm(6),
        "cae/decoder/conv_1": conv(4, 4, 6, 3),
        "cae/decoder/norm_1": norm(3),
        "cnn/conv_1": conv(3, 3, 3, 26),
        "cnn/norm_1": norm(32),  # 26 channels of the image and 6 of the code
        "cnn/conv_2": conv(3, 3, 32, 64),
        "cnn/norm_2": norm(64),
        "cnn/conv_3": conv(3, 3, 64, 128),
        "cnn/norm_3": norm(128),
        "cnn/dense": conv(128 * 4 * 4, 10),
    }
    shapes = {name: jax.tree.map(np.shape, layer) for name, layer in layers("mixed").items()}
    assert shapes == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_every_norm_has_running_averages_that_start_at_zero_and_one(kind):
    _, variables = initialised(kind)
    norms = {name for name in layers(kind) if "norm" in name}
    stats = shapes_of(variables["batch_stats"])
    assert set(stats) == {f"{name}/{average}" for name in norms for average in ("mean", "var")}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]):
        assert (leaf == (1 if path[-1].key == "var" else 0)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_parts_in_use_have_parameters(kind):
    parts = {"cae": {"cae"}, "cnn": {"cnn"}}.get(kind, {"cae", "cnn"})
    assert set(initialised(kind)[1]["params"]) == parts


@pytest.mark.parametrize("kind", KINDS)
def test_the_shapes_of_the_outputs(kind):
    model, variables = initialised(kind)
    outputs = jax.eval_shape(model.apply, variables, IMAGES)
    shapes = {"code": (4, 16, 16, 6), "reconstruction": (4, 32, 32, 3), "logits": (4, 10)}
    if kind == "cae":
        del shapes["logits"]
    if kind == "cnn":
        del shapes["code"], shapes["reconstruction"]
    assert {name: out.shape for name, out in vars(outputs).items() if out is not None} == shapes


@pytest.mark.parametrize("kind", ["code", "mixed"])
def test_warmup_runs_the_autoencoder_alone(kind):
    model, variables = initialised(kind)
    outputs = jax.eval_shape(functools.partial(model.apply, joint=False), variables, IMAGES)
    assert outputs.logits is None
    assert outputs.reconstruction.shape == IMAGES.shape


def is_uniform(values, bound):
    """Whether many values look drawn from U(-bound, bound); of few, whether they lie in it."""
    if values.size < 500:
        return np.abs(values).max() <= bound
    return np.abs(values).max() <= bound and np.std(values) == pytest.approx(
        bound / np.sqrt(3), rel=0.1
    )


def test_the_cnn_starts_from_normal_weights_and_uniform_biases():
    for name, layer in layers("cnn").items():
        if "norm" in name:
            assert (layer["bias"] == 0).all()
            assert np.mean(layer["scale"]) == pytest.approx(1, abs=0.02)
            assert np.std(layer["scale"]) == pytest.approx(0.02, rel=0.4)
            continue
        assert np.std(layer["kernel"]) == pytest.approx(0.02, rel=0.1), name
        assert np.abs(np.mean(layer["kernel"])) < 0.003
        fan_in = np.prod(layer["kernel"].shape[:-1])
        assert is_uniform(layer["bias"], 1 / np.sqrt(fan_in))
        assert np.abs(layer["bias"]).max() > 0.5 / np.sqrt(fan_in)  # not of a smaller bound


def test_the_autoencoder_starts_as_pytorch_does():
    config = cae.get_config()
    config.cae.enc_block_sizes = ((3, 64),)
    config.cae.dec_block_sizes = ((64, 3),)
    model = models.from_config(config)
    params = jax.device_get(steps.create_state(model, config, jax.random.key(0)).params["cae"])
    for part, fan_in in (("encoder", 3 * 9), ("decoder", 3 * 16)):  # by output channels there
        layer = params[part]["conv_1"]
        assert is_uniform(layer["kernel"], 1 / np.sqrt(fan_in)), part
        assert is_uniform(layer["bias"], 1 / np.sqrt(fan_in)), part
        assert (params[part]["norm_1"]["scale"] == 1).all()
        assert (params[part]["norm_1"]["bias"] == 0).all()


@pytest.fixture(scope="module")
def tiny():
    """(variables, jitted apply in training mode, in evaluation mode) of a mixed model."""
    config = tiny_config("mixed")
    model = models.from_config(config)
    variables = steps.create_state(model, config, jax.random.key(0)).variables

    @jax.jit
    def train(variables, images, mask):
        return model.apply(variables, images, train=True, mask=mask, mutable="batch_stats")

    return variables, train, jax.jit(model.apply)


def test_the_running_averages_are_a_tenth_new(tiny):
    variables, train, _ = tiny
    everything = jnp.ones(4, bool)
    outputs, updates = train(variables, IMAGES, everything)
    stats = updates["batch_stats"]["cae"]["encoder"]["norm_1"]
    # The code is the norm's output with scale 1 and bias 0: undoing it gives the batch's own mean.
    batch_mean, batch_var = stats["mean"] / 0.1, (stats["var"] - 0.9) / 0.1
    normed = np.asarray(outputs.code)
    assert np.abs(normed.mean(axis=(0, 1, 2))).max() < 1e-5
    deviation = np.sqrt(batch_var / (batch_var + 1e-5))  # the biased variance, and eps 1e-5
    np.testing.assert_allclose(normed.std(axis=(0, 1, 2)), deviation, rtol=1e-4)
    assert np.abs(batch_mean).max() > 1e-3


def test_a_masked_image_touches_neither_the_statistics_nor_the_others(tiny):
    variables, train, _ = tiny
    mask = jnp.array([True, True, True, False])
    changed = IMAGES.copy()
    changed[3] = 1e3
    outputs, updates = train(variables, IMAGES, mask)
    others, other_updates = train(variables, changed, mask)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    jax.tree.map(close, updates, other_updates)
    close(outputs.logits[:3], others.logits[:3])
    _, unmasked = train(variables, changed, jnp.ones(4, bool))  # the counter-check
    mean = unmasked["batch_stats"]["cnn"]["norm_1"]["mean"]
    assert not np.allclose(mean, updates["batch_stats"]["cnn"]["norm_1"]["mean"])


def test_evaluation_of_an_image_does_not_depend_on_the_others(tiny):
    variables, _, evaluate = tiny
    together = evaluate(variables, IMAGES)
    changed = IMAGES.copy()
    changed[1:] = 5.0
    alone = evaluate(variables, changed)
    for name in ("code", "reconstruction", "logits"):
        a, b = getattr(together, name), getattr(alone, name)
        np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-6)
        assert not np.allclose(a[1], b[1], atol=1e-3)


def test_the_code_joins_the_image_channels_as_the_last_ones(tiny):
    variables, _, evaluate = tiny
    params = jax.tree.map(np.array, variables["params"])
    # What comes of the code alone: nothing of the image passes the first block.
    params["cnn"]["conv_1"] = jax.tree.map(np.zeros_like, params["cnn"]["conv_1"])
    norm = params["cnn"]["norm_1"]
    logits = evaluate(variables | {"params": params}, IMAGES).logits
    assert np.ptp(logits, axis=0).max() > 1e-6
    norm["scale"][4:] = 0  # the two channels of the code
    logits = evaluate(variables | {"params": params}, IMAGES).logits
    np.testing.assert_allclose(np.ptp(logits, axis=0), np.zeros(10), atol=1e-7)


def test_bfloat16_computes_low_and_keeps_its_parameters_high():
    config = tiny_config("mixed", dtype="bfloat16")
    model = models.from_config(config)
    variables = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    outputs, updates = jax.eval_shape(
        functools.partial(model.apply, train=True, mutable="batch_stats"), variables, IMAGES
    )
    # Products are of bfloat16, and BatchNorm's results float32.
    assert outputs.logits.dtype == jnp.bfloat16
    assert {outputs.code.dtype, outputs.reconstruction.dtype} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def own_config(kind, size, channels, **changes):
    """A tiny config for images of another size, its blocks open to any number of channels."""
    config = tiny_config(kind, image_size=size, channels=channels, **changes)
    config.cae.enc_block_sizes, config.cae.dec_block_sizes = ((0, 2),), ((2, 0),)
    config.cnn.input_resolution = 0
    (_, *first), *later = config.cnn.block_sizes
    config.cnn.block_sizes = ((0, *first), *later)
    return config


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "channels", "classes"), [(28, 1, 10), (8, 3, 2), (36, 1, 1000), (96, 3, 5)]
)
def test_networks_for_other_images(kind, size, channels, classes):
    config = own_config(kind, size, channels)
    config_lib.validate(config)
    model = models.from_config(config, num_classes=classes, channels=channels)
    assert model.image_shape == (size, size, channels)
    image = jax.ShapeDtypeStruct((2, *model.image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    outputs = jax.eval_shape(model.apply, variables, image)
    wanted = {"code": (2, size // 2, size // 2, 2), "reconstruction": image.shape}
    wanted = {} if kind == "cnn" else wanted
    wanted |= {} if kind == "cae" else {"logits": (2, classes)}
    assert {name: out.shape for name, out in vars(outputs).items() if out is not None} == wanted
    state = jax.eval_shape(lambda key: steps.create_state(model, config, key), jax.random.key(0))
    assert shapes_of(state.params) == shapes_of(variables["params"])


def test_a_cnn_without_pooling_reads_images_of_an_odd_size():
    blocks = ((0, 2, False), (2, 3, False))
    config = tiny_config("cnn", image_size=7, channels=1, cnn={"block_sizes": blocks})
    config_lib.validate(config)
    model = models.from_config(config, num_classes=3)
    images = np.random.default_rng(0).normal(size=(2, 7, 7, 1)).astype(np.float32)
    variables = steps.create_state(model, config, jax.random.key(0)).variables
    assert variables["params"]["cnn"]["dense"]["kernel"].shape == (7 * 7 * 3, 3)
    assert np.isfinite(model.apply(variables, images).logits).all()


@pytest.mark.parametrize("kind", KINDS)
def test_of_cifar_10_everything_is_known(kind):
    model = models.from_config(tiny_config(kind))
    assert model.image_shape == (32, 32, 3)
    if model.cnn is not None:
        assert model.cnn.num_classes == 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_references_configs_have_the_references_classes(kind):
    model = models.from_config(from_json.get_config(str(PROJECT / f"tests/golden/{kind}.json")))
    assert model.image_shape == (32, 32, 3)
    assert kind == "cae" or model.cnn.num_classes == 10


def test_what_the_config_leaves_open_comes_from_its_data_set(monkeypatch):
    class Listing:
        class_names = ("cat", "dog", "fox")

    class Loaded:
        images = np.zeros((4, 28, 28, 1), np.uint8)

    monkeypatch.setattr(dataset, "open_source", lambda config: Listing, raising=False)
    monkeypatch.setattr(dataset, "load", lambda config: Loaded)
    config = own_config("mixed", 28, 0, dataset="/photos")
    model = models.from_config(config)
    assert model.image_shape == (28, 28, 1)
    assert model.cnn.num_classes == 3
    # What is given, or told by the config, is not looked up.
    monkeypatch.delattr(dataset, "open_source")
    monkeypatch.delattr(dataset, "load")
    assert models.from_config(config, num_classes=7, channels=3).image_shape == (28, 28, 3)
    config.channels = 3
    assert models.from_config(config, num_classes=7).cnn.num_classes == 7
    assert models.from_config(own_config("cae", 28, 1, dataset="/photos")).cnn is None


def test_blocks_of_other_channels_than_the_images_are_a_config_error():
    config = tiny_config("mixed", dataset="/photos")
    message = r"enc_block_sizes=.*takes 3 channels, but the image has 1; 0 stands for the image's"
    with pytest.raises(config_lib.ConfigError, match=message):
        models.from_config(config, num_classes=10, channels=1)


@pytest.mark.parametrize(("loss", "scale"), [("ldam", 1.0), ("cross_entropy", 20.0)])
def test_only_ldam_multiplies_the_cosines_itself(loss, scale):
    changes = {"head": "cosine", "loss": {"name": loss, "ldam_scale": 20.0}}
    config = tiny_config("cnn", cnn=changes)
    config_lib.validate(config)
    assert models.from_config(config).cnn.cosine_scale == scale


@pytest.mark.parametrize("kind", ["cae", "cnn", "code"])
def test_first_maps_are_what_the_first_convolution_makes(kind):
    config = tiny_config(kind)
    model = models.from_config(config)
    variables = steps.create_state(model, config, jax.random.key(0)).variables

    def both(model, images):
        part = model.cae.encoder if kind == "cae" else model.cnn
        x = images if kind != "code" else model.cae(images)[0]
        return part(x), part.from_first_maps(part.convs[0](x))

    whole, in_two = model.apply(variables, IMAGES, method=both)
    np.testing.assert_array_equal(whole, in_two)
