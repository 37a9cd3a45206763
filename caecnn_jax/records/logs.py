"""What is logged where: the program's own lines, and other libraries' warnings."""

import contextlib
import contextvars
import logging as std_logging
import os
import pathlib
from collections.abc import Iterator

from absl import logging

_PACKAGE = str(pathlib.Path(__file__).parents[1])
_FORMAT = "%(asctime)s %(message)s"
# The file of those runs that this thread trains; threads take it over with their context.
_CURRENT = contextvars.ContextVar("current", default=None)


def _is_ours(record: std_logging.LogRecord) -> bool:
    """Ours, and warnings of others; at DEBUG everything.

    Orbax alone says a dozen things for each checkpoint. What comes with a traceback is raised too,
    and ends as one sentence.
    """
    if record.pathname.startswith(_PACKAGE) or logging.get_verbosity() == logging.DEBUG:
        return True
    return record.levelno >= std_logging.WARNING and not record.exc_info


def to_console(level: str) -> None:
    """Logs short lines of `level` ("INFO" or "DEBUG") and above to stderr."""
    logging.set_verbosity(level)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter(_FORMAT, "%H:%M:%S"))
    handler.addFilter(_is_ours)


class _File(std_logging.FileHandler):
    """A log file that a full or vanished disk does not stop, nor make noisy."""

    def handleError(self, record):
        pass


@contextlib.contextmanager
def to_file(path: os.PathLike) -> Iterator[None]:
    """Appends what is logged to a local file while the context lasts.

    Where several do so in one process, what another one's threads log is left out.
    """
    handler = _File(path)
    handler.setFormatter(std_logging.Formatter(_FORMAT))
    handler.addFilter(_is_ours)
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
