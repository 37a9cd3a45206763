import json
import re
import shutil

import pytest
import synthetic_runs
from synthetic_runs import make_run, text_of

from caecnn_jax import durations, errors
from caecnn_jax.records import runs
from caecnn_jax.reports import report


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "mixed")


def test_report_leads_with_mean_and_deviation_and_test(finished):
    page = text_of(report.write(finished))
    metrics = json.loads((finished / "metrics.json").read_text())
    cv, test = metrics["cv"], metrics["test"]
    for key in ("accuracy", "macro_f1", "loss_cae"):
        assert f"{cv['mean'][key]:.4f} ± {cv['std'][key]:.4f}" in page
        assert f"{test[key]:.4f}" in page
    for label, key in report.MORE.items():
        assert f"{cv['mean'][label]:.4f} ± {cv['std'][label]:.4f} {test[label]:.4f}" in page, key
    tail = f"{cv['mean']['thirds']['tail']:.4f} ± {cv['std']['thirds']['tail']:.4f}"
    assert f"smallest third {tail} {test['thirds']['tail']:.4f}" in page
    assert "20 training images" not in page.replace("100 training", "")  # no class is that small
    assert "Reliability: validation, all folds" in page and "Reliability: test set" in page
    for name in synthetic_runs.CLASSES:
        scores = cv["mean"]["per_class"][name], cv["std"]["per_class"][name]
        assert "{:.3f} ± {:.3f}".format(*(score["f1"] for score in scores)) in page
        assert (f"{name} rare" in page) == (name in synthetic_runs.RARE)
    for words in ("NVIDIA H200", "0.10.2", "cnn.opt.lr", "1e-05", "34,000", "48,500"):
        assert words in page
    seconds = json.loads((finished / "run.json").read_text())["seconds"]
    assert durations.as_time(seconds) in page


