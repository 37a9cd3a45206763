"""Tests of caecnn_jax.run_names."""

import pytest

from caecnn_jax import run_names


def test_names_and_numbers_of_runs_are_each_others_inverse():
    assert [run_names.of_number(number) for number in (0, 1, 12)] == ["test", "fold_1", "fold_12"]
    for number in range(20):
        name = run_names.of_number(number)
        assert run_names.number_of(name) == number
        assert run_names.is_fold(name) == (number > 0)
    for name in ("fold_0", "fold_", "fold_-1", "fold_x", "fold_01", "7", "Test", "", "fold_²"):
        assert not run_names.is_fold(name)
        with pytest.raises(ValueError, match="is no run"):
            run_names.number_of(name)
