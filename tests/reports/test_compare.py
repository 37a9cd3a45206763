import json
import math
import re

import numpy as np
import pytest
import synthetic_runs
from scipy import stats

from caecnn_jax.records import runs
from caecnn_jax.reports import compare, report


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return [
        synthetic_runs.make_run(root / "cnn", use_cae=False, num_epoch=6, seed=1, skill=0.70),
        synthetic_runs.make_run(root / "mixed", num_epoch=8, seed=2, skill=0.76),
    ]


def variant(root, name, **options):
    return synthetic_runs.make_run(root / name, num_epoch=3, seed=5, **options)


def test_comparison_holds_paired_differences_over_folds(folders, tmp_path):
    page = compare.write(folders, tmp_path / "out")
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    base, other = (json.loads((f / "metrics.json").read_text())["cv"]["folds"] for f in folders)
    by_fold = [b["accuracy"] - a["accuracy"] for a, b in zip(base, other, strict=True)]
    got = result["runs"]["mixed"]["difference"]["cv"]["accuracy"]
    expected = stats.ttest_1samp(by_fold, 0).confidence_interval(0.95)
    assert got["folds"] == pytest.approx(by_fold)
    assert got["mean"] == pytest.approx(np.mean(by_fold))
    assert (got["low"], got["high"]) == pytest.approx((expected.low, expected.high))
    bird = [
        b["per_class"]["bird"]["f1"] - a["per_class"]["bird"]["f1"]
        for a, b in zip(base, other, strict=True)
    ]
    gain = result["runs"]["mixed"]["difference"]["cv"]["f1"]["bird"]
    assert gain["folds"] == pytest.approx(bird)
    assert result["baseline"] == "cnn" and result["rare_classes"] == ["bird", "deer", "truck"]
    words = synthetic_runs.text_of(page)
    assert report.signed(got["mean"]) in words and report.signed(gain["mean"], 3) in words
    assert "optimistic" in words and "bird rare" in words
    assert "<script" not in page.read_text()


def test_interval_of_one_difference_is_absent():
    assert compare.paired_difference([0.25]) == {
        "folds": [0.25],
        "mean": 0.25,
        "low": None,
        "high": None,
    }


def test_a_constant_difference_has_an_interval_without_width():
    got = compare.paired_difference([0.5, 0.5, 0.5])
    assert got["low"] == got["mean"] == got["high"] == 0.5


def test_runs_with_only_a_test_are_compared_without_interval(tmp_path):
    folders = [variant(tmp_path, name, num_folds=0) for name in ("a", "b")]
    page = compare.write([*folders], tmp_path)
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert result["parts"] == ["test"]
    assert result["runs"]["b"]["difference"]["test"]["accuracy"]["low"] is None
    assert "With one result a run there is no interval" in synthetic_runs.text_of(page)


def test_a_fold_that_stopped_early_keeps_its_last_accuracy(tmp_path):
    folders = [variant(tmp_path, name, num_folds=2) for name in ("a", "b")]
    history = folders[0] / "history.jsonl"
    records = [json.loads(line) for line in history.read_text().splitlines()]
    for record in records:
        record["valid"]["accuracy"] = {1: None, 2: 0.2, 3: 0.6}[record["epoch"]]
    kept = [r for r in records if (r["run"], r["epoch"]) != ("fold_2", 3)]
    history.write_text("".join(json.dumps(record) + "\n" for record in kept))
    curves = compare.accuracy_curves([runs.read(folder) for folder in folders])
    assert curves["a"] == [(2, pytest.approx(0.2)), (3, pytest.approx(0.4))]


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    folders = [variant(tmp_path / name, "run", num_folds=2) for name in ("a", "b")]
    compare.write(folders, tmp_path)
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert list(result["runs"]) == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"use_cnn": False}, "trained no CNN"),
        ({"finished": False}, "unfinished"),
        ({"data_digest": "d1"}, "different data"),
        ({"data_digest": None}, "data_digest"),
        ({"fold_seed": 1}, "different folds"),
        ({"num_folds": 3}, "different folds"),
        ({"num_folds": 0, "test": True}, None),
    ],
)
def test_what_cannot_be_compared_is_refused(folders, tmp_path, options, words):
    other = variant(tmp_path, "other", **options)
    if words is None:  # the counter-check: a shared test run is enough
        compare.write([folders[0], other], tmp_path / "out")
        return
    with pytest.raises(report.ReportError, match=words) as error:
        compare.write([folders[0], other], tmp_path / "out")
    assert str(other) in str(error.value) and not (tmp_path / "out").exists()


def test_runs_that_share_no_part_are_refused(tmp_path):
    cv = variant(tmp_path, "cv", test=False)
    test = variant(tmp_path, "test", num_folds=0)
    with pytest.raises(report.ReportError, match="share neither folds nor test"):
        compare.write([cv, test], tmp_path)


def test_one_run_or_the_same_twice_is_refused(folders, tmp_path):
    for given in (folders[:1], [folders[0], folders[0]]):
        with pytest.raises(report.ReportError, match="two or more different folders"):
            compare.write(given, tmp_path)


def test_labels_keep_clear_of_points_and_of_each_other():
    points = {"cat": (0.5, 0.1), "dog": (0.5, 0.102), "ship": (0.9, -0.1), "bird": (0.1, 0.0)}
    offsets = compare.label_offsets(points)
    assert offsets["ship"] == offsets["bird"] == (0, 8)
    assert offsets["cat"] != offsets["dog"]
    assert all(math.isfinite(value) for offset in offsets.values() for value in offset)
    assert compare.label_offsets({"a": (1, 1), "b": (1, 1)})


@pytest.mark.slow
@pytest.mark.skipif(synthetic_runs.CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("width", [500, 1200])
def test_comparison_fits_a_browser_window(folders, tmp_path, width):
    script = """{
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        charts: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width)
    }"""
    page = compare.write(folders, tmp_path)
    seen = synthetic_runs.in_browser(page, width, tmp_path, script)
    assert seen["overflow"] == 0 and len(seen["charts"]) == 4 and min(seen["charts"]) > 280
    assert re.search("prefers-color-scheme: dark", page.read_text())
