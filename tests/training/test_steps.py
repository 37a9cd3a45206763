"""Tests of caecnn_jax.training.steps; test_golden compares whole steps with the reference's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax.networks import losses, models
from caecnn_jax.training import steps

pytestmark = pytest.mark.usefixtures("quick_compilation")


def new_state(kind, **changes):
    config = tiny_config(kind, **changes)
    return steps.create_state(models.from_config(config), config, jax.random.key(0))


def make_batch(size, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(size, 32, 32, 3)).astype(np.float32)
    return {"image": images, "label": rng.integers(0, 10, size).astype(np.int32)}


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def max_difference(one, other):
    differences = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), one, other)
    return max(jax.tree.leaves(differences))


@pytest.fixture(scope="module")
def mixed():
    """A state of both networks with two joint steps behind it, so that nothing in it is 0."""
    state = new_state("mixed")
    for seed in (1, 2):
        state, _ = steps.train_step(state, make_batch(4, seed))
    return state


@pytest.fixture(scope="module")
def warmed(mixed):
    """(the state before, the state after, the metrics) of a warm-up step."""
    return mixed, *steps.train_step(mixed, make_batch(4), joint=False)


@pytest.mark.parametrize("what", ["params", "batch_stats", "opt_state"])
def test_a_warmup_step_moves_nothing_of_the_cnn(warmed, what):
    before, after, _ = warmed
    assert_equal(getattr(after, what)["cnn"], getattr(before, what)["cnn"])
    # The counter-check: it moves all of the CAE.
    moved = jax.tree.map(max_difference, getattr(after, what)["cae"], getattr(before, what)["cae"])
    assert min(jax.tree.leaves(moved)) > 0


def test_warmup_does_not_count_in_the_adam_of_the_cnn(warmed):
    before, after, _ = warmed
    counts = {part: int(after.opt_state[part][0].count) for part in ("cae", "cnn")}
    assert counts == {"cae": 3, "cnn": 2}
    assert int(before.opt_state["cae"][0].count) == 2


def test_a_warmup_step_has_no_classification_loss(warmed):
    _, _, metrics = warmed
    assert np.isnan(metrics["loss_cnn"])
    assert np.isfinite(metrics["loss_cae"])


def test_warmup_compiles_nothing_of_the_cnn(mixed):
    step = functools.partial(steps.train_step, joint=False)
    text = str(jax.make_jaxpr(step)(mixed, make_batch(4)))
    joint_text = str(jax.make_jaxpr(steps.train_step)(mixed, make_batch(4)))
    dense = "f32[4,10]"  # the logits
    assert dense in joint_text and dense not in text


def test_the_classification_loss_reaches_the_encoder_but_not_the_decoder(warmed, mixed):
    _, after, _ = warmed
    joint, _ = steps.train_step(mixed, make_batch(4))
    assert max_difference(joint.params["cae"]["encoder"], after.params["cae"]["encoder"]) > 1e-3
    assert max_difference(joint.params["cae"]["decoder"], after.params["cae"]["decoder"]) < 1e-5


def test_a_step_does_not_destroy_its_input(mixed):
    before = jax.device_get(mixed)
    batch = make_batch(4)
    first, first_metrics = steps.train_step(mixed, batch)
    assert_equal(jax.device_get(mixed), before)
    again, metrics = steps.train_step(mixed, batch)
    assert_equal(again, first)
    assert_equal(metrics, first_metrics)


@pytest.mark.parametrize(("kind", "absent"), [("cae", "loss_cnn"), ("cnn", "loss_cae")])
def test_the_loss_of_an_absent_part_is_nan(kind, absent):
    state, metrics = steps.train_step(new_state(kind), make_batch(2))
    assert {name for name, loss in metrics.items() if np.isnan(loss)} == {absent}
    assert set(state.params) == set(state.opt_state) == {kind}


def test_a_masked_partial_batch_equals_the_smaller_batch():
    """In float64, where rounding does not decide Adam's first steps."""
    with jax.enable_x64(True):
        state = new_state("mixed", dtype="float64")
        full = make_batch(4)
        full["image"] = full["image"].astype(np.float64)
        part = {name: array[:3] for name, array in full.items()}
        full["image"][3] = 1e3  # padding may hold anything
        full["mask"] = np.array([True, True, True, False])
        masked, masked_metrics = steps.train_step(state, full)
        smaller, metrics = steps.train_step(state, part)
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
        jax.tree.map(compare, masked, smaller)
        jax.tree.map(compare, masked_metrics, metrics)
        assert max_difference(masked.params, state.params) > 1e-3  # the counter-check: it trained


