"""Tests of caecnn_jax.results.tables."""

import re

import numpy as np

from caecnn_jax.results import metrics, tables

NAMES = ("ant", "bee", "cat")
CONFUSION = [[4, 2, 0], [0, 3, 0], [1, 0, 0]]


def record_of(confusion=None, counts=None, **figures):
    made = metrics.of_confusion(np.asarray(confusion), counts) if confusion else {}
    return {
        "epoch": 1,
        "valid": dict.fromkeys(metrics.FIGURES) | made | figures,
        "confusion_matrix": confusion,
        "reliability": None,
    }


def result_of(*args, **figures):
    return metrics.run_result([record_of(*args, **figures)], NAMES)


def test_the_text_table_shows_every_figure_and_class():
    lines = tables.text_table(result_of(CONFUSION, (200, 50, 30), loss_cae=0.25)).splitlines()
    figures, classes = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert dict(re.split(r" {2,}", line) for line in figures) == {
        "accuracy": "0.7000",
        "balanced_accuracy": "0.5556",
        "macro_f1": "0.4924",
        "g_mean": "0.0000",
        "loss_cae": "0.2500",
        "accuracy many": "0.6667",
        "accuracy medium": "0.5000",
        "accuracy head": "0.6667",
        "accuracy middle": "1.0000",
        "accuracy tail": "0.0000",
    }
    assert classes[1].split() == ["ant", "0.8000", "0.6667", "0.7273", "6"]
    assert len(classes) == 1 + len(NAMES)


def test_the_text_table_of_long_names_is_aligned_and_fits_a_terminal():
    names = ("an ant of the genus Camponotus", *NAMES[1:])
    record = record_of(CONFUSION, (200, 50, 30), loss_cae=0.25)
    lines = tables.text_table(metrics.result(record, names)).splitlines()
    table = lines[lines.index("") + 1 :]
    assert len({len(line) for line in table}) == 1 and max(map(len, lines)) <= 100


def test_names_neither_steer_a_terminal_nor_widen_a_table():
    names = ("\x1b[31mred\x1b[0m\nant", "b" * 200, "c" * 200 + "c")
    record = record_of(CONFUSION, (200, 50, 30))
    summary = metrics.summarize({"test": [record]}, names)
    texts = [
        tables.text_table(metrics.result(record, names)),
        tables.summary_table(summary),
        tables.summary_sentence(summary),
    ]
    assert all("\x1b" not in text for text in texts)
    assert all(len(line) <= 100 for text in texts for line in text.splitlines())
    assert len(re.findall("^F1 ", texts[1], re.M)) == 3


def test_the_text_table_of_an_autoencoder_is_its_loss():
    assert tables.text_table(result_of(loss_cae=0.25)) == "loss_cae  0.2500"


def test_the_summary_table_has_a_column_a_run():
    many, few = (record_of(CONFUSION, (200, 190, smallest)) for smallest in (110, 10))
    medium = record_of(CONFUSION, (200, 50, 30))
    records = {"fold_1": [many], "fold_2": [few, few], "test": [medium]}
    lines = tables.summary_table(metrics.summarize(records, NAMES)).splitlines()
    rows = {name: cells for name, *cells in (re.split(r" {2,}", line) for line in lines)}
    assert rows[""] == ["fold 1", "fold 2", "mean ± std", "test"]
    assert rows["epochs"] == ["1", "2", "1"]
    assert rows["accuracy"] == ["0.7000", "0.7000", "0.7000 ± 0.0000", "0.7000"]
    assert rows["accuracy few"] == ["-", "0.0000", "0.0000 ± 0.0000", "-"]
    assert rows["accuracy medium"] == ["-", "-", "-", "0.5000"]
    assert [name[:2] for name in rows][-len(NAMES) :] == ["F1"] * len(NAMES)
    assert rows["F1 bee"][0] == "0.7500"
    assert "nll" not in rows


def test_the_worst_class_is_one_that_has_images():
    rows = {"a": {"f1": 0.9, "support": 5}, "b": {"f1": 0.0, "support": 0}}
    summary = {"cv": None, "test": {"accuracy": 0.9, "per_class": rows}}
    assert tables.summary_sentence(summary).endswith("worst class a, F1 0.9000")


def test_one_fold_alone_has_no_deviation():
    summary = metrics.summarize({"fold_1": [record_of(CONFUSION)]}, NAMES)
    assert "±" not in tables.summary_table(summary)
    assert tables.summary_sentence(summary).startswith("accuracy 0.7000 in one fold; ")
