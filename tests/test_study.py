"""Tests of caecnn_jax.study: variants, the config of each run, parts; nothing trains."""

import sys

import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax import config as config_lib
from caecnn_jax import errors, study

VARIANTS = {"plain": {}, "slow": {"cnn.opt.lr": 1e-4}}
OPT = tiny_config("cnn").cnn.opt.to_dict()


def expand(**changes):
    fields = {"base": tiny_config("cnn"), "variants": VARIANTS, "seeds": (0, 1)}
    return study.expand("tiny", fields | {"baseline": "plain"} | changes)


def test_product_joins_every_pair_and_zip_the_matching_ones():
    networks = {"cnn": {"use_cae": False}, "mixed": {"use_cae": True}}
    rates = {"slow": {"cnn.opt.lr": 0.1}, "fast": {"cnn.opt.lr": 1.0}}
    assert study.product(networks, rates) == {
        "cnn-slow": {"use_cae": False, "cnn.opt.lr": 0.1},
        "cnn-fast": {"use_cae": False, "cnn.opt.lr": 1.0},
        "mixed-slow": {"use_cae": True, "cnn.opt.lr": 0.1},
        "mixed-fast": {"use_cae": True, "cnn.opt.lr": 1.0},
    }
    assert list(study.zip(networks, rates)) == ["cnn-slow", "mixed-fast"]


def test_a_fields_values_are_an_axis():
    assert study.product({"cae.loss_weight": (0.1, 1.0), "num_epoch": (3,)}) == {
        "loss_weight=0.1-num_epoch=3": {"cae.loss_weight": 0.1, "num_epoch": 3},
        "loss_weight=1.0-num_epoch=3": {"cae.loss_weight": 1.0, "num_epoch": 3},
    }
    assert list(study.product({"num_epoch": range(1, 3)})) == ["num_epoch=1", "num_epoch=2"]
    assert list(study.product({"cnn.opt.lr": tuple(np.array([0.1, 0.5]))})) == ["lr=0.1", "lr=0.5"]


def test_a_value_that_comes_twice_is_two_variants_of_a_zip():
    assert study.zip({"lr": (0.1, 0.1, 0.3)}, {"batch_size": (64, 128, 128)}) == {
        "lr=0.1-batch_size=64": {"lr": 0.1, "batch_size": 64},
        "lr=0.1-batch_size=128": {"lr": 0.1, "batch_size": 128},
        "lr=0.3-batch_size=128": {"lr": 0.3, "batch_size": 128},
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: study.product({"a": {"x": 1}}, {"b": {"x": 2}}), "'a-b': two axes change x"),
        (lambda: study.zip({"a": {}}, {"b": {}, "c": {}}), "axes of 1, 2 variants"),
        (
            lambda: study.product({"cnn.opt.lr": (0.1,)}, {"adam": {"cnn.opt": OPT}}),
            "'lr=0.1-adam': two axes change cnn.opt and cnn.opt.lr",
        ),
        (
            lambda: study.zip({"adam": {"cnn.opt": OPT}}, {"cnn.opt.lr": (0.1,)}),
            "'adam-lr=0.1': two axes change cnn.opt and cnn.opt.lr",
        ),
        (lambda: study.product({"num_epoch": 3}), "needs a tuple of values"),
        (lambda: study.product(["plain"]), r"\['plain'\]: an axis must be a dict"),
        (lambda: study.product({1: {"num_epoch": 1}}), "an axis must be a dict by names or fields"),
        (
            lambda: study.product({"cnn.opt.betas": ((0.9, 0.99),)}),
            r"'betas=\(0.9, 0.99\)' is no variant's name: write \{NAME: \{'cnn.opt.bet",
        ),
        (
            lambda: study.product({"a": {"x": 1}, "a-b": {"x": 2}}, {"b-c": {}, "c": {}}),
            "'a-b-c': two combinations",
        ),
    ],
)
def test_axes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(study.StudyError, match=message):
        call()


