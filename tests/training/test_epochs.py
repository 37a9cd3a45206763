"""Tests of caecnn_jax.training.epochs."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax.data import augment, sampling
from caecnn_jax.networks import models
from caecnn_jax.training import epochs, steps
from caecnn_jax.training.group import Group

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)


def new_state(kind="mixed", **changes):
    config = tiny_config(kind, **changes)
    return steps.create_state(models.from_config(config), config, jax.random.key(0))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 3), np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.asarray(rng.integers(0, 10, 30), jnp.int32)}


def batches(num_images, num_steps=3, batch_size=4):
    """An order and a mask that deal out the images 5, 6, ... in turn."""
    order, mask = sampling.in_batches(
        np.arange(5, 5 + num_images), batch_size, num_steps, batch_size
    )
    return jnp.asarray(order), jnp.asarray(mask)


def host(tree):
    return jax.tree.map(np.array, tree)  # a copy: the state is donated


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("num_images", [1, 7, 11, 12])
def test_a_shuffle_is_a_permutation_that_leaves_the_padding_alone(num_images):
    order, mask = batches(num_images)
    shuffled, same_mask = epochs.shuffle(KEY, order, mask)
    assert np.array_equal(same_mask, mask)
    assert sorted(np.asarray(shuffled)[np.asarray(mask)].tolist()) == [*range(5, 5 + num_images)]
    assert (np.asarray(shuffled)[~np.asarray(mask)] == 0).all()


def test_shuffles_differ_by_key_and_are_uniform():
    order, mask = batches(7, num_steps=2)
    keys = jax.random.split(KEY, 2000)
    shuffled, _ = jax.jit(jax.vmap(epochs.shuffle, (0, None, None)))(keys, order, mask)
    places = np.asarray(shuffled).reshape(2000, 8)[:, :7] - 5
    counts = np.stack([np.bincount(place, minlength=7) for place in places.T])
    # Each image is at each place in a seventh of the cases, 286 +- 16.
    assert counts.min() > 286 - 5 * 16 and counts.max() < 286 + 5 * 16


def test_random_streams_differ_in_each_coordinate_and_repeat():
    def bits(*coordinates):
        return jax.random.key_data(epochs.random_key(*coordinates)).tolist()

    keys = [
        bits(0, epochs.SHUFFLE, 1, 1),
        bits(1, epochs.SHUFFLE, 1, 1),
        bits(2**32 - 1, epochs.SHUFFLE, 1, 1),
        bits(0, epochs.AUGMENT, 1, 1),
        bits(0, epochs.SHUFFLE, 2, 1),
        bits(0, epochs.SHUFFLE, 1, 2),
    ]
    assert len(set(map(tuple, keys))) == len(keys)
    assert bits(0, epochs.SHUFFLE, 1, 1) == keys[0]


def train(state, data, order, mask, start, lr_factor=1.0):
    factors = {part: np.full(len(order), lr_factor, np.float32) for part in state.params}
    aug = augment.Settings(max_shift=2)
    return epochs.train_chunk(state, data, order, mask, KEY, start, factors, joint=True, aug=aug)


def test_a_chunk_of_three_steps_equals_three_single_steps(data):
    """In float64, where rounding does not decide Adam's first steps."""
    with jax.enable_x64(True):
        order, mask = batches(11)
        first = new_state(dtype="float64")
        before = host(first)
        chunked, metrics = train(first, data, order, mask, 0)
        state, single = new_state(dtype="float64"), []
        for start in range(3):
            part = slice(start, start + 1)
            state, one = train(state, data, order[part], mask[part], start)
            single.append(host(one))
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9)
    jax.tree.map(compare, host(chunked), host(state))
    assert metrics["images"].tolist() == [4, 4, 3]
    for name, values in metrics.items():
        compare(values, np.concatenate([one[name] for one in single]))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params, host(chunked).params)
    assert min(jax.tree.leaves(moved)) > 1e-4  # the counter-check: it trained


@pytest.fixture(scope="module")
def stepped(data):
    """A trained state (host arrays), so that nothing in it is 0."""
    order, mask = batches(4, num_steps=1)
    state, _ = train(new_state(), data, order, mask, 0)
    return host(state)


def test_a_step_without_any_image_changes_nothing(data, stepped):
    order, mask = batches(4, num_steps=1)
    after, metrics = train(jax.tree.map(jnp.array, stepped), data, order, ~mask, 1)
    assert_equal(host(after), stepped)
    assert metrics["images"].tolist() == [0]
    assert all(np.isfinite(loss).all() for loss in metrics.values())


def test_the_augmentation_of_a_step_depends_on_its_number_not_on_the_call(data, stepped):
    order, mask = batches(4, num_steps=1)
    losses = [
        float(train(jax.tree.map(jnp.array, stepped), data, order, mask, start)[1]["loss_cae"][0])
        for start in (1, 2, 1)
    ]
    assert losses[0] == losses[2] != losses[1]


def test_a_step_at_a_rate_of_zero_moves_only_averages_and_moments(data, stepped):
    order, mask = batches(4, num_steps=1)
    after, _ = train(jax.tree.map(jnp.array, stepped), data, order, mask, 1, lr_factor=0.0)
    assert_equal(host(after).params, stepped.params)
    for what in ("batch_stats", "opt_state"):
        moved = jax.tree.map(np.array_equal, getattr(host(after), what), getattr(stepped, what))
        assert not any(jax.tree.leaves(moved))


def test_an_evaluation_counts_each_image_once(data, stepped):
    state = jax.tree.map(jnp.array, stepped)
    whole = epochs.eval_chunk(state, data, *batches(7, 1, 8), joint=True)
    parts = epochs.eval_chunk(state, data, *batches(7, 2, 4), joint=True)
    labels = np.bincount(data["label"][5:12], minlength=10)
    for metrics, images in ((whole, [7]), (parts, [4, 3])):
        assert metrics["images"].tolist() == images
        assert np.array_equal(metrics["confusion"].sum(axis=(0, 2)), labels)
    assert np.array_equal(whole["confusion"].sum(axis=0), parts["confusion"].sum(axis=0))
    for name in ("loss_cae", "loss_cnn"):
        mean = np.dot(parts[name], parts["images"]) / 7
        np.testing.assert_allclose(whole[name][0], mean, rtol=1e-5)


def test_runs_of_different_length_share_one_compiled_program(tiny_data, caplog):
    config = tiny_config("cae", batch_size=8, use_aug=False, steps_per_call=2)
    compilations = []
    for num_images, last_step in ((40, 6), (23, 4), (64, 8)):
        split = sampling.Split("fold_1", 1, *[np.arange(num_images)] * 3)
        group = Group(config, [split], tiny_data)
        group.put_state(group.new_arrays())
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            steps_done = [done for done, _ in group.train_epoch(1, [True], joint=True)]
        assert steps_done == [*range(2, last_step + 1, 2)]
        messages = [record.getMessage() for record in caplog.records]
        of_train = ["Finished XLA compilation of jit(run)" in message for message in messages]
        compilations.append(sum(of_train))
        caplog.clear()
    assert compilations == [1, 0, 0]
