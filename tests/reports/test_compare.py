import html
import json
import math
import re

import numpy as np
import pytest
import synthetic_runs
from scipy import stats

from caecnn_jax.records import runs
from caecnn_jax.reports import compare, entries, pages
from caecnn_jax.results import metrics, statistics


def variant(root, name, **options):
    return synthetic_runs.make_run(root / name, num_epoch=3, seed=5, **options)


def test_comparison_holds_paired_differences_over_folds(folders, tmp_path):
    page = compare.write(folders, tmp_path / "out")
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    base, other = (json.loads((f / "metrics.json").read_text())["cv"]["folds"] for f in folders)
    by_fold = [b["accuracy"] - a["accuracy"] for a, b in zip(base, other, strict=True)]
    got = result["runs"]["mixed"]["difference"]["cv"]["accuracy"]
    plain = stats.ttest_1samp(by_fold, 0).confidence_interval(0.95)
    wider = 1.5 * (plain.high - plain.low) / 2  # sqrt(1/5 + 1/4) over sqrt(1/5)
    assert got["values"] == pytest.approx(by_fold)
    assert got["mean"] == pytest.approx(np.mean(by_fold))
    middle = np.mean(by_fold)
    assert (got["low"], got["high"]) == pytest.approx((middle - wider, middle + wider))
    assert result["test_share_over_train_share"] == pytest.approx(0.25)
    bird = [
        b["per_class"]["bird"]["f1"] - a["per_class"]["bird"]["f1"]
        for a, b in zip(base, other, strict=True)
    ]
    gain = result["runs"]["mixed"]["difference"]["cv"]["f1"]["bird"]
    assert gain["values"] == pytest.approx(bird)
    assert result["baseline"] == "cnn" and result["rare_classes"] == ["bird", "deer", "truck"]
    words = synthetic_runs.text_of(page)
    assert pages.signed(got["mean"]) in words and pages.signed(gain["mean"], 3) in words
    assert "corrected for what the folds' training sets share" in words and "bird rare" in words
    gains = result["runs"]["mixed"]["difference"]["cv"]["f1"]
    adjusted = statistics.holm([value["p"] for value in gains.values()])
    assert [value["p_holm"] for value in gains.values()] == adjusted
    assert "10 classes are 10 comparisons" in words and f"p {gain['p_holm']:.3f}" in words
    assert "<script" not in page.read_text()


def test_runs_without_a_test_part_are_compared_by_their_folds(tmp_path):
    folders = [variant(tmp_path, name, num_folds=2, test=False) for name in ("cnn", "_mixed")]
    page = compare.write(folders, tmp_path / "out")
    assert "2 runs on the same data" in synthetic_runs.text_of(page)
    assert "McNemar" not in page.read_text()


def test_interval_of_one_difference_is_absent():
    assert compare.paired_difference([0.25], 0.25) == {
        "values": [0.25],
        "mean": 0.25,
        "low": None,
        "high": None,
        "p": None,
    }


def test_one_test_run_each_is_compared_image_by_image(tmp_path):
    folders = [
        variant(tmp_path, name, num_folds=0, skill=skill)
        for name, skill in (("a", 0.7), ("b", 0.73))
    ]
    words = synthetic_runs.text_of(compare.write(folders, tmp_path))
    result = json.loads((tmp_path / "comparison.json").read_text())
    got = result["runs"]["b"]["difference"]["test"]["accuracy"]
    b, a = (
        metrics.correctness(json.loads((folder / "metrics.json").read_text())["test"])
        for folder in folders[::-1]
    )
    assert got["mean"] == pytest.approx(b.mean() - a.mean())
    assert (got["only_this_right"], got["only_baseline_right"]) == ((b & ~a).sum(), (a & ~b).sum())
    assert got["p"] == statistics.mcnemar_exact(b, a)
    # The bootstrap's interval against the normal one of as many images.
    spread = 1.96 * np.std(b.astype(int) - a) / math.sqrt(len(a))
    assert (got["low"], got["high"]) == pytest.approx(
        (got["mean"] - spread, got["mean"] + spread), abs=1e-3
    )
    assert "McNemar" in words and "no interval" not in words
    assert f"p {html.escape(pages.p_value(got['p']))}" in words
    assert result["runs"]["b"]["difference"]["test"]["macro_f1"]["low"] is None


def test_test_runs_of_earlier_versions_are_compared_without_interval(tmp_path):
    folders = [variant(tmp_path, name, num_folds=0) for name in ("a", "b")]
    for folder in folders:
        content = json.loads((folder / "metrics.json").read_text())
        del content["test"]["correct"]
        (folder / "metrics.json").write_text(json.dumps(content))
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
    ended = json.loads((folders[0] / "metrics.json").read_text())
    ended["cv"]["folds"][1]["epochs"] = 2
    (folders[0] / "metrics.json").write_text(json.dumps(ended))
    curve = runs.accuracy_curve([runs.read(folders[0])], "cv")
    assert curve == [(2, pytest.approx(0.2)), (3, pytest.approx(0.4))]


