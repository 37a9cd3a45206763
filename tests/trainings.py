"""Tiny trainings: their configs, kills at chosen moments, and all that a run leaves."""

import json

import jax.numpy as jnp
import numpy as np
from builders import tiny_config
from etils import epath

from caecnn_jax.data import sampling
from caecnn_jax.networks import models
from caecnn_jax.records import checkpoints, journal, workdir
from caecnn_jax.training import train

TIMINGS = ("seconds", "images_per_second")
RUNS = ("fold_1", "fold_2", "test")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def config_of(kind: str, **changes):
    """A tiny config that draws no pictures as it trains."""
    return tiny_config(kind, save_img_per_epoch=0, **changes)


def contents(folder) -> dict:
    """Everything of a run but its timings."""
    config = workdir.read_config(epath.Path(folder))
    shapes = train.saved_shapes(config, models.from_config(config))
    found = {"metrics": json.loads((folder / "metrics.json").read_text())}
    lines = (folder / "history.jsonl").read_text().splitlines()
    found["history"] = [without_timings(json.loads(line)) for line in lines]
    for name in RUNS:
        saved = checkpoints.Checkpoints(epath.Path(folder / name), read_only=True)
        for step in saved.steps():
            restored = saved.restore(step, shapes)
            records = [without_timings(record) for record in restored.progress["records"]]
            found[name, step] = checkpoints.digest(restored.arrays), records
    return found


def without_timings(record: dict) -> dict:
    """What of a record must be the same each time."""
    return {name: value for name, value in record.items() if name not in TIMINGS}


def kill_at_saves(monkeypatch, *counts: int):
    """Kills at the n-th save of this process, before (odd n) or after (even n) it is done."""
    save, calls = journal.Journal.save, []

    def killed(self, *args):
        calls.append(0)
        if len(calls) in counts and len(calls) % 2:
            raise Killed
        save(self, *args)
        if len(calls) in counts:
            raise Killed

    monkeypatch.setattr(journal.Journal, "save", killed)


def batches(num_images, num_steps=3, batch_size=4):
    """An order and a mask that deal out the images 5, 6, ... in turn."""
    order, mask = sampling.in_batches(
        np.arange(5, 5 + num_images), batch_size, num_steps, batch_size
    )
    return jnp.asarray(order), jnp.asarray(mask)
