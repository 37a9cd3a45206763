"""Tests of caecnn_jax.training.optimizers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from builders import tiny_config

from caecnn_jax.training import optimizers

STEPS = 10


def curve(part="cnn", kind="mixed", **changes):
    """A part's factors over all epochs, one after another."""
    config = tiny_config(kind, **changes)
    epochs = range(1, config.num_epoch + 1)
    return np.concatenate([optimizers.lr_factors(config, epoch, STEPS)[part] for epoch in epochs])


def test_by_default_the_rate_is_constant():
    for part in ("cae", "cnn"):
        factors = curve(part, num_epoch=5)
        assert factors.dtype == np.float32
        np.testing.assert_array_equal(factors, np.ones(5 * STEPS))


def test_cosine_falls_from_one_to_zero():
    factors = curve("cae", lr_schedule="cosine", num_epoch=8)
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(80) / 80))
    np.testing.assert_allclose(factors, expected, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_ramp_rises_step_by_step_to_one(schedule):
    factors = curve("cae", lr_schedule=schedule, lr_ramp_epochs=2, num_epoch=6)
    np.testing.assert_allclose(factors[:20], np.arange(20) / 20, atol=1e-6)
    assert factors[20] == 1
    rest = np.ones(40) if schedule == "constant" else 0.5 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(factors[20:], rest, atol=1e-6)


def test_the_schedule_of_the_cnn_starts_after_warmup():
    changes = {"lr_schedule": "cosine", "lr_ramp_epochs": 1}
    late = curve("cnn", only_train_cae_until=3, num_epoch=9, **changes)
    alone = curve("cnn", only_train_cae_until=0, num_epoch=6, **changes)
    np.testing.assert_allclose(late[30:], alone, atol=1e-6)
    of_cae = curve("cae", only_train_cae_until=3, num_epoch=9, **changes)
    np.testing.assert_allclose(of_cae, curve("cae", num_epoch=9, kind="cae", **changes), atol=1e-6)


def test_an_epochs_factors_depend_on_nothing_before_it():
    config = tiny_config("mixed", lr_schedule="cosine", num_epoch=7)
    first = optimizers.lr_factors(config, 5, STEPS)
    optimizers.lr_factors(config, 1, STEPS)
    again = optimizers.lr_factors(config, 5, STEPS)
    assert all(np.array_equal(first[part], again[part]) for part in first)
    # The counter-check: other epochs differ.
    assert not np.array_equal(first["cnn"], optimizers.lr_factors(config, 6, STEPS)["cnn"])


@pytest.mark.parametrize(("kind", "parts"), [("cae", {"cae"}), ("cnn", {"cnn"})])
def test_only_parts_that_train_have_factors(kind, parts):
    assert set(optimizers.lr_factors(tiny_config(kind), 1, STEPS)) == parts


def test_a_run_of_the_greatest_length_has_a_schedule():
    config = tiny_config("cnn", lr_schedule="cosine", num_epoch=1_000_000, lr_ramp_epochs=10)
    factors = optimizers.lr_factors(config, 500_005, 50_000)["cnn"]
    np.testing.assert_allclose(factors, 0.5, atol=1e-4)


def test_a_warmup_as_long_as_the_run_is_no_error():
    config = tiny_config("mixed", lr_schedule="cosine", num_epoch=2, only_train_cae_until=2)
    assert np.isfinite(optimizers.lr_factors(config, 2, STEPS)["cnn"]).all()


def test_steps_fall_after_their_milestones():
    # The long-tailed recipe: 5 epochs of ramp, a hundredth after 160, a ten-thousandth after 180.
    changes = {"lr_milestones": (160, 180), "lr_factors": (0.01, 0.0001), "lr_ramp_epochs": 5}
    factors = curve("cnn", kind="cnn", lr_schedule="step", num_epoch=200, **changes)
    by_epoch = factors.reshape(200, STEPS)
    np.testing.assert_allclose(by_epoch[:5].ravel(), np.arange(50) / 50, atol=1e-6)
    assert (by_epoch[5:160] == 1).all()
    assert (by_epoch[160:180] == np.float32(0.01)).all()
    assert (by_epoch[180:] == np.float32(0.0001)).all()


def test_each_part_has_its_own_adam():
    config = tiny_config("mixed")
    config.cae.opt.lr, config.cnn.opt.betas = 0.5, (0.5, 0.9)
    gradient = jnp.array([0.25, -4.0])

    def two_steps(part):
        optimizer = optimizers.make(optimizers.settings(config[part].opt))
        state = optimizer.init(jnp.zeros(2))
        moves = []
        for scale in (1.0, 3.0):
            move, state = optimizer.update(scale * gradient, state)
            moves.append(np.asarray(move))
        return moves

    sign = np.sign(gradient)
    for part, lr, (b1, b2) in (("cae", 0.5, (0.0, 0.999)), ("cnn", 1e-2, (0.5, 0.9))):
        first, second = two_steps(part)
        np.testing.assert_allclose(first, -lr * sign, rtol=1e-5)
        mean = ((1 - b1) * b1 + (1 - b1) * 3) / (1 - b1**2)
        square = ((1 - b2) * b2 + (1 - b2) * 9) / (1 - b2**2)
        np.testing.assert_allclose(second, -lr * sign * mean / np.sqrt(square), rtol=1e-4)


def test_a_learning_rate_may_be_a_large_whole_number():
    config = tiny_config("cae")
    with config.ignore_type():
        config.cae.opt.lr = 2**40
    optimizer = optimizers.make(optimizers.settings(config.cae.opt))
    move, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)))
    np.testing.assert_allclose(move, [-(2.0**40)] * 2, rtol=1e-5)


