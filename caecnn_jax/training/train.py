"""Training: from a config to a run's folder. Reads top to bottom; the epochs are in `trainer`.

A run is one fold of the cross-validation, or the test run. Runs train in groups: of one each, or
of several side by side as one program; either way each has its own journal and its own end.
"""

from collections.abc import Iterator, Sequence

import jax
import ml_collections
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax.data import dataset, sampling
from caecnn_jax.networks import models
from caecnn_jax.records import about
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.records.journal import Journal
from caecnn_jax.results import metrics
from caecnn_jax.training import devices, early_stopping, signals, steps, trainer
from caecnn_jax.training.group import Arrays

should_stop = early_stopping.should_stop


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str, data: dataset.Dataset | None = None
) -> dict:
    """Trains every run of `config` in `workdir`, or goes on where it was left; returns the metrics.

    `data` stands in for CIFAR-10 where given. The result is what metrics.json holds. Raises
    ConfigError, DataError, WorkdirError, CheckpointError, Diverged or Interrupted.
    """
    config_lib.validate(config)
    folder = workdir_lib.resolve(workdir)
    with workdir_lib.claim(folder, config, writes=devices.is_writer()) as finished:
        if finished:
            logging.info("The run in %s is finished; there is nothing left to do.", folder)
            summary = workdir_lib.read_json(folder / "metrics.json")
        else:
            data = data or dataset.load(config)
            with signals.listen() as request:
                summary = train_runs(config, folder, data, request)
        if devices.is_writer() and not (folder / "report.html").exists():
            from caecnn_jax.reports import report  # it takes a second to import

            report.write(folder)
    return summary


def train_runs(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    data: dataset.Dataset,
    request: signals.StopRequest,
) -> dict:
    """Trains every run to its end and writes what they came to; returns the metrics."""
    kept, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
    description = about.describe(data, kept, splits)
    about.log_class_counts(description["class_counts"])
    if (folder / "run.json").exists():
        description["started"] = workdir_lib.read_json(folder / "run.json")["started"]
    _write_json(folder / "run.json", description)
    journals = [Journal(split, folder, data.class_names) for split in splits]
    saved = saved_shapes(config)
    for run in journals:
        run.restore(saved)
        run.clean_up(config.keep_checkpoints)
        if devices.is_writer():
            run.start()
    if config.folds_side_by_side and jax.default_backend() == "cpu":
        logging.warning(
            "config.folds_side_by_side=True: on CPU folds train faster one after another"
        )
    groups = list(grouped(journals, config))
    for members in groups:
        if not all(trainer.has_ended(run, config) for run in members):
            trainer.Trainer(config, data, folder, journals, members, request).train()
        for run in members:
            run.finish()
    records = {run.split.name: run.records for run in journals}
    summary = metrics.summarize(records, data.class_names)
    description["seconds"] = sum(map(trained_seconds, groups))
    _write_json(folder / "run.json", description)
    _write_json(folder / "metrics.json", summary)
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


def _write_json(path: epath.Path, value) -> None:
    if devices.is_writer():
        workdir_lib.write_json(path, value)


def saved_shapes(config: ml_collections.ConfigDict) -> Arrays:
    """Shapes and dtypes of what is saved of a run."""

    def create(key: jax.Array) -> Arrays:
        state = steps.create_state(models.from_config(config), config, key)
        return {"variables": state.variables, "opt_state": state.opt_state}

    return jax.eval_shape(create, jax.random.key(0))


def trained_seconds(members: Sequence[Journal]) -> float:
    """How long a group trained, whatever the number of sessions: an epoch is the whole group's."""
    by_epoch: dict[int, float] = {}
    for record in (record for run in members for record in run.records):
        epoch = record["epoch"]
        by_epoch[epoch] = max(record["seconds"], by_epoch.get(epoch, 0.0))
    return sum(by_epoch.values())
