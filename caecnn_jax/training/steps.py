"""One training step and one evaluation step, as pure functions, and the state that they train.

B: images of a batch. A batch is {"image": float [B, H, W, C] channel-normalised, "label": int [B]}
with, where images are padding, "mask": bool [B], False for those.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import optax

from caecnn_jax.networks import models

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
PyTree = Any


class Adam(NamedTuple):
    """Adam as PyTorch's: eps 1e-8 outside the root."""

    lr: float
    betas: tuple[float, float]

    def transformation(self) -> optax.GradientTransformation:
        """The optimizer that these numbers describe."""
        return optax.adam(self.lr, b1=self.betas[0], b2=self.betas[1], eps=1e-8)


class Recipe(NamedTuple):
    """What is minimised and how, in numbers alone: jit takes it as static and compares by value."""

    optimizers: tuple[tuple[str, Adam], ...]  # (part, its optimizer), of the parts that are trained
    reconstruction_weight: float = 1.0  # of the mean squared error
    logit_adjustment: float = 0.0  # tau of Menon et al. (2021)


def make_recipe(config: ml_collections.ConfigDict) -> Recipe:
    """The recipe that a validated config describes."""
    parts = [part for part, used in (("cae", config.use_cae), ("cnn", config.use_cnn)) if used]
    opts = {part: config[part].opt for part in parts}
    return Recipe(
        optimizers=tuple(
            (part, Adam(float(opt.lr), tuple(map(float, opt.betas)))) for part, opt in opts.items()
        ),
        reconstruction_weight=float(config.cae.loss_weight),
        logit_adjustment=float(config.cnn.logit_adjustment),
    )


class Moment(NamedTuple):
    """Where in its run a step is, in traced numbers: nothing compiles anew as they change."""

    lr_factors: Mapping[str, jax.Array]  # float [] of each part, multiply its learning rate
    joint_epoch: jax.Array | int = 1  # counts the epochs in which the CNN trains, from 1


@flax.struct.dataclass
class TrainState:
    """All that training changes, each entry keyed by part ("cae", "cnn"), and what changes it."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    class_counts: jax.Array | None  # int [K]: of the images that an epoch visits, never changed
    model: models.Classifier = flax.struct.field(pytree_node=False)
    recipe: Recipe = flax.struct.field(pytree_node=False)

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the model is applied to."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def arrays(self) -> dict[str, PyTree]:
        """What is saved of it."""
        return {"variables": self.variables, "opt_state": self.opt_state}


def _init(model: models.Classifier, key: jax.Array) -> PyTree:
    cae_or_cnn = model.cae or model.cnn
    return model.init(key, jnp.zeros((1, *model.image_shape), cae_or_cnn.param_dtype))


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
    *,
    class_counts: jax.Array | None = None,
) -> TrainState:
    """The state before the first step, from `key` or from given {"params", "batch_stats"}.

    `class_counts` int [K] are the images of each class that an epoch visits; a loss that corrects
    for rare classes needs them.
    """
    if variables is None:
        # Only an outermost jit takes options; where shapes alone are asked for, none is needed.
        init = _init if isinstance(key, jax.core.Tracer) else _compiled_init()
        variables = init(model, key)
    recipe = make_recipe(config)
    opt_state = {
        part: optimizer.transformation().init(variables["params"][part])
        for part, optimizer in recipe.optimizers
    }
    arrays = {"variables": variables, "opt_state": opt_state}
    return restore_state(model, recipe, arrays, class_counts=class_counts)


def restore_state(
    model: models.Classifier,
    recipe: Recipe,
    arrays: Mapping[str, PyTree],
    *,
    class_counts: jax.Array | None,
) -> TrainState:
    """The state whose `arrays` these were."""
    variables = arrays["variables"]
    return TrainState(
        params=dict(variables["params"]),
        batch_stats=dict(variables["batch_stats"]),
        opt_state=dict(arrays["opt_state"]),
        class_counts=class_counts,
        model=model,
        recipe=recipe,
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


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of each image, float [B], from logits [B, K] and int labels [B]."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # Not optax's ..._with_integer_labels: its gather of a number an image costs a TPU seven
    # operations. All terms but one are 0, so that the sum is exact.
    is_label = labels[:, None] == jnp.arange(logits.shape[-1])[None]
    return jax.nn.logsumexp(logits, axis=-1) - jnp.where(is_label, logits, 0).sum(-1)


def classification(
    logits: jax.Array, labels: jax.Array, class_counts: jax.Array | None, tau: float
) -> jax.Array:
    """The logit-adjusted cross-entropy of each image, float [B]: of logits + tau log p(class).

    Menon et al. (2021, "Long-tail learning via logit adjustment", equation 10).
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if tau:
        shares = class_counts.astype(logits.dtype) / class_counts.sum()
        logits += tau * jnp.log(shares)[None]
    return cross_entropy(logits, labels)


