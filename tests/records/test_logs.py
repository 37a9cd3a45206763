"""Tests of caecnn_jax.records.logs: what is logged where."""

import logging as std_logging

import pytest
from absl import logging

from caecnn_jax.records import logs, workdir


@pytest.fixture
def of_others():
    """Logs as another library would, through absl."""

    def log(level: int, text: str, **details) -> None:
        place = ("/elsewhere/library.py", 1, text, (), details.get("exc_info"))
        logging.get_absl_logger().handle(std_logging.LogRecord("absl", level, *place))

    return log


@pytest.fixture(autouse=True)
def verbosity():
    before, level = logging.get_verbosity(), logging.get_absl_logger().level
    logging.set_verbosity("INFO")
    yield
    logging.set_verbosity(before)
    logging.get_absl_logger().setLevel(level)


def test_the_file_takes_our_lines_and_the_warnings_of_others(tmp_path, of_others, monkeypatch):
    with logs.to_file(tmp_path / "train.log"):
        of_others(std_logging.INFO, "chatter")
        of_others(std_logging.WARNING, "a warning")
        # A caught error of theirs is raised too, and ends as one sentence.
        of_others(std_logging.ERROR, "a traceback", exc_info=(OSError, OSError("disk"), None))
        ours = std_logging.LogRecord(
            "absl", std_logging.INFO, workdir.__file__, 1, "ours", (), None
        )
        logging.get_absl_logger().handle(ours)
    logging.warning("after its end")
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["a warning", "ours"]


def test_the_file_is_gone_on_with(tmp_path, of_others):
    for text in ("one", "two"):
        with logs.to_file(tmp_path / "train.log"):
            of_others(std_logging.WARNING, text)
    assert len((tmp_path / "train.log").read_text().splitlines()) == 2


def test_debugging_shows_everything(tmp_path, of_others):
    logging.set_verbosity("DEBUG")
    with logs.to_file(tmp_path / "train.log"):
        of_others(std_logging.INFO, "chatter")
    assert "chatter" in (tmp_path / "train.log").read_text()
