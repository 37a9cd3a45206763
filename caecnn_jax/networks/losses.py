"""What training minimises, as pure functions, and the corrections for rare classes.

B: images of a batch; K: classes; n_c: images of class c that an epoch visits, n their sum. All is
computed in float32 at least, whatever the precision of the networks' outputs.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from caecnn_jax import backend

Counts = jax.Array | None  # int or float [K]; None where the loss needs none


class Loss(NamedTuple):
    """The classification's loss: config.cnn.loss as numbers, which jit can hold static."""

    name: str = "cross_entropy"  # cross_entropy | focal | ldam
    class_weights: str = "none"  # none | inverse | effective
    effective_beta: float = 0.9999
    focal_gamma: float = 1.0
    ldam_margin: float = 0.5  # the largest margin
    ldam_scale: float = 30.0
    label_smoothing: float = 0.0
    deferred_until: int = 0  # joint epochs before class_weights count
    logit_adjustment: float = 0.0  # tau

    @property
    def needs_counts(self) -> bool:
        """Whether it depends on how many images the classes have."""
        return bool(self.name == "ldam" or self.class_weights != "none" or self.logit_adjustment)


CROSS_ENTROPY = Loss()


class PostHoc(NamedTuple):
    """What `post_hoc` takes, as numbers that jit can hold static; nothing by default."""

    class_counts: tuple[int, ...] = ()  # as training saw them
    tau: float = 0.0
    temperature: float = 1.0


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the images where `mask` bool [B] is True, of values float [B]; 0 if there is none.

    Computed in float32 at least, whatever the values' precision.
    """
    return jnp.where(mask, _wide(values), 0).sum() / jnp.maximum(mask.sum(), 1)


def reconstruction_error(images: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """Squared error of each image, float [B], a mean over its pixels and channels."""
    error = (reconstruction.astype(images.dtype) - images).reshape(images.shape[0], -1)
    return jnp.square(error).mean(axis=1)


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each image, float [B], from logits [B, K] and int labels [B].

    The target is 1 - `label_smoothing` for the true class and `label_smoothing` spread evenly over
    all K, the true one included (Szegedy et al. 2016, "Rethinking the Inception architecture for
    computer vision", section 7; PyTorch's CrossEntropyLoss).
    """
    logits = _wide(logits)
    hard = jax.nn.logsumexp(logits, axis=-1) - _of_labels(logits, labels)
    if not label_smoothing:
        return hard
    spread = jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)
    return (1 - label_smoothing) * hard + label_smoothing * spread


def focal(logits: jax.Array, labels: jax.Array, gamma: float) -> jax.Array:
    """(1 - p)^gamma times the cross-entropy, p the true class's probability, float [B].

    Lin et al. 2017, "Focal loss for dense object detection", equation 4, in the softmax form that
    long-tailed learning compares with (FocalLoss in losses.py of Cao et al.'s LDAM-DRW).
    """
    error = cross_entropy(logits, labels)
    # Kept above 0, where a power's slope may be infinite: what is multiplied by it is 0 there.
    missed = jnp.maximum(-jnp.expm1(-error), jnp.finfo(error.dtype).tiny)
    return missed**gamma * error


def ldam_logits(
    logits: jax.Array, labels: jax.Array, class_counts: Counts, *, margin: float, scale: float
) -> jax.Array:
    """Logits [B, K] whose true class has lost its margin, then all times `scale`.

    The margin of class c is `margin` n_c^(-1/4) / max n^(-1/4): Cao et al. 2019, "Learning
    imbalanced datasets with label-distribution-aware margin loss", and LDAMLoss in losses.py of
    their LDAM-DRW. The logits are the cosine head's, from -1 to 1. A class without images
    has no margin.
    """
    logits = _wide(logits)
    counts = jnp.asarray(class_counts, logits.dtype)
    roots = jnp.where(counts > 0, jnp.maximum(counts, 1) ** -0.25, 0)
    margins = margin * roots / roots.max()
    true = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return scale * (logits - true * margins[None])


def class_weights(kind: str, class_counts: Counts, beta: float, *, dtype=jnp.float32) -> jax.Array:
    """A weight for each class, float [K]; 1 for a class without images, which nothing trains.

    "inverse": n / (K n_c), so that the images' mean weight is 1 (King and Zeng 2001, "Logistic
    regression in rare events data"; scikit-learn's class_weight="balanced").
    "effective": (1 - beta) / (1 - beta^n_c), scaled to the sum K (Cui et al. 2019, "Class-balanced
    loss based on effective number of samples", and src/cifar_main.py of their code).
    K counts the classes that have images.
    """
    counts = jnp.asarray(class_counts, dtype)
    present = counts > 0
    some = jnp.maximum(counts, 1)
    if kind == "inverse":
        weights = counts.sum() / (present.sum() * some)
    else:
        # 1 - beta^n reckoned as written would lose digits in float32 where beta is near 1.
        weights = jnp.where(present, (1 - beta) / -jnp.expm1(some * math.log(beta)), 0)
        weights *= present.sum() / weights.sum()
    return jnp.where(present, weights, 1)


def log_prior(class_counts: Counts, dtype) -> jax.Array:
    """log(n_c / n), float [K]; a class without images counts as one with one image."""
    counts = jnp.maximum(jnp.asarray(class_counts, dtype), 1)
    return jnp.log(counts / counts.sum())


