"""Fixtures that the tests of the networks share."""

import jax
import pytest


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param
