"""Tests of caecnn_jax.reports.study: a study that is finished, in part or not at all."""

import json
import re

import pytest
import synthetic_runs
from etils import epath
from study_folders import make_study, write, write_all

from caecnn_jax.reports import study

PUBLISHED = {"source": "somebody", "cv": {"other": 0.8}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The page of a study, one of whose variants is not finished."""
    folder = tmp_path_factory.mktemp("study")
    write_all(folder)
    study.write(make_study(published=PUBLISHED), folder)
    return folder


def test_the_page_shows_every_finished_variant_and_names_the_others(folder):
    text = synthetic_runs.text_of(folder / "study.html")
    assert "3 trainings are not finished: third/seed_0, third/seed_1, third/seed_2" in text
    assert "other against plain 3 4,204 0.7500" in text and "+0.1667" in text
    assert "Difference from the baseline" in text and "Published: somebody." in text
    assert "batch_size cnn.opt.lr" in text and "num_epoch" not in text
    assert (folder / "study.html").read_text().count("<svg") == 5


def test_the_table_has_a_row_a_variant(folder):
    lines = (folder / "study.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    headings = rows[0]
    assert [row[0] for row in rows[2:]] == ["plain", "other"]
    assert {len(row) for row in rows} == {len(headings)}
    other = dict(zip(headings, rows[3], strict=True))
    assert other["accuracy"].startswith("0.7500 [") and other["difference"].startswith("+0.1667 [+")
    assert (other["published"], other["time a seed"], other["parameters"]) == (
        "0.8000", "0:01:00", "4,204",
    )  # fmt: skip
    assert dict(zip(headings, rows[2], strict=True))["difference"] == "baseline"


def test_every_number_is_in_the_json(folder):
    found = json.loads((folder / "study.json").read_text())
    values = found["variants"]["other"]["difference"]["cv"]["accuracy"]["values"]
    assert values["seed_0/fold_1"] == pytest.approx((14 - 10) / 20)
    assert len(values) == 6 and found["published"] == PUBLISHED


def test_a_run_that_does_not_know_its_time_leaves_it_out(tmp_path):
    made = make_study(seeds=(0,))
    for run in made.runs[:2]:
        write(tmp_path, run, {"test": 10})
    path = tmp_path / made.runs[0].name / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": None}))
    study.write(made, epath.Path(tmp_path))
    times = [line.split(" | ")[-1] for line in (tmp_path / "study.md").read_text().splitlines()]
    assert [time for time in times if ":" in time or "–" in time][-2:] == ["– |", "0:01:00 |"]  # noqa: RUF001


def test_variants_on_other_images_are_named(tmp_path):
    made = make_study(seeds=(0,))
    for run in made.runs:
        write(tmp_path, run, {"test": 10})
    path = tmp_path / "third" / "seed_0" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "another"}))
    page = study.write(made, epath.Path(tmp_path))
    says = "No difference, as no seed has the images of its baseline, alike in size and ch"
    for text in (synthetic_runs.text_of(page), (tmp_path / "study.md").read_text()):
        assert text.count(says) == 1 and "channels: third." in text


def test_variants_with_other_rare_classes_are_told(tmp_path):
    made = make_study(seeds=(0,), variants={"plain": {}, "cut": {"train_data_regulation.cat": 9}})
    for run in made.runs:
        write(tmp_path, run, {"test": 10})
    page = study.write(made, epath.Path(tmp_path))
    for text in (synthetic_runs.text_of(page), (tmp_path / "study.md").read_text()):
        assert "s in cut (bird, deer, truck, cat): the means are of other classes" in text
    write_all(tmp_path / "alike")
    study.write(make_study(), epath.Path(tmp_path / "alike"))
    assert "each variant's own" not in (tmp_path / "alike" / "study.md").read_text()


def test_a_study_that_has_not_begun_has_a_page_that_says_so(tmp_path):
    page = study.write(make_study(), epath.Path(tmp_path))
    assert "9 trainings are not finished" in synthetic_runs.text_of(page)
    assert "Not finished: plain/seed_0" in (tmp_path / "study.md").read_text()


def test_one_seed_of_one_run_has_no_interval(tmp_path):
    made = make_study(seeds=(0,))
    for run, right in zip(made.runs, (10, 12, 13), strict=True):
        write(tmp_path, run, {"test": right})
    study.write(made, epath.Path(tmp_path))
    text = (tmp_path / "study.md").read_text()
    assert "| 0.6000 | +0.1000 | \N{EN DASH} |" in text


def test_bold_are_only_differences_of_the_figure_that_judges(folder):
    """The others' p-values are not adjusted for the number of figures."""
    page = (folder / "study.html").read_text()
    table = page[page.index("<table>") : page.index("</table>")]
    assert re.findall(r"<strong>([^<]*)</strong>", table) == ["+0.1667"]
    assert "Accuracy judges: its p-values" in synthetic_runs.text_of(folder / "study.html")


def test_long_names_leave_room_for_the_chart():
    names = [f"{'three_blocks_as_many_parameters' * 5}{end}" for end in ("", "_a", "_b")]
    rows = {name: {"mean": 0.5, "low": 0.4, "high": 0.6, "values": {"a": 0.5}} for name in names}
    figure = study.draw_dots(rows, "accuracy")
    figure.canvas.draw()
    assert figure.axes[0].get_position().width > 0.4
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(set(labels)) == 3 and max(map(len, labels)) <= 28