def test_the_runs_of_a_seed_come_before_those_of_the_next():
    runs = expand().runs
    names = ["plain/seed_0", "slow/seed_0", "plain/seed_1", "slow/seed_1"]
    assert [run.name for run in runs] == names
    assert [run.config.seed for run in runs] == [0, 0, 1, 1]
    assert [run.config.cnn.opt.lr for run in runs] == [1e-2, 1e-4] * 2


def test_a_change_replaces_what_it_names_and_leaves_the_base_alone():
    base = tiny_config("cnn")
    changed = study.changed(base, {"train_data_expansion": {}, "cnn.opt.betas": (0.9, 0.99)})
    assert changed.train_data_expansion.to_dict() == {}
    assert changed.cnn.opt.betas == (0.9, 0.99) and changed.cnn.opt.lr == 1e-2
    assert base.train_data_expansion.bird == 6 and base.cnn.opt.betas == (0.0, 0.999)


@pytest.mark.parametrize("group", [OPT, tiny_config("cnn").cnn.opt])
def test_a_member_that_changes_after_its_group_leaves_the_group_given_alone(group):
    opt, lr = {"cnn.opt": group}, {"cnn.opt.lr": 0.5}
    runs = expand(variants={"plain": opt, "fast": opt | lr, "third": opt}, seeds=(0,)).runs
    assert [run.config.cnn.opt.lr for run in runs] == [1e-2, 0.5, 1e-2]