def random_outputs(seed=0):
    """Reconstructions and logits of four images, as networks might give them."""
    rng = np.random.default_rng(seed)
    return models.Outputs(
        reconstruction=jnp.asarray(rng.normal(size=(4, 32, 32, 3)).astype(np.float32)),
        logits=jnp.asarray(rng.normal(size=(4, 10)).astype(np.float32)),
    )


def cross_entropies(logits, labels):
    """-log of the softmax at each label, by its definition."""
    exponentials = np.exp(np.asarray(logits, np.float64))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return -np.log(probabilities[np.arange(len(labels)), labels])


def test_the_losses_are_the_mean_squared_error_and_the_mean_cross_entropy():
    batch, outputs = make_batch(4), random_outputs()
    metrics = steps.losses(outputs, batch, jnp.array([True, False, True, True]))
    kept = [0, 2, 3]
    squared = np.mean((np.asarray(outputs.reconstruction) - batch["image"])[kept] ** 2)
    entropy = cross_entropies(outputs.logits, batch["label"])[kept].mean()
    assert float(metrics["loss_cae"]) == pytest.approx(squared, rel=1e-5)
    assert float(metrics["loss_cnn"]) == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(
    ("absent", "total"), [((), 0.25 * 8 + 2), (("logits",), 0.25 * 8), (("reconstruction",), 2)]
)
def test_what_is_minimised_is_the_weighted_sum_of_the_losses_that_there_are(absent, total):
    outputs = random_outputs().replace(**dict.fromkeys(absent))
    losses = {"loss_cae": jnp.float32(8), "loss_cnn": jnp.float32(2)}
    recipe = steps.Recipe(optimizers=(), reconstruction_weight=0.25)
    assert float(steps.objective(outputs, losses, recipe)) == total


def test_the_reconstructions_weight_scales_the_decoders_gradient_and_not_the_loss():
    """Seen in Adam's first moment, which with beta 0 is the gradient."""
    batch = make_batch(4)
    state = new_state("mixed")
    plain, metrics = steps.train_step(state, batch)
    lighter = state.replace(recipe=state.recipe._replace(reconstruction_weight=0.25))
    weighted, same_metrics = steps.train_step(lighter, batch)
    assert_equal(same_metrics, metrics)
    of_decoder = [one.opt_state["cae"][0].mu["decoder"] for one in (plain, weighted)]
    quarter = jax.tree.map(lambda gradient: gradient / 4, of_decoder[0])
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(compare, of_decoder[1], quarter)


def test_a_step_hands_the_class_counts_on(mixed):
    counts = jnp.arange(1, 11)
    state, _ = steps.train_step(mixed.replace(class_counts=counts), make_batch(4))
    assert_equal(state.class_counts, counts)
    assert "class_counts" not in state.arrays  # they follow from the data


def test_a_step_trains_on_the_recipes_loss_and_evaluation_does_not_know_it():
    batch, counts = make_batch(4), jnp.arange(1, 11)
    config = tiny_config("cnn")
    config.cnn.loss.update({"logit_adjustment": 1.0, "class_weights": "inverse"})
    model = models.from_config(config)
    state = steps.create_state(model, config, jax.random.key(0), class_counts=counts)
    plain = new_state("cnn")
    _, metrics = steps.train_step(state, batch)
    outputs = model.apply(
        state.variables, batch["image"], train=True, mask=None, mutable="batch_stats"
    )[0]
    loss = losses.Loss(logit_adjustment=1.0, class_weights="inverse")
    expected = losses.classification(outputs.logits, batch["label"], counts, loss).mean()
    expected /= losses.class_weights("inverse", counts, 0.0)[batch["label"]].mean()
    assert float(metrics["loss_cnn"]) == pytest.approx(float(expected), rel=1e-5)
    assert (
        abs(float(metrics["loss_cnn"]) - float(steps.train_step(plain, batch)[1]["loss_cnn"])) > 0
    )
    assert_equal(steps.eval_step(state, batch).logits, steps.eval_step(plain, batch).logits)


