"""How far a study is, as a line: runs done, running, failed and to come, and the time left."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tqdm
from absl import logging

from caecnn_jax import errors, logs
from caecnn_jax.durations import as_time
from caecnn_jax.training import workload


class Overview:
    """How far a study is: runs done, running, failed and to come, and the time left over all."""

    def __init__(self, work: Mapping[str, workload.Work], before: Mapping[str, int], *, done: int):
        """`work` of each run that trains now, of whose images it visited as many `before`.

        `done` runs were finished before.
        """
        self._work = work
        self._left = {name: one.images - before[name] for name, one in work.items()}
        self._counts = {"done": done, "running": 0, "to come": len(work), "failed": 0}
        self._images = sum(self._left.values())  # to come
        self._visited = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._bar = tqdm.tqdm(
            bar_format="{desc}", leave=False, disable=not logs.on_terminal(), position=0
        )

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """While a run trains; yields what is told of each of its epochs' records."""
        work, left = self._work[name], self._left[name]
        self._change("to come", "running", f"{name} begins")

        def on_epoch(record: Mapping[str, Any]) -> None:
            nonlocal left
            images = work.train[record["run"]]
            left -= images
            with self._lock:
                self._visited += images
                self._images -= images
                self._bar.set_description_str(self._line())

        end = "failed"
        try:
            yield on_epoch
            end = "done"
        except errors.Interrupted:
            end = "to come"
            raise
        finally:
            with self._lock:
                self._images -= left  # of epochs that an early end spared
            self._change("running", end, f"{name}: {'stopped' if end == 'to come' else end}")

    def _change(self, before: str, after: str, what: str) -> None:
        with self._lock:
            self._counts[before] -= 1
            self._counts[after] += 1
            logging.info("%s; %s", what, self._line())
            self._bar.set_description_str(self._line())

    def _line(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self._counts.items() if count)
        if not self._visited:
            return f"study: {counts}"
        seconds = self._images * (time.monotonic() - self._began) / self._visited
        return f"study: {counts}; about {as_time(seconds)} left"

    def close(self) -> None:
        """Takes the line off the terminal."""
        self._bar.close()
