"""The compiled pieces of an epoch: gather, augment, step and losses for many steps in one call.

S: steps of an epoch; T: steps of one call; B: images of a batch; K: classes. The images stay on the
device as rows of bytes, and an epoch is an `orders.Order`: indices int32 [S, B] into them with a
mask bool [S, B], False on padding. A call is given T steps of it, so that what is compiled serves
epochs of any length. A step without any image changes nothing.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from caecnn_jax import backend
from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.networks import losses, models
from caecnn_jax.training import devices, orders, steps

# What a random stream is for; each is folded with (fold, epoch) and depends on nothing else.
INIT, SHUFFLE, AUGMENT, MIX = range(4)

EVAL_BATCH_SIZE = 256  # images; the running averages make the result independent of it
# Training steps in one compiled call. On an accelerator dispatching each step would cost more than
# the step; on CPU a call of several steps reuses its memory, and a signal waits under a second.
STEPS_PER_CALL = {"cpu": 8}
STEPS_PER_CALL_ELSEWHERE = 100

Data = Mapping[str, jax.Array]  # {"image": uint8 [N, H * W * C], "label": int32 [N]}


class Pipeline(NamedTuple):
    """How the bytes on the device become a batch, in numbers alone: jit takes it as static."""

    image_shape: tuple[int, int, int]  # H, W, C
    statistics: augment.Statistics
    aug: augment.Settings | None = None  # None leaves the images as they are
    mixup_alpha: float = 0.0

    def refined(self) -> "Pipeline":
        """As it is in the last epochs, config.refine_epochs: images are flipped at most.

        What is learnt last is then what images look like: He et al. 2019, "Data augmentation
        revisited: rethinking the distribution gap between clean and augmented data".
        """
        aug = self.aug and augment.FLIPS._replace(flip_probability=self.aug.flip_probability)
        return self._replace(aug=aug, mixup_alpha=0.0)

    def draws(self, key: jax.Array, batch_size: int) -> augment.Draws | None:
        """The choices for a batch; None where nothing is augmented."""
        if self.aug is None:
            return None
        height, width, _ = self.image_shape
        return augment.draw(key, batch_size, height, width, self.aug)

    def images(
        self, data: Data, indices: jax.Array, draws: augment.Draws | None, dtype
    ) -> jax.Array:
        """The images at `indices` int32 [B], normalised; `draws` augment them."""
        images = data["image"][indices].reshape(-1, *self.image_shape)
        if draws is None:
            return augment.normalize(images, self.statistics, dtype)
        images = augment.augment(images, draws, self.statistics, dtype)
        return jax.lax.optimization_barrier(images)  # else computed again for each use

    def mixed(self, batch: steps.Batch, key: jax.Array) -> steps.Batch:
        """The batch with its images mixed in pairs; the batch itself where that is off."""
        if not self.mixup_alpha:
            return batch
        key = jax.random.fold_in(key, MIX)
        mixed = augment.mixup(key, batch["image"], self.mixup_alpha, batch["mask"])
        return {**batch, **dict(zip(("image", "partner", "share"), mixed, strict=True))}


def pipeline_of(
    config: ml_collections.ConfigDict, shape: tuple[int, int, int], statistics: augment.Statistics
) -> Pipeline:
    """How training's batches are made of images of this shape, [height, width, channels]."""
    aug = augment.Settings(**config.aug) if config.use_aug else None
    return Pipeline(shape, statistics, aug, float(config.mixup_alpha))


