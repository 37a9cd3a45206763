"""The epochs of one run: train, evaluate, check, save, show, and stop when asked to.

What is compiled is in `epochs`, what the run leaves in `records.journal`.
"""

import concurrent.futures
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.data import augment
from caecnn_jax.networks import models
from caecnn_jax.records.journal import Journal
from caecnn_jax.results import metrics, schema
from caecnn_jax.training import devices, epochs, optimizers, orders, signals, steps
from caecnn_jax.training.progress import Progress, has_ended, is_joint


class Dispatched(NamedTuple):
    """An epoch that is under way on the devices."""

    epoch: int
    joint: bool
    train: list[steps.Metrics]
    valid: list[steps.Metrics]
    state: steps.TrainState  # after the epoch
    began: float
    trained: concurrent.futures.Future[float]  # when the devices are done with the training
    ended: concurrent.futures.Future[float]  # ... and with the evaluation


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


class Trainer:
    """Trains one run to its end."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        journal: Journal,
        *,
        place: epochs.Place,
        progress: Progress,
        request: signals.StopRequest,
    ):
        """`journal` is restored and started; the run goes on from what it holds."""
        self._config, self._journal, self._place = config, journal, place
        self._progress, self._request = progress, request
        split, classes = journal.split, len(journal.train_counts)
        channels = place.pipeline.image_shape[-1]
        self._model = models.from_config(config, num_classes=classes, channels=channels)
        self._recipe = steps.make_recipe(config)
        self._members = devices.put(place.mesh, journal.members_by_class)
        self._num_steps = math.ceil(len(split.expanded) / config.batch_size)  # with an image
        per_call = config.steps_per_call
        self._train_order = place.order(split.expanded, config.batch_size, per_call)
        self._valid_order = place.order(split.valid, epochs.EVAL_BATCH_SIZE, per_call)
        self._ready = time.monotonic()  # when the devices were last known to be done with an epoch
        # Notes when they are done, whatever this thread dispatches, saves or draws meanwhile.
        self._clock = concurrent.futures.ThreadPoolExecutor(1)

    def train(self) -> list[schema.Record]:
        """Trains epoch by epoch, from where the run was left; returns all its records.

        On an accelerator an epoch is dispatched before the last one is saved and shown: where that
        then ends the run, the epoch too many is dropped. Raises Diverged, Interrupted or
        WorkdirError.
        """
        journal = self._journal
        arrays = journal.arrays or self._new_arrays()
        if journal.records and not journal.step:
            self._show(steps.evaluated(arrays))  # a kill may have come before it
        state, ahead = self._put(arrays), None
        for epoch in range(len(journal.records) + 1, self._config.num_epoch + 1):
            if has_ended(journal, self._config):
                break
            dispatched, state = self._dispatch(epoch, state, ahead)
            if ahead is not None:
                self._finish_epoch(ahead)
            ahead = dispatched
            if jax.default_backend() == "cpu":
                self._finish_epoch(ahead)
                ahead = None
        if ahead is not None and not has_ended(journal, self._config):
            self._finish_epoch(ahead)
        return journal.records

    def _key(self, purpose: int, epoch: int) -> jax.Array:
        return epochs.random_key(self._config.seed, purpose, self._journal.split.number, epoch)

    def _new_arrays(self) -> dict[str, Any]:
        """The host arrays of the run before its first step."""
        key = self._key(epochs.INIT, 0)
        return jax.device_get(steps.create_state(self._model, self._config, key).arrays)

    def _put(self, arrays: dict[str, Any]) -> steps.TrainState:
        """The state on the devices, from its host arrays."""
        on_host = arrays, self._journal.visited_counts
        placed, class_counts = devices.put(self._place.mesh, on_host)
        return steps.restore_state(self._model, self._recipe, placed, class_counts=class_counts)

    def _order(self, epoch: int) -> orders.Order:
        """The epoch's images in random order, every class as often where the config asks for it."""
        key, first = self._key(epochs.SHUFFLE, epoch), self._config.balanced_batches_from
        if first and self._joint_epoch(epoch) >= first and is_joint(epoch, self._config):
            return orders.balanced(self._train_order, key, *self._members)
        return orders.shuffled(self._train_order, key)

    def _joint_epoch(self, epoch: int) -> int:
        """Counts the epochs in which the CNN trains, from 1; 1 before them."""
        return max(epoch - config_lib.warmup_epochs(self._config), 1)

    def _moment(self, epoch: int) -> steps.Moment:
        """The epoch's factors of the learning rates float32 [S], 0 in steps without an image."""
        factors = optimizers.lr_factors(self._config, epoch, self._num_steps)
        padding = (0, self._train_order.num_steps - self._num_steps)
        return steps.Moment(
            {part: np.pad(values, padding) for part, values in factors.items()},
            joint_epoch=self._joint_epoch(epoch),
        )

    def _pipeline(self, epoch: int) -> epochs.Pipeline:
        refines = epoch > self._config.num_epoch - self._config.refine_epochs
        return self._place.pipeline.refined() if refines else self._place.pipeline

    def _dispatch(
        self, epoch: int, state: steps.TrainState, ahead: Dispatched | None
    ) -> tuple[Dispatched, steps.TrainState]:
        """Dispatches an epoch's training and evaluation; a signal saves what is done and raises."""
        joint = is_joint(epoch, self._config)
        first_step = self._journal.step if ahead is None else 0
        began = time.monotonic()
        train, valid, done = [], [], first_step
        order = self._order(epoch)
        calls = epochs.train(
            state,
            self._place.data,
            order,
            self._key(epochs.AUGMENT, epoch),
            self._moment(epoch),
            joint=joint,
            pipeline=self._pipeline(epoch),
            first_step=first_step,
        )
        with self._progress.bar(
            self._journal, epoch=epoch, first_step=first_step, num_steps=order.num_steps
        ) as bar:
            for state, done, chunk in calls:
                train.append(chunk)
                bar.update(done - bar.n)
                if self._request.is_made():
                    self._interrupt(done, train, state, ahead, began)
        trained = self._clock.submit(_time_of, train)
        for chunk in epochs.evaluate(
            self._model,
            steps.evaluated(state.arrays),
            self._place.data,
            self._valid_order,
            joint=joint,
            pipeline=self._place.pipeline,
            loss=self._recipe.loss,
        ):
            valid.append(chunk)
            if self._request.is_made():
                self._interrupt(done, train, state, ahead, began)
        ended = self._clock.submit(_time_of, valid)
        # A copy outlives the next training step, to which the state itself is donated.
        return Dispatched(epoch, joint, train, valid, _copy(state), began, trained, ended), state

    def _interrupt(self, step: int, train, state: steps.TrainState, ahead, began: float) -> None:
        """Saves the half-done epoch and raises Interrupted."""
        if ahead is not None:
            self._finish_epoch(ahead)
        if not has_ended(self._journal, self._config):
            losses, arrays = self._losses(train), devices.get(state.arrays)
            seconds = self._journal.seconds + time.monotonic() - max(began, self._ready)
            self._journal.save_partial(step, losses, seconds, arrays)
        assert self._request.signum is not None  # the request is made
        raise errors.Interrupted(self._request.signum)

    def _losses(self, train: list[steps.Metrics]) -> dict[str, list]:
        """The losses and image counts by step, those before a restart included."""
        fetched, before = by_step(train), self._journal.losses
        return {
            name: before.get(name, []) + np.asarray(fetched.get(name, ())).tolist()
            for name in before | fetched
        }

    def _finish_epoch(self, dispatched: Dispatched) -> None:
        """Waits for an epoch; checks, saves, shows and logs it."""
        # An epoch goes on from what it took before a stop.
        began = max(dispatched.began, self._ready) - self._journal.seconds
        train, valid = self._losses(dispatched.train), by_step(dispatched.valid)
        self._ready = dispatched.ended.result()
        name, counts = self._journal.split.name, self._journal.train_counts
        check_finite(name, dispatched.epoch, train, valid)
        record: schema.Record = {
            "run": name,
            "epoch": dispatched.epoch,
            "phase": "joint" if dispatched.joint else "warmup",
            "train": metrics.mean_losses(train),
            **metrics.evaluation(valid, len(counts), counts),
            "seconds": self._ready - began,
            "images_per_second": sum(train["images"])
            / max(dispatched.trained.result() - began, 1e-9),
        }
        arrays = devices.get(dispatched.state.arrays)
        self._journal.save(record, arrays)
        self._progress.write_history()
        self._progress.log(record)
        self._show(steps.evaluated(arrays))

    def _show(self, variables: dict[str, Any]) -> None:
        """Shows the last epoch; of one that ends the run, what the run came to."""
        journal, config = self._journal, self._config
        ended, interval = has_ended(journal, config), config.save_img_per_epoch

        def autoencode(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            statistics = self._place.pipeline.statistics
            normalized = augment.normalize(images, statistics)
            outputs = steps.outputs(self._model, variables, normalized, joint=False)
            reconstruction = augment.denormalize(outputs.reconstruction, statistics)
            return np.asarray(outputs.code), np.asarray(reconstruction)

        with journal.showing():
            journal.show_epoch()
            if config.use_cae and interval and (len(journal.records) % interval == 0 or ended):
                journal.show_reconstructions(autoencode)
            if ended:
                journal.show_settings(config_lib.flatten(config.to_dict()))
            if ended and config.use_cae:
                journal.show_codes(autoencode)


def _time_of(calls: list[steps.Metrics]) -> float:
    """When the devices are done with these calls, which it waits for."""
    jax.block_until_ready(calls)
    return time.monotonic()


def by_step(calls: list[steps.Metrics]) -> dict[str, np.ndarray]:
    """The metrics of these calls by step, host arrays [steps, ...]; waits for them."""
    fetched = devices.get(calls)
    names = calls[0] if calls else ()
    return {name: np.concatenate([call[name] for call in fetched]) for name in names}


def check_finite(run: str, epoch: int, train: dict[str, list], valid: dict) -> None:
    """Raises Diverged at the first step whose loss is NaN or infinite."""
    for name in ("loss_cae", "loss_cnn"):
        bad = np.flatnonzero(~np.isfinite(train.get(name, ())))
        where = f"step {bad[0] + 1}" if len(bad) else "validation"
        if len(bad) or not np.all(np.isfinite(valid.get(name, ()))):
            raise errors.Diverged(
                f"{name} is no longer finite in {run}, epoch {epoch}, {where}: what was saved "
                "before is kept, but the same config will end here again; lower config.cnn.opt.lr "
                "or config.cae.opt.lr, in another --workdir or in the study itself"
            )
