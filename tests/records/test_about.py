"""Tests of caecnn_jax.records.about: what run.json says."""

import datetime
import json

import jax
import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax.data import sampling
from caecnn_jax.records import about


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


def test_class_counts_are_one_line_a_part(caplog):
    counts = {"regulated": {"cat": 2, "dog": 3}, "fold_1": {"train": {"cat": 1, "dog": 1}}}
    with caplog.at_level("INFO", logger="absl"):
        about.log_class_counts(counts)
    assert caplog.messages == [
        "regulated : 5 images: cat 2 dog 3",
        "fold_1 train: 2 images: cat 1 dog 1",
    ]
