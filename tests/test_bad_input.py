"""What users can get wrong: every case ends as one sentence and exit code 2, without a traceback.

The table is run through `main.run` in this process; its rows are of four kinds: flags, configs,
files and folders. The last tests mutate valid configs at random.
"""

import copy
import fcntl
import json
import pathlib
import re
import sys

import hypothesis
import jax
import ml_collections
import numpy as np
import pytest
from absl import logging
from absl.testing import flagsaver
from builders import KINDS, tiny_config
from hypothesis import strategies as st

import main
from caecnn_jax import blocks as blocks_lib
from caecnn_jax import config as config_lib
from caecnn_jax import saved_config
from caecnn_jax.data import cifar, requirements, sampling
from caecnn_jax.networks import models
from caecnn_jax.training import devices, steps

PROJECT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs main.py with arguments in this process: its exit code and what it writes to stderr.

    No device is started, and a name in {braces} stands for a path below tmp_path.
    """
    monkeypatch.setattr(devices, "start", lambda *_, **__: None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    monkeypatch.chdir(PROJECT)
    handler = logging.get_absl_handler()
    before = handler.formatter, list(handler.filters), logging.get_verbosity()

    def run(args):
        names = {name: tmp_path / name for name in re.findall(r"{([a-z_./0-9-]+)}", " ".join(args))}
        args = [re.sub(r"{([a-z_./0-9-]+)}", lambda m: str(names[m[1]]), arg) for arg in args]
        monkeypatch.setattr(sys, "argv", ["main.py", *args])
        sys.modules.pop("config_config", None)  # what config_flags makes of a config file
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            main.run()
        return ended.value.code, capsys.readouterr().err

    yield run
    handler.setFormatter(before[0])
    handler.filters[:] = before[1]
    logging.set_verbosity(before[2])


def assert_refused(result, message):
    code, text = result
    assert code == 2, text
    assert re.search(message, text), text
    last = text.splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last), "the message is one line"
    assert "Traceback" not in text


MIXED = ["--config=configs/mixed.py", "--workdir={run}"]
CAE = ["--config=configs/cae.py", "--workdir={run}"]

FLAGS = [
    ([], "--workdir is missing"),
    (["--workdir={run}"], "--config is missing: for example"),
    (["--workdri={run}"], "Unknown command line flag 'workdri'. Did you mean: workdir"),
    (["--workdir"], "Missing value for flag --workdir"),
    (["--workdir={run}", "--config"], "Missing value for flag --config"),
    (["--workdir={run}", "--mode=trian"], r"--mode=trian: value should be one of <train\|eval"),
    (["--workdir={run}", "--log_level=LOUD"], "--log_level=LOUD: value should be one of"),
    (["--workdir={run}", "--split=dev"], "--split=dev: value should be one of"),
    (
        ["--workdir={run}", "--distributed=perhaps"],
        "--distributed=perhaps: .*must be True or False",
    ),
    ([*MIXED, "extra"], "'extra' is no flag: see --help"),
    ([*MIXED, "--config.use_aug", "false"], "--config.use_aug false: write --config.use_aug=false"),
    ([*MIXED, "--distributed", "no"], "--distributed no: write --distributed=no"),
    ([*MIXED, "--mode=evaluate"], "--config is for --mode train.*and not used by evaluate .*own"),
    (["--workdir={run}", "--mode=report", "--fold=1"], "--fold is for --mode evaluate, predict"),
    (["--workdir={run}", "--images=x.png"], "--images is for --mode predict, and not used by tr"),
    (["--workdir={run}", "--config.data_dir=x"], "--config is missing: for example"),
    (["--workdir={run}", "--mode=export", "--config.data_dir=x"], "--config.data_dir is for --mod"),
    (["--flagfile=none"], "Unable to open flagfile"),
    (["--flagfile"], "--flagfile with no argument"),
    (["--config.batch_size=3", *MIXED], "Found --config.batch_size=3 in argv before"),
    (["--config.batch_size=3"], "'config.batch_size'.* .fields need a --config, which only"),
    (["--config=", "--workdir={run}"], "--config=: give a Python file such as"),
    (["--config=configs", "--workdir={run}"], "--config=configs: give a Python file"),
    (["--config=configs/none.py", "--workdir={run}"], "configs/none.py: there is no such file"),
    (["--config=configs/mixed.py:quik"], "config argument 'quik': the only one known is 'quick'"),
    (["--config=configs/from_json.py"], "from_json.py needs a file: --config configs/from_json"),
    (["--config=my.json"], "give a JSON file as --config=configs/from_json.py:my.json"),
    ([*MIXED, "--config.batch_size=many"], "--config.batch_size=many: invalid literal for int"),
    ([*MIXED, "--config.batch_size=6.4"], "--config.batch_size=6.4: invalid literal for int"),
    ([*MIXED, "--config.batch_size"], "Missing value for flag --config.batch_size"),
    ([*MIXED, "--config.cnn.opt.lr=fast"], "--config.cnn.opt.lr=fast: could not convert"),
    ([*MIXED, "--config.use_aug=maybe"], "--config.use_aug=maybe: .*must be True or False"),
    ([*MIXED, "--config.cnn=3"], "--config.cnn=3: Failed to parse '3' as a ConfigDict"),
    ([*MIXED, "--config.cnn.optt.lr=1"], 'Did you mean "opt" instead of "optt"'),
    ([*MIXED, "--config.num_epoch.x=1"], "num_epoch.x"),
    ([*MIXED, "--config.cnn.block_sizes=((3,"], "Error while parsing string"),
]

# The config's fields, on the command line.
FIELDS = [
    (MIXED, "batchsize=3", "config.batchsize is no field of the config: did you mean 'batch_size'"),
    (MIXED, "zzz=3", "config.zzz is no field of the config: known are use_cnn"),
    (MIXED, "cnn.opt.eps=1", "config.cnn.opt.eps is no field .*: known are name, lr, betas"),
    (MIXED, "batch_size=0", "config.batch_size=0: must be a whole number from 1 to 50000"),
    (MIXED, "batch_size=-64", "config.batch_size=-64: must be"),
    (MIXED, "num_epoch=0", "config.num_epoch=0: must be a whole number, 1 or more"),
    (MIXED, "num_folds=1", "config.num_folds=1: must be a whole number, 2 or more"),
    (MIXED, "num_folds=9999", "config.train_data_regulation.*leaves 2500 .* the 9999 needed"),
    (MIXED, "seed=-1", "config.seed=-1: must be a whole number from 0 to 4294967295"),
    (MIXED, "seed=4294967296", "config.seed=4294967296: must be"),
    (MIXED, "dtype=float16", "config.dtype='float16': must be one of float32, bfloat16, float64"),
    (MIXED, "data_source=web", "config.data_source='web': must be one of auto, tfds, archive"),
    (MIXED, "keep_checkpoints=0", "config.keep_checkpoints=0: must be a whole number, 1 or more"),
    (MIXED, "save_img_per_epoch=-1", "config.save_img_per_epoch=-1: must be"),
    (MIXED, "only_train_cae_until=-1", "config.only_train_cae_until=-1: must be"),
    (MIXED, "cnn.opt.lr=0", "config.cnn.opt.lr=0.0: must be a number above 0"),
    (MIXED, "cae.opt.lr=nan", "config.cae.opt.lr=nan: must be a number above 0"),
    (MIXED, "cae.opt.lr=inf", "config.cae.opt.lr=inf: must be a number above 0"),
    (MIXED, "cnn.opt.betas=(0.0,1.0)", r"config.cnn.opt.betas=\(0.0, 1.0\): must be two numbers"),
    (MIXED, "cnn.opt.betas=(0.9,)", r"config.cnn.opt.betas=\(0.9,\): must be two numbers"),
    (MIXED, "cnn.block_sizes=()", r"config.cnn.block_sizes=\(\): must be a tuple of blocks"),
    (MIXED, "cnn.block_sizes=((3,26),)", "config.cnn.block_sizes=.*must be a tuple of blocks"),
    (MIXED, "cnn.block_sizes=((3,26,1),)", "config.cnn.block_sizes=.*must be a tuple of blocks"),
    (MIXED, "cnn.block_sizes=((3,0,True),)", "config.cnn.block_sizes=.*1 to 4096 channels"),
    (MIXED, "cae.enc_block_sizes=((3,9999),)", "config.cae.enc_block_sizes=.*1 to 4096 channels"),
    (MIXED, "cae.enc_block_sizes=((1,6),)", "block 1 takes 1 channels, but the image has 3"),
    (MIXED, "cae.enc_block_sizes=((3,5),(6,7))", "block 2 takes 6 channels, but block 1's outp"),
    (MIXED, "cae.enc_block_sizes=((3,8),)", "dec_block_sizes.*takes 6 channels, but the code h"),
    (MIXED, "cae.dec_block_sizes=((6,4),)", "cae.dec_block_sizes.*end in 3 channels"),
    (MIXED, "cae.dec_block_sizes=((6,3),(3,3))", "must have as many blocks as the encoder"),
    (
        CAE,
        "cae.enc_block_sizes=((3,3),(3,3),(3,3),(3,3),(3,3),(3,3))",
        "6 blocks halve the 32 pixels too often, at most 5",
    ),
    (
        MIXED,
        "cnn.block_sizes=((3,26,True),(26,64,True))",
        r"block 2 takes 26 channels, but block 1's output \(26\) with the code \(6\) has 32",
    ),
    (MIXED, "cnn.block_sizes=((6,26,True),)", "block 1 takes 6 channels, but the image has 3"),
    (MIXED, "cnn.block_sizes=((3,26,False),)", "must end at the code's resolution 16, not 32"),
    (MIXED, "cnn.input_resolution=16", "cnn.input_resolution=16: must be 32, the resolution of t"),
    (
        ["--config=configs/code.py", "--workdir={run}"],
        "cnn.input_resolution=32",
        "cnn.input_resolution=32: must be 16, the resolution of the code",
    ),
    (
        ["--config=configs/code.py", "--workdir={run}"],
        "cnn.block_sizes=((3,8,True),)",
        "block 1 takes 3 channels, but the code has 6",
    ),
    (
        ["--config=configs/cnn.py", "--workdir={run}"],
        f"cnn.block_sizes=((3,3,True){',(3,3,True)' * 5})",
        "block 6 cannot pool 1x1 pixels",
    ),
    (
        ["--config=configs/cnn.py", "--workdir={run}"],
        "cnn.use_mixed_input=True",
        "config.cnn.use_mixed_input=True: needs config.use_cae=True",
    ),
    (CAE, "use_cae=False", "config.use_cnn=False and config.use_cae=False leave nothing to train"),
    (
        ["--config=configs/cnn.py", "--workdir={run}"],
        "only_train_cae_until=5",
        "config.only_train_cae_until=5: warm-up trains the CAE alone",
    ),
    (MIXED, "train_data_regulation.brid=9", "regulation.brid is no class .* mean 'bird'"),
    (MIXED, "train_data_expansion.xyz=9", "expansion.xyz is no class .*: known are airplane"),
    (MIXED, "train_data_regulation.bird=5001", "bird=5001: class 'bird' has only 5000 training"),
    (MIXED, "train_data_regulation.bird=0", "regulation.bird=0: must be a whole number, 1 or m"),
    (MIXED, "train_data_regulation.bird=4", "bird=4: leaves 4 images of a class, fewer than"),
    (MIXED, "train_data_regulation.grey wagtail=9", 'regulation={"grey wagtail": COUNT}'),
    (MIXED, "train_data_regulation.mus [m]=9", r'regulation={"mus \[m\]": COUNT}'),
    (
        MIXED,
        'train_data_regulation["E. coli"]=9',
        "class E. coli needs a config of your own",
    ),
    (MIXED, 'train_data_regulation["a=b c"]=9', r'regulation={"a=b c": COUNT}'),
    (MIXED, "use_cae=maybe", "config.use_cae=maybe: must be True or False"),
    (MIXED, "train_data_expansion.bird=-1", "expansion.bird=-1: must be a whole number from 0"),
    (MIXED, "train_data_expansion.bird=999999999", "expansion.bird=999999999: must be a whole n"),
    (MIXED, "train_data_expansion.bird=2.5", "invalid literal|must be a whole number"),
]


# A config file and its content; None: a folder.
FILES = [
    ("c.py", "def get_config(:", "c.py: SyntaxError: invalid syntax"),
    ("c.py", "x = 1", "c.py: has no function get_config"),
    ("c.py", "import no_such_module", "c.py: ModuleNotFoundError: No module named"),
    (
        "c.py",
        "def get_config():\n  return unknown",
        r"c.py: NameError: name 'unknown' is not defined \(line 2\)",
    ),
    ("c.py", "def get_config():\n  return {}['a']", r"c.py: KeyError: a \(line 2\)"),
    ("c.py", "def get_config():\n  pass", "must return a ConfigDict, not None"),
    ("c.py", "def get_config():\n  return {'use_cnn': True}", "must return a ConfigDict, not {"),
    ("c.py", "def get_config():\n  open('/no/such/file')", "c.py: OSError: .*/no/such/file"),
    ("c.py", "def get_config():\n  raise ValueError('one\\ntwo')", "c.py: one two"),
    ("c.py", "\0", "c.py: SyntaxError: source code string cannot contain null bytes"),
    ("c.py", None, "there is no such file"),
    ("c.json", "{}", "give a JSON file as --config=configs/from_json.py:"),
]
JSON_FILES = [
    ("{", "cannot read the JSON config .*Expecting"),
    ("[1]", "holds no object of fields"),
    (b"\xff\xfe\x00", "cannot read the JSON config .*decode"),
    (None, "cannot read the JSON config .*Is a directory"),
    ('{"use_cnm": true}', "config.use_cnm is no field .*'use_cnn'"),
    ('{"use_cnn": "yes"}', "config.use_cnn='yes': must be True or False"),
    ('{"cnn": {"block_sizes": "deep"}}', "config.cnn.block_sizes='deep': must be a tuple"),
    ('{"cnn": {"opt": {"lr": "1e-3"}}}', "config.cnn.opt.lr='1e-3': must be a number above 0"),
    ('{"cnn": {"opt": {"lr": 1e999}}}', "config.cnn.opt.lr=inf: must be a number above 0"),
    ('{"num_epoch": 1e2}', "config.num_epoch=100.0: must be a whole number"),
    ('{"train_data_regulation": {"frgo": 9}}', "regulation.frgo is no class .*'frog'"),
    ('{"train_data_regulation": {"cat": "9"}}', "regulation.cat='9': must be a whole number"),
    ('{"do_cv": false, "do_test": false}', "leave nothing to run"),
]


def put(path, content):
    if content is None:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(("args", "message"), FLAGS)
def test_wrong_flags_are_refused(command, args, message):
    assert_refused(command(args), message)


def test_a_file_that_looks_like_a_flag_is_said(command, tmp_path, monkeypatch):
    """As a shell makes of *.png where a file is called -1.png."""
    (tmp_path / "-1.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    predict = ["--mode=predict", "--workdir={run}", "--images", "a.png", "-1.png"]
    assert_refused(command(predict), "for the file -1.png write ./-1.png, for a pattern ./*")


@pytest.mark.parametrize(("base", "field", "message"), FIELDS)
def test_wrong_fields_are_refused_before_anything_is_written(
    command, tmp_path, base, field, message
):
    assert_refused(command([*base, f"--config.{field}"]), message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "content", "message"), FILES)
def test_wrong_config_files_are_refused(command, tmp_path, name, content, message):
    put(tmp_path / name, content)
    assert_refused(command([f"--config={{{name}}}", "--workdir={run}"]), message)


@pytest.mark.parametrize(("content", "message"), JSON_FILES)
def test_wrong_json_configs_are_refused(command, tmp_path, content, message):
    put(tmp_path / "c.json", content)
    args = ["--config=configs/from_json.py:{c.json}", "--workdir={run}"]
    assert_refused(command(args), message)


def saved(**changes):
    """A run's config.json, with changes."""
    return json.dumps({"format": saved_config.FORMAT} | tiny_config("cnn").to_dict() | changes)