def classification(
    logits: jax.Array,
    labels: jax.Array,
    class_counts: Counts,
    loss: Loss,
    joint_epoch: jax.Array | int = 1,
) -> jax.Array:
    """The loss of each image, float [B], from logits [B, K] and int labels [B].

    `class_counts` int or float [K]: images of each class that an epoch visits, so that what was
    drawn more often is not corrected twice; may be None where `loss.needs_counts` is False. `loss`
    may be a config.cnn.loss too. `joint_epoch` 1, 2, ... may be traced: class weights count where
    it is above `deferred_until` (deferred reweighting, DRW: Cao et al. 2019).

    Logit adjustment adds tau log(n_c / n) to the logits, in training alone: Menon et al. 2021,
    "Long-tail learning via logit adjustment", equation 10; with tau 1 the balanced softmax of Ren
    et al. 2020, "Balanced meta-softmax". LDAM's margin and scale come before it,
    focal's power and the weights after it. Weights are not normalised here: see `mean_weight`.
    """
    logits, labels = _wide(logits), jnp.asarray(labels)
    if loss.name == "ldam":
        logits = ldam_logits(
            logits, labels, class_counts, margin=loss.ldam_margin, scale=loss.ldam_scale
        )
    if loss.logit_adjustment:
        logits += loss.logit_adjustment * log_prior(class_counts, logits.dtype)[None]
    if loss.name == "focal":
        error = focal(logits, labels, loss.focal_gamma)
    else:
        error = cross_entropy(logits, labels, loss.label_smoothing)
    if loss.class_weights == "none":
        return error
    return _image_weights(labels, class_counts, loss, joint_epoch, error.dtype) * error


def mean_weight(
    labels: jax.Array,
    mask: jax.Array,
    class_counts: Counts,
    loss: Loss,
    joint_epoch: jax.Array | int = 1,
    *,
    partners: jax.Array | None = None,
    share: jax.Array | float = 1.0,
    dtype=jnp.float32,
) -> jax.Array | float:
    """The mean of the weights that `classification` multiplies a batch's losses by.

    Training divides by it, as PyTorch's weighted mean, which Cui et al.'s and Cao et al.'s code
    takes: weights shift what counts and leave the size of steps as it was, whatever classes a batch
    happens to hold. Of images in the `mask` bool [B]; 1 where there is none. `partners` and `share`
    as in `mixed_classification`.
    """
    if loss.class_weights == "none":
        return 1.0
    weights = _image_weights(labels, class_counts, loss, joint_epoch, dtype)
    if partners is not None:
        weights = share * weights + (1 - share) * weights[partners]
    return jnp.where(mask.any(), masked_mean(weights, mask), 1)


def _image_weights(
    labels: jax.Array, class_counts: Counts, loss: Loss, joint_epoch: jax.Array | int, dtype
) -> jax.Array:
    """The weight of each image's class in this joint epoch, float [B]."""
    weights = class_weights(loss.class_weights, class_counts, loss.effective_beta, dtype=dtype)
    if loss.deferred_until:
        weights = jnp.where(joint_epoch > loss.deferred_until, weights, 1)
    return _of_labels(jnp.broadcast_to(weights, (len(labels), len(weights))), labels)


def mixed_classification(
    logits: jax.Array,
    labels: jax.Array,
    partners: jax.Array,
    share: jax.Array,
    class_counts: Counts,
    loss: Loss,
    joint_epoch: jax.Array | int = 1,
) -> jax.Array:
    """`classification` of images that `augment.mixup` mixed, float [B].

    share L(label) + (1 - share) L(the partner's label): Zhang et al. 2018, "mixup: Beyond empirical
    risk minimization", and mixup_criterion in train.py of their code.
    """
    own = classification(logits, labels, class_counts, loss, joint_epoch)
    other = classification(logits, labels[partners], class_counts, loss, joint_epoch)
    share = share.astype(own.dtype)
    return share * own + (1 - share) * other


def scores(logits: jax.Array, loss: Loss, correction: PostHoc | None = None) -> jax.Array:
    """The logits [B, K] whose softmax are the probabilities that this loss trained, corrected.

    LDAM trains cosines times its scale; what scale they have does not change the order of classes.
    """
    if loss.name == "ldam":
        logits = loss.ldam_scale * logits
    return logits if correction is None else post_hoc(logits, **correction._asdict())


def post_hoc(
    logits: jax.Array,
    class_counts: Counts,
    tau: float = 0.0,
    temperature: float = 1.0,
) -> jax.Array:
    """Corrected logits [B, K] of a trained network: logits / temperature - tau log(n_c / n).

    Menon et al. 2021, equation 9; the temperature, fitted on images whose classes are as frequent
    as in training (Guo et al. 2017, "On calibration of modern neural networks", section 4.2), comes
    first, so that what is divided out is the prior of calibrated probabilities.
    """
    logits = _wide(logits)
    if temperature != 1:
        logits = logits / temperature
    if tau:
        logits -= tau * log_prior(class_counts, logits.dtype)[None]
    return logits


def verdicts(logits: jax.Array) -> dict[str, jax.Array]:
    """What logits [B, K] say of each image.

    {"predicted": int32 [B], "confidence": float [B]}: the class of the greatest probability of
    their softmax, and that probability.
    """
    logits = _wide(logits)
    confidence = jnp.exp(logits.max(axis=-1) - jax.nn.logsumexp(logits, axis=-1))
    return {"predicted": logits.argmax(axis=-1).astype(jnp.int32), "confidence": confidence}


def _wide(values: jax.Array) -> jax.Array:
    """The values in float32 at least."""
    values = jnp.asarray(values)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _of_labels(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit [B] of each image's label, of logits [B, K] and int labels [B].

    A gather of a number an image costs a TPU seven operations; all terms of the sum but one are 0,
    so that it is exact.
    """
    if not backend.use_plain():
        return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    return jnp.where(is_label, logits, 0).sum(-1)
