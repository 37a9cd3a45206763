"""Tests of caecnn_jax.records.about: what run.json says."""

import datetime
import json
import subprocess

import jax
import numpy as np
import pytest
from builders import ABOUT, tiny_config
from etils import epath

from caecnn_jax.data import sampling
from caecnn_jax.records import about, workdir


@pytest.fixture(scope="module")
def described(tiny_data):
    config = tiny_config("cnn")
    given = (tiny_data.labels, tiny_data.num_train, tiny_data.class_names)
    kept, splits = sampling.splits(config, *given)
    return about.describe(tiny_data, kept, splits)


def test_the_images_of_each_part_are_counted(described):
    counts = described["class_counts"]
    assert set(counts) == {"all", "regulated", "fold_1", "fold_2", "test"}
    # 20 training images of a class, of three of them 12; two folds; 6 of those three once more.
    assert counts["all"]["train"]["bird"] == 20 and counts["all"]["test"]["bird"] == 5
    assert (counts["regulated"]["bird"], counts["regulated"]["cat"]) == (12, 20)
    assert counts["fold_1"]["train"]["bird"] == 6 and counts["fold_1"]["valid"]["cat"] == 10
    assert counts["fold_2"]["expanded"]["bird"] == 6 + 6
    assert counts["test"]["expanded"]["bird"] == 12 + 6


def test_a_class_called_all_has_a_row_beside_the_sum(described):
    renamed = {
        run: {
            part: {"all" if name == "ship" else name: n for name, n in counts.items()}
            for part, counts in parts.items()
        }
        if run != "regulated"
        else {"all" if name == "ship" else name: n for name, n in parts.items()}
        for run, parts in described["class_counts"].items()
    }
    rows = [line.split()[:2] for line in about.split_table(renamed)]
    assert rows.count(["all", "20"]) == 1 and rows[-1] == ["all", "200"]


def test_it_is_json_and_tells_versions_and_devices(described):
    again = json.loads(json.dumps(described))
    assert again["environment"]["jax"] == jax.__version__
    assert again["environment"]["num_devices"] == jax.device_count()
    assert datetime.datetime.fromisoformat(again["started"]).tzinfo is not None
    assert again["seconds"] is None  # until it has ended


def test_the_digests_tell_which_images_were_kept(described, tiny_data):
    digests = described["fold_digests"]
    assert len({*digests.values(), described["data_digest"]}) == 4
    assert digests["test"] == sampling.digest(np.arange(tiny_data.num_train, 250))


def test_one_table_tells_the_classes_by_split(described):
    heading, *rows = about.split_table(described["class_counts"])
    assert heading.split() == (
        [
            "class",
            "all:",
            "train",
            "test",
            "kept",
            "fold:",
            "train",
            "visited",
            "valid",
            "run",
            "test:",
            "train",
            "visited",
            "valid",
        ]
    )
    table = {row.split()[0]: row.split()[1:] for row in rows}
    assert table["bird"] == ["20", "5", "12", "6", "12", "6", "12", "18", "5"]
    assert table["all"] == ["200", "50", "176", "88", "106", "88", "176", "194", "50"]
    assert len({*map(len, [heading, *rows])}) == 1 and len(heading) <= 100


def test_folds_that_differ_are_a_range_and_many_classes_their_ends(described):
    many = {f"class {number}": number for number in range(40)}
    fold = {"train": many, "expanded": many, "valid": many}
    other = {part: {name: count + 1 for name, count in many.items()} for part in fold}
    counts = {"all": {"train": many, "test": many}, "regulated": many}
    lines = about.split_table(counts | {"fold_1": fold, "fold_2": other})
    assert len(lines) == 1 + 10 + 1
    assert lines[1].split()[:2] == ["class", "39"] and "39-40" in lines[1]


def test_the_commit_is_that_of_the_clone_that_the_program_lies_in(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *who, *words], check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    module = tmp_path / "caecnn_jax" / "records" / "about.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(about, "__file__", str(module))
    assert about.commit() is None  # as installed
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    git("tag", "v1")
    first = about.commit()
    assert first and git("rev-parse", "HEAD").startswith(first)
    module.write_text("changed")
    assert about.commit() == f"{first}-dirty"
    monkeypatch.setenv("PATH", "")
    assert about.commit() is None  # without git


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "it is not an object"),
        ("{}", "it lacks, or should not have, channels, class_names, digest, image_size"),
        ({"class_names": 5}, "class_names is not a list"),
        ({"mean": ["0.5"]}, "mean.1 is not a number"),
        ({"extra": 1}, "should not have, extra: restore it"),
    ],
)
def test_a_description_that_is_none_is_damaged(tmp_path, content, words):
    if isinstance(content, dict):
        content = json.dumps(ABOUT._asdict() | content)
    (tmp_path / "config.json").write_text('{"format": 2}')
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(workdir.WorkdirError, match=f"dataset.json is damaged, for .*{words}"):
        about.read_description(epath.Path(tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("null", "it is not an object"),
        ("[]", "it is not an object"),
        ('{"class_counts": {"test": {"train": 5}}}', "class_counts.test.train is not an object"),
        ('{"class_counts": {"test": {"train": {"cat": "5"}}}}', "train.cat is not a whole number"),
    ],
)
def test_class_counts_that_are_none_are_damaged(tmp_path, content, words):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(workdir.WorkdirError, match=f"run.json is damaged, for .*{words}"):
        about.train_counts(epath.Path(tmp_path), "test")


@pytest.mark.parametrize("content", ["{}", '{"class_counts": null}', '{"class_counts": {}}'])
def test_a_run_may_have_no_class_counts(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert about.train_counts(epath.Path(tmp_path), "test") is None