EVALUATE = ["--mode=evaluate", "--workdir={run}"]
REPORT = ["--mode=report", "--workdir={run}"]
TRAIN = [*CAE, "--config.data_source=tfds"]
# What lies below tmp_path before the command.
FOLDERS = [
    ({}, EVALUATE, "run holds no run: there is no config.json; check --workdir"),
    ({"run": None}, EVALUATE, "run holds no run: there is no config.json; check --workdir"),
    ({"run": "a file"}, EVALUATE, "run"),
    ({"run/config.json": "{"}, EVALUATE, "config.json: the saved config is no JSON"),
    ({"run/config.json": b"\xff"}, EVALUATE, "cannot read .*config.json .*decode"),
    ({"run/config.json": "[]"}, EVALUATE, "config.json: the saved config holds no fields"),
    ({"run/config.json": "{}"}, EVALUATE, "config.json: config.use_cnn is missing"),
    ({"run/config.json": saved(batch_size=0)}, EVALUATE, "config.json: config.batch_size=0: must"),
    ({"run/config.json": saved(extra=1)}, EVALUATE, "config.json: config.extra is no field"),
    ({"run/config.json": None}, EVALUATE, "config.json"),
    ({}, REPORT, "run holds no run: there is no config.json"),
    ({"run/config.json": "{"}, REPORT, "config.json is damaged, for it is no JSON"),
    ({"run": "a file"}, TRAIN, "run cannot be a folder, for a file is in its place"),
    ({"run": "a file"}, [TRAIN[0], "--workdir={run/a/b}"], "a file is in its place"),
    ({"run/config.json": "{"}, TRAIN, "config.json: the saved config is no JSON"),
    ({"run/config.json": None}, TRAIN, "config.json"),
    (
        {"run/config.json": saved(), "run/history.jsonl": "{}\n"},
        TRAIN,
        "holds a run of another config: config.batch_size was",
    ),
    ({}, TRAIN, "no CIFAR-10 from data_source='tfds' .*provide CIFAR-10 in one of three ways"),
    ({}, [*CAE, "--config.data_source=archive", "--config.data_dir={none}"], "holds no CIFAR-10 a"),
    (
        {"data/cifar10/3.0.2/dataset_info.json": "{"},
        [*TRAIN, "--config.data_dir={data}"],
        "3.0.2: its JSON files cannot be read",
    ),
    (
        {"data/cifar-10-binary.tar.gz": "not an archive"},
        [*CAE, "--config.data_source=archive", "--config.data_dir={data/cifar-10-binary.tar.gz}"],
        "cifar-10-binary.tar.gz: cannot be read as a .tar.gz",
    ),
]


