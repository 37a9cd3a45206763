"""How much there is to train, and how fast this machine does it: what a study would cost."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from caecnn_jax import blocks, legible
from caecnn_jax import config as config_lib
from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.durations import as_time
from caecnn_jax.networks import models
from caecnn_jax.results import schema
from caecnn_jax.training import devices, epochs, steps, train

FORWARD = 1 / 3  # of a training step's time: evaluation has no backward pass, which takes two
Speed = Mapping[str, float]  # by phase, "warmup" and "joint": training images per second, in epochs
# that end with their evaluation


class Work(NamedTuple):
    """What a config's runs visit, at most: one may end early."""

    train: dict[str, int]  # images that an epoch trains on, by run: "fold_1", ..., "test"
    valid: dict[str, int]  # images that it evaluates on
    warmup: int  # epochs that train the CAE alone
    joint: int  # epochs

    @property
    def epochs(self) -> int:
        return self.warmup + self.joint

    @property
    def phases(self) -> set[str]:
        """Those that have an epoch."""
        return {phase for phase in ("warmup", "joint") if getattr(self, phase)}

    @property
    def images(self) -> int:
        """All that are trained on."""
        return self.epochs * sum(self.train.values())

    @property
    def largest_share(self) -> float:
        """The largest run's share of the images."""
        return max(self.train.values()) / sum(self.train.values())

    def seconds(self, speed: Speed) -> float:
        """The time of all runs, one after another, start-up and compilation left out."""
        images = sum(self.train.values())
        by_phase = {"warmup": self.warmup, "joint": self.joint}
        return sum(images * many / speed[phase] for phase, many in by_phase.items() if many)


def of(config: ml_collections.ConfigDict, data: dataset.Dataset | dataset.Source) -> Work:
    """The work of a config; of the data the labels are needed alone."""
    _, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
    num_epoch = train.with_epochs(config, splits).num_epoch
    warmup = min(config_lib.warmup_epochs(config), num_epoch)
    return Work(
        {split.name: len(split.expanded) for split in splits},
        {split.name: len(split.valid) for split in splits},
        warmup,
        num_epoch - warmup,
    )


def of_records(history: Mapping[str, Sequence[schema.Line]], work: Work) -> Speed:
    """The speed that a run's epochs had, the median by phase; {} where there is none."""
    rates: dict[str, list[float]] = {}
    for name, records in history.items():
        for record in records if name in work.train else ():  # fewer folds may be asked for now
            rate = work.train[name] / max(record["seconds"], 1e-9)
            rates.setdefault(record["phase"], []).append(rate)
    return {phase: float(np.median(values)) for phase, values in rates.items()}


def measure(config: ml_collections.ConfigDict, work: Work, *, classes: int) -> Speed:
    """The speed of a few training steps here, on random images; compiles them first."""
    channels = blocks.image_channels(config) or 3  # perhaps known only once the images are read
    model = models.from_config(config, num_classes=classes, channels=channels)
    mesh = devices.lanes(config.devices_per_run).meshes[0]
    shape = (config.image_size, config.image_size, channels)
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, *shape), np.uint8)
    labels = (np.arange(config.batch_size) % classes).astype(np.int32)
    statistics = augment.Statistics((0.5,) * channels, (0.25,) * channels)
    pipeline = epochs.pipeline_of(config, shape, statistics)
    place = epochs.Place(mesh, devices.put_images(mesh, images, labels), pipeline)
    part = sum(work.valid.values()) / sum(work.train.values()) * FORWARD
    return {
        phase: _training_speed(config, model, place, joint=phase == "joint") / (1 + part)
        for phase in work.phases
    }


def _training_speed(config, model: models.Classifier, place: epochs.Place, *, joint: bool) -> float:
    """Images per second of two calls of training steps, the first call left out."""
    calls, size = 3, config.batch_size
    per_call = min(epochs.most_per_call(config.steps_per_call), 10_000)
    indices = np.tile(np.arange(size), calls * per_call)
    order = place.order(indices, size, per_call)
    counts = np.full(model.cnn.num_classes if model.cnn else 1, per_call, np.int32)
    arrays = jax.device_get(steps.create_state(model, config, jax.random.key(0)).arrays)
    placed, counts = devices.put(place.mesh, (arrays, counts))
    recipe = steps.make_recipe(config)
    state = steps.restore_state(model, recipe, placed, class_counts=counts)
    factors = {part: jnp.ones(order.num_steps, jnp.float32) for part, _ in recipe.optimizers}
    ended = []
    for _, _, metrics in epochs.train(
        state,
        place.data,
        order,
        jax.random.key(0),
        steps.Moment(factors),
        joint=joint,
        pipeline=place.pipeline,
    ):
        jax.block_until_ready(metrics)
        ended.append(time.perf_counter())
    return (calls - 1) * per_call * size / (ended[-1] - ended[0])


# --- The table of --dry_run -----------------------------------------------------------------------


class Row(NamedTuple):
    """A variant of a study."""

    variant: str
    done: int  # seeds
    left: int
    work: Work
    seconds: float  # of one seed
    begun: float = 0.0  # what is done already of the seeds that are left, 1 being a whole one

    @property
    def seconds_left(self) -> float:
        return max(self.left - self.begun, 0.0) * self.seconds


def table(rows: Sequence[Row], at_once: int) -> str:
    """What would train, as lines of text; `at_once` runs train at the same time."""
    width = max(len(name) for name in ("variant", *(row.variant for row in rows)))
    headings = ("done", "to train", "runs", "images/epoch", "epochs", "a seed", "left")
    lines = [f"{'variant':{width}}" + "".join(f"{heading:>14}" for heading in headings)]
    for row in rows:
        images = legible.span(row.work.train.values())
        times = as_time(row.seconds), as_time(row.seconds_left)
        cells = (row.done, row.left, len(row.work.train), images, row.work.epochs, *times)
        lines.append(f"{row.variant:{width}}" + "".join(f"{cell!s:>14}" for cell in cells))
    left = sum(row.left for row in rows)
    together = sum(row.seconds_left for row in rows) / at_once
    # No run is shared, so that devices may have nothing to do while the longest one trains.
    longest = max(
        (min(row.seconds * row.work.largest_share, row.seconds_left) for row in rows if row.left),
        default=0.0,
    )
    seconds = max(together, longest)
    done = sum(row.done for row in rows)
    lines += [
        f"{done + left} trainings, {done} done; the other {left} take about {as_time(seconds)} "
        f"with {at_once} run(s) at a time on this machine, if none ends early; start-up not counted"
    ]
    return "\n".join(lines)
