"""Tests of caecnn_jax.results.variants: means, paired differences and their intervals by hand."""

import json

import numpy as np
import pytest
from etils import epath
from scipy import stats
from study_folders import RIGHT, make_study, write, write_all
from synthetic_runs import counted_run

from caecnn_jax.records import workdir
from caecnn_jax.results import variants


@pytest.fixture
def folder(tmp_path):
    """The study with two of three variants finished, two folds under each of three seeds."""
    write_all(tmp_path)
    return epath.Path(tmp_path)


def test_means_and_paired_differences_have_the_corrected_interval(folder):
    found = variants.summary(make_study(), folder)
    assert found["parts"] == ["cv"] and found["primary"] == "accuracy"
    plain, other = (np.array(RIGHT[name]).ravel() / 20 for name in ("plain", "other"))
    # Six values; a fold has half as many validation images as training images.
    reach = stats.t.ppf(0.975, 5) * np.sqrt(1 / 6 + 1 / 2)
    for one, values in (
        (found["variants"]["plain"]["cv"]["accuracy"], plain),
        (found["variants"]["other"]["difference"]["cv"]["accuracy"], other - plain),
    ):
        assert list(one["values"].values()) == pytest.approx(values)
        assert one["mean"] == pytest.approx(values.mean())
        assert one["high"] - one["mean"] == pytest.approx(reach * values.std(ddof=1))
    assert "difference" not in found["variants"]["plain"]


def test_p_values_are_adjusted_over_the_variants(folder):
    made = make_study()
    for run in made.runs:
        if run.variant == "third":
            write(folder, run, {"fold_1": 11 + run.seed, "fold_2": 13})
    found = variants.summary(made, folder)["variants"]
    p = {name: found[name]["difference"]["cv"]["accuracy"] for name in ("other", "third")}
    assert p["other"]["p"] < p["third"]["p"]
    assert p["other"]["p_holm"] == pytest.approx(2 * p["other"]["p"])
    assert p["third"]["p_holm"] == pytest.approx(max(p["third"]["p"], 2 * p["other"]["p"]))
    recalls = [found[name]["difference"]["cv"]["recall"] for name in ("other", "third")]
    assert [sorted(one) for one in recalls] == [["bird", "deer", "truck"]] * 2
    smallest = min((one for by_class in recalls for one in by_class.values()), key=lambda d: d["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, 6 * smallest["p"]))


def test_what_is_not_finished_is_named_and_left_out(folder):
    found = variants.summary(make_study(seeds=(0, 1, 2, 3)), folder)
    wanted = ["third/seed_0", "third/seed_1", "third/seed_2"]
    assert found["unfinished"] == [*wanted, "plain/seed_3", "other/seed_3", "third/seed_3"]
    assert found["variants"]["third"]["finished"] is False
    assert found["seconds"] == 6 * 60


def test_results_on_other_images_are_not_paired(tmp_path):
    made = make_study(seeds=(0, 1))
    for run in made.runs[:2] + made.runs[3:5]:
        moved = run.name == "other/seed_1"
        write(tmp_path, run, {"test": 10 + run.seed}, digest="moved" if moved else "same")
    found = variants.summary(made, epath.Path(tmp_path))["variants"]["other"]
    assert found["test"]["accuracy"]["mean"] == pytest.approx(10.5 / 20)
    difference = found["difference"]["test"]["accuracy"]
    assert difference["values"] == {"seed_0/test": 0.0}
    assert (difference["low"], difference["p"], difference["p_holm"]) == (None, None, None)


def test_seeds_that_were_trained_on_different_images_are_no_study(tmp_path):
    made = make_study(seeds=(0, 1))
    for run in made.runs:
        write(tmp_path, run, {"test": 10})
    path = tmp_path / "plain" / "seed_1" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "e"}))
    with pytest.raises(workdir.WorkdirError, match=r"seed_1 was trained on other images than pl"):
        variants.summary(made, epath.Path(tmp_path))


def test_equal_differences_tell_nothing_of_their_spread(tmp_path):
    made = make_study(seeds=(0, 1))
    for run in made.runs:
        write(tmp_path, run, {"test": 10 + run.seed + (run.variant == "other")})
    found = variants.summary(made, epath.Path(tmp_path))["variants"]["other"]
    difference = found["difference"]["test"]["accuracy"]
    assert difference["mean"] == pytest.approx(1 / 20)
    assert [difference[name] for name in ("low", "high", "p", "p_holm")] == [None] * 4
    assert found["test"]["accuracy"]["low"] is not None


