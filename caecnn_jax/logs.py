"""Logging: the program's own lines, on a terminal and in a run's file; of others only at DEBUG."""

import contextlib
import contextvars
import logging as std_logging
import os
import pathlib
import sys
from collections.abc import Iterator

from absl import flags, logging

from caecnn_jax import legible

_PACKAGE = pathlib.Path(__file__).parent
# What lies beside the package: all that a checkout or a wheel has of ours, and nothing else.
_OURS = tuple(
    os.path.join(_PACKAGE.parent, *name)
    for name in ((_PACKAGE.name, ""), ("configs", ""), ("studies", ""), ("main.py",))
)
_FORMAT = "%(asctime)s %(message)s"
ONLY_IN_FILE = {"only_in_file": True}  # a logging call's `extra`: a terminal leaves it out
# The file of those runs that this thread trains; threads take it over with their context.
_CURRENT: contextvars.ContextVar = contextvars.ContextVar("current", default=None)


def is_shown(record: std_logging.LogRecord) -> bool:
    """Ours, and JAX's own warnings, such as of a GPU that it cannot use; at DEBUG everything.

    Orbax alone says a dozen things for each checkpoint, some of them as errors. What comes with a
    traceback is raised too, and ends as one sentence.
    """
    if logging.get_verbosity() == logging.DEBUG or record.pathname.startswith(_OURS):
        return True
    is_jax = record.name.partition(".")[0] == "jax"
    return is_jax and record.levelno >= std_logging.WARNING and not record.exc_info


def on_terminal() -> bool:
    """Whether somebody watches what is written to stderr, which a daemon may not have at all."""
    return sys.stderr is not None and sys.stderr.isatty()


def to_console(level: str) -> None:
    """Logs short lines of `level` ("INFO" or "DEBUG") and above to stderr.

    Python's warnings are of the others' lines.
    """
    flags.FLAGS.mark_as_parsed()  # of a command without absl's flags it would say so, as a warning
    logging.use_absl_handler()
    logging.set_verbosity(level)
    std_logging.captureWarnings(True)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Lines(_FORMAT, "%H:%M:%S"))
    handler.addFilter(is_shown)
    handler.addFilter(lambda record: not getattr(record, "only_in_file", False))


class _Lines(std_logging.Formatter):
    """Lines in which the name of a file or a class does not steer a terminal."""

    def format(self, record: std_logging.LogRecord) -> str:
        return legible.printable(super().format(record))


class _File(std_logging.FileHandler):
    """A log file that a full or vanished disk does not stop, nor make noisy."""

    def handleError(self, record):
        pass


@contextlib.contextmanager
def to_file(path: os.PathLike) -> Iterator[None]:
    """Appends what is logged to a local file while the context lasts.

    Where several do so in one process, what another one's threads log is left out.
    """
    # A name that is no text, as a file's may be, loses no line, nor does a locale of few letters.
    handler = _File(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Lines(_FORMAT))
    handler.addFilter(is_shown)
    handler.addFilter(lambda _: _CURRENT.get() in (None, path))
    logging.get_absl_logger().addHandler(handler)
    before = _CURRENT.set(path)
    try:
        yield
    finally:
        _CURRENT.reset(before)
        logging.get_absl_logger().removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
