"""The order in which an epoch visits its images: dealt out to steps, at random, or class by class.

S: steps of an epoch; B: images of a batch; K: classes; n: images that a run trains on.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Order(NamedTuple):
    """Images dealt out to steps, and the steps of one call, a divisor of their number."""

    indices: jax.Array  # int32 [S, B]
    mask: jax.Array  # bool [S, B]
    per_call: int

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.indices)


def shuffle(key: jax.Array, order: jax.Array, mask: jax.Array) -> jax.Array:
    """Deals the images of `order` [S, B], which the mask [S, B] belongs to, out anew.

    Padding stays where it was, so that only an epoch's last batch is short. How much of it there is
    does not change the order of the images.
    """
    padding = ~mask.ravel()
    images_first = jnp.argsort(padding, stable=True)
    bits = jax.random.bits(key, padding.shape, jnp.uint32)
    dealt = order.ravel()[images_first][jnp.lexsort((bits, padding[images_first]))]
    shuffled = jnp.zeros_like(dealt).at[images_first].set(dealt)
    return shuffled.reshape(order.shape)


def shuffled(order: Order, key: jax.Array) -> Order:
    """An order of the same images and shapes, dealt out anew, and split over devices as before."""
    deal = jax.jit(shuffle, out_shardings=order.indices.sharding)
    return order._replace(indices=deal(key, order.indices, order.mask))


def balanced_order(
    key: jax.Array, members: jax.Array, class_counts: jax.Array, mask: jax.Array
) -> jax.Array:
    """An order for the mask [S, B] in which every class comes as often, give or take one.

    `members` int32 [n]: images of all classes, each once, class after class; `class_counts` int [K]
    of them each class has. Within a class each comes as often, give or take one. The resampling of
    Cao et al. 2019 (DRS), whose draws within a class are with replacement.
    """
    deal_key, member_key = jax.random.split(key)
    ends = jnp.cumsum(class_counts)
    label = jnp.searchsorted(ends, jnp.arange(len(members)), side="right")
    members = members[jnp.lexsort((jax.random.bits(member_key, members.shape), label))]
    present = jnp.argsort(class_counts == 0, stable=True)
    num_present = (class_counts > 0).sum()
    # Each image's slot takes one of the turns 0, 1, ..., which go round the classes.
    turns = shuffle(deal_key, (jnp.cumsum(mask.ravel()) - 1).reshape(mask.shape), mask)
    chosen = present[turns % num_present]
    place = (turns // num_present) % class_counts[chosen]
    indices = members[(ends - class_counts)[chosen] + place]
    return jnp.where(mask, indices, 0)


def balanced(order: Order, key: jax.Array, members: jax.Array, class_counts: jax.Array) -> Order:
    """An order of the shapes and devices of another, dealt out by `balanced_order`."""
    deal = jax.jit(balanced_order, out_shardings=order.indices.sharding)
    return order._replace(indices=deal(key, members, class_counts, order.mask))


@functools.partial(jax.jit, static_argnames="length")
def take(array: jax.Array, start: jax.Array, length: int) -> jax.Array:
    """Steps `start` .. `start + length - 1` of an order or a mask [S, B]."""
    return jax.lax.dynamic_slice_in_dim(array, start, length)
