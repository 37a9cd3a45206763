"""Training: from a config to a run's folder. Reads top to bottom; what is compiled is in `epochs`.

A run is one fold of the cross-validation, or the test run. Runs train in groups: of one each, or
of several side by side as one program; either way each has its own journal and its own end.
"""

import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import tqdm
from absl import logging
from etils import epath

from caecnn_jax import (
    about,
    dataset,
    errors,
    evaluate,
    figures,
    metrics,
    report,
    sampling,
    signals,
    steps,
)
from caecnn_jax import config as config_lib
from caecnn_jax import workdir as workdir_lib
from caecnn_jax.group import Arrays, Group
from caecnn_jax.journal import Journal

ACCURACY_WINDOW, LOSS_WINDOW = 10, 5  # epochs without a better score that end a run
CODES_PER_CLASS = 20  # shown in TensorBoard's projector


def should_stop(scores: Sequence[float], window: int, higher_is_better: bool) -> bool:
    """Whether the score `window` epochs ago is not beaten by any since; oldest first."""
    if len(scores) <= window:
        return False
    before, *since = scores[-window - 1 :]
    return before >= max(since) if higher_is_better else before <= min(since)


def is_finished(records: Sequence[dict], config: ml_collections.ConfigDict, is_test: bool) -> bool:
    """Whether a run with these records has come to its end, by its epochs or by early stopping.

    Warm-up epochs record no score when there is a CNN.
    """
    if len(records) >= config.num_epoch:
        return True
    if is_test and not config.test_early_stopping:
        return False
    measure, window = ("accuracy", ACCURACY_WINDOW) if config.use_cnn else ("loss_cae", LOSS_WINDOW)
    scores = [record["valid"][measure] for record in records if record["phase"] == "joint"]
    return should_stop(scores, window, higher_is_better=config.use_cnn)


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str, data: dataset.Dataset | None = None
) -> dict:
    """Trains every run of `config` in `workdir`, or goes on where it was left; returns the metrics.

    `data` stands in for CIFAR-10 where given. The result is what metrics.json holds. Raises
    ConfigError, DataError, WorkdirError, CheckpointError, Diverged or Interrupted.
    """
    config_lib.validate(config)
    folder = workdir_lib.resolve(workdir)
    with workdir_lib.claim(folder, config) as finished, signals.listen() as request:
        if finished:
            logging.info("The run in %s is finished; there is nothing left to do.", folder)
            return workdir_lib.read_json(folder / "metrics.json")
        began = time.time()
        data = data or dataset.load(config.data_source, config.data_dir or None)
        kept, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
        description = about.describe(data, kept, splits)
        about.log_class_counts(description["class_counts"])
        workdir_lib.write_json(folder / "run.json", description)
        journals = [Journal(split, folder, data.class_names) for split in splits]
        for members in grouped(journals, config):
            Trainer(config, data, folder, journals, members, request).train()
        records = {run.split.name: run.records for run in journals}
        summary = metrics.summarize(records, data.class_names)
        description["seconds"] = time.time() - began
        workdir_lib.write_json(folder / "run.json", description)
        workdir_lib.write_json(folder / "metrics.json", summary)
        report.write(folder)
        return summary


def grouped(
    journals: Sequence[Journal], config: ml_collections.ConfigDict
) -> Iterator[list[Journal]]:
    """The runs as they train: the folds side by side or one by one, then the test run."""
    folds = [journal for journal in journals if journal.split.number]
    if config.folds_side_by_side and folds:
        yield folds
    else:
        yield from ([journal] for journal in folds)
    yield from ([journal] for journal in journals if not journal.split.number)


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
        """Restores every run, trains epoch by epoch, and finishes what each run leaves.

        On an accelerator an epoch is dispatched before the last one is logged and saved: where that
        then ends the run, the epoch too many is dropped.
        """
        new = self.group.new_arrays()
        arrays = [run.restore(one) for run, one in zip(self.members, new, strict=True)]
        positions = {(len(run.records), run.step) for run in self.members if not self._ended(run)}
        if len(positions) > 1:  # side by side, a signal's half-done epoch must be everyone's
            arrays = [
                run.forget_partial_epoch(one) for run, one in zip(self.members, new, strict=True)
            ]
        self.group.put_state([old or fresh for old, fresh in zip(arrays, new, strict=True)])
        for run in self.members:
            run.start()
        first = min(len(run.records) for run in self.members) + 1
        self._write_history()
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
        for run in self.members:
            run.finish()

    def _ended(self, run: Journal) -> bool:
        return is_finished(run.records, self.config, is_test=run.split.number == 0)

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
                if self.request.signum is not None:
                    self._interrupt(runs, done, train, ahead)
        for chunk in self.group.evaluate(joint):
            valid.append(chunk)
            if self.request.signum is not None:
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
        for run in self.members:
            run.close()
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
            run.add(record, saved, self.config.keep_checkpoints)
            self._log(run, record)
            if self._shows_pictures(run):
                self._draw(run, saved)
            if self._ended(run):
                self._show_end(run, saved)
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
        joint = seconds["joint"] or seconds["warmup"]
        warmup = seconds["warmup"] or joint
        total = 0.0
        for run in self.journals:
            for epoch in range(len(run.records) + 1, self.config.num_epoch + 1):
                if not self._ended(run):
                    total += np.median(joint if self._is_joint(epoch) else warmup)
        return total / len(self.members)

    def _shows_pictures(self, run: Journal) -> bool:
        interval = self.config.save_img_per_epoch
        due = interval and (len(run.records) % interval == 0 or self._ended(run))
        return bool(self.config.use_cae and due)

    def _draw(self, run: Journal, arrays: Arrays) -> None:
        """Draws a validation image of each class over its reconstruction."""
        labels = self.data.labels[run.split.valid]
        _, firsts = np.unique(labels, return_index=True)
        images = self.data.images[run.split.valid[firsts]]
        _, reconstructions = evaluate.autoencode(self.config, arrays["variables"], images)
        captions = [self.data.class_names[label] for label in labels[firsts]]
        png = figures.reconstructions(images, reconstructions, captions)
        epoch = len(run.records)
        run.picture(f"reconstruction-epoch-{epoch:04d}", png, epoch)

    def _show_end(self, run: Journal, arrays: Arrays) -> None:
        """Shows an ended run's settings and codes, as many of each class, on TensorBoard."""
        run.show_settings(report.flatten(self.config.to_dict()))
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
                "checkpoint is kept; try a lower config.cnn.opt.lr or config.cae.opt.lr"
            )
