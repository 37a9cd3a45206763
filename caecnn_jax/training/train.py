"""Training: from a config to a run's folder. Reads top to bottom; the epochs are in `trainer`.

A command's runs, the folds of the cross-validation and the test run, are dealt out to the devices:
on one device they train one after another, on several at the same time, each with its own journal
and its own end.
"""

import concurrent.futures
import functools
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from etils import epath
from jax.sharding import Mesh

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.data import dataset, sampling
from caecnn_jax.networks import models
from caecnn_jax.records import about
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.records.journal import Journal
from caecnn_jax.results import metrics
from caecnn_jax.training import devices, early_stopping, epochs, signals, steps, trainer
from caecnn_jax.training.progress import Progress, has_ended

should_stop = early_stopping.should_stop
SECONDS_BETWEEN_LOOKS = 5.0  # at what the job's other processes have saved


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str, data: dataset.Dataset | None = None
) -> dict:
    """Trains every run of `config` in `workdir`, or goes on where it was left; returns the metrics.

    `data` stands in for the config's data set where given. The result is what metrics.json holds.
    Raises ConfigError, DataError, WorkdirError, CheckpointError, Diverged or Interrupted.
    """
    config_lib.validate(config)
    folder = workdir_lib.resolve(workdir)
    with workdir_lib.claim(folder, config, writes=devices.is_writer()) as finished:
        devices.wait_for_all("the folder is claimed")
        if finished:
            logging.info("The run in %s is finished; there is nothing left to do.", folder)
            return workdir_lib.read_json(folder / "metrics.json")
        data = data or dataset.load(config.data_source, config.data_dir or None)
        lanes = devices.lanes(config.devices_per_run)
        with signals.listen(in_step=lanes.shared) as request:
            return train_runs(config, folder, data, lanes=lanes, request=request)


def train_runs(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    data: dataset.Dataset,
    *,
    lanes: devices.Lanes,
    request: signals.StopRequest,
) -> dict:
    """Trains every run to its end and writes what they came to; returns the metrics."""
    kept, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
    description = about.describe(data, kept, splits)
    about.log_class_counts(description["class_counts"])
    if (folder / "run.json").exists():
        description["started"] = workdir_lib.read_json(folder / "run.json")["started"]
    _write_json(folder / "run.json", description)

    journals = [Journal(folder, split, data) for split in splits]
    mine = [journals[number] for number in lanes.runs_of_this_process(len(journals))]
    saved = saved_shapes(config)
    for journal in journals:
        if journal in mine:
            journal.restore(saved)
        else:
            journal.reread()
    devices.wait_for_all("every run is restored")
    for journal in mine if lanes.writes_runs() else ():
        journal.start(config.keep_checkpoints)
    at_once = min(lanes.at_once, len(journals))
    progress = Progress(config, folder, journals, at_once=at_once, writes=devices.is_writer())
    progress.write_history()
    place_on = functools.cache(functools.partial(epochs.place, config, data))

    def train_one(journal: Journal, mesh: Mesh) -> None:
        if has_ended(journal, config) and journal.is_complete():
            return
        trainer.Trainer(config, journal, place_on(mesh), progress=progress, request=request).train()
        with journal.showing():
            journal.finish()
        journal.close()

    deal_out(mine, lanes.meshes, train_one, request)
    wait_for_others(config, journals, mine, progress=progress, request=request)
    records = {journal.split.name: journal.records for journal in journals}
    summary = metrics.summarize(records, data.class_names)
    description["seconds"] = sum(r["seconds"] for of_run in records.values() for r in of_run)
    _write_json(folder / "run.json", description)
    _write_json(folder / "metrics.json", summary)
    return summary


def deal_out(
    journals: Sequence[Journal],
    meshes: Sequence[Mesh],
    train_one: Callable[[Journal, Mesh], None],
    request: signals.StopRequest,
) -> None:
    """Trains the runs, as many at the same time as there are meshes, each on one of them.

    An error of one makes the others save and stop, and is then raised.
    """
    if len(meshes) == 1 or len(journals) == 1:
        for journal in journals:
            train_one(journal, meshes[0])
        return
    free: queue.SimpleQueue[Mesh] = queue.SimpleQueue()
    for mesh in meshes:
        free.put(mesh)

    def on_a_free_mesh(journal: Journal) -> None:
        mesh = free.get()
        try:
            with jax.default_device(mesh.devices.flat[0]):
                train_one(journal, mesh)
        except BaseException:
            request.make()
            raise
        finally:
            free.put(mesh)

    with concurrent.futures.ThreadPoolExecutor(len(meshes)) as pool:
        runs = [pool.submit(on_a_free_mesh, journal) for journal in journals]
        ended = [run.exception() for run in runs]
    failures = [error for error in ended if error is not None]
    # An interruption that an error brought about is not what is wrong.
    failures.sort(key=lambda error: isinstance(error, errors.Interrupted))
    if failures:
        raise failures[0]


def wait_for_others(
    config: ml_collections.ConfigDict,
    journals: Sequence[Journal],
    mine: Sequence[Journal],
    *,
    progress: Progress,
    request: signals.StopRequest,
) -> None:
    """Waits until the runs of the job's other processes have ended, as their checkpoints tell.

    Raises Interrupted when a signal comes meanwhile.
    """
    others = [journal for journal in journals if journal not in mine]
    while True:
        for journal in others:
            journal.reread()
        progress.write_history()
        if all(has_ended(journal, config) for journal in others):
            break
        if request.is_made():
            raise errors.Interrupted(request.signum)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    devices.wait_for_all("every run has ended")


def _write_json(path: epath.Path, value) -> None:
    if devices.is_writer():
        workdir_lib.write_json(path, value)


def saved_shapes(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Shapes and dtypes of what is saved of a run."""

    def create(key: jax.Array) -> dict[str, Any]:
        return steps.create_state(models.from_config(config), config, key).arrays

    return jax.eval_shape(create, jax.random.key(0))
