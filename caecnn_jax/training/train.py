"""Training: from a config to a run's folder. Reads top to bottom; the epochs are in `trainer`.

A command's runs, the folds of the cross-validation and the test run, are dealt out to the devices:
on one device they train one after another, on several at the same time, each with its own journal
and its own end; so are they to the processes of a job. The folders of a study share the devices
likewise, see `training.parts`.
"""

import concurrent.futures
import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath
from jax.sharding import Mesh

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.data import augment, catalogue, dataset, pixels, sampling
from caecnn_jax.data import description as description_lib
from caecnn_jax.networks import models
from caecnn_jax.part import WHOLE, Part
from caecnn_jax.records import about, claims
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.records.journal import Journal
from caecnn_jax.results import metrics, schema
from caecnn_jax.training import (
    devices,
    early_stopping,
    epochs,
    idle_settings,
    sharing,
    signals,
    steps,
    trainer,
)
from caecnn_jax.training.progress import Progress, has_ended

should_stop = early_stopping.should_stop
SECONDS_BETWEEN_LOOKS = 5.0  # at what the job's other processes have saved


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    data: dataset.Dataset | None = None,
    part: Part = WHOLE,
) -> schema.Summary | None:
    """Trains every run of `config` in `workdir`, or goes on where it was left; returns the metrics.

    `data` stands in for the config's data set where given. The result is what metrics.json holds;
    None where commands that train other `part`s of the runs are not done yet. Raises ConfigError,
    DataError, WorkdirError, CheckpointError, Diverged or Interrupted.
    """
    config_lib.validate(config)
    config = catalogue.absolute(config)
    folder = workdir_lib.resolve(workdir)
    # Data that do not fit are told before a folder is made; a finished run needs none.
    needs_data = data is None and not (folder / "metrics.json").exists()
    source = dataset.open_checked(config) if needs_data else None
    with claims.claim(folder, config, part, writes=devices.is_writer()) as finished:
        devices.wait_for_all("the folder is claimed")
        if finished:
            logging.info(
                "The run in %s is finished; there is nothing left to do, and %s was not read: if "
                "its images are others by now, train on them in another --workdir.",
                folder,
                config.dataset,
            )
            return workdir_lib.read_json(folder / "metrics.json")
        if data is None:
            data = dataset.read_checked(source or dataset.open_checked(config), config)
        with sharing.share_devices(config.devices_per_run) as shared:
            return train_runs(config, folder, data, shared, part=part)


