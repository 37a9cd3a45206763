"""Tests of caecnn_jax.logs: what of all that is logged reaches a terminal."""

import logging as std_logging
import pathlib
import subprocess
import sys

import pytest
from absl import logging
from builders import PROJECT

from caecnn_jax import logs
from caecnn_jax.data import progress as data_progress


@pytest.fixture
def at_info():
    before = logging.get_verbosity()
    logging.set_verbosity("INFO")
    try:
        yield
    finally:
        logging.set_verbosity(before)


def record(path, level=std_logging.INFO, name="absl", error=None):
    return std_logging.LogRecord(name, level, str(path), 1, "said", (), error)


@pytest.mark.parametrize(
    "place",
    ["caecnn_jax/logs.py", "caecnn_jax/data/cifar.py", "main.py", "configs/a.py", "studies/a.py"],
)
def test_what_is_ours_is_shown(at_info, place):
    """In a checkout and in an installed wheel alike, all of it lies beside the package."""
    assert logs.is_shown(record(pathlib.Path(logs.__file__).parents[1] / place))


def test_without_a_stream_for_errors_nobody_watches(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert not logs.on_terminal()
    with data_progress.shown("Reading", 2, "images") as update:
        update(1)


def test_a_name_in_a_line_does_not_steer_a_terminal(at_info, monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "is_shown", lambda _: True)
    with logs.to_file(tmp_path / "train.log"):
        logging.warning("skipped %s\nand more", "\x1b[31mred.png")
    assert "skipped \\x1b[31mred.png\nand more\n" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("place", ["caecnn_jax_other/x.py", "orbax/x.py", "configs.py", "x.py"])
def test_what_lies_beside_ours_is_not(at_info, place):
    """In a wheel's site-packages that is every other library."""
    path = pathlib.Path(logs.__file__).parents[1] / place
    assert not logs.is_shown(record(path))
    assert not logs.is_shown(record(path, std_logging.ERROR))
    logging.set_verbosity("DEBUG")
    assert logs.is_shown(record(path))


def test_a_warning_of_jax_is_shown_but_for_its_tracebacks(at_info):
    assert logs.is_shown(record("/jax/x.py", std_logging.WARNING, "jax._src.xla_bridge"))
    assert not logs.is_shown(record("/jax/x.py", std_logging.INFO, "jax._src.xla_bridge"))
    assert not logs.is_shown(record("/jax/x.py", std_logging.WARNING, "jaxtyping"))
    error = (ValueError, ValueError(), None)
    assert not logs.is_shown(record("/jax/x.py", std_logging.ERROR, "jax", error))


CHILD = """
import logging as std_logging, sys, warnings
from absl import logging
from caecnn_jax import logs
logs.to_console(sys.argv[1])
logging.info("Done writing %s. Number of examples: 10", "x")  # as TFDS does
warnings.warn("a library's warning")
std_logging.getLogger("matplotlib").warning("a temporary cache directory")
"""


def test_chatter_of_libraries_is_for_debug():
    def said(level: str) -> str:
        command = [sys.executable, "-c", CHILD, level]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
        return done.stderr

    assert said("INFO") == ""
    for words in ("Done writing x.", "a library's warning", "a temporary cache directory"):
        assert words in said("DEBUG")


def test_the_file_of_a_run_has_every_line_whatever_its_letters(at_info, monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "is_shown", lambda _: True)
    arguments = ("b\udce4r.jpg",)
    record = std_logging.LogRecord("absl", 30, "x.py", 1, "skipped %s: 3 ± 1", arguments, None)
    with logs.to_file(tmp_path / "train.log"):
        # To the file alone: the test runner could not pass on what it captures.
        logging.get_absl_logger().handlers[-1].handle(record)
    assert "skipped b\\udce4r.jpg: 3 ± 1\n" in (tmp_path / "train.log").read_text("utf-8")
