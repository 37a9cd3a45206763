"""Tests of caecnn_jax.durations."""

import pytest

from caecnn_jax import durations


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0:00:00"), (119, "0:01:59"), (7499.6, "2:05:00"), (360000, "4 days, 4:00:00")],
)
def test_durations_are_hours_minutes_and_seconds(seconds, words):
    assert durations.as_time(seconds) == words
