"""Tests of the files in configs/."""

import ast
import functools
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from caecnn_jax import config as config_lib
from caecnn_jax import saved_config
from caecnn_jax.data import augment
from caecnn_jax.networks import models
from caecnn_jax.training import epochs, steps
from configs import default, from_json

PROJECT = pathlib.Path(__file__).parent.parent
DATA = PROJECT / "tests" / "golden"
# Every config but from_json.py, which needs a file.
NAMES = sorted({path.stem for path in (PROJECT / "configs").glob("[a-z]*.py")} - {"from_json"})
RARE = {"bird": 2500, "deer": 2500, "truck": 2500}
MORE = {"bird": 2000, "deer": 2000, "truck": 2000}


def get_config(name, *args):
    return importlib.import_module(f"configs.{name}").get_config(*args)


def differences(config):
    """{dotted field: value} where a config differs from the default."""

    def flat(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict) and not prefix and name in ("cnn", "cae"):
                yield from flat(value, f"{name}.")
            else:
                yield prefix + name, value

    before = dict(flat(default.get_config().to_dict()))
    return {name: value for name, value in flat(config.to_dict()) if value != before[name]}


def test_every_config_of_the_design_is_there():
    wanted = {"cae", "cnn", "cnn_oversampled", "cnn_small_data", "code", "mixed", "default"}
    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", [None, "", "quick"])
def test_every_config_validates(name, arg):
    config = get_config(name, arg)
    assert config_lib.validate(config) is None
    if arg == "quick" and name not in ("long_tail", "own_images"):  # they keep images and rate
        assert config.is_local and config.num_epoch <= 20
        assert config.cnn.opt.lr == config.cae.opt.lr == 1e-3
        assert config.only_train_cae_until < config.num_epoch


@pytest.mark.parametrize("name", NAMES)
def test_every_config_has_all_fields_and_no_other(name):
    def fields(tree):
        return {
            key: fields(value) if key in ("cnn", "cae", "opt", "aug") else None
            for key, value in tree.items()
        }

    assert fields(get_config(name).to_dict()) == fields(default.get_config().to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_every_config_says_how_to_run_it(name):
    text = (PROJECT / "configs" / f"{name}.py").read_text()
    assert f"python main.py --config configs/{name}.py --workdir " in ast.get_docstring(
        ast.parse(text)
    )
    assert name == "default" or len(text.splitlines()) <= 100  # default.py grows with the fields


@pytest.mark.parametrize("name", NAMES)
def test_every_config_traces_a_step_of_each_phase_and_an_evaluation(name):
    """On shapes alone: augmentation, networks, losses and updates fit together."""
    config = get_config(name)
    model = models.from_config(config)
    pipeline = epochs.Pipeline((32, 32, 3), augment.CIFAR10, augment.Settings(**config.aug))

    def step(key, images, *, joint):
        counts = jnp.ones(10, jnp.int32)
        state = steps.create_state(model, config, key, class_counts=counts)
        data = {"image": images, "label": jnp.zeros(len(images), jnp.int32)}
        order = jnp.zeros((1, config.batch_size), jnp.int32)
        mask = order == 0
        moment = steps.Moment(dict.fromkeys(state.params, jnp.ones(1)))
        trained, metrics = epochs._train_chunk(
            state, data, order, mask, key, 0, moment, joint=joint, pipeline=pipeline
        )
        found = epochs._eval_chunk(
            model,
            trained.variables,
            data,
            order,
            mask,
            joint=joint,
            pipeline=pipeline,
            loss=trained.recipe.loss,
        )
        return state, trained, metrics, found

    images = jax.ShapeDtypeStruct((5, 32 * 32 * 3), jnp.uint8)
    for joint in {True, not (config.use_cae and config.use_cnn)}:
        traced = functools.partial(step, joint=joint)
        state, trained, metrics, found = jax.eval_shape(traced, jax.random.key(0), images)
        assert jax.tree.map(jnp.shape, trained) == jax.tree.map(jnp.shape, state)
        losses = {"loss_cae"} if config.use_cae else set()
        losses |= {"loss_cnn"} if config.use_cnn and joint else set()
        assert set(metrics) == losses | {"images"}
        of_cnn = {"label", "mask", "predicted", "confidence"}
        assert set(found) - set(metrics) == (of_cnn if "loss_cnn" in losses else set())


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_argument_is_a_value_error(name):
    with pytest.raises(ValueError, match=r"config argument 'quik': .*'quick'"):
        get_config(name, "quik")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cnn", {}),
        ("cnn_oversampled", {"train_data_expansion": MORE}),
        ("cnn_small_data", {"train_data_regulation": {"all": 2500}}),
        ("cae", {"use_cnn": False, "use_cae": True}),
        (
            "code",
            {
                "use_cae": True,
                "only_train_cae_until": 50,
                "train_data_expansion": MORE,
                "cnn.block_sizes": ((6, 32, False), (32, 64, True), (64, 128, True)),
            },
        ),
        (
            "mixed",
            {
                "use_cae": True,
                "only_train_cae_until": 50,
                "train_data_expansion": MORE,
                "cnn.use_mixed_input": True,
                "cnn.block_sizes": ((3, 26, True), (32, 64, True), (64, 128, True)),
            },
        ),
    ],
)
def test_a_config_changes_what_its_experiment_is_about(name, wanted):
    assert differences(get_config(name)) == wanted


