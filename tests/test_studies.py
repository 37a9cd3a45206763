"""Tests of the files in studies/: each is valid, and one step of each of its variants traces."""

import ast
import functools
import importlib.util
import io
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from PIL import Image

from caecnn_jax import saved_config, study
from caecnn_jax.networks import models
from caecnn_jax.training import steps
from configs import fast, mixed

PROJECT = pathlib.Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (PROJECT / "studies").glob("[a-z]*.py"))
FILES = [
    *NAMES,
    "fast.py:decide",
    "fast.py:fewer",
    "long_tail.py:longer",
    "reference.py:quick",
    *(f"reconstruction.py:{argument}" for argument in ("weights", "few", "test")),
]
BATCH = {
    "image": jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32),
    "label": jax.ShapeDtypeStruct((2,), jnp.int32),
}


@functools.cache
def load(file: str) -> study.Study:
    name, _, argument = file.partition(".py:")
    path = str(PROJECT / "studies" / f"{name}.py")
    return study.load(f"{path}:{argument}" if argument else path)


def config_of(file: str, variant: str):
    return next(run.config for run in load(file).runs if run.variant == variant)


def num_parameters(config) -> int:
    state = jax.eval_shape(lambda: create(config))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def create(config):
    model = models.from_config(config, num_classes=10, channels=3)
    counts = jnp.full(10, 7, jnp.int32)
    return steps.create_state(model, config, jax.random.key(0), class_counts=counts)


@pytest.mark.parametrize("file", FILES)
def test_every_study_is_valid_and_a_step_of_each_variant_traces(file):
    traced = set()
    for run in load(file).runs:
        config = run.config
        model = models.from_config(config, num_classes=10, channels=3)
        key = model, steps.make_recipe(config)
        if key in traced:
            continue
        traced.add(key)
        moment = steps.Moment({part: jnp.float32(1) for part, _ in key[1].optimizers})
        state = jax.eval_shape(lambda config=config: create(config))
        step = functools.partial(steps.train_step, joint=True, moment=moment)
        after, losses = jax.eval_shape(step, state, BATCH)
        same = jax.tree.map(lambda one, other: one.shape == other.shape, after, state)
        assert all(jax.tree.leaves(same)) and losses["loss_cnn"].shape == ()


@pytest.mark.parametrize("name", NAMES)
def test_every_study_says_how_to_run_it(name):
    text = (PROJECT / "studies" / f"{name}.py").read_text()
    wanted = f"python main.py --mode study --config studies/{name}.py --workdir runs/"
    assert wanted in ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("file", FILES)
def test_no_two_variants_of_a_study_are_the_same(file):
    configs = [saved_config.to_text(run.config) for run in load(file).runs]
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize(
    "file",
    [
        "ablation",
        "best",
        "fast",
        "fast.py:decide",
        "fast.py:fewer",
        "own_images",
        "reconstruction",
        "reconstruction.py:weights",
        "reconstruction.py:few",
    ],
)
def test_choices_are_never_made_on_the_test_set(file):
    assert not any(run.config.do_test for run in load(file).runs)


def test_the_ablation_stays_within_twice_the_parameters_of_mixed_mode():
    most = 2 * num_parameters(mixed.get_config())
    for variant in load("ablation").variants:
        assert num_parameters(config_of("ablation", variant)) <= most


def test_fast_has_no_more_parameters_than_the_reference():
    reference = num_parameters(mixed.get_config())
    assert num_parameters(fast.get_config()) <= reference
    for variant in load("fast").variants:
        assert num_parameters(config_of("fast", variant)) <= reference


def test_the_classifiers_of_the_reconstruction_study_are_of_one_size():
    """Block 1 with the encoder has the weights of the CNN's block 1, and BatchNorm of the code."""
    decoder = 6 * 3 * 16 + 3 + 2 * 3  # weights, biases, BatchNorm
    cnn, joint = (
        num_parameters(config_of("reconstruction", f"reference-{name}"))
        for name in ("cnn", "mixed_1")
    )
    assert joint - decoder == cnn + 2 * 6


@pytest.mark.parametrize("variant", ["cnn_oversampled", "mixed", "code", "cnn_small_data"])
def test_the_reference_study_trains_the_configs_of_that_name(variant):
    import importlib

    config = importlib.import_module(f"configs.{variant}").get_config()
    config.expand_for_test, config.test_early_stopping = False, True
    config.do_test = variant in ("cnn_oversampled", "mixed")
    config.use_aug = variant != "cnn_small_data"
    assert config_of("reference", variant).to_dict() == config.to_dict()


def test_a_studys_picture_has_its_means_and_beside_them_the_differences():
    path = PROJECT / "examples" / "study_pictures.py"
    spec = importlib.util.spec_from_file_location("study_pictures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = json.loads((PROJECT / "studies" / "results" / "fast_decide.json").read_text())
    both = Image.open(io.BytesIO(module.picture(result)))
    for one in result["variants"].values():
        one.pop("difference", None)
    alone = Image.open(io.BytesIO(module.picture(result)))
    assert (both.format, both.width, alone.height) == ("PNG", 2 * alone.width, both.height)
