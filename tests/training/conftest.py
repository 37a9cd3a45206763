"""Fixtures of the tests that train."""

import pytest
from trainings import config_of

from caecnn_jax.records import board, journal
from caecnn_jax.training import train


@pytest.fixture
def draw_nothing():
    """Drawing is slow, and tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "finish", lambda self: None)
        patch.setattr(board.Board, "codes", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def straight(tmp_path_factory, tiny_data):
    """The folder of an uninterrupted run of a kind, trained once."""
    folders = {}

    def of(kind: str, **changes):
        key = (kind, *changes.items())
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(kind) / "run"
            train.train_and_evaluate(config_of(kind, **changes), folders[key], tiny_data)
        return folders[key]

    return of
