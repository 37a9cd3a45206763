"""Tests of caecnn_jax.results.metrics."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn import calibration as sklearn_calibration
from sklearn import metrics as sklearn_metrics

from caecnn_jax import config as config_lib
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
    assert metrics.macro_f1(CONFUSION) == pytest.approx((8 / 11 + 0.75) / 3)


def test_a_class_that_is_neither_there_nor_predicted_has_no_f1():
    found = metrics.of_confusion(np.diag([5, 5, 0]))
    assert found["accuracy"] == found["balanced_accuracy"] == found["macro_f1"] == 1
    assert metrics.of_confusion(np.zeros((3, 3), int))["macro_f1"] == 0
    assert metrics.of_confusion(np.array([[5, 0, 0], [0, 4, 1], [0, 0, 0]]))["macro_f1"] < 0.7


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


def verdicts(confusion, confidence=0.5):
    """What `epochs.evaluate` says of the images of a confusion matrix, one batch of them."""
    labels, predicted = np.repeat(np.argwhere(confusion >= 0), np.ravel(confusion), axis=0).T
    return {
        "label": labels[None],
        "predicted": predicted[None],
        "confidence": np.broadcast_to(confidence, labels.shape)[None],
        "mask": np.ones((1, len(labels)), bool),
    }


def test_seven_images_in_batches_of_four_evaluate_as_one_batch_of_seven():
    whole = {"loss_cnn": [(4 * 1.0 + 3 * 5.0) / 7], "images": [7]}
    whole |= verdicts(np.array([[2, 1, 0], [0, 2, 0], [0, 0, 2]]))
    batches = {"loss_cnn": [1.0, 5.0], "images": [4, 3]}
    for name in ("label", "predicted", "confidence", "mask"):  # the eighth is padding
        batches[name] = np.append(whole[name], np.zeros_like(whole[name][:, :1])).reshape(2, 4)
    ours = metrics.evaluation(batches, 3)
    assert ours == metrics.evaluation(whole, 3)
    assert ours["valid"]["accuracy"] == pytest.approx(6 / 7)
    assert ours["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [0, 0, 2]]


def test_an_evaluation_without_the_cnn_has_no_accuracy():
    record = metrics.evaluation({"loss_cae": [0.5], "images": [3]}, 10)
    assert record.pop("valid") == dict.fromkeys((*metrics.FIGURES, *metrics.GROUPS)) | {
        "loss_cae": 0.5
    }
    assert record == dict.fromkeys(("confusion_matrix", "reliability", "correct"))


def make_record(epoch, accuracy=None, loss_cae=None, confusion=None, counts=None):
    figures = metrics.of_confusion(np.asarray(confusion), counts) if confusion else {}
    figures |= {"accuracy": accuracy, "loss_cae": loss_cae}
    return {
        "epoch": epoch,
        "valid": dict.fromkeys(metrics.FIGURES) | figures,
        "confusion_matrix": confusion,
        "reliability": None,
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


def test_the_best_epoch_may_follow_another_figure():
    records = [
        make_record(1, 0.9, None, [[8, 0], [2, 0]]),
        make_record(2, 0.8, None, [[6, 2], [0, 2]]),
    ]
    assert [metrics.best_epoch(records, name) for name in config_lib.SELECTION_METRICS] == [0, 1, 1]
    result = metrics.run_result(records[::-1], ("ant", "bee"), "balanced_accuracy")
    assert (result["best_epoch"], result["best"]["balanced_accuracy"]) == (2, 0.875)


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


def test_class_figures_equal_scikit_learns():
    rng = np.random.default_rng(0)
    true = rng.choice(4, 300, p=(0.7, 0.2, 0.08, 0.02))
    guess = np.where(rng.random(300) < 0.7, true, rng.integers(0, 4, 300))
    confusion = sklearn_metrics.confusion_matrix(true, guess)
    figures = metrics.of_confusion(confusion)
    assert figures == {
        "accuracy": pytest.approx(sklearn_metrics.accuracy_score(true, guess)),
        "balanced_accuracy": pytest.approx(sklearn_metrics.balanced_accuracy_score(true, guess)),
        "macro_f1": pytest.approx(sklearn_metrics.f1_score(true, guess, average="macro")),
        "g_mean": pytest.approx(
            np.prod(sklearn_metrics.recall_score(true, guess, average=None)) ** 0.25
        ),
    }
    assert figures["accuracy"] > figures["balanced_accuracy"]  # it hides the rare classes


def test_classes_without_images_do_not_count():
    confusion = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert metrics.balanced_accuracy(confusion) == (0.75 + 0.5) / 2
    assert metrics.g_mean(confusion) == pytest.approx(np.sqrt(0.75 * 0.5))
    assert metrics.g_mean(CONFUSION) == 0.0  # no cat is found
    assert metrics.balanced_accuracy(np.zeros((3, 3), int)) == 0.0


def expected_calibration_error(probabilities, labels, bins):
    """Equation 3 of Guo et al. 2017 as it stands, bin by bin."""
    confidence, guess, total = probabilities.max(axis=1), probabilities.argmax(axis=1), 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            gap = (guess[inside] == labels[inside]).mean() - confidence[inside].mean()
            total += inside.mean() * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_the_papers_sum_over_bins(bins):
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.full(5, 0.3), 500)
    labels = np.where(rng.random(500) < 0.5, probabilities.argmax(axis=1), rng.integers(0, 5, 500))
    got = metrics.calibration_error(probabilities, labels, bins)
    assert got == pytest.approx(expected_calibration_error(probabilities, labels, bins))
    # Of two classes, scikit-learn's curve has the same bins over the positive class: taken where
    # that is the predicted one, these are ours.
    positive = rng.uniform(0.5, 1, 500)
    right = (rng.random(500) < positive).astype(int)
    curve = sklearn_calibration.calibration_curve(right, positive, n_bins=bins)
    counts = np.histogram(positive, np.linspace(0, 1, bins + 1))[0]
    counts = counts[counts > 0]
    expected = (counts / 500 * np.abs(curve[0] - curve[1])).sum()
    both = np.stack([1 - positive, positive], axis=1)
    assert metrics.calibration_error(both, right, bins) == pytest.approx(expected)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    assert metrics.calibration_error(np.eye(3), np.arange(3)) == 0.0
    assert metrics.calibration_error(np.eye(3), np.array([1, 2, 0])) == 1.0


def test_an_evaluation_adds_up_its_calibration():
    # Two steps: bin 6 of 15 holds two images at 0.4 and 0.3 is in bin 5; bin 14 holds one at 0.9.
    by_step = {
        "loss_cnn": [1.0, 2.0],
        "images": [3, 1],
        "label": [[0, 0, 0], [1, 0, 0]],
        "predicted": [[0, 1, 1], [1, 0, 0]],
        "confidence": [[0.4, 0.4, 0.3], [0.9, 0.0, 0.0]],
        "mask": [[True, True, True], [True, False, False]],
    }
    record = metrics.evaluation(by_step, 2)
    assert metrics.result(record, ("ant", "bee"))["nll"] == pytest.approx((3 * 1.0 + 2.0) / 4)
    gaps = abs(1 - 0.8), abs(0 - 0.3), abs(1 - 0.9)
    assert record["valid"]["calibration_error"] == pytest.approx(sum(gaps) / 4)
    assert [record["reliability"]["accuracy"][place] for place in (4, 5, 13)] == [0.0, 0.5, 1.0]
    assert record["valid"]["balanced_accuracy"] == pytest.approx((1 / 3 + 1) / 2)
    assert record["confusion_matrix"] == [[1, 2], [0, 1]]


def test_a_result_groups_the_classes_by_their_training_images():
    result = metrics.result(make_record(1, 0.7, None, CONFUSION.tolist(), (500, 90, 3)), NAMES)
    assert result["shots"] == {"many": pytest.approx(4 / 6), "medium": 1.0, "few": 0.0}
    assert result["thirds"] == {"head": pytest.approx(4 / 6), "middle": 1.0, "tail": 0.0}
    assert metrics.result(make_record(1, 0.7, None, CONFUSION.tolist()), NAMES)["shots"] is None


def test_the_folds_groups_are_averaged_where_they_exist():
    confusions = {"fold_1": [[4, 0], [2, 2]], "fold_2": [[4, 0], [4, 0]]}
    records = {
        name: [make_record(1, 0.5, None, table, (300, 50))] for name, table in confusions.items()
    }
    mean = metrics.summarize(records, ("ant", "bee"))["cv"]["mean"]
    assert mean["shots"] == {"many": 1.0, "medium": 0.25, "few": None}
    assert mean["balanced_accuracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert summary_of("fold_1", "fold_2")["cv"]["mean"]["shots"] is None


def test_correctness_is_a_bit_an_image():
    correct = np.random.default_rng(0).random((3, 7)) < 0.6
    mask = np.arange(7) < np.array([[7], [7], [5]])  # the last batch is short
    by_step = {
        "images": mask.sum(axis=1),
        "label": np.zeros((3, 7), int),
        "predicted": np.where(correct, 0, 1),
        "confidence": np.full((3, 7), 0.5),
        "mask": mask,
    }
    result = metrics.result(metrics.evaluation(by_step, 2), ("ant", "bee"))
    assert len(result["correct"]) == 4  # 19 bits in base64
    np.testing.assert_array_equal(metrics.correctness(result), correct[mask])
    assert metrics.correctness(result).mean() == pytest.approx(result["accuracy"])
    assert metrics.correctness({"correct": None}) is None
    assert metrics.correctness({}) is None  # of an earlier version