def test_a_curve_begins_where_all_folds_have_an_accuracy(tmp_path):
    folder = variant(tmp_path, "a", num_folds=2)
    history = folder / "history.jsonl"
    records = [json.loads(line) for line in history.read_text().splitlines()]
    for record in records:
        late = record["run"] == "fold_2" and record["epoch"] == 1
        record["valid"]["accuracy"] = None if late else record["epoch"] / 10
    history.write_text("".join(json.dumps(record) + "\n" for record in records))
    curve = runs.accuracy_curve([runs.read(folder)], "cv")
    assert curve == [(2, pytest.approx(0.2)), (3, pytest.approx(0.3))]


def test_several_seeds_are_one_entry_with_their_mean_and_interval(seeds):
    given = [f"cnn={seeds}/cnn-*", f"mixed={seeds}/mixed-?"]
    page = compare.write(given, seeds / "out")
    result = json.loads((seeds / "out" / "comparison.json").read_text())
    assert list(result["runs"]) == ["cnn", "mixed"] and result["num_seeds"] == 3

    def of(name):
        texts = [(seeds / f"{name}-{seed}" / "metrics.json").read_text() for seed in range(3)]
        return [json.loads(text) for text in texts]

    tests = np.array([[m["test"]["accuracy"] for m in of(name)] for name in ("cnn", "mixed")])
    shown = result["runs"]["mixed"]["test"]
    interval = stats.ttest_1samp(tests[1], 0).confidence_interval(0.95)
    assert shown["accuracy"] == pytest.approx(tests[1].mean())
    assert shown["low"]["accuracy"] == pytest.approx(interval.low)
    assert shown["high"]["accuracy"] == pytest.approx(interval.high)
    difference = result["runs"]["mixed"]["difference"]["test"]["accuracy"]
    paired = stats.ttest_rel(tests[1], tests[0])
    assert difference["values"] == pytest.approx(tests[1] - tests[0])
    assert difference["p"] == pytest.approx(paired.pvalue)
    # Two folds under three seeds: six differences, and what the two folds share.
    by_fold = [
        mine["accuracy"] - theirs["accuracy"]
        for new, old in zip(of("mixed"), of("cnn"), strict=True)
        for mine, theirs in zip(new["cv"]["folds"], old["cv"]["folds"], strict=True)
    ]
    ratio = result["test_share_over_train_share"]
    shown = result["runs"]["mixed"]["cv"]
    folds = [fold["accuracy"] for new in of("mixed") for fold in new["cv"]["folds"]]
    expected = statistics.fold_interval(folds, ratio)
    ends = shown["low"]["accuracy"], shown["high"]["accuracy"]
    assert (shown["accuracy"], *ends) == pytest.approx(expected)
    expected = statistics.fold_interval(by_fold, ratio)
    difference = result["runs"]["mixed"]["difference"]["cv"]["accuracy"]
    assert (difference["low"], difference["high"]) == pytest.approx(expected[1:])
    words = synthetic_runs.text_of(page)
    assert "Means over 3 seeds" in words and "Bouckaert and Frank" in words
    assert "With one result" not in words


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


def test_equal_scores_of_several_seeds_have_no_interval(seeds):
    for path in seeds.glob("cnn-*/metrics.json"):
        ended = json.loads(path.read_text())
        ended["test"]["accuracy"] = 0.5
        path.write_text(json.dumps(ended))
    page = compare.write([f"cnn={seeds}/cnn-*", f"mixed={seeds}/mixed-?"], seeds / "out")
    shown = json.loads((seeds / "out" / "comparison.json").read_text())["runs"]["cnn"]["test"]
    assert (shown["accuracy"], shown["low"]["accuracy"], shown["high"]["accuracy"]) == (
        0.5, None, None
    )  # fmt: skip
    assert "0.5000 to 0.5000" not in synthetic_runs.text_of(page)


def test_balanced_accuracy_is_compared_where_all_runs_tell_it(tmp_path):
    folders = [variant(tmp_path, name, num_folds=0) for name in "ab"]
    words = synthetic_runs.text_of(compare.write(folders, tmp_path))
    found = json.loads((tmp_path / "comparison.json").read_text())["runs"]
    tests = [json.loads((folder / "metrics.json").read_text())["test"] for folder in folders]
    balanced = [test["balanced_accuracy"] for test in tests]
    assert found["b"]["test"]["balanced_accuracy"] == balanced[1]
    difference = found["b"]["difference"]["test"]["balanced_accuracy"]["mean"]
    assert difference == pytest.approx(balanced[1] - balanced[0])
    assert "Balanced accuracy" in words
    path = folders[0] / "metrics.json"  # as an earlier version wrote it
    older = json.loads(path.read_text())
    del older["test"]["balanced_accuracy"], older["test"]["best"]["balanced_accuracy"]
    path.write_text(json.dumps(older))
    found = compare.comparison(entries.read(folders))["runs"]["b"]
    assert "balanced_accuracy" not in found["difference"]["test"]
    assert {"accuracy", "macro_f1"} < found["difference"]["test"].keys()
