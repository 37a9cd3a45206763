"""The compiled pieces of an epoch: gather, augment, step and losses for many steps in one call.

S: steps of an epoch; T: steps of one call; B: images of a batch; R: runs side by side (with
`side_by_side=True` the state, order, mask, key, factors and all results have a leading R).
The images stay on the device as uint8, and an epoch is an `order` int32 [S, B] of indices into
them with a `mask` bool [S, B], False on padding. A call is given T steps of it, so that what is
compiled serves epochs of any length. A step without any image changes nothing.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from caecnn_jax.data import augment
from caecnn_jax.networks import models, ops
from caecnn_jax.training import steps

# What a random stream is for; each is folded with (fold, epoch) and depends on nothing else.
INIT, SHUFFLE, AUGMENT = range(3)

Data = dict[str, jax.Array]  # {"image": uint8 [N, H, W, C], "label": int32 [N]}


@functools.partial(jax.jit, static_argnames=("seed", "purpose"))
def random_key(seed: int, purpose: int, fold: jax.Array, epoch: jax.Array) -> jax.Array:
    """The key of one stream of random numbers, a function of its four coordinates alone."""
    key = jax.random.fold_in(jax.random.key(seed), purpose)
    return jax.random.fold_in(jax.random.fold_in(key, fold), epoch)


@jax.jit
def shuffle(key: jax.Array, order: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Deals the images of `order` [S, B] out anew; the mask [S, B] keeps its shape and meaning.

    Padding stays where it was, so that only an epoch's last batch is short. How much of it there is
    does not change the order of the images.
    """
    padding = ~mask.ravel()
    images_first = jnp.argsort(padding, stable=True)
    bits = jax.random.bits(key, padding.shape, jnp.uint32)
    dealt = order.ravel()[images_first][jnp.lexsort((bits, padding[images_first]))]
    shuffled = jnp.zeros_like(dealt).at[images_first].set(dealt)
    return shuffled.reshape(order.shape), mask


@functools.partial(jax.jit, static_argnames="length")
def take(order: jax.Array, start: jax.Array, length: int) -> jax.Array:
    """Steps `start` .. `start + length - 1` of an order or a mask [..., S, B]."""
    return jax.lax.dynamic_slice_in_dim(order, start, length, axis=order.ndim - 2)


def _train_chunk(state, data, order, mask, key, start, lr_factors, *, joint, aug):
    def one_step(state, step):
        number, indices, valid, factors = step
        images = data["image"][indices]
        if aug is not None:
            draws = augment.draw(jax.random.fold_in(key, number), *images.shape[:3], aug)
            images = augment.augment(images, draws, dtype=_dtype(state))
        else:
            images = augment.normalize(images, dtype=_dtype(state))
        images = jax.lax.optimization_barrier(images)  # else computed again for each use
        batch = {"image": images, "label": data["label"][indices], "mask": valid}
        trained, metrics = steps.train_step(state, batch, joint, factors)
        state = jax.tree.map(functools.partial(jnp.where, valid.any()), trained, state)
        return state, _present(metrics, state.model, joint) | {"images": valid.sum()}

    numbers = start + jnp.arange(len(order))
    return jax.lax.scan(one_step, state, (numbers, order, mask, lr_factors))


def train_chunk(
    state: steps.TrainState,
    data: Data,
    order: jax.Array,
    mask: jax.Array,
    key: jax.Array,
    start: jax.Array,
    lr_factors: Mapping[str, jax.Array],
    *,
    joint: bool,
    aug: augment.Settings | None,
    side_by_side: bool = False,
) -> tuple[steps.TrainState, steps.Metrics]:
    """Trains on T steps, of which the first is the epoch's step `start`; the state is donated.

    `lr_factors` float [T] of each part multiply its learning rate; `aug` None leaves the images as
    they are. The metrics are float and int [T]: "loss_cae" and "loss_cnn", batch means of the parts
    that ran, and "images".
    """
    compiled = _compiled(_train_chunk, donates=True)
    return compiled(
        state,
        data,
        order,
        mask,
        key,
        start,
        lr_factors,
        joint=joint,
        aug=aug,
        side_by_side=side_by_side,
    )


def _eval_chunk(state, data, order, mask, _key, _start, _lr_factors, *, joint):
    def one_step(_, step):
        indices, valid = step
        images = augment.normalize(data["image"][indices], dtype=_dtype(state))
        batch = {"image": images, "label": data["label"][indices], "mask": valid}
        outputs = steps.eval_step(state, batch, joint)
        metrics = _present(steps.losses(outputs, batch, valid)[1], state.model, joint)
        if outputs.logits is not None:
            metrics["confusion"] = _confusion(outputs.logits, batch["label"], valid)
        return None, metrics | {"images": valid.sum()}

    return jax.lax.scan(one_step, None, (order, mask))[1]


def _confusion(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    matrix = jnp.zeros((logits.shape[-1], logits.shape[-1]), jnp.int32)
    return matrix.at[labels, logits.argmax(axis=-1)].add(mask.astype(jnp.int32))


def eval_chunk(
    state: steps.TrainState,
    data: Data,
    order: jax.Array,
    mask: jax.Array,
    *,
    joint: bool,
    side_by_side: bool = False,
) -> steps.Metrics:
    """Evaluates T steps; `joint=False` leaves the CNN out.

    The metrics are those of `train_chunk` and, of the CNN, "confusion" int32 [T, 10, 10], a row a
    true class.
    """
    compiled = _compiled(_eval_chunk, donates=False)
    nothing = (None, None, None)
    return compiled(state, data, order, mask, *nothing, joint=joint, side_by_side=side_by_side)


@functools.cache
def _compiled(chunk, donates: bool):
    """`chunk` jitted, for one run or for R of them; compiled as the platform does it best."""

    def run(state, data, order, mask, key, start, lr_factors, *, side_by_side, **static):
        one = functools.partial(chunk, **static)
        if side_by_side:
            one = jax.vmap(one, in_axes=(0, None, 0, 0, 0, None, 0), spmd_axis_name="fold")
        return one(state, data, order, mask, key, start, lr_factors)

    return jax.jit(
        run,
        static_argnames=("joint", "aug", "side_by_side"),
        donate_argnames="state" if donates else None,
        compiler_options=ops.compiler_options(),
    )


def _present(metrics: steps.Metrics, model: models.Classifier, joint: bool) -> steps.Metrics:
    """The losses of the parts that run; a nan among them can then only mean divergence."""
    ran = {"loss_cae": model.cae is not None, "loss_cnn": model.cnn is not None and joint}
    return {name: loss for name, loss in metrics.items() if ran[name]}


def _dtype(state: steps.TrainState):
    """The images' dtype: that of the parameters, which low-precision layers lower by themselves."""
    return jax.tree.leaves(state.params)[0].dtype