class Place(NamedTuple):
    """Where a run trains: its devices, the images on them, and how their bytes become batches."""

    mesh: Mesh
    data: Data
    pipeline: Pipeline

    def order(self, indices: np.ndarray, batch_size: int, steps_per_call: int = 0) -> orders.Order:
        """`indices` int [n] in turn, in batches, the steps filled up to whole calls.

        `steps_per_call` 0 takes what suits the devices. B is padded to what they split evenly.
        """
        num_steps = math.ceil(len(indices) / batch_size)
        num_calls = math.ceil(num_steps / most_per_call(steps_per_call))
        per_call = math.ceil(num_steps / num_calls)
        width = math.ceil(batch_size / self.mesh.size) * self.mesh.size
        num_steps = per_call * num_calls
        batches = sampling.in_batches(indices, batch_size, num_steps, width)
        order, mask = devices.put(self.mesh, batches, None, "data")
        return orders.Order(order, mask, per_call)


def most_per_call(asked: int) -> int:
    """The steps of a call at most, by config.steps_per_call."""
    return asked or STEPS_PER_CALL.get(jax.default_backend(), STEPS_PER_CALL_ELSEWHERE)


def place(data: dataset.Dataset, pipeline: Pipeline, mesh: Mesh) -> Place:
    """Puts the images on the devices of a mesh."""
    return Place(mesh, devices.put_images(mesh, data.images, data.labels), pipeline)


@functools.partial(jax.jit, static_argnames=("seed", "purpose"))
def random_key(seed: int, purpose: int, fold: jax.Array, epoch: jax.Array) -> jax.Array:
    """The key of one stream of random numbers, a function of its four coordinates alone."""
    key = jax.random.fold_in(jax.random.key(seed), purpose)
    return jax.random.fold_in(jax.random.fold_in(key, fold), epoch)


def _train_chunk(state, data, order, mask, key, start, moment, *, joint, pipeline):
    def one_step(state, step):
        indices, labels, valid, key, draws, lr_factors = step
        draws = draws or pipeline.draws(key, len(indices))
        images = pipeline.images(data, indices, draws, state.model.param_dtype)
        batch = pipeline.mixed({"image": images, "label": labels, "mask": valid}, key)
        now = moment._replace(lr_factors=lr_factors)
        trained, metrics = steps.train_step(state, batch, joint, now)
        state = jax.tree.map(functools.partial(jnp.where, valid.any()), trained, state)
        return state, _present(metrics, state.model, joint) | {"images": valid.sum()}

    labels, draws = data["label"][order], None
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, start + jnp.arange(len(order)))
    if backend.use_plain():
        # On an accelerator each small operation of a step costs as much as a small layer, so that
        # all steps' draws are made before them; a CPU makes them as fast one by one.
        draws = jax.vmap(lambda key: pipeline.draws(key, order.shape[1]))(keys)
    return jax.lax.scan(one_step, state, (order, labels, mask, keys, draws, moment.lr_factors))


def train_chunk(
    state: steps.TrainState,
    data: Data,
    order: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    start: int,
    moment: steps.Moment,
    *,
    joint: bool,
    pipeline: Pipeline,
) -> tuple[steps.TrainState, steps.Metrics]:
    """Trains on T steps, of which the first is the epoch's step `start`; the state is donated.

    `moment.lr_factors` are float [T] for each part. The metrics are float and int [T]: "loss_cae"
    and "loss_cnn", batch means of the parts that ran, and "images".
    """
    compiled = _compiled(_train_chunk, ("joint", "pipeline"), donated="state")
    return compiled(state, data, order, mask, key, start, moment, joint=joint, pipeline=pipeline)


def _eval_chunk(model, variables, data, order, mask, *, joint, pipeline, loss, correction=None):
    def one_step(_, step):
        indices, labels, valid = step
        images = pipeline.images(data, indices, None, model.param_dtype)
        batch = {"image": images, "label": labels, "mask": valid}
        outputs = steps.outputs(model, variables, batch["image"], joint)
        if outputs.logits is not None:
            outputs = outputs.replace(logits=losses.scores(outputs.logits, loss, correction))
        metrics = _present(steps.losses(outputs, batch, valid), model, joint)
        if outputs.logits is not None:
            metrics |= {"label": labels, "mask": valid} | losses.verdicts(outputs.logits)
        return None, metrics | {"images": valid.sum()}

    return jax.lax.scan(one_step, None, (order, data["label"][order], mask))[1]


