"""Tests of caecnn_jax.training.idle_settings."""

import re

import pytest
from builders import tiny_config

from caecnn_jax.training import idle_settings
from configs import mixed


def test_warm_up_that_takes_all_epochs_is_warned_of():
    config = mixed.get_config("quick")
    assert idle_settings.warnings(config) == []
    config.num_epoch = 2
    (sentence,) = idle_settings.warnings(config)
    assert sentence == (
        f"config.only_train_cae_until={config.only_train_cae_until}: warm-up takes all 2 epochs, "
        "and the CNN is never trained: lower it, or raise config.num_epoch"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"balanced_batches_from": 6}, None),
        ({"balanced_batches_from": 7}, "balanced_batches_from=7: .* in none of the 6 epochs"),
        ({"cnn": {"loss": {"deferred_until": 9}}}, None),  # without weights there is nothing late
        (
            {"cnn": {"loss": {"deferred_until": 6, "class_weights": "effective"}}},
            "deferred_until=6: the class weights count in none of the 6 epochs",
        ),
        ({"cnn": {"loss": {"deferred_until": 5, "class_weights": "effective"}}}, None),
        ({"lr_ramp_epochs": 10}, "lr_ramp_epochs=10: .* rises during all 6 epochs in which the C"),
        ({"lr_ramp_epochs": 6}, "lr_ramp_epochs=6: the learning rate rises during all 6 epochs in"),
        ({"lr_ramp_epochs": 5}, None),
        ({"use_cnn": False, "lr_ramp_epochs": 9}, "cae_until=4: without a CNN every epoch trains"),
        ({"refine_epochs": 9}, None),
        ({"refine_epochs": 10}, "refine_epochs=10: in all 10 epochs images are flipped at most"),
        ({"lr_milestones": (3, 5)}, None),  # the CNN's own six epochs count
        ({"lr_milestones": (3, 6)}, r"lr_milestones=\(3, 6\): .* after all 6 epochs"),
    ],
)
def test_settings_that_come_too_late_are_warned_of(changes, said):
    config = tiny_config("mixed", num_epoch=10, only_train_cae_until=4, **changes)
    sentences = idle_settings.warnings(config)
    assert len(sentences) == (said is not None)
    assert all(re.search(said, sentence) for sentence in sentences)


def test_steps_that_are_mostly_padding_are_warned_of(caplog):
    idle_settings.warn_of_padding(64, 32)
    assert not caplog.text
    idle_settings.warn_of_padding(64, 31)
    assert "config.batch_size=64: no epoch visits more than 31 images" in caplog.text
