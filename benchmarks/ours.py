"""The program itself as a contender: data, augmentation, step and metrics through its `Group`."""

import importlib
import time

import flax
import jax

from benchmarks import worker
from caecnn_jax import config as config_lib
from caecnn_jax.training import devices
from caecnn_jax.training.group import EVAL_BATCH_SIZE, Group


class Ours:
    """One fold of a config's cross-validation, or all of them side by side."""

    def __init__(self, config: str, **fields):
        """`config` names a file in configs/, `fields` what is changed of it."""
        self.config = importlib.import_module(f"configs.{config}").get_config()
        self.config.update(fields)
        config_lib.validate(self.config)
        devices.start(self.config.dtype)
        data = worker.random_data()
        splits = worker.fold_splits(self.config, data)
        self.group = Group(
            self.config, splits if self.config.folds_side_by_side else splits[:1], data
        )
        self.group.put_state(self.group.new_arrays())
        self.epoch = 0
        self.runs = len(self.group.splits)

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
        by_run = self.group.get_metrics(calls)
        seconds = time.perf_counter() - start
        return int(sum(metrics["images"].sum() for metrics in by_run)), seconds

    def _calls(self, phase: str):
        if phase == "evaluate":
            yield from self.group.evaluate(joint=True)
            return
        self.epoch += 1
        joint = phase == "joint"
        for _, metrics in self.group.train_epoch(self.epoch, [True] * self.runs, joint):
            yield metrics

    def _batch_size(self, phase: str) -> int:
        return EVAL_BATCH_SIZE if phase == "evaluate" else self.config.batch_size

    def describe(self) -> dict:
        """Device and versions."""
        return {
            "device": jax.devices()[0].device_kind,
            "num_devices": jax.device_count(),
            "versions": {"jax": jax.__version__, "flax": flax.__version__},
        }


if __name__ == "__main__":
    worker.serve(Ours)
