"""One training step and one evaluation step, as pure functions, and the state that they train.

B: images of a batch. A batch is {"image": float [B, H, W, C] channel-normalised, "label": int [B]}
with, where images are padding, "mask": bool [B], False for those.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from caecnn_jax.data import cifar, sampling
from caecnn_jax.networks import models

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
PyTree = Any


@functools.cache
def adam(lr: float, betas: tuple[float, float]) -> optax.GradientTransformation:
    """Adam as PyTorch's: eps 1e-8 outside the root.

    Cached, since a state carries its optimizers and jit compiles anew for each new object.
    """
    return optax.adam(lr, b1=betas[0], b2=betas[1], eps=1e-8)


def make_optimizers(
    config: ml_collections.ConfigDict,
) -> Mapping[str, optax.GradientTransformation]:
    """The optimizer of each part that the config trains."""
    parts = [part for part, used in (("cae", config.use_cae), ("cnn", config.use_cnn)) if used]
    opts = {part: config[part].opt for part in parts}
    return flax.core.FrozenDict(
        {part: adam(float(opt.lr), tuple(map(float, opt.betas))) for part, opt in opts.items()}
    )


class Objective(NamedTuple):
    """What is minimised, beyond the plain sum of the two losses."""

    reconstruction_weight: float = 1.0  # of the mean squared error
    # Added to the logits, a number a class: the logit-adjusted cross-entropy of Menon et al. (2021,
    # "Long-tail learning via logit adjustment", equation 10) has a multiple of log p(class) here.
    logit_offsets: tuple[float, ...] | None = None


PLAIN_SUM = Objective()


def make_objective(config: ml_collections.ConfigDict) -> Objective:
    """What the config minimises."""
    offsets = None
    if config.cnn.logit_adjustment:
        prior = sampling.class_prior(config, cifar.CLASS_NAMES, cifar.CLASS_SIZE)
        offsets = tuple((config.cnn.logit_adjustment * np.log(prior)).tolist())
    return Objective(float(config.cae.loss_weight), offsets)


@flax.struct.dataclass
class TrainState:
    """All that training changes, each entry keyed by part ("cae", "cnn"), and what changes it."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    model: models.Classifier = flax.struct.field(pytree_node=False)
    optimizers: Mapping[str, optax.GradientTransformation] = flax.struct.field(pytree_node=False)
    objective: Objective = flax.struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model is applied to."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def _init(model: models.Classifier, key: jax.Array) -> PyTree:
    cae_or_cnn = model.cae or model.cnn
    return model.init(key, jnp.zeros((1, 32, 32, 3), cae_or_cnn.param_dtype))