def test_the_defaults_are_the_references():
    config = default.get_config()
    assert config.cnn.block_sizes == ((3, 32, True), (32, 64, True), (64, 128, True))
    assert (config.cae.enc_block_sizes, config.cae.dec_block_sizes) == (((3, 6),), ((6, 3),))
    for part in (config.cnn, config.cae):
        assert (part.opt.lr, part.opt.betas) == (1e-5, (0.0, 0.999))
    assert (config.num_epoch, config.batch_size, config.num_folds) == (400, 64, 5)
    assert config.train_data_regulation.to_dict() == RARE
    assert config.train_data_expansion.to_dict() == {}


def test_each_call_gives_a_config_of_its_own():
    default.get_config().cnn.opt.lr = 5.0
    assert default.get_config().cnn.opt.lr == 1e-5


def test_a_variants_table_of_classes_replaces_the_defaults():
    tables = {"train_data_regulation": {"heron": 9}, "train_data_expansion": {"E": "largest"}}
    config = default.variant(None, **tables)
    assert {name: config[name].to_dict() for name in tables} == tables
    assert default.variant(None, train_data_regulation={}).train_data_regulation.to_dict() == {}


def test_a_runs_own_config_is_taken_again(tmp_path):
    config = get_config("own_images")
    config.dataset = "photos"
    path = tmp_path / "config.json"
    path.write_text(saved_config.to_text(config))
    assert from_json.get_config(str(path)) == config
    assert from_json.get_config(f"{path}:quick").is_local


def write(folder, fields):
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return str(path)


@pytest.mark.parametrize("kind", ["cae", "cnn", "code", "mixed"])
def test_the_references_json_becomes_a_valid_config(kind):
    config = from_json.get_config(str(DATA / f"{kind}.json"))
    config_lib.validate(config)
    fields = json.loads((DATA / f"{kind}.json").read_text())["config"]
    assert (config.use_cae, config.use_cnn) == (fields["use_cae"], fields["use_cnn"])
    assert config.cnn.use_mixed_input == fields["cnn"].get("use_mixed_input", False)
    if config.use_cnn:
        assert config.cnn.block_sizes == tuple(map(tuple, fields["cnn"]["block_sizes"]))
        assert config.cnn.opt.betas == (0.0, 0.999)
    assert config.train_data_regulation.to_dict() == {}  # nothing is regulated that it does not say
    assert config.num_epoch == 400  # the rest are defaults


def test_every_config_survives_json(tmp_path):
    for name in NAMES:
        config = get_config(name)
        assert saved_config.from_text(saved_config.to_text(config)) == config
        assert from_json.get_config(write(tmp_path, config.to_dict())) == config


