"""SIGTERM and Ctrl-C as a polite request that the training loop asks for between its calls."""

import contextlib
import signal
from collections.abc import Iterator

from absl import logging


class StopRequest:
    """Holds the signal that asked to stop, if any did."""

    signum: int | None = None

    def receive(self, signum: int, _frame) -> None:
        """Takes note of the signal; the same again ends the process at once."""
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)
        name = signal.Signals(signum).name
        logging.warning("%s: stopping after this step; once more to stop at once.", name)


@contextlib.contextmanager
def listen() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a StopRequest while the context lasts."""
    request = StopRequest()
    before = {
        signum: signal.signal(signum, request.receive) for signum in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield request
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