def test_the_rare_classes_of_a_difference_are_the_variants(tmp_path):
    """Each with rare classes of its own, and all classes recalled as often as each other."""
    fields = {"bird": ("plain", 12), "cat": ("other", 12)}
    changes = {name: {"train_data_regulation": {rare: n}} for rare, (name, n) in fields.items()}
    made = make_study(seeds=(0,), variants=changes)
    for run in made.runs:
        write(tmp_path, run, {"test": 10})
    path = tmp_path / "plain" / "seed_0" / "metrics.json"
    saved = json.loads(path.read_text())
    saved["test"]["per_class"]["bird"]["recall"] = 0.1
    path.write_text(json.dumps(saved))
    found = variants.summary(made, epath.Path(tmp_path))["variants"]
    assert found["plain"]["test"]["rare_recall"]["mean"] == 0.1
    assert found["other"]["difference"]["test"]["rare_recall"]["mean"] == 0


def test_the_same_data_at_another_place_are_paired_and_others_are_not(tmp_path):
    made = make_study(seeds=(0,))
    for run in made.runs:
        write(tmp_path, run, {"test": 10})
    moved = tmp_path / "other" / "seed_0" / "config.json"
    fields = json.loads(moved.read_text()) | {"data_dir": "/elsewhere"}
    moved.write_text(json.dumps(fields))
    about = tmp_path / "third" / "seed_0" / "dataset.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"digest": "another"}))
    found = variants.summary(made, epath.Path(tmp_path))["variants"]
    assert found["other"]["difference"]["test"]["accuracy"]["mean"] == 0
    assert "difference" not in found["third"]


def test_a_variant_without_the_baselines_classes_has_no_difference(tmp_path):
    none_rare = {"train_data_regulation": {}, "train_data_expansion": {}}
    made = make_study(variants={"plain": none_rare, "other": {}}, seeds=(0,))
    for run in made.runs:
        write(tmp_path, run, {"test": 10}, digest=run.variant)
    path = tmp_path / "plain" / "seed_0" / "metrics.json"
    path.write_text(path.read_text().replace('"bird"', '"wren"'))
    found = variants.summary(made, epath.Path(tmp_path))["variants"]
    assert "difference" not in found["other"]


def test_a_run_of_fewer_epochs_than_asked_for_now_is_not_finished(folder):
    longer = make_study()
    for run in longer.runs:
        run.config.num_epoch += 1
    assert len(variants.summary(longer, folder)["unfinished"]) == 9


def test_only_what_differs_of_the_configs_is_told():
    assert variants.differing_fields(make_study()) == {
        "plain": {"batch_size": 32, "cnn.opt.lr": 1e-2},
        "other": {"batch_size": 16, "cnn.opt.lr": 1e-2},
        "third": {"batch_size": 32, "cnn.opt.lr": 1e-3},
    }


def test_parameters_are_counted(folder):
    # Convolutions 3x3 with bias, BatchNorm, and a dense layer of 8x8x6.
    wanted = (27 * 4 + 4 + 8) + (36 * 6 + 6 + 12) + (8 * 8 * 6 * 10 + 10)
    assert variants.summary(make_study(), folder)["variants"]["plain"]["parameters"] == wanted


def test_a_rare_class_without_an_image_to_judge_by_counts_in_no_recall():
    run = counted_run([90, 40, 5, 4, 3, 2], imbalance={"type": "none"})
    per_class = {"e": {"recall": 0.9, "support": 10}, "f": {"recall": 0.0, "support": 0}}
    result = {"per_class": per_class}
    assert variants._figure("rare_recall")(run, result) == 0.9
    assert variants._recall("f")(run, result) is None


def test_every_machine_is_named_and_a_part_that_a_variant_has_not_is_not(tmp_path):
    made = make_study(seeds=(0, 1))
    for run in made.runs:
        write(tmp_path, run, {"test": 10} if run.variant == "plain" else {"fold_1": 10})
    path = tmp_path / "plain" / "seed_1" / "run.json"
    info = json.loads(path.read_text())
    info["environment"]["device_kind"] = "TPU v5e"
    path.write_text(json.dumps(info))
    found = variants.summary(made, epath.Path(tmp_path))
    assert [one["device_kind"] for one in found["environments"]] == ["cpu", "TPU v5e"]
    assert "cv" not in found["variants"]["plain"] and "test" not in found["variants"]["other"]
    assert found["variants"]["plain"]["test"]["accuracy_curve"][-1][1] == 0.5