@pytest.mark.parametrize(("files", "args", "message"), FOLDERS)
def test_wrong_folders_are_refused(command, tmp_path, files, args, message):
    for name, content in files.items():
        put(tmp_path / name, content)
    assert_refused(command(args), message)


def test_a_folder_that_another_process_trains_in_is_refused(command, tmp_path):
    put(tmp_path / "run", None)
    with open(tmp_path / "run" / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert_refused(command(TRAIN), "another process trains in .*run: wait for it or choose")


# --- Mutations of valid configs ---

LABELS = np.concatenate([np.repeat(np.arange(10), n) for n in (5000, 1000)])
IMAGE = jax.ShapeDtypeStruct((3, 32, 32, 3), np.float32)
COUNTS = np.full(10, 5000, np.int32)
LABEL = jax.ShapeDtypeStruct((3,), np.int32)

channels = st.one_of(st.integers(-1, 8), st.sampled_from([2**13, 3]))
blocks = st.one_of(st.tuples(channels, channels), st.tuples(channels, channels, st.booleans()))
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**32, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=2),
    st.lists(blocks, max_size=3),
    st.lists(blocks, max_size=3).map(tuple),
    st.tuples(st.floats(0, 1), st.floats(0, 1)),
    st.dictionaries(
        st.sampled_from(["bird", "brid", "all", "lr", "x"]),
        st.one_of(st.integers(-1, 6000), st.floats()),
        max_size=3,
    ),
    st.sampled_from(["float64", "bfloat16", "tfds", ((3, 4, True), (4, 6, False)), np.ones(2)]),
)


