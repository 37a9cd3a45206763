"""Tests of caecnn_jax.training.early_stopping: it stops where the reference stops."""

import json

import pytest
from builders import PROJECT, tiny_config

from caecnn_jax.training import early_stopping

GOLDEN = json.loads((PROJECT / "tests" / "golden" / "early_stopping.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['score']}-{len(case['history'])}")
def test_stops_where_the_reference_stops(case):
    higher = case["score"] == "acc"
    stops = [
        epoch
        for epoch in range(1, len(case["history"]) + 1)
        if early_stopping.should_stop(case["history"][:epoch], case["improve_range"], higher)
    ]
    assert (stops or [None])[0] == case["stops_after_epoch"]


def records_of(accuracies, losses=None, phase="joint") -> list[dict]:
    losses = losses or [0.0] * len(accuracies)
    return [
        {"phase": phase, "valid": {"accuracy": accuracy, "loss_cae": loss}}
        for accuracy, loss in zip(accuracies, losses, strict=True)
    ]


def test_a_run_ends_with_its_epochs_or_when_its_score_gets_no_better():
    config = tiny_config("mixed", num_epoch=40)
    worse = records_of([0.5] + [0.4] * 10)
    assert not early_stopping.is_finished(worse[:10], config, is_test=False)
    assert early_stopping.is_finished(worse, config, is_test=False)
    assert early_stopping.is_finished(records_of(range(40)), config, is_test=True)
    # Warm-up epochs have no score.
    assert not early_stopping.is_finished(
        records_of([None] * 20, phase="warmup") + worse[:10], config, is_test=False
    )


def test_the_test_set_steers_training_only_when_asked_to():
    worse = records_of([0.5] + [0.4] * 10)
    config = tiny_config("mixed", num_epoch=30)
    assert not early_stopping.is_finished(worse, config, is_test=True)
    config.test_early_stopping = True
    assert early_stopping.is_finished(worse, config, is_test=True)


def test_folds_may_train_to_their_last_epoch():
    worse = records_of([0.5] + [0.4] * 10)
    config = tiny_config("mixed", num_epoch=30, cv_early_stopping=False)
    assert not early_stopping.is_finished(worse, config, is_test=False)
    assert early_stopping.is_finished(records_of([0.4] * 30), config, is_test=False)


def test_the_autoencoder_alone_is_judged_by_its_loss():
    config = tiny_config("cae", num_epoch=30)
    falling = records_of([None] * 6, [6, 5, 4, 3, 2, 1])
    rising = records_of([None] * 6, [1, 2, 3, 4, 5, 6])
    assert not early_stopping.is_finished(falling, config, is_test=False)
    assert early_stopping.is_finished(rising, config, is_test=False)
