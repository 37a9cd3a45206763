"""An epoch's images in random order, every class as often: deferred resampling (DRS)."""

import jax
import jax.numpy as jnp

from caecnn_jax.training import epochs


def balanced_order(
    key: jax.Array, members: jax.Array, class_counts: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """An order in which every class comes as often, give or take one, and the mask [S, B] as it is.

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
    turns, _ = epochs.shuffle(deal_key, (jnp.cumsum(mask.ravel()) - 1).reshape(mask.shape), mask)
    chosen = present[turns % num_present]
    place = (turns // num_present) % class_counts[chosen]
    indices = members[(ends - class_counts)[chosen] + place]
    return jnp.where(mask, indices, 0), mask


def balanced(
    order: epochs.Order, key: jax.Array, members: jax.Array, class_counts: jax.Array
) -> epochs.Order:
    """An order of the shapes and devices of another, dealt out by `balanced_order`."""
    sharding = order.indices.sharding
    deal = jax.jit(balanced_order, out_shardings=(sharding, sharding))
    indices, mask = deal(key, members, class_counts, order.mask)
    return epochs.Order(indices, mask, order.per_call)
