"""Tests of caecnn_jax.training.epochs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import tiny_config
from trainings import batches

from caecnn_jax.data import augment
from caecnn_jax.networks import models
from caecnn_jax.training import devices, epochs, orders, steps

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)
PIPELINE = epochs.Pipeline((32, 32, 3), augment.CIFAR10, augment.Settings(max_shift=2))


def new_state(kind="mixed", **changes):
    config = tiny_config(kind, **changes)
    return steps.create_state(models.from_config(config), config, jax.random.key(0))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32 * 32 * 3), np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.asarray(rng.integers(0, 10, 30), jnp.int32)}


def host(tree):
    return jax.tree.map(np.array, tree)  # a copy: the state is donated


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


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
    return epochs.train_chunk(
        *(state, data, order, mask, KEY, start, steps.Moment(factors)),
        joint=True,
        pipeline=PIPELINE,
    )


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
    evaluate = functools.partial(
        epochs.eval_chunk, state.model, state.variables, data, joint=True, pipeline=PIPELINE
    )
    whole, parts = evaluate(*batches(7, 1, 8)), evaluate(*batches(7, 2, 4))
    labels = np.bincount(data["label"][5:12], minlength=10)
    for metrics, images in ((whole, [7]), (parts, [4, 3])):
        assert metrics["images"].tolist() == images
        assert np.array_equal(np.bincount(metrics["label"][metrics["mask"]], minlength=10), labels)
    for name in ("label", "predicted"):
        assert np.array_equal(whole[name][whole["mask"]], parts[name][parts["mask"]])
    for name in ("loss_cae", "loss_cnn"):
        mean = np.dot(parts[name], parts["images"]) / 7
        np.testing.assert_allclose(whole[name][0], mean, rtol=1e-5)


@pytest.fixture(scope="module")
def place(tiny_data):
    """The tiny images on the first device, not augmented."""
    (mesh, *_) = devices.lanes(0).meshes
    pipeline = epochs.Pipeline(tiny_data.images.shape[1:], augment.CIFAR10)
    return epochs.place(tiny_data, pipeline, mesh)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "limit", "shape", "per_call"),
    [
        (40, 8, 2, (6, 8), 2),  # 5 steps in calls of 2
        (40, 8, 100, (5, 8), 5),
        (3, 8, 0, (1, 8), 1),  # fewer images than a batch
        (130, 1, 0, (136, 1), 8),  # 130 steps by what suits a CPU
    ],
)
def test_an_order_is_dealt_out_in_whole_calls(
    place, num_images, batch_size, limit, shape, per_call
):
    indices = np.arange(7, 7 + num_images)
    order = place.order(indices, batch_size, limit)
    assert (order.indices.shape, order.per_call) == (shape, per_call)
    assert order.num_steps == shape[0]
    assert np.asarray(order.indices)[np.asarray(order.mask)].tolist() == indices.tolist()


def test_images_are_made_of_the_bytes_at_their_indices(place, tiny_data):
    images = place.pipeline.images(place.data, jnp.array([9, 3]), None, jnp.float32)
    pixels = tiny_data.images[[9, 3]] / 255
    expected = (pixels - np.array([0.4914, 0.4822, 0.4465])) / np.array([0.247, 0.243, 0.261])
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_only_draws_augment_images(place):
    augmenting = place.pipeline._replace(aug=augment.Settings())
    assert place.pipeline.draws(KEY, 8) is None  # use_aug=False
    given = (place.data, jnp.arange(8))
    plain = place.pipeline.images(*given, None, jnp.float32)
    assert_equal(augmenting.images(*given, None, jnp.float32), plain)  # an evaluation
    augmented = augmenting.images(*given, augmenting.draws(KEY, 8), jnp.float32)
    assert not np.array_equal(augmented, plain)


def test_a_batch_is_mixed_where_that_is_on(place):
    images = place.pipeline.images(place.data, jnp.arange(4), None, jnp.float32)
    mask = jnp.array([True, True, True, False])
    batch = {"image": images, "label": jnp.arange(4), "mask": mask}
    assert place.pipeline.mixed(batch, KEY) is batch
    mixed = place.pipeline._replace(mixup_alpha=1.0).mixed(batch, KEY)
    share, partner = float(mixed["share"]), np.asarray(mixed["partner"])
    expected = share * images + (1 - share) * images[partner]
    np.testing.assert_allclose(mixed["image"], expected, atol=1e-6)
    assert partner[3] == 3 and sorted(partner.tolist()) == [0, 1, 2, 3]


def test_refined_images_are_flipped_at_most_and_not_mixed(place):
    assert place.pipeline.refined() == place.pipeline  # use_aug=False
    wild = place.pipeline._replace(aug=augment.Settings(max_shift=4), mixup_alpha=1.0)
    given, draws = (place.data, jnp.arange(8)), wild.refined().draws(KEY, 8)
    found = wild.refined().images(*given, draws, jnp.float32)
    images = place.pipeline.images(*given, None, jnp.float32)
    flips = [np.array_equal(one, other[:, ::-1]) for one, other in zip(found, images, strict=True)]
    assert flips == draws.flip.tolist()
    assert 0 < sum(flips) < 8
    for one, other in zip(found[~draws.flip], images[~draws.flip], strict=True):
        assert_equal(one, other)
    batch = {"image": images}
    assert wild.refined().mixed(batch, KEY) is batch


def test_runs_of_different_length_share_one_compiled_program(place, compilations):
    for num_images, last_step in ((40, 6), (23, 4), (64, 8)):
        order = orders.shuffled(place.order(np.arange(num_images), 8, 2), KEY)
        moment = steps.Moment({"cae": np.ones(order.num_steps, np.float32)})
        state = devices.put(place.mesh, host(new_state("cae")))
        given = (state, place.data, order, KEY, moment)
        calls = epochs.train(*given, joint=True, pipeline=place.pipeline)
        assert [done for _, done, _ in calls] == [*range(2, last_step + 1, 2)]
    assert compilations.count("jit(_train_chunk)") == 1


def test_an_epoch_taken_up_in_its_middle_ends_as_a_whole_one(place):
    order = place.order(np.arange(40), 8, 2)
    moment = steps.Moment({"cae": np.ones(order.num_steps, np.float32)})
    go = functools.partial(epochs.train, joint=True, pipeline=place.pipeline)
    given = (place.data, order, KEY, moment)
    *_, (whole, _, _) = go(new_state("cae"), *given)
    (half, step, _), *_ = [
        (host(state), step, metrics) for state, step, metrics in go(new_state("cae"), *given)
    ]
    *_, (resumed, last, _) = go(jax.tree.map(jnp.array, half), *given, first_step=step)
    assert (step, last) == (2, 6)
    assert_equal(host(resumed), host(whole))


def test_an_epoch_goes_on_in_calls_of_another_length(place):
    """As after a stop on a CPU, on a GPU: the last call is then shorter."""
    orders = [place.order(np.arange(40), 8, limit) for limit in (2, 4)]  # 5 steps, padded to 6
    assert [(order.per_call, order.num_steps) for order in orders] == [(2, 6), (3, 6)]
    moment = steps.Moment({"cae": np.ones(6, np.float32)})
    go = functools.partial(epochs.train, joint=True, pipeline=place.pipeline)
    *_, (whole, _, _) = go(new_state("cae"), place.data, orders[0], KEY, moment)
    state, step, _ = next(go(new_state("cae"), place.data, orders[0], KEY, moment))
    given = (state, place.data, orders[1], KEY, moment)
    calls = [(host(state), step) for state, step, _ in go(*given, first_step=step)]
    assert [step for _, step in calls] == [5, 6]
    assert_equal(calls[-1][0], host(whole))


def test_an_evaluation_of_an_order_counts_each_image_once(place, tiny_data):
    state = new_state("cnn")
    indices = np.arange(3, 50)
    calls = epochs.evaluate(
        state.model,
        state.variables,
        place.data,
        place.order(indices, 8, 2),
        joint=True,
        pipeline=place.pipeline,
    )
    labels = [np.asarray(call["label"])[np.asarray(call["mask"])] for call in calls]
    assert np.array_equal(np.concatenate(labels), tiny_data.labels[indices])
