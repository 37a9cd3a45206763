"""How far a long reading has come: a bar on a terminal, else a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator

from absl import logging

from caecnn_jax import logs


@contextlib.contextmanager
def shown(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields `update(n)`; shows a bar on a terminal, otherwise a log line every five seconds."""
    if logs.on_terminal():
        import tqdm

        with tqdm.tqdm(desc=what, total=total, unit=f" {unit}", unit_scale=True) as bar:
            yield bar.update
        return
    done, logged = 0, time.monotonic()

    def update(n: int) -> None:
        nonlocal done, logged
        done += n
        if time.monotonic() - logged >= 5 or done == total:
            logged = time.monotonic()
            logging.info("%s: %d of %d %s", what, done, total, unit)

    yield update