def test_quick_cuts_a_json_config_too():
    config = from_json.get_config(f"{DATA / 'mixed.json'}:quick")
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.is_local and config.cnn.use_mixed_input and config.cnn.opt.lr == 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_cnm": True}, "config.use_cnm is no field .*'use_cnn'"),
        ({"batch_size": "64"}, "config.batch_size='64': must be a whole number"),
        ({"batch_size": 64.0}, "config.batch_size=64.0: must be a whole number"),
        ({"train_data_expansion": 5}, "config.train_data_expansion=5: must map"),
        ({"cnn": 5}, "config.cnn=5: must be a group of fields"),
        ({"cnn": None}, "config.cnn=None: must be a group of fields"),
        ({"cnn": {"opt": [1]}}, r"config.cnn.opt=\(1,\): must be a group of fields"),
        ({"cnn": {"block_sizes": [[3, 4]]}}, "config.cnn.block_sizes=.*: must be a tuple of bl"),
        ({"cnn": {"opt": {"lr": None}}}, "config.cnn.opt.lr=None: must be a number above 0"),
        ({"use_aug": None}, "config.use_aug=None: must be True or False"),
        ({"items": 1}, "config.items is no field"),
        ({"a.b": 1}, "config.a.b is no field"),
        ({"": 1}, "config. is no field"),
    ],
)
def test_what_is_wrong_in_a_json_config_is_found(tmp_path, fields, message):
    def load(path):
        config_lib.validate(from_json.get_config(path))

    with pytest.raises(config_lib.ConfigError, match=message):
        load(write(tmp_path, fields))
    # Found likewise in a run's own config.json, were it altered so.
    whole = default.get_config().to_dict()
    for name, value in fields.items():
        whole[name] = whole[name] | value if name in ("cnn", "cae") and value and isinstance(
            value, dict) else value  # fmt: skip
    with pytest.raises(config_lib.ConfigError, match=message):
        saved_config.from_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the JSON config .*No such file"),
        (b"{", "cannot read the JSON config .*Expecting"),
        (b"\xff\xfe", "cannot read the JSON config .*decode"),
        (b"[]", "holds no object of fields"),
        (b'{"config": 3}', "holds no object of fields"),
        (b"[" * 100_000, "cannot read the JSON config"),
    ],
)
def test_a_file_that_is_no_json_config_is_a_value_error(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        from_json.get_config(str(path))


@pytest.mark.parametrize("arg", [None, "", ":quick"])
def test_from_json_needs_a_file(arg):
    with pytest.raises(ValueError, match="needs a file"):
        from_json.get_config(arg)


@pytest.mark.parametrize(
    ("arg", "type", "factor"),
    [
        (None, "exp", 100.0),
        ("10", "exp", 10.0),
        ("50:quick", "exp", 50.0),
        ("step-100", "step", 100.0),
        ("quick", "exp", 100.0),
    ],
)
def test_the_long_tail_is_the_fields_protocol_and_recipe(arg, type, factor):
    config = get_config("long_tail", arg)
    config_lib.validate(config)
    assert (config.imbalance.type, config.imbalance.factor) == (type, factor)
    quick = "quick" in (arg or "")
    assert config.num_epoch == (20 if quick else 200)
    assert config.lr_milestones == ((16, 18) if quick else (160, 180))
    opt = config.cnn.opt
    assert (opt.name, opt.lr, opt.momentum, opt.weight_decay) == ("sgd", 0.1, 0.9, 2e-4)
    assert not config.train_data_regulation and not config.train_data_expansion
    assert config.batch_size == 128 and not config.do_cv


@pytest.mark.parametrize("arg", ["20", "50:fast"])
def test_an_unknown_factor_is_a_value_error(arg):
    with pytest.raises(ValueError, match=f"config argument '{arg}': known are 10, 50, 100, step"):
        get_config("long_tail", arg)
