"""Tests of caecnn_jax.results.metrics."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from caecnn_jax.results import metrics

NAMES = ("ant", "bee", "cat")
# By hand: of 6 ants 4 are found, of 3 bees 3, of 1 cat 0; 5 images are called ant, 5 bee, 0 cat.
CONFUSION = np.array([[4, 2, 0], [0, 3, 0], [1, 0, 0]])


def test_accuracy_is_the_share_of_the_diagonal():
    assert metrics.accuracy(CONFUSION) == 0.7
    assert metrics.accuracy(np.zeros((3, 3), int)) == 0.0


def test_the_figures_of_each_class_are_those_found_by_hand():
    table = metrics.per_class(CONFUSION, NAMES)
    assert table["ant"] == {
        "precision": 0.8,
        "recall": pytest.approx(4 / 6),
        "f1": pytest.approx(2 * 4 / 11),
        "support": 6,
    }
    assert table["bee"] == {"precision": 0.6, "recall": 1.0, "f1": 0.75, "support": 3}
    assert table["cat"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert metrics.macro_f1(table) == pytest.approx((8 / 11 + 0.75) / 3)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=40))
def test_the_figures_equal_a_count_over_the_images(pairs):
    confusion = np.zeros((3, 3), int)
    for true, predicted in pairs:
        confusion[true, predicted] += 1
    table = metrics.per_class(confusion, NAMES)
    for label, name in enumerate(NAMES):
        hits = sum(pair == (label, label) for pair in pairs)
        support = sum(true == label for true, _ in pairs)
        predicted = sum(guess == label for _, guess in pairs)
        precision = hits / predicted if predicted else 0.0
        recall = hits / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert table[name] == {
            "precision": pytest.approx(precision),
            "recall": pytest.approx(recall),
            "f1": pytest.approx(f1),
            "support": support,
        }
    right = sum(true == guess for true, guess in pairs)
    assert metrics.accuracy(confusion) == pytest.approx(right / max(len(pairs), 1))


@hypothesis.given(npst.arrays(np.float64, 12, elements=st.floats(0, 10)), st.integers(1, 12))
def test_mean_losses_are_means_over_images_whatever_the_batches(losses, batch_size):
    batches = [losses[start : start + batch_size] for start in range(0, 12, batch_size)]
    by_step = {
        "loss_cae": [batch.mean() for batch in batches],
        "images": [len(batch) for batch in batches],
    }
    means = metrics.mean_losses(by_step)
    assert means["loss_cae"] == pytest.approx(losses.mean(), abs=1e-12)
    assert means["loss_cnn"] is None  # it did not run


def test_seven_images_in_batches_of_four_evaluate_as_one_batch_of_seven():
    first, second = np.diag([2, 1, 1]), np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1]])
    batches = {
        "loss_cnn": [1.0, 5.0],
        "images": [4, 3],
        "confusion": np.stack([first, second]),
    }
    whole = {
        "loss_cnn": [(4 * 1.0 + 3 * 5.0) / 7],
        "images": [7],
        "confusion": (first + second)[None],
    }
    assert metrics.evaluation(batches) == metrics.evaluation(whole)
    assert metrics.evaluation(batches)["valid"]["accuracy"] == pytest.approx(6 / 7)


def test_an_evaluation_without_the_cnn_has_no_accuracy():
    record = metrics.evaluation({"loss_cae": [0.5], "images": [3]})
    assert record["valid"] == {"loss_cae": 0.5, "loss_cnn": None, "accuracy": None}
    assert record["confusion_matrix"] is None


def make_record(epoch, accuracy=None, loss_cae=None, confusion=None):
    return {
        "epoch": epoch,
        "valid": {"accuracy": accuracy, "loss_cae": loss_cae, "loss_cnn": None},
        "confusion_matrix": confusion,
    }


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.1, 0.3, 0.2], [1, 2, 3], 1),  # accuracy decides where there is one
        ([0.3, 0.3, 0.3], [3, 2, 1], 0),  # the earliest among equals
        ([None, None, 0.1], [0, 0, 9], 2),  # warm-up epochs have none
        ([None, None, None], [3.0, 1.0, 1.0], 1),  # the CAE alone
        ([], [], None),
    ],
)
def test_the_best_epoch(accuracies, losses, best):
    pairs = zip(accuracies, losses, strict=True)
    records = [make_record(epoch, *pair) for epoch, pair in enumerate(pairs, 1)]
    assert metrics.best_epoch(records) == best


def test_a_run_reports_its_last_epoch_and_the_best_beside_it():
    worse = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    records = [
        make_record(1, 1.0, 0.5, np.eye(3, dtype=int).tolist()),
        make_record(2, 0.75, 0.4, worse),
    ]
    result = metrics.run_result(records, NAMES)
    assert (result["accuracy"], result["loss_cae"], result["epochs"]) == (0.75, 0.4, 2)
    assert result["confusion_matrix"] == worse
    assert (result["best_epoch"], result["best"]["epoch"], result["best"]["accuracy"]) == (1, 1, 1)


def summary_of(*names):
    """Folds with accuracies 0.25, 0.5, 0.75, ... by summarize."""
    confusions = ([[1, 3], [0, 0]], [[2, 2], [0, 0]], [[3, 1], [0, 0]])
    records = {
        name: [make_record(1, confusion[0][0] / 4, None, confusion)]
        for name, confusion in zip(names, confusions, strict=False)
    }
    return metrics.summarize(records, ("ant", "bee"))


def test_the_summary_has_mean_and_sample_deviation_over_the_folds():
    summary = summary_of("fold_1", "fold_2", "fold_3")
    assert [fold["fold"] for fold in summary["cv"]["folds"]] == [1, 2, 3]
    assert summary["cv"]["mean"]["accuracy"] == pytest.approx(0.5)
    assert summary["cv"]["std"]["accuracy"] == pytest.approx(0.25)  # over n - 1
    assert summary["cv"]["mean"]["per_class"]["ant"]["recall"] == pytest.approx(0.5)
    assert summary["cv"]["std"]["per_class"]["ant"]["recall"] == pytest.approx(0.25)
    assert summary["cv"]["mean"]["loss_cae"] is None
    assert summary["test"] is None


def test_the_test_run_is_not_averaged_into_the_folds():
    summary = summary_of("fold_1", "test")
    assert summary["cv"]["mean"]["accuracy"] == 0.25
    assert summary["cv"]["std"]["accuracy"] == 0.0
    assert summary["test"]["accuracy"] == 0.5


def test_without_folds_there_is_no_cross_validation():
    assert summary_of("test")["cv"] is None


def test_the_text_table_shows_every_class():
    confusion = CONFUSION.tolist()
    result = metrics.result(make_record(1, 0.7, 0.25, confusion), NAMES)
    lines = metrics.text_table(result).splitlines()
    assert lines[0].split() == ["accuracy", "0.7000", "macro_f1", "0.4924", "loss_cae", "0.2500"]
    assert lines[2].split() == ["ant", "0.8000", "0.6667", "0.7273", "of", "6", "images"]
    assert len(lines) == 2 + len(NAMES)


def test_the_text_table_of_an_autoencoder_is_its_loss():
    result = metrics.result(make_record(1, None, 0.25), NAMES)
    assert metrics.text_table(result) == "loss_cae 0.2500"