@pytest.mark.parametrize("fields", [{"class_weights": "inverse"}, {"logit_adjustment": 1.0}])
def test_a_loss_without_the_counts_that_it_needs_says_so(fields):
    config = tiny_config("cnn")
    config.cnn.loss.update(fields)
    state = steps.create_state(models.from_config(config), config, jax.random.key(0))
    with pytest.raises(ValueError, match="class_counts is None, but"):
        steps.train_step(state, make_batch(4))


def test_class_weights_wait_for_their_joint_epoch():
    batch, counts = make_batch(4), jnp.arange(1, 11)
    config = tiny_config("cnn")
    config.cnn.loss.update({"class_weights": "inverse", "deferred_until": 3})
    state = steps.create_state(
        models.from_config(config), config, jax.random.key(0), class_counts=counts
    )

    def loss_at(joint_epoch):
        moment = steps.Moment({"cnn": jnp.float32(1)}, joint_epoch=jnp.int32(joint_epoch))
        return float(steps.train_step(state, batch, moment=moment)[1]["loss_cnn"])

    assert loss_at(1) == loss_at(3) != loss_at(4)


@pytest.mark.parametrize("deferred_until", [0, 3])
def test_weights_keep_the_size_of_a_batchs_loss(deferred_until):
    """The mean is PyTorch's: of images that all lose the same, weights change nothing."""
    counts = jnp.array([60, 2] + [0] * 8)
    batch = {
        "image": jnp.zeros((8, 4, 4, 3)),
        "label": jnp.array([0] * 5 + [1] * 3),
        "mask": jnp.arange(8) < 7,
    }
    logits = jax.random.normal(jax.random.key(1), (8, 10))
    config = tiny_config("cnn")
    loss = {"class_weights": "effective", "effective_beta": 0.9, "deferred_until": deferred_until}
    config.cnn.loss.update(loss)
    model = models.from_config(config)
    state = steps.create_state(model, config, jax.random.key(0), class_counts=counts)
    for joint_epoch in (1, 4):
        classify = steps.classification(state, batch, joint_epoch)
        same = classify(jnp.zeros((8, 10)), batch["label"])
        np.testing.assert_allclose(losses.masked_mean(same, batch["mask"]), np.log(10), rtol=1e-6)
    error = -np.asarray(jax.nn.log_softmax(logits))[np.arange(7), batch["label"][:7]]
    weights = 1 / (1 - 0.9 ** np.array([60.0, 2.0]))
    expected = np.average(error, weights=weights[batch["label"][:7]])
    got = losses.masked_mean(classify(logits, batch["label"]), batch["mask"])
    assert float(got) == pytest.approx(expected, rel=1e-5)
    empty = steps.classification(state, batch | {"mask": jnp.zeros(8, bool)}, 4)
    assert np.isfinite(empty(logits, batch["label"])).all()


def test_weights_of_mixed_images_are_mixed_too():
    counts, labels = jnp.array([60, 2] + [0] * 8), jnp.array([0, 0, 0, 1])
    partners, mask = jnp.array([3, 0, 1, 2]), jnp.ones(4, bool)
    loss = losses.Loss(class_weights="inverse")
    weights = losses.class_weights("inverse", counts, 0.0)[labels]
    got = losses.mean_weight(labels, mask, counts, loss, partners=partners, share=0.25)
    assert float(got) == pytest.approx(float((0.25 * weights + 0.75 * weights[partners]).mean()))