PARAMS = {
    "conv": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])},
    "norm": {"scale": jnp.array([1.5]), "bias": jnp.array([-1.0])},
}
GRADIENTS = {
    "conv": {"kernel": jnp.array([[0.3, 0.1]]), "bias": jnp.array([-0.2])},
    "norm": {"scale": jnp.array([0.4]), "bias": jnp.array([0.05])},
}


def moves(optimizer, number=3):
    """The parameters after each of some steps of the same gradient."""
    chain, params, found = optimizers.make(optimizer), PARAMS, []
    state = chain.init(params)
    for _ in range(number):
        updates, state = chain.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params)
    return found


def torch_like(optimizer, parameter, gradient, *, decays, number=3):
    """The rules of torch.optim.Adam, AdamW and SGD as their documentation writes them."""
    value, mean, square = float(parameter), 0.0, 0.0
    (b1, b2), lr = optimizer.betas, optimizer.lr
    decay = optimizer.weight_decay if decays else 0.0
    for step in range(1, number + 1):
        g = float(gradient)
        if optimizer.name == "adamw":
            value -= lr * decay * value
        else:
            g += decay * value
        if optimizer.name == "sgd":
            mean = optimizer.momentum * mean + g
            value -= lr * (g + optimizer.momentum * mean if optimizer.nesterov else mean)
        else:
            mean, square = b1 * mean + (1 - b1) * g, b2 * square + (1 - b2) * g * g
            value -= lr * mean / (1 - b1**step) / (np.sqrt(square / (1 - b2**step)) + 1e-8)
    return value


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.Optimizer("adam", 0.1, (0.9, 0.99), weight_decay=0.3),
        optimizers.Optimizer("adamw", 0.1, (0.9, 0.99), weight_decay=0.3),
        optimizers.Optimizer("sgd", 0.1, weight_decay=0.3),
        optimizers.Optimizer("sgd", 0.1, momentum=0.9, weight_decay=0.3),
        optimizers.Optimizer("sgd", 0.1, momentum=0.9, nesterov=True, weight_decay=0.3),
    ],
)
def test_each_rule_is_pytorchs_and_decays_kernels_alone(optimizer):
    last = moves(optimizer)[-1]
    for layer, name in (("conv", "kernel"), ("conv", "bias"), ("norm", "scale"), ("norm", "bias")):
        expected = torch_like(
            optimizer,
            PARAMS[layer][name].ravel()[0],
            GRADIENTS[layer][name].ravel()[0],
            decays=name == "kernel",
        )
        assert float(last[layer][name].ravel()[0]) == pytest.approx(expected, rel=1e-4)


def test_the_default_is_the_very_adam_of_optax():
    default = optimizers.make(optimizers.Optimizer(lr=0.1, betas=(0.0, 0.999)))
    adam = optax.adam(0.1, b1=0.0, b2=0.999, eps=1e-8)
    state, expected = default.init(PARAMS), adam.init(PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for _ in range(3):
        updates, state = default.update(GRADIENTS, state, PARAMS)
        wanted, expected = adam.update(GRADIENTS, expected, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, (updates, state), (wanted, expected))


def test_clipping_bounds_the_norm_of_the_whole_part():
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(GRADIENTS)))
    for bound, scale in ((norm / 4, 0.25), (norm * 2, 1.0)):
        first = moves(optimizers.Optimizer("sgd", 1.0, clip_norm=float(bound)), 1)[0]
        moved = jax.tree.map(lambda after, before: before - after, first, PARAMS)
        jax.tree.map(
            lambda move, g, scale=scale: np.testing.assert_allclose(move, scale * g, rtol=1e-4),
            moved,
            GRADIENTS,
        )


def test_optimizers_of_equal_numbers_are_equal():
    config = tiny_config("mixed")
    one, other = optimizers.settings(config.cnn.opt), optimizers.settings(config.cae.opt)
    assert one == other and hash(one) == hash(other)


def test_an_average_soon_forgets_the_start_and_then_decays_as_told():
    average = optimizers.first_average({"w": jnp.array(100.0)}, {"m": jnp.array(7.0)})
    expected, weights = 100.0, [1.0, 2.0, 3.0, 2.0, 1.0, 0.0] * 10
    for t, weight in enumerate(weights):
        decay = min(0.6, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * weight
        average = optimizers.next_average(
            average, {"w": jnp.array(weight)}, {"m": jnp.array(7.0)}, 0.6
        )
    assert float(average.params["w"]) == pytest.approx(expected, rel=1e-5)
    assert float(average.batch_stats["m"]) == 7.0 and int(average.num_steps) == 60
    plain = 0.0
    for weight in weights:
        plain = 0.6 * plain + 0.4 * weight
    assert expected == pytest.approx(plain, abs=1e-5)  # nothing of the 100 is left
