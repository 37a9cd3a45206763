"""Tests of caecnn_jax.training.orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainings import batches

from caecnn_jax.training import orders

COUNTS = np.array([9, 0, 4, 1])
MEMBERS = np.array([*range(100, 109), *range(200, 204), 300], np.int32)  # hundreds: the class


KEY = jax.random.key(3)


def deal(seed=0, shape=(6, 5), padding=3):
    mask = np.ones(shape, bool)
    mask.ravel()[len(mask.ravel()) - padding :] = False
    order = orders.balanced_order(
        jax.random.key(seed), jnp.asarray(MEMBERS), jnp.asarray(COUNTS), jnp.asarray(mask)
    )
    return np.asarray(order), mask


@pytest.mark.parametrize(
    ("shape", "padding"), [((6, 5), 3), ((6, 5), 0), ((1, 7), 6), ((40, 3), 1)]
)
def test_every_class_and_in_it_every_image_comes_as_often(shape, padding):
    order, mask = deal(shape=shape, padding=padding)
    drawn = order[mask]
    by_class = [np.count_nonzero(drawn // 100 == label) for label in (1, 2, 3)]
    assert sum(by_class) == mask.sum() and max(by_class) - min(by_class) <= 1
    for label in (1, 2, 3):
        of_class = MEMBERS[label == MEMBERS // 100]
        counts = [np.count_nonzero(drawn == image) for image in of_class]
        assert max(counts) - min(counts) <= 1
    assert (order[~mask] == 0).all()


def test_the_key_decides_images_and_places():
    one, other = deal(seed=1)[0], deal(seed=2)[0]
    assert np.array_equal(one, deal(seed=1)[0]) and not np.array_equal(one, other)
    places = np.array([deal(seed)[0][0, 0] // 100 for seed in range(60)])
    assert {1, 2, 3} == set(places.tolist())  # no class is bound to a place
    first_of_1 = {tuple(sorted(set(deal(seed, (1, 6), 0)[0].ravel()) - {300})) for seed in range(9)}
    assert len(first_of_1) > 1  # nor an image to be drawn


@pytest.mark.parametrize("num_images", [1, 7, 11, 12])
def test_a_shuffle_is_a_permutation_that_leaves_the_padding_alone(num_images):
    order, mask = batches(num_images)
    shuffled = orders.shuffle(KEY, order, mask)
    assert sorted(np.asarray(shuffled)[np.asarray(mask)].tolist()) == [*range(5, 5 + num_images)]
    assert (np.asarray(shuffled)[~np.asarray(mask)] == 0).all()


def test_shuffles_differ_by_key_and_are_uniform():
    order, mask = batches(7, num_steps=2)
    keys = jax.random.split(KEY, 2000)
    shuffled = jax.jit(jax.vmap(orders.shuffle, (0, None, None)))(keys, order, mask)
    places = np.asarray(shuffled).reshape(2000, 8)[:, :7] - 5
    counts = np.stack([np.bincount(place, minlength=7) for place in places.T])
    # Each image is at each place in a seventh of the cases, 286 +- 16.
    assert counts.min() > 286 - 5 * 16 and counts.max() < 286 + 5 * 16
