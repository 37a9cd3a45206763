"""The program itself as a contender: data, augmentation, step and metrics as an epoch runs them."""

import importlib
import time

import flax
import jax
import numpy as np

from benchmarks import worker
from caecnn_jax import config as config_lib
from caecnn_jax.data import augment
from caecnn_jax.networks import models
from caecnn_jax.training import devices, epochs, optimizers, orders, steps, trainer


class Ours:
    """The first fold of a config's cross-validation, on the first device."""

    def __init__(self, config: str, **fields):
        """`config` names a file in configs/, `fields` what is changed of it."""
        self.config = importlib.import_module(f"configs.{config}").get_config()
        self.config.update(fields)
        config_lib.validate(self.config)
        devices.start(self.config.dtype)
        data = worker.random_data()
        self.split = worker.fold_splits(self.config, data)[0]
        pipeline = epochs.pipeline_of(self.config, data.images.shape[1:], augment.CIFAR10)
        self.place = epochs.place(data, pipeline, devices.lanes(0).meshes[0])
        per_call = self.config.steps_per_call
        self.train_order = self.place.order(self.split.expanded, self.config.batch_size, per_call)
        self.valid_order = self.place.order(self.split.valid, epochs.EVAL_BATCH_SIZE, per_call)
        self.state = self._new_state(np.bincount(data.labels[self.split.expanded]))
        self.epoch = 0

    def _new_state(self, class_counts: np.ndarray) -> steps.TrainState:
        model, key = models.from_config(self.config), self._key(epochs.INIT)
        state = steps.create_state(model, self.config, key, class_counts=class_counts)
        return devices.put(self.place.mesh, jax.device_get(state))

    def _key(self, purpose: int, epoch: int = 0) -> jax.Array:
        return epochs.random_key(self.config.seed, purpose, self.split.number, epoch)

    def measure(self, phase: str, images: int) -> tuple[int, float]:
        """Runs about `images` images (0: all) of a phase; returns how many, and the seconds."""
        start = time.perf_counter()
        calls, seen = [], 0
        for metrics in self._calls(phase):
            calls.append(metrics)
            # Known without reading the metrics back, which the program does not do either.
            seen += metrics["images"].size * self._batch_size(phase)
            if images and seen >= images:
                break
        by_step = trainer.by_step(calls)
        seconds = time.perf_counter() - start
        return int(by_step["images"].sum()), seconds

    def _calls(self, phase: str):
        if phase == "evaluate":
            yield from epochs.evaluate(
                self.state.model,
                self.state.variables,
                self.place.data,
                self.valid_order,
                joint=True,
                pipeline=self.place.pipeline,
                loss=self.state.recipe.loss,
            )
            return
        self.epoch += 1
        order = orders.shuffled(self.train_order, self._key(epochs.SHUFFLE, self.epoch))
        factors = optimizers.lr_factors(self.config, self.epoch, order.num_steps)
        for state, _, metrics in epochs.train(
            self.state,
            self.place.data,
            order,
            self._key(epochs.AUGMENT, self.epoch),
            steps.Moment(factors),
            joint=phase == "joint",
            pipeline=self.place.pipeline,
        ):
            self.state = state  # the one before was donated
            yield metrics

    def _batch_size(self, phase: str) -> int:
        return epochs.EVAL_BATCH_SIZE if phase == "evaluate" else self.config.batch_size

    def describe(self) -> dict:
        """Device and versions."""
        return {
            "device": jax.devices()[0].device_kind,
            "num_devices": jax.device_count(),
            "versions": {"jax": jax.__version__, "flax": flax.__version__},
        }


if __name__ == "__main__":
    worker.serve(Ours)