def test_mixed_images_are_what_the_autoencoder_reconstructs():
    state, batch = new_state("mixed"), make_batch(4)
    share, partner = jnp.float32(0.25), jnp.array([1, 2, 3, 0])
    images = 0.25 * batch["image"] + 0.75 * batch["image"][np.array(partner)]
    mixed = batch | {"image": images, "share": share, "partner": partner}
    _, both = steps.train_step(state, mixed)
    _, own = steps.train_step(state, batch | {"image": images})
    other = {"image": images, "label": batch["label"][np.array(partner)]}
    _, other = steps.train_step(state, other)
    assert float(both["loss_cae"]) == pytest.approx(float(own["loss_cae"]), rel=1e-6)
    expected = 0.25 * float(own["loss_cnn"]) + 0.75 * float(other["loss_cnn"])
    assert float(both["loss_cnn"]) == pytest.approx(expected, rel=1e-5)


def test_averages_follow_the_weights_of_the_parts_that_train():
    state, batch = new_state("mixed", ema_decay=0.9), make_batch(4)
    assert_equal(steps.evaluated(state.arrays), state.variables)
    warmed, _ = steps.train_step(state, batch, joint=False)
    assert_equal(warmed.averages["cnn"], state.averages["cnn"])
    after, _ = steps.train_step(warmed, batch)
    counts = {part: int(average.num_steps) for part, average in after.averages.items()}
    assert counts == {"cae": 2, "cnn": 1}
    # After one step the average is 1/10 of the start and 9/10 of the weights now.
    expected = jax.tree.map(
        lambda start, now: 0.1 * start + 0.9 * now, state.params["cnn"], after.params["cnn"]
    )
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(compare, steps.evaluated(after.arrays)["params"]["cnn"], expected)
    assert "averages" not in new_state("mixed").arrays


def test_rate_factors_scale_each_parts_move(mixed):
    batch = make_batch(4)
    whole, _ = steps.train_step(mixed, batch)
    factors = {"cae": jnp.float32(0.5), "cnn": jnp.float32(0.0)}
    part, _ = steps.train_step(mixed, batch, moment=steps.Moment(factors))
    assert_equal(part.params["cnn"], mixed.params["cnn"])
    assert_equal(part.opt_state, whole.opt_state)
    halfway = jax.tree.map(lambda a, b: (a + b) / 2, mixed.params["cae"], whole.params["cae"])
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(compare, part.params["cae"], halfway)


def test_evaluation_leaves_out_what_is_absent_or_not_run(mixed):
    batch = make_batch(4)
    outputs = jax.eval_shape(steps.eval_step, mixed, batch)
    assert outputs.code.shape == (4, 16, 16, 2) and outputs.logits.shape == (4, 10)
    warmup = jax.eval_shape(functools.partial(steps.eval_step, joint=False), mixed, batch)
    assert warmup.logits is None and warmup.reconstruction.shape == (4, 32, 32, 3)
    assert jax.eval_shape(steps.eval_step, new_state("cnn"), batch).reconstruction is None


def test_a_recipe_is_numbers_that_compare_by_value():
    """What jit takes as static must not compile anew for each run of a config."""
    one, same = steps.make_recipe(tiny_config("mixed")), steps.make_recipe(tiny_config("mixed"))
    assert one == same and hash(one) == hash(same)
    assert one != steps.make_recipe(tiny_config("mixed", cae={"loss_weight": 0.5}))


def test_what_is_saved_of_a_state_restores_it(mixed):
    arrays = jax.device_get(mixed.arrays)
    assert set(arrays) == {"variables", "opt_state"}
    restored = steps.restore_state(mixed.model, mixed.recipe, arrays, class_counts=None)
    assert_equal(jax.device_get(restored), jax.device_get(mixed))


def test_a_state_can_start_from_given_variables(mixed):
    state = steps.create_state(
        mixed.model, tiny_config("mixed"), jax.random.key(9), mixed.variables
    )
    assert_equal(state.variables, mixed.variables)
    assert int(state.opt_state["cnn"][0].count) == 0
