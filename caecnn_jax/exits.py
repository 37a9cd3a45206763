"""How a command ends: with one sentence and an exit code, of docs/exit-codes.md."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from absl import logging

from caecnn_jax import errors, legible

# A signal's is 128 and its number; 1 is a crash as well.
SOME_FAILED, USER_ERROR, DIVERGED, SOME_SKIPPED = 1, 2, 3, 4
STOPPED = "stopped by {}: give the same command again to continue"


def stop(signum: int, _frame) -> NoReturn:
    """Ends the process at once; what is being written then is not taken for whole."""
    with contextlib.suppress(OSError):
        os.write(2, f"{STOPPED.format(signal.Signals(signum).name)}\n".encode())
    os._exit(128 + signum)


@contextlib.contextmanager
def known_ends() -> Iterator[None]:
    """A command's context, with streams safe to write to, in which a known end is a sentence."""
    open_streams()
    try:
        yield
    except errors.UserError as error:
        end(USER_ERROR, f"error: {error}")
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            os._exit(128 + signal.SIGPIPE)  # as `... | head` ends others; all files are written
        logging.debug("where it came from:", exc_info=True)
        remedy = "see to that path and its disk, then give the same command again"
        end(USER_ERROR, f"error: {error}: {remedy}")
    except errors.Diverged as error:
        end(DIVERGED, f"diverged: {error}")
    except (errors.Interrupted, KeyboardInterrupt) as error:
        signum = getattr(error, "signum", signal.SIGINT)
        name = signal.Signals(signum).name
        end(128 + signum, STOPPED.format(name))


def open_streams() -> None:
    """Makes the standard streams safe to write to.

    Closed ones lead to nowhere: else the next file opened takes their number, and what libraries
    write to stderr lands in it. What a stream cannot encode is replaced.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, for it stays open
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):  # not so a notebook's or a test's
            stream.reconfigure(errors="replace")
    if logging.get_absl_handler().python_handler.stream is None:
        logging.get_absl_handler().python_handler.setStream(sys.stderr)


def _stdout_is_closed() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def end(code: int, sentence: str) -> NoReturn:
    """Ends the process with the sentence on stderr."""
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(legible.printable(sentence), file=sys.stderr)
    sys.exit(code)
