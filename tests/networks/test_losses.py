"""Tests of caecnn_jax.networks.losses, each loss against its formula in NumPy's float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special
from sklearn.utils import class_weight

from caecnn_jax.data import augment
from caecnn_jax.networks import losses

COUNTS = np.array([5000, 387, 50, 7])
rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 3, (40, 4)).astype(np.float32)
COSINES = rng.uniform(-1, 1, (40, 4)).astype(np.float32)
LABELS = rng.integers(0, 4, 40)


def log_p(logits):
    return special.log_softmax(np.asarray(logits, np.float64), axis=1)


def true(values):
    return values[np.arange(len(LABELS)), LABELS]


def loss_of(logits=LOGITS, counts=COUNTS, joint_epoch=1, **fields):
    loss = losses.Loss(**fields)
    return np.asarray(losses.classification(logits, LABELS, counts, loss, joint_epoch))


def test_the_default_is_optaxs_cross_entropy_and_nothing_more():
    plain = jax.make_jaxpr(losses.cross_entropy)(LOGITS, LABELS)
    ours = jax.make_jaxpr(
        lambda logits, labels: losses.classification(logits, labels, None, losses.Loss())
    )(LOGITS, LABELS)
    assert str(ours) == str(plain)
    expected = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
    np.testing.assert_allclose(loss_of(counts=None), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(expected, -true(log_p(LOGITS)), rtol=1e-5, atol=1e-6)


def test_label_smoothing_spreads_a_share_over_all_classes():
    target = 0.9 * np.eye(4)[LABELS] + 0.1 / 4
    expected = -(target * log_p(LOGITS)).sum(axis=1)
    np.testing.assert_allclose(loss_of(label_smoothing=0.1), expected, rtol=1e-5)


def test_focal_is_the_cross_entropy_of_what_is_missed():
    for gamma in (0.5, 1.0, 2.0):
        error = -true(log_p(LOGITS))
        expected = (1 - np.exp(-error)) ** gamma * error
        np.testing.assert_allclose(
            loss_of(name="focal", focal_gamma=gamma), expected, rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(
        loss_of(name="focal", focal_gamma=0.0), loss_of(counts=None), rtol=1e-6
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
def test_focal_has_a_finite_slope_where_the_class_is_certain(gamma):
    logits = jnp.array([[200.0, 0.0], [0.0, 200.0], [0.0, 0.0]])
    slope = jax.grad(lambda z: losses.focal(z, jnp.zeros(3, int), gamma).sum())(logits)
    assert np.isfinite(slope).all() and slope[0, 0] == 0 and slope[2, 0] < 0


def test_inverse_weights_are_scikit_learns_balanced_ones():
    expected = class_weight.compute_class_weight(
        "balanced", classes=np.arange(4), y=np.repeat(np.arange(4), COUNTS)
    )
    got = losses.class_weights("inverse", COUNTS, 0.9999)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    error = -true(log_p(LOGITS))
    np.testing.assert_allclose(
        loss_of(class_weights="inverse"), expected[LABELS] * error, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("beta", [0.9, 0.9999, 0.999999])
def test_effective_weights_are_those_of_the_paper(beta):
    raw = (1 - beta) / (1 - np.power(beta, COUNTS.astype(np.float64)))
    expected = raw / raw.sum() * 4
    got = losses.class_weights("effective", COUNTS, beta)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert float(got.sum()) == pytest.approx(4)


@pytest.mark.parametrize("kind", ["inverse", "effective"])
def test_a_class_without_images_has_weight_one_and_changes_no_other(kind):
    with_it = losses.class_weights(kind, np.array([50, 0, 7, 200]), 0.999)
    without = losses.class_weights(kind, np.array([50, 7, 200]), 0.999)
    np.testing.assert_allclose(with_it, np.insert(without, 1, 1.0), rtol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"class_weights": "inverse"},
        {"class_weights": "effective"},
        {"name": "ldam"},
        {"logit_adjustment": 1.0},
        {"name": "focal", "class_weights": "effective", "logit_adjustment": 0.5},
    ],
)
def test_a_class_without_images_makes_nothing_infinite(fields):
    loss = losses.Loss(**fields)

    def total(logits):
        return losses.classification(logits, LABELS, np.array([50, 0, 7, 200]), loss).sum()

    value, slope = jax.value_and_grad(total)(COSINES)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_weights_wait_for_the_deferred_epoch_without_compiling_anew():
    fields = {"class_weights": "inverse", "deferred_until": 160}
    traces = []

    @jax.jit
    def at(epoch):
        traces.append(None)
        loss = losses.Loss(**fields)
        return losses.classification(LOGITS, LABELS, COUNTS, loss, epoch)

    plain, weighted = loss_of(), loss_of(class_weights="inverse")
    for epoch, expected in [(1, plain), (160, plain), (161, weighted)]:
        np.testing.assert_allclose(at(epoch), expected, rtol=1e-6)
    assert len(traces) == 1
    assert not np.allclose(plain, weighted)


def test_ldam_is_the_authors_loss():
    # LDAMLoss of LDAM-DRW: m = max_m / max(n^-1/4) n^-1/4; F.cross_entropy(s (x - m of true), y).
    margins = 1 / np.sqrt(np.sqrt(COUNTS))
    margins *= 0.5 / margins.max()
    shifted = 30 * (COSINES.astype(np.float64) - margins * np.eye(4)[LABELS])
    expected = -true(log_p(shifted))
    np.testing.assert_allclose(loss_of(COSINES, name="ldam"), expected, rtol=1e-4, atol=1e-5)
    assert margins[3] == 0.5  # the rarest class has the whole margin


def test_logit_adjustment_at_tau_one_is_the_balanced_softmax():
    # Ren et al. 2020: p = n_y exp(z_y) / sum n_c exp(z_c).
    weighed = COUNTS * np.exp(LOGITS.astype(np.float64))
    expected = -np.log(true(weighed) / weighed.sum(axis=1))
    np.testing.assert_allclose(loss_of(logit_adjustment=1.0), expected, rtol=1e-4, atol=1e-6)
    adjusted = LOGITS + 0.5 * np.log(COUNTS / COUNTS.sum())
    expected = -true(log_p(adjusted))
    np.testing.assert_allclose(loss_of(logit_adjustment=0.5), expected, rtol=1e-4, atol=1e-6)


def test_ldam_focal_weights_and_adjustment_combine():
    prior = np.log(COUNTS / COUNTS.sum())
    weights = COUNTS.sum() / (4 * COUNTS)
    error = -true(log_p(LOGITS + 0.7 * prior))
    expected = weights[LABELS] * (1 - np.exp(-error)) ** 2 * error
    got = loss_of(name="focal", focal_gamma=2.0, class_weights="inverse", logit_adjustment=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    margins = 0.2 * COUNTS**-0.25 / (COUNTS**-0.25).max()
    shifted = 10 * (COSINES - margins * np.eye(4)[LABELS]) + prior
    got = loss_of(COSINES, name="ldam", ldam_margin=0.2, ldam_scale=10.0, logit_adjustment=1.0)
    np.testing.assert_allclose(got, -true(log_p(shifted)), rtol=1e-4, atol=1e-5)


def test_plain_lists_and_numpys_float64_are_as_good_as_arrays():
    fields = {"name": "focal", "class_weights": "inverse", "logit_adjustment": 1.0}
    expected = loss_of(**fields)
    for given in (LOGITS.astype(np.float64), LOGITS.tolist()):
        loss = losses.Loss(**fields)
        got = losses.classification(given, LABELS.tolist(), COUNTS.tolist(), loss)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_low_precision_logits_are_widened_and_float64_stays():
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    assert loss_of(half, class_weights="effective").dtype == np.float32
    with jax.enable_x64(True):
        wide = losses.classification(
            jnp.asarray(LOGITS, jnp.float64),
            jnp.asarray(LABELS),
            jnp.asarray(COUNTS),
            losses.Loss(class_weights="effective", logit_adjustment=1.0),
        )
        raw = 1e-4 / (1 - 0.9999 ** COUNTS.astype(np.float64))
        expected = -true(log_p(LOGITS + np.log(COUNTS / COUNTS.sum())))
        expected *= (raw / raw.sum() * 4)[LABELS]
        np.testing.assert_allclose(wide, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({}, False),
        ({"name": "focal", "label_smoothing": 0.1}, False),
        ({"name": "ldam"}, True),
        ({"class_weights": "inverse"}, True),
        ({"logit_adjustment": 0.1}, True),
    ],
)
def test_a_loss_says_whether_it_needs_the_counts(fields, needs):
    assert losses.Loss(**fields).needs_counts is needs


def test_a_mean_leaves_padding_out_and_is_zero_over_nothing():
    values = jnp.array([1.0, jnp.nan, 3.0], jnp.float32)
    assert float(losses.masked_mean(values, jnp.array([True, False, True]))) == 2.0
    assert float(losses.masked_mean(values, jnp.zeros(3, bool))) == 0.0


def mixed(seed=0, mask=None, alpha=1.0, size=8):
    images = jnp.arange(size, dtype=jnp.float32)[:, None, None, None] * jnp.ones((size, 2, 2, 1))
    mask = jnp.ones(size, bool) if mask is None else mask
    made, partners, share = augment.mixup(jax.random.key(seed), images, alpha, mask)
    return np.asarray(images), np.asarray(made), np.asarray(partners), float(share)


def test_mixup_mixes_each_image_with_its_partner():
    images, made, partners, share = mixed()
    assert sorted(partners.tolist()) == list(range(8)) and 0 < share < 1
    np.testing.assert_allclose(made, share * images + (1 - share) * images[partners], rtol=1e-5)
    assert not np.array_equal(partners, mixed(seed=1)[2])


def test_mixup_leaves_padding_out_wherever_it_is():
    mask = jnp.array([True, False, True, True, False, True, True, False])
    for seed in range(20):
        _, _, partners, _ = mixed(seed, mask)
        assert sorted(partners[np.asarray(mask)].tolist()) == [0, 2, 3, 5, 6]
        assert sorted(partners[~np.asarray(mask)].tolist()) == [1, 4, 7]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixups_share_has_the_moments_of_the_beta_distribution(alpha):
    keys = jax.random.split(jax.random.key(0), 4000)
    one = jnp.zeros((2, 1, 1, 1))
    shares = jax.vmap(lambda key: augment.mixup(key, one, alpha, jnp.ones(2, bool))[2])(keys)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_the_loss_of_mixed_images_is_mixed_of_both_labels():
    partners = np.roll(np.arange(40), 3)
    loss = losses.Loss(class_weights="inverse")
    got = losses.mixed_classification(LOGITS, LABELS, partners, jnp.float32(0.3), COUNTS, loss)
    weights = COUNTS.sum() / (4 * COUNTS)
    error = -log_p(LOGITS) * weights
    row = np.arange(40)
    expected = 0.3 * error[row, LABELS] + 0.7 * error[row, LABELS[partners]]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_post_hoc_divides_by_the_temperature_and_takes_the_prior_out():
    prior = np.log(COUNTS / COUNTS.sum())
    got = losses.post_hoc(LOGITS, COUNTS, 1.5, temperature=2.0)
    np.testing.assert_allclose(got, LOGITS / 2 - 1.5 * prior, rtol=1e-5)
    assert np.array_equal(losses.post_hoc(LOGITS, None), LOGITS)


def test_the_scores_of_ldam_are_scaled_and_others_are_not():
    assert np.array_equal(losses.scores(COSINES, losses.Loss()), COSINES)
    np.testing.assert_allclose(
        losses.scores(COSINES, losses.Loss(name="ldam", ldam_scale=10.0)), 10 * COSINES
    )


def test_the_verdict_is_the_most_probable_class_and_its_probability():
    found = losses.verdicts(LOGITS)
    probabilities = np.exp(log_p(LOGITS))
    assert np.array_equal(found["predicted"], probabilities.argmax(axis=1))
    np.testing.assert_allclose(found["confidence"], probabilities.max(axis=1), rtol=1e-6)