def test_numbers_of_numpy_are_pythons():
    changes = {
        "num_epoch": np.int64(3),
        "use_aug": np.bool_(False),
        "cnn.opt": OPT | {"lr": np.float64(0.5), "betas": tuple(np.array([0.5, 0.75]))},
    }
    config = study.changed(tiny_config("cnn"), changes)
    config_lib.validate(config)
    assert (config.num_epoch, config.use_aug) == (3, False)
    assert (config.cnn.opt.lr, config.cnn.opt.betas) == (0.5, (0.5, 0.75))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"a": {"cnn.opt.rate": 1}}}, r"'a': config.cnn.opt.rate is no field"),
        ({"variants": {"a": {"batch_size.x": 1}}}, "'a': .*batch_size is no group"),
        ({"variants": {"a": {"num_epoch": 0}}}, "'a': config.num_epoch=0"),
        (
            {"variants": {"a": {"cnn.opt.lr": 0.5, "cnn.opt": OPT}}},
            "config.cnn.opt: would undo cnn.opt.lr before it: put it first",
        ),
        ({"variants": {"a/b": {}}}, "'a/b': its name is a folder's"),
        ({"variants": {"..": {}}}, "its name is a folder's"),
        ({"variants": {"a": {"seed": 3}}}, "changes the seed"),
        ({"variants": {"study.md": {}}}, "what a study writes beside its variants"),
        ({"variants": {"a": 3}}, "must map fields"),
        ({"variants": {}}, "needs a variant"),
        ({"seeds": ()}, "needs a variant and a seed"),
        ({"seeds": (1, 1)}, "each seed once"),
        ({"seeds": (-1,)}, "config.seed=-1"),
        ({"baseline": "none"}, "baseline: none is no variant: known are"),
        ({"baseline": {"plain": "plain"}}, "baseline: slow has none"),
        ({"variants": VARIANTS | {"x": {"dtype": "float64"}}}, "float64 is for all"),
        ({"variants": VARIANTS | {"x": {"devices_per_run": 2}}}, "the same in all variants"),
        ({"base": 3}, "base=3: must be a config file"),
        ({"base": "nowhere.py"}, "nowhere.py: there is no such file"),
        ({"variants": ["plain"]}, r"variants=\['plain'\]: must be a dict"),
        ({"variants": {"a": {3: 3}}}, "must map fields"),
        ({"variants": {"a" * 201: {}}}, "at most 200 characters"),
        ({"seeds": 3}, "seeds=3: must be a tuple of whole numbers"),
        ({"seeds": ([0],)}, r"seeds=\(\[0\],\): must be a tuple of whole numbers"),
        ({"seeds": (True,)}, "must be a tuple of whole numbers"),
        ({"baseline": None}, "baseline=None: must be a variant's name"),
        ({"baseline": {"plain": None}}, "must map names of variants"),
        ({"baseline": {3: "plain"}}, "must map names of variants"),
        ({"published": {"source": "x", "cv": 0.7}}, "published.cv=0.7: must map variants"),
        ({"published": {"source": "x", "test": {"plain": "0.7"}}}, "published.test=.*to numbers"),
        ({"submit": 3}, "submit=3: must be a dict"),
        ({"published": {"cv": {"plain": 0.5}}}, "published: lacks its source"),
        ({"published": {"source": 3}}, "published: lacks its source, a string"),
        ({"published": {"source": "x", "Test": {}}}, "published: Test: .* source, cv and test"),
        (
            {"published": {"source": "x", "cv": {"plan": 0.5}}},
            "published.cv=.*plan.*: must map variants",
        ),
        ({"published": {"source": "x", "cv": {3: 0.5}}}, "published.cv=.*3.*: must map variants"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_trains(changes, message):
    with pytest.raises(errors.UserError, match=message):
        expand(**changes)


def test_each_variant_may_have_its_own_baseline():
    variants = {"a": {}, "b": {}, "c": {}, "d": {}}
    found = expand(variants=variants, baseline={"b": "a", "d": "c"}).baselines
    assert found == {"a": "a", "b": "a", "c": "c", "d": "c"}


FILE = """
def get_study(arg="whole"):
    return {"base": "configs/cnn.py", "variants": {arg: {}}, "seeds": (3,), "baseline": arg}
"""


def test_a_file_is_read_with_its_argument_and_another_base(tmp_path):
    path = tmp_path / "my.py"
    path.write_text(FILE)
    found = study.load(f"{path}:cut")
    assert (found.name, [run.name for run in found.runs]) == ("my", ["cut/seed_3"])
    assert study.get_config(str(path)).num_epoch == 400
    base = study.get_config(str(path))
    base.num_epoch = 7
    assert study.load(str(path), base).runs[0].config.num_epoch == 7
    base.seed = 8
    with pytest.raises(study.StudyError, match=r"config\.seed=8: the seeds are those of .*my\.py"):
        study.load(str(path), base)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no function get_study"),
        ("def get_study(): return 3", "must return a dict"),
        ("def get_study(): return {'base': 1, 'seeds': ()}", "lacks baseline, variants"),
        (FILE.replace('"seeds"', '"seed"'), "the study lacks seeds"),
        (
            FILE.replace('"baseline"', '"x": 1, "baseline"'),
            "x: a study has base, baseline, publish",
        ),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, text, message):
    path = tmp_path / "my.py"
    path.write_text(text)
    with pytest.raises(errors.UserError, match=message):
        study.load(str(path))


def test_a_file_may_import_what_lies_beside_it_and_takes_its_base_from_there(tmp_path):
    (tmp_path / "beside_the_study.py").write_text("NAME = 'mine'")
    (tmp_path / "later_beside_the_study.py").write_text("RATE = 0.5")
    (tmp_path / "configs.py").write_text("raise AssertionError('not the program's')")
    (tmp_path / "base.py").write_text("from configs.cnn import get_config")
    (tmp_path / "my.py").write_text(
        """
from __future__ import annotations
import dataclasses
import beside_the_study
from configs import cnn


@dataclasses.dataclass
class Setting:
    rate: float = 0.0


def get_study():
    import later_beside_the_study

    changes = {"cnn.opt.lr": Setting(later_beside_the_study.RATE).rate}
    name = beside_the_study.NAME
    return {"base": "base.py", "variants": {name: changes}, "seeds": (0,), "baseline": name}
"""
    )
    path, modules = list(sys.path), set(sys.modules)
    (run,) = study.load(str(tmp_path / "my.py")).runs
    assert (run.variant, run.config.cnn.opt.lr) == ("mine", 0.5)
    added = {name for name in set(sys.modules) - modules if not name.startswith("configs")}
    assert added == {"beside_the_study", "later_beside_the_study"}
    assert sys.path == path