def paths_of(tree, prefix=()):
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from paths_of(value, (*prefix, name))


PATHS = sorted(set(paths_of(tiny_config("mixed").to_dict())))


@st.composite
def mutated(draw):
    """A valid config's fields with one to three of them altered, removed or added."""
    fields = copy.deepcopy(tiny_config(draw(st.sampled_from(KINDS))).to_dict())
    for *parents, name in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3)):
        group = fields
        for parent in parents:
            group = group.get(parent) if isinstance(group, dict) else None
        if not isinstance(group, dict):
            continue
        match draw(st.sampled_from(["alter", "alter", "swap", "remove", "add"])):
            case "alter":
                group[name] = draw(junk)
            case "swap":  # for the field's value in a config of another kind
                value = tiny_config(draw(st.sampled_from(KINDS))).to_dict()
                for part in (*parents, name):
                    value = value[part]
                group[name] = value
            case "remove":
                group.pop(name, None)
            case "add":
                group[draw(st.sampled_from(["x", "useAug", "lr", "bird", "items"]))] = draw(junk)
    return fields


def check_and_build(config):
    """The config's networks for images and classes as CIFAR-10's, whatever data it names."""
    config_lib.validate(config)
    requirements.check(config, cifar.CLASS_NAMES, [5_000] * 10, [1_000] * 10)
    channels = blocks_lib.image_channels(config) or 3
    return models.from_config(config, num_classes=10, channels=channels)


