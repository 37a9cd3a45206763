"""A trained folder, opened for use: the networks, weights and data that its own files name."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import errors, run_names
from caecnn_jax.data import augment, catalogue, dataset, sampling
from caecnn_jax.data.description import Description
from caecnn_jax.networks import losses, models
from caecnn_jax.records import about, checkpoints
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import calibration, metrics
from caecnn_jax.results.corrections import NONE, Correction
from caecnn_jax.training import devices, epochs, optimizers, steps

WEIGHTS = ("raw", "ema")


class TrainedError(errors.UserError):
    """A fold, split, checkpoint or data that the folder does not have."""


class Restored(NamedTuple):
    """What of a checkpoint is evaluated."""

    variables: dict[str, Any]  # {"params", "batch_stats"}, host arrays
    has_cnn: bool  # a trained one: warm-up leaves it as it was at the start


@dataclasses.dataclass(frozen=True)
class Trained:
    """A folder's runs; `run` names one of them, "fold_1", ... or "test"."""

    folder: epath.Path
    config: ml_collections.ConfigDict
    description: Description

    @functools.cached_property
    def model(self) -> models.Classifier:
        """The networks."""
        return networks(self.config, self.description)

    @property
    def statistics(self) -> augment.Statistics:
        """What images are normalised by."""
        return augment.Statistics(self.description.mean, self.description.std)

    @property
    def loss(self) -> losses.Loss:
        """What the CNN's logits were trained with."""
        return losses.Loss(**self.config.cnn.loss)

    def run_name(self, fold: str | None) -> str:
        """The run that --fold names by number or "test"; None: the test run if any, else fold 1."""
        if fold is None:
            return run_names.of_number(0 if self.config.do_test else 1)
        try:
            # No folder: a path would take another run's weights for this one's.
            number = run_names.number_of(f"fold_{int(fold)}" if fold.isdecimal() else fold)
        except ValueError as error:
            raise self._unknown(fold) from error
        return run_names.of_number(number)

    def _unknown(self, run: str) -> TrainedError:
        """The error of a run that the folder does not have."""
        names = (*sampling.fold_names(self.config), run_names.TEST)
        there = [str(run_names.number_of(n) or n) for n in names if (self.folder / n).exists()]
        remedy = f"--fold may be {', '.join(there)}" if there else "train one first"
        return TrainedError(f"{self.folder} holds no run {run!r}: {remedy}")

    def weights_of(self, weights: str | None) -> str:
        """Which weights `restore` takes: "ema" or "raw"; raises TrainedError for any others."""
        if weights not in (None, *WEIGHTS):
            raise TrainedError(f"--weights={weights}: must be one of {', '.join(WEIGHTS)}")
        if weights == "ema" and not self.config.ema_decay:
            raise TrainedError("--weights=ema: this run kept no averages (config.ema_decay is 0)")
        return weights or ("ema" if self.config.ema_decay else "raw")

    def restore(self, run: str, *, checkpoint: str, weights: str | None = None) -> Restored:
        """What of a checkpoint is evaluated.

        `checkpoint` is "last", "best" or an epoch's number; `weights` "raw" or "ema" (None: the
        averages where the run keeps any). Where the run still trains and removes that checkpoint,
        looks again. Raises TrainedError or CheckpointError when there is no such checkpoint, or it
        is damaged.
        """
        taken = self.weights_of(weights)
        with jax.enable_x64(self.config.dtype == "float64"):  # else the shapes would be float32's
            variables = jax.eval_shape(lambda key: steps.init(self.model, key), jax.random.key(0))
            template = {"variables": variables}
            if taken == "ema":
                template = {"averages": jax.eval_shape(optimizers.first_averages, variables)}
        for _ in range(checkpoints.TRIES - 1):
            with contextlib.suppress(checkpoints.GoneError):
                return self._restore(run, checkpoint, template)
        return self._restore(run, checkpoint, template)

    def _restore(self, run: str, checkpoint: str, template: dict[str, Any]) -> Restored:
        """One try of `restore`, shaped like `template`."""
        place = self.folder / run
        if not place.exists():
            raise self._unknown(run)
        saved = checkpoints.Checkpoints(place, read_only=True)
        epochs_saved = [str(step) for step in saved.steps()]
        if not epochs_saved:
            raise TrainedError(f"{place} holds no checkpoint yet: train the run first")
        if checkpoint not in ("last", "best", *epochs_saved):
            raise TrainedError(
                f"--checkpoint={checkpoint}: {place} has last, best and {', '.join(epochs_saved)}"
            )
        epoch = int(epochs_saved[-1] if checkpoint in ("last", "best") else checkpoint)
        try:
            if checkpoint == "best":
                records = saved.restore(epoch, {}).progress["records"]
                epoch = records[metrics.best_epoch(records, self.config.selection_metric)]["epoch"]
            restored = saved.restore(epoch, template)
        except checkpoints.DamagedError as error:
            raise checkpoints.DamagedError(
                f"{error}: take another --checkpoint, or remove {self.folder / 'metrics.json'} and "
                "give the training command again, which goes on from the last good one"
            ) from error
        is_joint = restored.progress["records"][-1]["phase"] == "joint"
        return Restored(steps.evaluated(restored.arrays), self.config.use_cnn and is_joint)

    def data(self, elsewhere: Mapping[str, str] | None = None) -> dataset.Dataset:
        """The data where they lie now: as given, else where they were, else in TFDS_DATA_DIR.

        In whatever form they are there; nothing is fetched. `elsewhere` {"dataset" or "data_dir":
        value} may name other data, of which `is_own` is false. Raises DataError where there are
        none, TrainedError where the data have other classes.
        """
        elsewhere = elsewhere or {}
        config = self.config.copy_and_resolve_references()
        config.channels = self.description.channels
        places = [elsewhere["data_dir"]] if "data_dir" in elsewhere else [config.data_dir, ""]
        config.update(elsewhere)
        config_lib.validate(config)
        if "data_dir" in elsewhere and not catalogue.uses_data_dir(config):
            raise TrainedError(
                f"--config.data_dir={config.data_dir}: the data are the path {config.dataset}, "
                "which is not looked for there: give --config.dataset alone"
            )
        is_gone = config_lib.is_path(config.dataset) and not os.path.exists(config.dataset)
        if is_gone and "dataset" not in elsewhere:
            raise TrainedError(
                f"config.dataset={config.dataset!r}: there is nothing at that path: bring the data "
                "back, or say with --config.dataset where they lie now"
            )
        source = dataset.open_at_hand(config, places)
        own_names = self.description.class_names
        if {*source.class_names} != {*own_names}:  # told before an image is decoded
            raise TrainedError(
                f"{source.name} has the classes {_few(source.class_names)}, but {self.folder} was "
                f"trained on {_few(own_names)}: the names must agree"
            )
        data = source.read()
        if data.class_names != own_names:
            logging.info("%s has the classes in another order: they go by their names", data.name)
            data = dataset.in_order(data, own_names)
        return data

    def is_own(self, data: dataset.Dataset) -> bool:
        """Whether these are the images that the runs were trained on."""
        return not self.description.digest or data.digest == self.description.digest

    def check_own(self, data: dataset.Dataset) -> None:
        """Raises TrainedError where they are not."""
        if not self.is_own(data):
            raise TrainedError(
                f"{data.name} holds other images than {self.folder} was trained on, so nobody "
                "knows which of them were held out: put the old ones back (a --temperature that "
                "--calibrate finds on those may be given for others)"
            )

    def own_data(self) -> dataset.Dataset:
        """The data that the runs were trained on; raises TrainedError where others lie there."""
        data = self.data()
        self.check_own(data)
        return data

    def indices(self, data: dataset.Dataset, *, run: str, split: str | None) -> np.ndarray:
        """Those of a run's split in its own data, or of a part of others.

        `split` None is what the run is judged by: of a fold its validation part, else the test's.
        Raises TrainedError where the data are others, and without a `split` that they have.
        """
        if not self.is_own(data):
            return self._indices_of_others(data, split)
        config = self.config.copy_and_resolve_references()
        config.do_test = True  # a fold's model may be evaluated on the test set too
        _, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
        by_name = {one.name: one for one in splits}
        parts = {
            None: by_name[run].valid,
            "train": by_name[run].train,
            "valid": by_name[run].valid,
            "test": by_name[run_names.TEST].valid,
        }
        return parts[split]

    def _indices_of_others(self, data: dataset.Dataset, split: str | None) -> np.ndarray:
        if split not in ("train", "test"):
            field = "data_dir" if catalogue.uses_data_dir(self.config) else "dataset"
            raise TrainedError(
                f"{data.name} holds other images than {self.folder} was trained on: add --split "
                "train or --split test to evaluate on a part of them, or say with "
                f"--config.{field} where the old ones lie"
            )
        everything = np.arange(len(data.labels))
        return everything[: data.num_train] if split == "train" else everything[data.num_train :]

    def check_correction(
        self, correction: Correction, run: str, *, has_cnn: bool, split: str | None = None
    ) -> None:
        """Raises CorrectionError where it cannot be made for a run, or judged on `split`."""
        folds = sampling.fold_names(self.config)
        correction.check(run, has_cnn=has_cnn, folds=folds, split=split)

    def post_hoc(
        self,
        variables: dict[str, Any],
        run: str,
        correction: Correction,
        data: dataset.Dataset | None,
    ) -> losses.PostHoc | None:
        """What is to be done to the logits of a run's `variables`; None: nothing.

        `check_correction` comes before. Only calibration needs the `data`, the folder's own.
        """
        if correction == NONE:
            return None
        counts = about.train_counts(self.folder, run, visited=True) if correction.tau else []
        if counts is None:
            path = self.folder / about.RUN
            raise TrainedError(
                f"--tau needs the training images of each class, which {path} lacks: restore it, "
                "or leave --tau out"
            )
        if correction.tau and len(set(counts)) == 1:
            logging.warning(
                "--tau changes nothing: %s visited as many images of each class in training", run
            )
        fields = config_lib.flatten(self.config.to_dict())
        for field in config_lib.corrected_by(self.config) if correction.tau else ():
            logging.warning(
                "--tau corrects a second time: %s was trained with config.%s=%s",
                run,
                field,
                fields[field],
            )
        temperature = correction.temperature
        if correction.calibrate:
            assert data is not None
            indices = self.indices(data, run=run, split="valid")
            with devices.precision(self.config.matmul_precision):
                logits = self._logits(variables, data.images, indices)
            temperature = calibration.fit_temperature(logits, data.labels[indices])
            logging.info("temperature %.4f, fitted on %s's validation part", temperature, run)
            if not 1.001 * calibration.LEAST < temperature < 0.999 * calibration.MOST:
                logging.warning(
                    "--calibrate: the best temperature is out of bounds: of the images that it is "
                    "fitted on the logits tell %s",
                    "all" if temperature < 1 else "nothing",
                )
        return losses.PostHoc(tuple(counts), correction.tau, temperature)

    def _logits(self, variables, images: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """The logits float [N, K] of the images at `indices`, as their loss trained them."""

        @jax.jit
        def of_batch(images):
            outputs = self.model.apply(variables, augment.normalize(images, self.statistics))
            return losses.scores(outputs.logits, self.loss)

        size = epochs.EVAL_BATCH_SIZE
        parts = []
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            padded = np.resize(part, size)  # repeated, so that one program serves all
            parts.append(np.asarray(of_batch(images[padded]))[: len(part)])
        return np.concatenate(parts)


def open_folder(workdir: str | os.PathLike) -> Trained:
    """Reads what a folder's runs are about; raises WorkdirError where that is not there."""
    folder = workdir_lib.resolve(workdir)
    return Trained(folder, workdir_lib.read_config(folder), about.read_description(folder))


def networks(config: ml_collections.ConfigDict, description: Description) -> models.Classifier:
    """The networks of a config for images as described."""
    return models.from_config(
        config, num_classes=len(description.class_names), channels=description.channels
    )


def as_json(made: losses.PostHoc | None) -> dict[str, float] | None:
    """What was done to the logits, as a result's "post_hoc" says it; None: nothing."""
    return None if made is None else {"tau": made.tau, "temperature": made.temperature}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