def test_report_is_one_file_without_network_or_scripts(finished):
    html = report.write(finished).read_text()
    addresses = set(re.findall(r"https?://[^\"')\s]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<script" not in html and "stylesheet" not in html
    assert html.count("data:image/png;base64,") == 2  # epochs 5 and 10
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert not [path for path in finished.iterdir() if path.name.startswith(".")]


def test_a_history_that_lacks_what_metrics_tell_of_is_damaged(tmp_path):
    workdir = make_run(tmp_path / "mixed")
    lines = (workdir / "history.jsonl").read_text().splitlines(keepends=True)
    for left in ([], lines[:-1], lines[: len(lines) // 2]):
        (workdir / "history.jsonl").write_text("".join(left))
        with pytest.raises(errors.UserError, match=r"history\.jsonl is damaged, for it has fewer"):
            report.write(workdir)


def test_classes_of_a_long_tail_are_marked_rare_beside_their_training_images(tmp_path):
    workdir = make_run(tmp_path / "mixed")
    config = json.loads((workdir / "config.json").read_text())
    config |= {"train_data_regulation": {}, "imbalance": {"type": "exp", "factor": 100.0}}
    (workdir / "config.json").write_text(json.dumps(config))
    info = json.loads((workdir / "run.json").read_text())
    counts = {name: 5000 - 400 * index for index, name in enumerate(synthetic_runs.CLASSES)}
    info["class_counts"]["regulated"] = counts
    (workdir / "run.json").write_text(json.dumps(info))
    page = text_of(report.write(workdir))
    for index, (name, count) in enumerate(counts.items()):
        assert f"{name}{' rare' * (index >= 7)} {count:,} 0." in page


def test_cae_alone_has_losses_and_no_accuracy(tmp_path):
    page = text_of(report.write(make_run(tmp_path / "cae", use_cnn=False)))
    assert "Validation reconstruction loss" in page
    assert "ccuracy" not in page and "F1" not in page and "warm-up" not in page


def test_unfinished_run_says_so_and_shows_its_history(tmp_path):
    workdir = make_run(tmp_path / "cut", finished=False)
    last = json.loads((workdir / "history.jsonl").read_text().splitlines()[-1])
    page = text_of(report.write(workdir))
    assert "This run is unfinished" in page and "fold 3, epoch 6 of at most 10" in page
    assert f"{last['valid']['accuracy']:.4f}" in page
    assert "airplane 5,000" in page and "Confusion matrix:" not in page


def test_config_alone_makes_a_report(tmp_path):
    workdir = make_run(tmp_path / "young")
    for name in ("history.jsonl", "metrics.json", "run.json"):
        (workdir / name).unlink()
    shutil.rmtree(workdir / "images")
    assert "It has ended no epoch yet" in text_of(report.write(workdir))


@pytest.mark.parametrize(
    "parts, there, absent",
    [
        ({"num_folds": 0, "use_cae": False}, "Test accuracy", "Validation accuracy"),
        ({"test": False}, "Validation accuracy", "Test accuracy"),
        ({"num_folds": 1, "test": False}, "one fold", "±"),
    ],
)
def test_a_part_that_did_not_run_is_left_out(tmp_path, parts, there, absent):
    page = text_of(report.write(make_run(tmp_path / "run", num_epoch=4, **parts)))
    assert there in page and absent not in page


def test_a_name_with_markup_is_escaped(tmp_path):
    html = report.write(make_run(tmp_path / "<b>a&b", num_epoch=3, test=False)).read_text()
    assert "&lt;b&gt;a&amp;b" in html and "<b>a" not in html


def test_a_cut_last_line_is_left_out_and_a_retrained_epoch_replaces_the_old(tmp_path):
    workdir = make_run(tmp_path / "run", num_folds=1, test=False, num_epoch=4)
    lines = (workdir / "history.jsonl").read_text().splitlines()
    again = json.loads(lines[3]) | {"seconds": 1234.5}
    lines += [json.dumps(again), '{"run": "fold_1", "epo']
    (workdir / "history.jsonl").write_text("\n".join(lines))
    history = runs.read(workdir).history["fold_1"]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert history[3]["seconds"] == 1234.5


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("config.json", '{"use_cnn": tr', "is damaged"),
        ("config.json", '{"use_cnn": true}', "lacks .*use_cae"),
        ("config.json", "[]", "it is not an object"),
        ("metrics.json", "[1, 2]", "it is not an object"),
        ("metrics.json", "{}", "lacks cv, test"),
        ("metrics.json", '{"cv": null, "test": {"per_class": "x"}}', "per_class is not an object"),
        ("metrics.json", '{"cv": {"folds": [7]}, "test": null}', "cv.folds.1 is not an object"),
        ("metrics.json", '{"cv": null, "test": {"confusion_matrix": [["1"]]}}', "not a whole numb"),
        ("history.jsonl", '{"run": "test", "epoch": 1, "train": 7}\n', "train is not an object"),
        ("history.jsonl", '{"run": ["test"]}\n', "run is not text"),
        ("history.jsonl", "7\n", "line 1 is damaged, for it is not an object: restore it, or"),
        ("run.json", "[]", "it is not an object"),
        ("run.json", '{"class_counts": {"all": 5}}', "class_counts.all is not an object"),
        ("metrics.json", '{"cv": {"folds": []}, "test": null}', "lacks mean, std"),
        ("metrics.json", '{"cv": null, "test": {"accuracy": 1}}', "lacks .*per_class"),
        ("history.jsonl", '{"run": "fold_1"}\n', "line 1 is damaged"),
        ("run.json", "", "is damaged"),
        ("run.json", b"\xff\xfe", "cannot read"),
        ("images/test/reconstruction-epoch-0005.png", "no picture", "delete it"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(tmp_path, name, content, words):
    workdir = make_run(tmp_path / "run", num_folds=1, num_epoch=5)
    (workdir / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.UserError, match=words) as error:
        report.write(workdir)
    assert str(workdir / name) in str(error.value)
    assert not (workdir / "report.html").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match=r"holds no run.*--workdir"):
        report.write(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    workdir = make_run(tmp_path / "run", num_folds=0, num_epoch=3)
    (workdir / "report.html").mkdir()
    with pytest.raises(errors.UserError, match=r"cannot write .*report\.html.*--output"):
        report.write(workdir)


def test_the_time_is_that_of_every_epoch(finished):
    run = runs.read(finished)
    times = [record["seconds"] for records in run.history.values() for record in records]
    assert len(times) > 2 and report.seconds(run) == pytest.approx(sum(times))


@pytest.mark.slow
@pytest.mark.skipif(synthetic_runs.CHROMIUM is None, reason="no Chromium on PATH")
@pytest.mark.parametrize("width", [500, 1200])
def test_report_fits_a_browser_window(finished, tmp_path, width):
    script = """{
        overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
        broken: [...document.images].filter(image => !image.naturalWidth).length,
        charts: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width)
    }"""
    seen = synthetic_runs.in_browser(report.write(finished), width, tmp_path, script)
    assert seen["overflow"] == 0 and seen["broken"] == 0
    assert len(seen["charts"]) == 11 and min(seen["charts"]) > 280


def test_a_folder_whose_name_is_a_pattern_shows_its_pictures(finished, tmp_path):
    folder = tmp_path / "run [1]*"
    shutil.copytree(finished, folder)
    assert report.write(folder).read_text().count("data:image/png;base64,") == 2


def test_an_unfinished_runs_best_epoch_is_that_of_its_metrics_rule(tmp_path):
    """In warm-up, where no accuracy is known, the epoch with the lowest reconstruction loss."""
    made = synthetic_runs.make_run(tmp_path / "mixed", num_epoch=10, finished=False)
    lines = [json.loads(line) for line in (made / "history.jsonl").read_text().splitlines()]
    warmup = [line for line in lines if line["run"] == "fold_1" and line["phase"] == "warmup"]
    losses = (0.4, 0.3)
    for line, loss in zip(warmup, losses, strict=True):
        line["valid"]["loss_cae"] = loss
    (made / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in warmup))
    (row,) = report.result_rows(runs.read(made))
    assert row["best_epoch"] == 2
