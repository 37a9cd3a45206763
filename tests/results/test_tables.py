"""Tests of caecnn_jax.results.tables."""

import re

import numpy as np

from caecnn_jax.results import metrics, tables

NAMES = ("ant", "bee", "cat")
CONFUSION = [[4, 2, 0], [0, 3, 0], [1, 0, 0]]


def result_of(confusion=None, counts=None, **figures):
    made = metrics.of_confusion(np.asarray(confusion)) if confusion else {}
    record = {
        "epoch": 1,
        "valid": dict.fromkeys(metrics.FIGURES) | made | figures,
        "confusion_matrix": confusion,
        "reliability": None,
    }
    return metrics.run_result([record], NAMES, counts)


def test_the_text_table_shows_every_figure_and_class():
    lines = tables.text_table(result_of(CONFUSION, (200, 50, 30), loss_cae=0.25)).splitlines()
    assert lines[0] == (
        "accuracy 0.7000  balanced_accuracy 0.5556  macro_f1 0.4924  g_mean 0.0000  "
        "loss_cae 0.2500  accuracy many 0.6667  accuracy medium 0.5000  "
        "accuracy head 0.6667  accuracy middle 1.0000  accuracy tail 0.0000"
    )
    assert lines[2].split() == ["ant", "0.8000", "0.6667", "0.7273", "of", "6", "images"]
    assert len(lines) == 2 + len(NAMES)


def test_the_text_table_of_an_autoencoder_is_its_loss():
    assert tables.text_table(result_of(loss_cae=0.25)) == "loss_cae 0.2500"


def test_the_summary_table_has_a_column_a_run():
    record = {
        "epoch": 1,
        "valid": dict.fromkeys(metrics.FIGURES) | metrics.of_confusion(np.array(CONFUSION)),
        "confusion_matrix": CONFUSION,
        "reliability": None,
    }
    records = {"fold_1": [record], "fold_2": [record, record], "test": [record]}
    counts = {"fold_1": (200, 50, 30), "fold_2": (200, 50, 10), "test": (200, 50, 30)}
    lines = tables.summary_table(metrics.summarize(records, NAMES, counts)).splitlines()
    rows = {name: cells for name, *cells in (re.split(r" {2,}", line) for line in lines)}
    assert rows[""] == ["fold 1", "fold 2", "mean ± std", "test"]
    assert rows["epochs"] == ["1", "2", "1"]
    assert rows["accuracy"] == ["0.7000", "0.7000", "0.7000 ± 0.0000", "0.7000"]
    assert rows["accuracy few"] == ["-", "0.0000", "0.0000 ± 0.0000", "-"]
    assert rows["F1 bee"][0] == "0.7500"
    assert "nll" not in rows
