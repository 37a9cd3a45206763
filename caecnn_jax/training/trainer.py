"""The epochs of one group of runs: train, evaluate, check, record, save, and stop when asked to.

What is compiled is in `epochs`, what is on the devices in `group`, what a run leaves in `journal`.
"""

import datetime
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import tqdm
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.data import dataset
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.records.journal import Journal
from caecnn_jax.results import metrics
from caecnn_jax.training import devices, early_stopping, signals, steps
from caecnn_jax.training.group import Arrays, Group

CODES_PER_CLASS = 20  # shown in TensorBoard's projector


def has_ended(run: Journal, config: ml_collections.ConfigDict) -> bool:
    """Whether a run has come to its end."""
    return early_stopping.is_finished(run.records, config, is_test=run.split.number == 0)


class Dispatched(NamedTuple):
    """An epoch that is under way on the devices."""

    epoch: int
    joint: bool
    runs: list[Journal | None]  # the group's runs, None for those that sit this epoch out
    train: list[steps.Metrics]
    valid: list[steps.Metrics]
    state: steps.TrainState  # after the epoch
    began: float


class Trainer:
    """Trains one group of runs to their end."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        data: dataset.Dataset,
        folder: epath.Path,
        journals: Sequence[Journal],  # of all runs, for history.jsonl
        members: Sequence[Journal],  # of this group's runs
        request: signals.StopRequest,
    ):
        self.config, self.folder, self.journals, self.members = config, folder, journals, members
        self.data, self.request = data, request
        self.group = Group(config, [journal.split for journal in members], data)
        self.ready = time.time()  # when the devices were last known to be done with an epoch

    def train(self) -> None:
        """Trains epoch by epoch, from where each run was left.

        On an accelerator an epoch is dispatched before the last one is logged and saved: where that
        then ends the run, the epoch too many is dropped.
        """
        self._put_state()
        self._write_history()
        first = min(len(run.records) for run in self.members) + 1
        ahead = None
        for epoch in range(first, self.config.num_epoch + 1):
            active = [not self._ended(run) and len(run.records) < epoch for run in self.members]
            if not any(active):
                continue
            dispatched = self._dispatch(epoch, active, ahead)
            if ahead is not None:
                self._finish_epoch(ahead)
            ahead = dispatched
            if jax.default_backend() == "cpu":
                self._finish_epoch(ahead)
                ahead = None
        if ahead is not None:
            self._finish_epoch(ahead)

    def _put_state(self) -> None:
        """Puts what was restored of each run, or its first state, on the devices."""
        new = self.group.new_arrays()
        positions = {(len(run.records), run.step) for run in self.members if not self._ended(run)}
        if len(positions) > 1:  # side by side, a signal's half-done epoch must be everyone's
            for run, one in zip(self.members, new, strict=True):
                run.forget_partial_epoch(one)
        self.group.put_state(
            [run.arrays or one for run, one in zip(self.members, new, strict=True)]
        )

    def _ended(self, run: Journal) -> bool:
        return has_ended(run, self.config)

    def _is_joint(self, epoch: int) -> bool:
        both = self.config.use_cae and self.config.use_cnn
        return not both or epoch > self.config.only_train_cae_until

    def _dispatch(self, epoch: int, active: list[bool], ahead: Dispatched | None) -> Dispatched:
        """Dispatches an epoch's training and evaluation; a signal saves what is done and raises."""
        joint = self._is_joint(epoch)
        runs = [run if on else None for run, on in zip(self.members, active, strict=True)]
        first_step = max(run.step for run in runs if run) if ahead is None else 0
        began = time.time()
        train, valid, done = [], [], first_step
        with self._bar(epoch, joint, first_step) as bar:
            for done, chunk in self.group.train_epoch(epoch, active, joint, first_step):
                train.append(chunk)
                bar.update(done - bar.n)
                if self.request.is_made():
                    self._interrupt(runs, done, train, ahead)
        for chunk in self.group.evaluate(joint):
            valid.append(chunk)
            if self.request.is_made():
                self._interrupt(runs, done, train, ahead)
        state = self.group.snapshot()
        return Dispatched(epoch, joint, runs, train, valid, state, began)

    def _bar(self, epoch: int, joint: bool, first_step: int) -> tqdm.tqdm:
        names = "+".join(run.split.name for run in self.members)
        return tqdm.tqdm(
            desc=f"{names} epoch {epoch}/{self.config.num_epoch} {'joint' if joint else 'warmup'}",
            total=self.group.num_steps,
            initial=first_step,
            unit="step",
            leave=False,
            postfix=self._last_figures(),
            disable=not sys.stderr.isatty(),
        )

    def _last_figures(self) -> dict[str, str]:
        """What the bar shows of the last epoch, means over the group's runs, and the time left."""
        last = [run.records[-1]["valid"] for run in self.members if run.records]
        means = {
            name: f"{np.mean([valid[name] for valid in last]):.4f}"
            for name in ("loss_cae", "loss_cnn", "accuracy")
            if last and None not in [valid[name] for valid in last]
        }
        return means | ({"left": _as_time(self._seconds_left())} if last else {})

    def _interrupt(self, runs, step: int, train, ahead: Dispatched | None) -> None:
        """Saves the half-done epoch of every run and raises Interrupted."""
        if ahead is not None:
            self._finish_epoch(ahead)
        arrays = self.group.get_arrays(self.group.snapshot())
        for run, saved, losses in zip(runs, arrays, self._losses(runs, train), strict=True):
            if run is not None and not self._ended(run):
                run.add_partial(step, losses, saved)
        raise errors.Interrupted(self.request.signum)

    def _losses(self, runs, train: list[steps.Metrics]) -> list[dict[str, list] | None]:
        """Each run's losses and image counts by step, those before a restart included."""
        fetched = self.group.get_metrics(train)
        return [
            run
            and {
                name: run.losses.get(name, []) + np.asarray(by_step.get(name, ())).tolist()
                for name in run.losses | by_step
            }
            for run, by_step in zip(runs, fetched, strict=True)
        ]

    def _finish_epoch(self, dispatched: Dispatched) -> None:
        """Waits for an epoch; checks, records, saves and logs it."""
        began = max(dispatched.began, self.ready)
        losses = self._losses(dispatched.runs, dispatched.train)
        trained = time.time()
        scores = self.group.get_metrics(dispatched.valid)
        self.ready = time.time()
        arrays = self.group.get_arrays(dispatched.state)
        for run, train, valid, saved in zip(dispatched.runs, losses, scores, arrays, strict=True):
            if run is None or self._ended(run):
                continue
            check_finite(run.split.name, dispatched.epoch, train, valid)
            images = sum(train["images"]) - sum(run.losses.get("images", ()))
            record = {
                "run": run.split.name,
                "epoch": dispatched.epoch,
                "phase": "joint" if dispatched.joint else "warmup",
                "train": metrics.mean_losses(train),
                **metrics.evaluation(valid),
                "seconds": self.ready - began,
                "images_per_second": images / max(trained - began, 1e-9),
            }
            run.add(record)
            if self._shows_pictures(run):
                self._draw(run, saved)
            if self._ended(run):
                self._show_end(run, saved)
            run.save(saved, self.config.keep_checkpoints)
            self._log(run, record)
        self._write_history()

    def _log(self, run: Journal, record: dict) -> None:
        """The epoch's line."""
        figures = [
            f"{part} {name} {value:.4f}"
            for part in ("train", "valid")
            for name, value in record[part].items()
            if value is not None
        ]
        logging.info(
            "%s epoch %d/%d %s: %s; %.0f images/s, %.1f s, about %s left",
            run.split.name,
            record["epoch"],
            self.config.num_epoch,
            record["phase"],
            ", ".join(figures),
            record["images_per_second"],
            record["seconds"],
            _as_time(self._seconds_left()),
        )

    def _seconds_left(self) -> float:
        """An estimate for all runs, as if none stopped early, from the epochs up to now."""
        seconds = {"warmup": [], "joint": []}
        for run in self.journals:
            for record in run.records:
                seconds[record["phase"]].append(record["seconds"])
        joint = np.median(seconds["joint"] or seconds["warmup"])
        warmup = np.median(seconds["warmup"]) if seconds["warmup"] else joint
        total = 0.0
        for run in self.journals:
            if not self._ended(run):
                epochs = range(len(run.records) + 1, self.config.num_epoch + 1)
                total += sum(joint if self._is_joint(epoch) else warmup for epoch in epochs)
        return total / len(self.members)

    def _shows_pictures(self, run: Journal) -> bool:
        interval = self.config.save_img_per_epoch
        due = interval and (len(run.records) % interval == 0 or self._ended(run))
        return bool(self.config.use_cae and due)

    def _draw(self, run: Journal, arrays: Arrays) -> None:
        """Draws a validation image of each class over its reconstruction."""
        from caecnn_jax.records import figures  # matplotlib takes a second to import
        from caecnn_jax.results import evaluate  # matplotlib takes a second to import

        labels = self.data.labels[run.split.valid]
        _, firsts = np.unique(labels, return_index=True)
        images = self.data.images[run.split.valid[firsts]]
        _, reconstructions = evaluate.autoencode(self.config, arrays["variables"], images)
        captions = [self.data.class_names[label] for label in labels[firsts]]
        png = figures.reconstructions(images, reconstructions, captions)
        run.picture("reconstruction", png, len(run.records))

    def _show_end(self, run: Journal, arrays: Arrays) -> None:
        """Shows an ended run's result and codes, as many of each class, on TensorBoard."""
        from caecnn_jax.results import evaluate

        run.show_settings(config_lib.flatten(self.config.to_dict()))
        if not self.config.use_cae:
            return
        labels = self.data.labels[run.split.valid]
        count = min(CODES_PER_CLASS, *np.unique(labels, return_counts=True)[1])
        by_class = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
        sample = np.concatenate(by_class)
        images = self.data.images[run.split.valid[sample]]
        codes, _ = evaluate.autoencode(self.config, arrays["variables"], images)
        run.show_codes(codes, images, labels[sample])

    def _write_history(self) -> None:
        if devices.is_writer():
            records = [record for run in self.journals for record in run.records]
            workdir_lib.write_history(self.folder, records)


def _as_time(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    return str(datetime.timedelta(seconds=round(seconds)))


def check_finite(run: str, epoch: int, train: dict[str, list], valid: dict) -> None:
    """Raises Diverged at the first step whose loss is NaN or infinite."""
    for name in ("loss_cae", "loss_cnn"):
        bad = np.flatnonzero(~np.isfinite(train.get(name, ())))
        where = f"step {bad[0] + 1}" if len(bad) else "validation"
        if len(bad) or not np.all(np.isfinite(valid.get(name, ()))):
            raise errors.Diverged(
                f"{name} is no longer finite in {run}, epoch {epoch}, {where}: the last good "
                "checkpoint is kept, but the same config will end here again; try another "
                "--workdir with a lower config.cnn.opt.lr or config.cae.opt.lr"
            )
