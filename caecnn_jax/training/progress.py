"""What a command's runs have come to so far: history.jsonl, an epoch's line, bars, time left."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import tqdm
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import logs
from caecnn_jax.durations import as_time
from caecnn_jax.records import claims, workdir
from caecnn_jax.records.journal import Journal
from caecnn_jax.results import metrics
from caecnn_jax.training import early_stopping

# Where what is logged goes to a file or a pipe, as on a cluster: train.log has every line.
LINES_OF_A_RUN, SECONDS_BETWEEN_LINES = 5, 60


def has_ended(journal: Journal, config: ml_collections.ConfigDict) -> bool:
    """Whether a run has come to its end."""
    return early_stopping.is_finished(journal.records, config, is_test=journal.split.is_test)


class Progress:
    """The runs of a command, several of which may train at the same time."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        folder: epath.Path,
        journals: Sequence[Journal],
        *,
        at_once: int,  # runs that train at the same time
        writes: bool,  # whether this process writes history.jsonl
        others: Sequence[Journal] = (),  # of the journals, whose runs other commands train
        title: str = "",  # of the folder, where several train in one command
        on_epoch: Callable[[Mapping[str, Any]], None] | None = None,  # is told of each record
    ):
        self._config, self._folder, self._journals = config, folder, journals
        self._others = others
        self._at_once, self._writes = at_once, writes
        self._title, self._on_epoch = title and f"{title} ", on_epoch
        self._lock = threading.Lock()
        self._shown = time.monotonic()  # when a line was last shown
        self._missing: list[str] = []  # the runs whose end was last said to be missing

    def write_history(self) -> None:
        """Writes history.jsonl anew, run by run, with what other commands' runs have come to."""
        if self._writes:
            with self._lock, self._in_turn():
                records = [record for journal in self._journals for record in journal.records]
                workdir.write_history(self._folder, records)

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Looks at what other commands have saved, none of which writes while the context lasts."""
        with claims.in_turn(self._folder) if self._others else contextlib.nullcontext():
            self._look()
            yield

    def _look(self) -> None:
        for journal in self._others:
            journal.look()

    def all_have_ended(self) -> bool:
        """Whether every run has come to its end; if not, says once which are others' to train.

        Call once the own ones have.
        """
        if not self._others:
            return True
        if not self._writes:
            self._look()
        self.write_history()
        missing = [
            journal.split.name
            for journal in self._journals
            if not has_ended(journal, self._config)
            or (journal in self._others and not journal.is_complete())
        ]
        if missing and missing != self._missing:
            logging.info(
                "The runs of this part have ended, but not yet %s; what all came to is written at "
                "the end of the last.",
                ", ".join(missing),
            )
        self._missing = missing
        return not missing

    def log(self, record: Mapping[str, Any]) -> None:
        """An epoch's line, a column a figure: losses are training's / validation's."""
        figures = [
            f"{part} {_cell(record['train'][name])}/{_cell(record['valid'][name])}"
            for part, name in (("cae", "loss_cae"), ("cnn", "loss_cnn"))
            if self._config[f"use_{part}"]
        ]
        if self._config.use_cnn:
            figures.append(f"accuracy {_cell(record['valid']['accuracy'], digits=4)}")
        epochs = f"{record['epoch']:>{len(str(self._config.num_epoch))}}/{self._config.num_epoch}"
        logging.info(
            "%s%-6s %s %-6s  %s  %s left",
            self._title,
            record["run"],
            epochs,
            record["phase"],
            "  ".join(figures),
            as_time(self._seconds_left()),
            extra=None if self._is_due(record) else logs.ONLY_IN_FILE,
        )
        if self._on_epoch is not None:
            self._on_epoch(record)

    def _is_due(self, record: Mapping[str, Any]) -> bool:
        """Whether a terminal shows the epoch: one that keeps no lines shows few of a run."""
        every, now = math.ceil(self._config.num_epoch / LINES_OF_A_RUN), time.monotonic()
        due = (
            logs.on_terminal()
            or record["epoch"] == 1
            or record["epoch"] % every == 0
            or now - self._shown > SECONDS_BETWEEN_LINES
        )
        if due:
            self._shown = now
        return due

    def bar(self, journal: Journal, *, epoch: int, first_step: int, num_steps: int) -> tqdm.tqdm:
        """A bar over the steps of an epoch, which its end takes away."""
        phase = "joint" if is_joint(epoch, self._config) else "warmup"
        name = f"{self._title}{journal.split.name}"
        return tqdm.tqdm(
            desc=f"{name} epoch {epoch}/{self._config.num_epoch} {phase}",
            total=num_steps,
            initial=first_step,
            unit="step",
            leave=False,
            postfix=self._last_figures(journal),
            disable=not logs.on_terminal(),
        )

    def _last_figures(self, journal: Journal) -> dict[str, str]:
        """What the bar shows of the last epoch, and the time left."""
        if not journal.records:
            return {}
        figures = {
            name: f"{value:.4f}"
            for name, value in metrics.plain(journal.records[-1]["valid"]).items()
        }
        return figures | {"left": as_time(self._seconds_left())}

    def _seconds_left(self) -> float:
        """An estimate for all runs, as if none stopped early, from the epochs up to now."""
        seconds: dict[str, list[float]] = {"warmup": [], "joint": []}
        for journal in self._journals:
            for record in journal.records:
                seconds[record["phase"]].append(record["seconds"])
        joint = np.median(seconds["joint"] or seconds["warmup"])
        warmup = np.median(seconds["warmup"]) if seconds["warmup"] else joint
        total = 0.0
        for journal in self._journals:
            if journal not in self._others and not has_ended(journal, self._config):
                epochs = range(len(journal.records) + 1, self._config.num_epoch + 1)
                total += sum(joint if is_joint(epoch, self._config) else warmup for epoch in epochs)
        return total / self._at_once


def is_joint(epoch: int, config: ml_collections.ConfigDict) -> bool:
    """Whether all parts train in an epoch, counted from 1: it is no warm-up epoch."""
    return epoch > config_lib.warmup_epochs(config)


def _cell(value: float | None, digits: int = 3) -> str:
    """A figure, or as wide a dash where there is none."""
    return f"{'-':>{digits + 2}}" if value is None else f"{value:.{digits}f}"