@functools.cache
def _compiled_init():
    """`_init` jitted. It runs once, but XLA for CPU optimises its random numbers for 10 seconds."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = options if jax.default_backend() == "cpu" else {}
    return jax.jit(_init, static_argnums=0, compiler_options=options)


def create_state(
    model: models.Classifier,
    config: ml_collections.ConfigDict,
    key: jax.Array,
    variables: Mapping[str, PyTree] | None = None,
) -> TrainState:
    """The state before the first step, from `key` or from given {"params", "batch_stats"}."""
    if variables is None:
        # Only an outermost jit takes options; where shapes alone are asked for, none is needed.
        init = _init if isinstance(key, jax.core.Tracer) else _compiled_init()
        variables = init(model, key)
    optimizers = make_optimizers(config)
    opt_state = {part: optimizers[part].init(variables["params"][part]) for part in optimizers}
    return restore_state(model, config, variables, opt_state)


def restore_state(
    model: models.Classifier,
    config: ml_collections.ConfigDict,
    variables: Mapping[str, PyTree],
    opt_state: PyTree,
) -> TrainState:
    """The state that had these variables and this optimizer state."""
    return TrainState(
        params=dict(variables["params"]),
        batch_stats=dict(variables["batch_stats"]),
        opt_state=dict(opt_state),
        model=model,
        optimizers=make_optimizers(config),
        objective=make_objective(config),
    )


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the images where `mask` bool [B] is True, of values float [B]; 0 if there is none.

    Computed in float32 at least, whatever the values' precision.
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1)


def reconstruction_error(images: jax.Array, reconstruction: jax.Array) -> jax.Array:
    """Squared error of each image, float [B], a mean over its pixels and channels."""
    error = (reconstruction.astype(images.dtype) - images).reshape(images.shape[0], -1)
    return jnp.square(error).mean(axis=1)


def cross_entropy(
    logits: jax.Array, labels: jax.Array, offsets: tuple[float, ...] | None = None
) -> jax.Array:
    """Cross-entropy of each image, float [B], from logits [B, 10] and int labels [B].

    `offsets`, a number a class, are added to the logits.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if offsets is not None:
        logits += jnp.asarray(offsets, logits.dtype)[None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def losses(
    outputs: models.Outputs, batch: Batch, mask: jax.Array, objective: Objective = PLAIN_SUM
) -> tuple[jax.Array, Metrics]:
    """What is minimised, and its two terms as batch means (nan for an absent part).

    The terms are without the objective's weight, and with its logit offsets.
    """
    total, metrics = 0.0, {"loss_cae": jnp.nan, "loss_cnn": jnp.nan}
    if outputs.reconstruction is not None:
        error = reconstruction_error(batch["image"], outputs.reconstruction)
        metrics["loss_cae"] = masked_mean(error, mask)
        total += objective.reconstruction_weight * metrics["loss_cae"]
    if outputs.logits is not None:
        error = cross_entropy(outputs.logits, batch["label"], objective.logit_offsets)
        metrics["loss_cnn"] = masked_mean(error, mask)
        total += metrics["loss_cnn"]
    return total, metrics


def batch_mask(batch: Batch) -> jax.Array:
    """The batch's mask bool [B], all True where it has none."""
    return batch.get("mask", jnp.ones(batch["image"].shape[0], bool))


@functools.partial(jax.jit, static_argnames="joint")
def train_step(
    state: TrainState,
    batch: Batch,
    joint: bool = True,
    lr_factors: Mapping[str, jax.Array] | None = None,
) -> tuple[TrainState, Metrics]:
    """One update. `joint=False` (warm-up) masks the classification term: only the CAE trains.

    Then nothing of the CNN is run or moved: parameters, running averages, Adam's moments and count.
    `lr_factors`, a float [] for each part, multiply the learning rates. Metrics: {"loss_cae",
    "loss_cnn"}, batch means before the update.
    """
    mask = batch_mask(batch)
    trained = [part for part in state.params if joint or part == "cae"]

    def loss(params):
        outputs, updates = state.model.apply(
            {"params": state.params | params, "batch_stats": state.batch_stats},
            batch["image"],
            train=True,
            mask=mask,
            joint=joint,
            mutable="batch_stats",
        )
        total, metrics = losses(outputs, batch, mask, state.objective)
        return total, (metrics, updates["batch_stats"])

    trained_params = {part: state.params[part] for part in trained}
    gradients, (metrics, batch_stats) = jax.grad(loss, has_aux=True)(trained_params)
    params, opt_state = dict(state.params), dict(state.opt_state)
    for part in trained:
        updates, opt_state[part] = state.optimizers[part].update(
            gradients[part], state.opt_state[part], params[part]
        )
        if lr_factors is not None:
            updates = optax.tree.scale(lr_factors[part], updates)
        params[part] = optax.apply_updates(params[part], updates)
    state = state.replace(
        params=params,
        batch_stats=state.batch_stats | batch_stats,
        opt_state=opt_state,
    )
    return state, metrics


@functools.partial(jax.jit, static_argnames="joint")
def eval_step(state: TrainState, batch: Batch, joint: bool = True) -> models.Outputs:
    """The networks' outputs by the running averages; `joint=False` leaves the CNN out."""
    return state.model.apply(state.variables, batch["image"], joint=joint)