def eval_chunk(
    model: models.Classifier,
    variables: steps.PyTree,
    data: Data,
    order: jax.Array,
    mask: jax.Array,
    *,
    joint: bool,
    pipeline: Pipeline,
    loss: losses.Loss = losses.CROSS_ENTROPY,
    correction: losses.PostHoc | None = None,
) -> steps.Metrics:
    """Evaluates T steps; `joint=False` leaves the CNN out. `loss` is the one that it trained on.

    The metrics are those of `train_chunk` and, of the CNN, "label" int32 [T, B], its "mask" bool
    [T, B], False on padding, and for each image what `losses.verdicts` says.
    Whatever was trained, "loss_cnn" is the mean cross-entropy here, the negative log-likelihood
    (NLL).
    """
    static = {"joint": joint, "pipeline": pipeline, "loss": loss, "correction": correction}
    compiled = _compiled(_eval_chunk, ("model", *static))
    return compiled(model, variables, data, order, mask, **static)


def train(
    state: steps.TrainState,
    data: Data,
    order: orders.Order,
    key: jax.Array,
    moment: steps.Moment,
    *,
    joint: bool,
    pipeline: Pipeline,
    first_step: int = 0,
) -> Iterator[tuple[steps.TrainState, int, steps.Metrics]]:
    """Dispatches an epoch call by call; yields the state, the steps done and the call's metrics.

    The state given and each but the last one yielded are donated. Never more than two calls are
    under way, so that a signal need not wait long, nor the devices.
    """
    under_way: list[steps.Metrics] = []
    for start in range(first_step, order.num_steps, order.per_call):
        # Where calls were of another length before a stop, the last one is shorter.
        part = slice(start, min(start + order.per_call, order.num_steps))
        length = part.stop - start
        factors = {name: values[part] for name, values in moment.lr_factors.items()}
        state, metrics = train_chunk(
            state,
            data,
            orders.take(order.indices, start, length),
            orders.take(order.mask, start, length),
            key,
            start,
            moment._replace(lr_factors=factors),
            joint=joint,
            pipeline=pipeline,
        )
        under_way.append(metrics)
        if len(under_way) > 2:
            jax.block_until_ready(under_way.pop(0))
        yield state, part.stop, metrics


def evaluate(
    model: models.Classifier,
    variables: steps.PyTree,
    data: Data,
    order: orders.Order,
    *,
    joint: bool,
    pipeline: Pipeline,
    loss: losses.Loss = losses.CROSS_ENTROPY,
    correction: losses.PostHoc | None = None,
) -> Iterator[steps.Metrics]:
    """Dispatches an evaluation call by call; yields the calls' metrics, those of `eval_chunk`."""
    static: dict[str, Any] = {
        "joint": joint,
        "pipeline": pipeline,
        "loss": loss,
        "correction": correction,
    }
    for start in range(0, order.num_steps, order.per_call):
        part = (orders.take(array, start, order.per_call) for array in (order.indices, order.mask))
        yield eval_chunk(model, variables, data, *part, **static)


@functools.cache
def _compiled(chunk: Callable, static: tuple[str, ...], donated: str | None = None) -> Callable:
    """`chunk` jitted, compiled as the platform does it best."""
    return jax.jit(
        chunk,
        static_argnames=static,
        donate_argnames=donated,
        compiler_options=backend.compiler_options(),
    )


def _present(metrics: steps.Metrics, model: models.Classifier, joint: bool) -> steps.Metrics:
    """The losses of the parts that run; a nan among them can then only mean divergence."""
    ran = {"loss_cae": model.cae is not None, "loss_cnn": model.cnn is not None and joint}
    return {name: loss for name, loss in metrics.items() if ran[name]}
