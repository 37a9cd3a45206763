"""Signals as a polite request that the training loop asks for between its calls."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

from absl import logging

from caecnn_jax import errors

# SIGHUP comes when a terminal goes, SIGUSR1 from SLURM ahead of a job's end, SIGUSR2 by submitit.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ONE = 2.0  # seconds: signals so close are one, sent to a process group and by a wrapper too


class StopRequest:
    """Holds the signal that asked to stop, if any did."""

    def __init__(self, in_step: bool = False):
        """`in_step`: the job's processes train the same run, and must stop at the same step."""
        self.signum: int | None = None
        self._in_step = in_step
        self._times_asked = 0
        self._asking = threading.Lock()  # runs on several devices ask from as many threads
        self._received = 0.0  # time.monotonic() of the first signal

    def is_made(self) -> bool:
        """Whether to stop now; processes in step all hear it at the same time of asking."""
        if self._in_step:
            from jax.experimental import multihost_utils

            with self._asking:
                self._times_asked += 1
                if multihost_utils.reached_preemption_sync_point(self._times_asked):
                    self.signum = signal.SIGTERM
        return self.signum is not None

    def check(self) -> None:
        """Raises Interrupted where it is made."""
        if self.is_made():
            assert self.signum is not None  # it is made
            raise errors.Interrupted(self.signum)

    def make(self) -> None:
        """Asks to stop from inside the program: one of several runs has failed."""
        self.signum = self.signum or signal.SIGTERM

    def receive(self, signum: int) -> None:
        """Takes note of a signal; another one, ONE seconds later or more, ends the process."""
        if not self._received:
            self.signum, self._received = signum, time.monotonic()
            name = signal.Signals(signum).name
            logging.warning("%s: stopping after this step; once more to stop at once.", name)
        elif time.monotonic() - self._received >= ONE:
            os._exit(128 + signum)


@contextlib.contextmanager
def listen(in_step: bool = False) -> Iterator[StopRequest]:
    """Turns SIGNALS into a StopRequest while the context lasts.

    A signal that was ignored before, as nohup has SIGHUP, stays so. Processes `in_step` leave
    SIGTERM to jax.distributed, which tells every process of one's, and take the others for it.
    """
    request = StopRequest(in_step)
    heard = [signum for signum in SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
    if in_step:
        heard = [signum for signum in heard if signum in (signal.SIGHUP, signal.SIGUSR1)]
        before = {signum: signal.signal(signum, _terminate) for signum in heard}
        try:
            yield request
        finally:
            _put_back(before)
        return
    # Python runs a handler only between bytecodes, so not while XLA compiles; but it writes the
    # signal's number to a file at once, and a thread that reads there is never kept waiting.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {signum: signal.signal(signum, _ignore) for signum in heard}
    wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, request), daemon=True)
    thread.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup_before)
        _put_back(before)
        os.close(writer)
        thread.join()
        os.close(reader)


def _ignore(_signum: int, _frame) -> None:
    """A handler of Python's must be there for the number to be written."""


def _terminate(_signum: int, _frame) -> None:
    signal.raise_signal(signal.SIGTERM)


def _put_back(handlers: dict) -> None:
    for signum, handler in handlers.items():
        signal.signal(signum, handler)


def _watch(reader: int, request: StopRequest) -> None:
    while number := os.read(reader, 1):
        if number[0] in SIGNALS:
            request.receive(number[0])