def losses(
    outputs: models.Outputs,
    batch: Batch,
    mask: jax.Array,
    classification: Callable[[jax.Array, jax.Array], jax.Array] = cross_entropy,
) -> Metrics:
    """{"loss_cae", "loss_cnn"}, batch means over the images in the mask; nan for an absent part.

    `classification` gives each image's loss from logits [B, K] and labels [B].
    """
    metrics = {"loss_cae": jnp.nan, "loss_cnn": jnp.nan}
    if outputs.reconstruction is not None:
        error = reconstruction_error(batch["image"], outputs.reconstruction)
        metrics["loss_cae"] = masked_mean(error, mask)
    if outputs.logits is not None:
        metrics["loss_cnn"] = masked_mean(classification(outputs.logits, batch["label"]), mask)
    return metrics


def objective(outputs: models.Outputs, metrics: Metrics, recipe: Recipe) -> jax.Array:
    """What training minimises: the weighted sum of the losses that there are."""
    total = 0.0
    if outputs.reconstruction is not None:
        total += recipe.reconstruction_weight * metrics["loss_cae"]
    if outputs.logits is not None:
        total += metrics["loss_cnn"]
    return total


def batch_mask(batch: Batch) -> jax.Array:
    """The batch's mask bool [B], all True where it has none."""
    return batch.get("mask", jnp.ones(batch["image"].shape[0], bool))


@functools.partial(jax.jit, static_argnames="joint")
def train_step(
    state: TrainState, batch: Batch, joint: bool = True, moment: Moment | None = None
) -> tuple[TrainState, Metrics]:
    """One update. `joint=False` (warm-up) masks the classification term: only the CAE trains.

    Then nothing of the CNN is run or moved: parameters, running averages, Adam's moments and count.
    Without a `moment` the learning rates are the recipe's. Metrics: {"loss_cae", "loss_cnn"}, batch
    means before the update.
    """
    mask = batch_mask(batch)
    trained = [part for part in state.params if joint or part == "cae"]
    tau = state.recipe.logit_adjustment
    classify = functools.partial(classification, class_counts=state.class_counts, tau=tau)

    def loss(params):
        outputs, updates = state.model.apply(
            {"params": state.params | params, "batch_stats": state.batch_stats},
            batch["image"],
            train=True,
            mask=mask,
            joint=joint,
            mutable="batch_stats",
        )
        metrics = losses(outputs, batch, mask, classify)
        return objective(outputs, metrics, state.recipe), (metrics, updates["batch_stats"])

    trained_params = {part: state.params[part] for part in trained}
    gradients, (metrics, batch_stats) = jax.grad(loss, has_aux=True)(trained_params)
    params, opt_state = dict(state.params), dict(state.opt_state)
    optimizers = dict(state.recipe.optimizers)
    for part in trained:
        updates, opt_state[part] = (
            optimizers[part]
            .transformation()
            .update(gradients[part], state.opt_state[part], params[part])
        )
        if moment is not None:
            updates = optax.tree.scale(moment.lr_factors[part], updates)
        params[part] = optax.apply_updates(params[part], updates)
    state = state.replace(
        params=params,
        batch_stats=state.batch_stats | batch_stats,
        opt_state=opt_state,
    )
    return state, metrics


@functools.partial(jax.jit, static_argnames=("model", "joint"))
def outputs(
    model: models.Classifier, variables: PyTree, images: jax.Array, joint: bool = True
) -> models.Outputs:
    """What the networks give for normalised images [B, H, W, C], by the running averages.

    `joint=False` leaves the CNN out.
    """
    return model.apply(variables, images, joint=joint)


def eval_step(state: TrainState, batch: Batch, joint: bool = True) -> models.Outputs:
    """`outputs` of a state's networks for a batch."""
    return outputs(state.model, state.variables, batch["image"], joint)
