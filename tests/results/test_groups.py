"""Tests of caecnn_jax.results.groups."""

import numpy as np
import pytest

from caecnn_jax.results import groups

# CIFAR-10-LT at factor 100, and a recall that names each class by its place.
COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
RECALLS = np.arange(10) / 10


def test_cifar_10_lt_has_thirds_of_three_four_and_three_classes():
    thirds = groups.thirds(RECALLS, COUNTS)
    assert thirds == {
        "head": pytest.approx(0.1),
        "middle": pytest.approx(0.45),
        "tail": pytest.approx(0.8),
    }
    assert groups.thirds(RECALLS[::-1], COUNTS[::-1]) == thirds


def test_shots_are_bounded_by_a_hundred_and_twenty_images():
    counts = (5000, 101, 100, 20, 19, 0)
    assert groups.shots(np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.0]), counts) == {
        "many": pytest.approx(0.9),
        "medium": pytest.approx(0.5),
        "few": pytest.approx(0.1),
    }
    assert groups.shots(RECALLS, COUNTS)["few"] is None


def test_few_classes_and_classes_without_recall():
    assert groups.thirds(np.array([0.5, 0.7]), (9, 8)) == {
        "head": None,
        "middle": pytest.approx(0.6),
        "tail": None,
    }
    assert groups.thirds(np.array([0.5, np.nan, 0.7]), (9, 8, 7))["middle"] is None