def trace(config, model):
    """Everything that a run does up to its first step, without compiling it."""
    splits = sampling.splits(config, LABELS, 50_000, cifar.CLASS_NAMES)[1]
    assert all(len(split.expanded) and len(split.valid) for split in splits)
    with jax.enable_x64(config.dtype == "float64"):
        state = jax.eval_shape(
            lambda key: steps.create_state(model, config, key, class_counts=COUNTS),
            jax.random.key(config.seed),
        )
        batch = {"image": IMAGE, "label": LABEL}
        trained, _ = jax.eval_shape(steps.train_step, state, batch)
        assert jax.tree.map(lambda leaf: leaf.shape, trained) == jax.tree.map(
            lambda leaf: leaf.shape, state
        )


def number_of_parameters(config, model) -> int:
    params = jax.eval_shape(
        lambda key: steps.create_state(model, config, key).params, jax.random.key(0)
    )
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def run_a_step(config, model):
    """Trains one step and checks that the losses are those of the parts in use."""
    key = jax.random.key(config.seed)
    state = steps.create_state(model, config, key, class_counts=COUNTS)
    batch = {"image": np.ones(IMAGE.shape, np.float32), "label": np.array([1, 2, 3], np.int32)}
    _, metrics = steps.train_step(state, batch)
    wanted = {"loss_cae": config.use_cae, "loss_cnn": config.use_cnn}
    assert {name: bool(np.isfinite(loss)) for name, loss in metrics.items()} == wanted