def train_runs(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    data: dataset.Dataset,
    shared: sharing.Shared,
    *,
    part: Part = WHOLE,
    title: str = "",
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> schema.Summary | None:
    """Trains every run to its end and writes what they came to; returns the metrics.

    Of a `part` of the runs, the one that ends last does so, the others return None; the processes
    of a job wait for each other's. Of several folders that train in one command each has a `title`
    and is told of each epoch.
    """
    lanes, request = shared.lanes, shared.request
    is_job = part.is_whole and not lanes.part.is_whole
    kept, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
    asked, config = config, with_epochs(config, splits)
    idle_settings.warn_of(config)
    most = max(len(split.expanded) for split in splits)
    idle_settings.warn_of_padding(config.batch_size, most)
    channels = data.images.shape[-1]
    model = models.from_config(config, num_classes=len(data.class_names), channels=channels)
    statistics = statistics_of(config, data, kept)
    described = about.describe(data, kept, splits)
    _begin(folder, asked, part, data, statistics, described)
    journals = [
        Journal(
            folder,
            split,
            data,
            selection_metric=config.selection_metric,
            keep=config.keep_checkpoints,
        )
        for split in splits
    ]
    share = lanes.part if is_job else part
    own = share.of(journals)
    held = [] if share.is_whole else [journal.split.name for journal in own]
    with claims.hold(folder, held):
        restore(own, saved_shapes(config, model), lanes)
        progress = Progress(
            config,
            folder,
            journals,
            at_once=min(len(lanes.meshes), len(own)),
            writes=devices.is_writer(),
            others=[journal for journal in journals if journal not in own],
            title=title,
            on_epoch=on_epoch,
        )
        progress.write_history()
        pipeline = epochs.pipeline_of(config, data.images.shape[1:], statistics)

        def train_one(journal: Journal, mesh: Mesh) -> None:
            if has_ended(journal, config) and journal.is_complete():
                return
            place = epochs.Place(mesh, shared.images_on(data, mesh), pipeline)
            try:
                trainer.Trainer(
                    config, journal, place=place, progress=progress, request=request
                ).train()
                with journal.showing():
                    journal.finish()
            finally:
                journal.close()

        deal_out(own, shared, train_one)
    if is_job:
        wait_for_others(progress, request)
    elif not progress.all_have_ended() or _asks_for_more(folder, asked.num_epoch):
        return None
    return _write_end(folder, described, journals, config.selection_metric)


def _asks_for_more(folder: epath.Path, num_epoch: int) -> bool:
    """Whether a part that another command trains was meanwhile given more epochs; says so."""
    asked = workdir_lib.read_config(folder).num_epoch
    if asked != num_epoch:
        logging.info(
            "The runs of this part have ended with num_epoch=%d, which is %d now: the commands "
            "with that go on, and write what all came to.",
            num_epoch,
            asked,
        )
    return asked != num_epoch


def with_epochs(
    config: ml_collections.ConfigDict, splits: Sequence[sampling.Split]
) -> ml_collections.ConfigDict:
    """The config with the epochs that its image_budget asks for: as many for every run.

    They are counted in the largest run's images, num_epoch at most. Where there are fewer than four
    the learning rate does not rise first.
    """
    if not config.image_budget:
        return config
    config = config.copy_and_resolve_references()
    visited = max(len(split.expanded) for split in splits)
    config.num_epoch = min(config.num_epoch, max(1, round(config.image_budget / visited)))
    if config.num_epoch < 4:
        config.lr_ramp_epochs = 0
    logging.info(
        "config.image_budget=%d: %d epochs of at most %d images",
        config.image_budget,
        config.num_epoch,
        visited,
    )
    return config


def statistics_of(
    config: ml_collections.ConfigDict, data: dataset.Dataset, kept: np.ndarray
) -> augment.Statistics:
    """What images are normalised by: CIFAR-10's published numbers, else those of `kept`."""
    if config.dataset == "cifar10" and data.images.shape[-1] == len(augment.CIFAR10.mean):
        return augment.CIFAR10
    return augment.Statistics(*pixels.statistics(data.images, kept))


def restore(journals: Sequence[Journal], target: dict[str, Any], lanes: devices.Lanes) -> None:
    """Takes each run back to where it was left; where this process writes them, tidies up."""
    for journal in journals:
        journal.restore(target)
    devices.wait_for_all("every run is restored")
    for journal in journals if lanes.writes_runs() else ():
        journal.start()


def deal_out(
    journals: Sequence[Journal], shared: sharing.Shared, train_one: Callable[[Journal, Mesh], None]
) -> None:
    """Trains the runs, as many at the same time as there are meshes, each on a free one.

    An error of one makes the others save and stop, and is then raised.
    """

    def or_stop_all(journal: Journal) -> None:
        try:
            with shared.free_mesh() as mesh:
                shared.request.check()  # it may have been made while this waited for a mesh
                train_one(journal, mesh)
        except BaseException:
            shared.request.make()
            raise

    at_once = min(len(shared.lanes.meshes), len(journals))
    if at_once <= 1:
        for journal in journals:
            with shared.free_mesh() as mesh:
                train_one(journal, mesh)
        return
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        runs = [
            pool.submit(contextvars.copy_context().run, or_stop_all, journal)
            for journal in journals
        ]
        ended = [run.exception() for run in runs]
    failures = [error for error in ended if error is not None]
    # An interruption that an error brought about is not what is wrong.
    failures.sort(key=lambda error: isinstance(error, errors.Interrupted))
    if failures:
        raise failures[0]


def wait_for_others(progress: Progress, request: signals.StopRequest) -> None:
    """Waits until the runs of the job's other processes have ended: a job ends as one.

    Raises Interrupted when a signal comes meanwhile.
    """
    while not progress.all_have_ended():
        request.check()
        time.sleep(SECONDS_BETWEEN_LOOKS)
    devices.wait_for_all("every run has ended")


def _begin(
    folder: epath.Path,
    config: ml_collections.ConfigDict,
    part: Part,
    data: dataset.Dataset,
    statistics: augment.Statistics,
    described: schema.About,
) -> None:
    """Logs and writes what the runs are and are about.

    Raises WorkdirError where they were others, or about other images, before anything is written.
    """
    if claims.is_trained(folder):  # else it takes other images as it takes another config
        about.check_same(folder, data)
    description = description_lib.of(data, *statistics)
    table = about.split_table(described["class_counts"])
    logging.info("%s: images of each class\n%s", data.name, "\n".join([*table, *data.notes]))
    described["started"] = about.started(folder) or described["started"]
    if devices.is_writer():
        claims.begin(folder, config, part)
        about.write_description(folder, description)
        about.write(folder, described)


def _write_end(
    folder: epath.Path,
    described: schema.About,
    journals: Sequence[Journal],
    selection_metric: str,
) -> schema.Summary:
    """Writes what the runs came to; returns what metrics.json holds."""
    records = {journal.split.name: journal.records for journal in journals}
    summary = metrics.summarize(records, described["class_names"], selection_metric)
    described["seconds"] = sum(r["seconds"] for of_run in records.values() for r in of_run)
    if devices.is_writer():
        about.write(folder, described)
        workdir_lib.write_json(folder / "metrics.json", summary)
    return summary


def saved_shapes(config: ml_collections.ConfigDict, model: models.Classifier) -> dict[str, Any]:
    """Shapes and dtypes of what is saved of a run."""

    def create(key: jax.Array) -> dict[str, Any]:
        return steps.create_state(model, config, key).arrays

    return jax.eval_shape(create, jax.random.key(0))
