"""SIGTERM and Ctrl-C as a polite request that the training loop asks for between its calls."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from absl import logging

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Holds the signal that asked to stop, if any did."""

    def __init__(self, in_step: bool = False):
        """`in_step`: the job's processes train the same run, and must stop at the same step."""
        self.signum: int | None = None
        self._in_step = in_step
        self._times_asked = 0

    def is_made(self) -> bool:
        """Whether to stop now; processes in step all hear it at the same time of asking."""
        if self._in_step:
            from jax.experimental import multihost_utils

            self._times_asked += 1
            if multihost_utils.reached_preemption_sync_point(self._times_asked):
                self.signum = signal.SIGTERM
        return self.signum is not None

    def make(self) -> None:
        """Asks to stop from inside the program: one of several runs has failed."""
        self.signum = self.signum or signal.SIGTERM

    def receive(self, signum: int) -> None:
        """Takes note of a signal; a second one ends the process at once."""
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        name = signal.Signals(signum).name
        logging.warning("%s: stopping after this step; once more to stop at once.", name)


@contextlib.contextmanager
def listen(in_step: bool = False) -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a StopRequest while the context lasts.

    Processes `in_step` leave them to jax.distributed, which tells every process of one's.
    """
    request = StopRequest(in_step)
    if in_step:
        yield request
        return
    # Python runs a handler only between bytecodes, so not while XLA compiles; but it writes the
    # signal's number to a file at once, and a thread that reads there is never kept waiting.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {signum: signal.signal(signum, _ignore) for signum in SIGNALS}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, request), daemon=True)
    thread.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for signum, handler in before.items():
            signal.signal(signum, handler)
        os.close(writer)
        thread.join()
        os.close(reader)


def _ignore(_signum: int, _frame) -> None:
    """A handler of Python's must be there for the number to be written."""


def _watch(reader: int, request: StopRequest) -> None:
    while number := os.read(reader, 1):
        if number[0] in SIGNALS:
            request.receive(number[0])