@hypothesis.settings(max_examples=200)
@hypothesis.given(mutated())
def test_a_mutated_config_is_refused_or_builds_and_runs_a_step(quick_compilation, fields):
    try:
        config = ml_collections.ConfigDict(fields)
    except (KeyError, TypeError, ValueError):  # ConfigDict's own refusal of a field's name
        hypothesis.reject()
    try:
        model = check_and_build(config)
    except config_lib.ConfigError as error:
        hypothesis.event("refused")
        assert len(str(error).splitlines()) == 1
        return
    hypothesis.event("accepted")
    trace(config, model)
    if number_of_parameters(config, model) < 20_000:  # larger ones would only compile longer
        hypothesis.event("ran a step")
        with jax.enable_x64(config.dtype == "float64"):
            run_a_step(config, model)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("cae", {"cae": {"enc_block_sizes": ((3, 1),), "dec_block_sizes": ((1, 3),)}}),
        ("mixed", {"dtype": "bfloat16", "cnn": {"block_sizes": ((3, 2, True),)}}),
        ("cnn", {"seed": 2**32 - 1, "cnn": {"block_sizes": ((3, 2, False), (2, 3, True))}}),
    ],
)
def test_an_accepted_config_runs_a_step(quick_compilation, kind, changes):
    config = tiny_config(kind, **changes)
    model = check_and_build(config)
    trace(config, model)
    run_a_step(config, model)
