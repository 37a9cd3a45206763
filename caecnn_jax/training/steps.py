"""One training step and one evaluation step, as pure functions, and the state that they train.

B: images of a batch. A batch is {"image": float [B, H, W, C] channel-normalised, "label": int [B]}
with, where images are padding, "mask": bool [B], False for those, and, where images are mixed, what
`augment.mixup` gives: "partner": int [B] and "share": float [].
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from caecnn_jax.networks import losses as losses_lib
from caecnn_jax.networks import models
from caecnn_jax.training import optimizers

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
PyTree = Any


class Recipe(NamedTuple):
    """What is minimised and how, in numbers alone: jit takes it as static and compares by value."""

    optimizers: tuple[tuple[str, optimizers.Optimizer], ...]  # (part, its own), of those trained
    reconstruction_weight: float = 1.0  # of the mean squared error
    loss: losses_lib.Loss = losses_lib.Loss()
    ema_decay: float = 0.0  # of the averages of the weights; 0: there are none


def make_recipe(config: ml_collections.ConfigDict) -> Recipe:
    """The recipe that a validated config describes."""
    parts = [part for part, used in (("cae", config.use_cae), ("cnn", config.use_cnn)) if used]
    return Recipe(
        optimizers=tuple((part, optimizers.settings(config[part].opt)) for part in parts),
        reconstruction_weight=float(config.cae.loss_weight),
        loss=losses_lib.Loss(**config.cnn.loss),
        ema_decay=float(config.ema_decay),
    )


class Moment(NamedTuple):
    """Where in its run a step is, in traced numbers: nothing compiles anew as they change."""

    lr_factors: Mapping[str, jax.Array | np.ndarray]  # float [], multiply a part's learning rate
    joint_epoch: jax.Array | int = 1  # counts the epochs in which the CNN trains, from 1


@flax.struct.dataclass
class TrainState:
    """All that training changes, each entry keyed by part ("cae", "cnn"), and what changes it."""

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    averages: Mapping[str, optimizers.Average]  # empty where the recipe has none
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
        arrays = {"variables": self.variables, "opt_state": self.opt_state}
        return arrays | ({"averages": self.averages} if self.averages else {})


def evaluated(arrays: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The variables of a state's arrays that are evaluated: the averages where there are any."""
    averages = arrays.get("averages")
    if not averages:
        return arrays["variables"]
    return {
        "params": {part: average.params for part, average in averages.items()},
        "batch_stats": {part: average.batch_stats for part, average in averages.items()},
    }


def init(model: models.Classifier, key: jax.Array) -> PyTree:
    """The variables {"params", "batch_stats"} that a run of this key starts with."""
    return model.init(key, jnp.zeros((1, *model.image_shape), model.param_dtype))


@functools.cache
def _compiled_init():
    """`init` jitted. It runs once, but XLA for CPU optimises its random numbers for 10 seconds."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    options = options if jax.default_backend() == "cpu" else {}
    return jax.jit(init, static_argnums=0, compiler_options=options)


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
        initialise = init if isinstance(key, jax.core.Tracer) else _compiled_init()
        variables = initialise(model, key)
    recipe = make_recipe(config)
    opt_state = {
        part: optimizers.make(optimizer).init(variables["params"][part])
        for part, optimizer in recipe.optimizers
    }
    averages = optimizers.first_averages(variables) if recipe.ema_decay else {}
    arrays = {"variables": variables, "opt_state": opt_state, "averages": averages}
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
        averages=dict(arrays.get("averages", {})),
        class_counts=class_counts,
        model=model,
        recipe=recipe,
    )


def losses(
    outputs: models.Outputs,
    batch: Batch,
    mask: jax.Array,
    classification: Callable[[jax.Array, jax.Array], jax.Array] = losses_lib.cross_entropy,
) -> Metrics:
    """{"loss_cae", "loss_cnn"}, batch means over the images in the mask; nan for an absent part.

    `classification` gives each image's loss from logits [B, K] and labels [B].
    """
    metrics: dict[str, Any] = {"loss_cae": jnp.nan, "loss_cnn": jnp.nan}
    if outputs.reconstruction is not None:
        error = losses_lib.reconstruction_error(batch["image"], outputs.reconstruction)
        metrics["loss_cae"] = losses_lib.masked_mean(error, mask)
    if outputs.logits is not None:
        error = classification(outputs.logits, batch["label"])
        metrics["loss_cnn"] = losses_lib.masked_mean(error, mask)
    return metrics


def classification(state: TrainState, batch: Batch, joint_epoch: jax.Array | int) -> Callable:
    """What training takes for each image's loss, of logits [B, K] and labels [B]."""
    if state.recipe.loss.needs_counts and state.class_counts is None:
        raise ValueError(
            "class_counts is None, but this loss depends on the images of each class: give them to "
            "steps.create_state"
        )
    given: dict[str, Any] = {
        "class_counts": state.class_counts,
        "loss": state.recipe.loss,
        "joint_epoch": joint_epoch,
    }
    of_images: Callable = losses_lib.classification
    if "share" in batch:
        given |= {"partners": batch["partner"], "share": batch["share"]}
        of_images = losses_lib.mixed_classification

    def classify(logits, labels):
        error = of_images(logits, labels, **given)
        return error / losses_lib.mean_weight(labels, batch_mask(batch), **given, dtype=error.dtype)

    return classify


def objective(outputs: models.Outputs, metrics: Metrics, recipe: Recipe) -> jax.Array:
    """What training minimises: the weighted sum of the losses that there are."""
    total: Any = 0.0  # until a loss is added
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
    classify = classification(state, batch, 1 if moment is None else moment.joint_epoch)

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
    recipes, averages = dict(state.recipe.optimizers), dict(state.averages)
    for part in trained:
        updates, opt_state[part] = optimizers.make(recipes[part]).update(
            gradients[part], state.opt_state[part], params[part]
        )
        if moment is not None:
            updates = optax.tree.scale(moment.lr_factors[part], updates)
        params[part] = optax.apply_updates(params[part], updates)
        if part in averages:
            averages[part] = optimizers.next_average(
                averages[part], params[part], batch_stats[part], state.recipe.ema_decay
            )
    state = state.replace(  # type: ignore[attr-defined]  # flax.struct.dataclass adds it
        params=params,
        batch_stats=state.batch_stats | batch_stats,
        opt_state=opt_state,
        averages=averages,
    )
    return state, metrics


@functools.partial(jax.jit, static_argnames=("model", "joint"))
def outputs(
    model: models.Classifier, variables: PyTree, images: jax.Array, joint: bool = True
) -> models.Outputs:
    """What the networks give for normalised images [B, H, W, C], by the running averages.

    `joint=False` leaves the CNN out.
    """
    found: Any = model.apply(variables, images, joint=joint)
    return found


def eval_step(state: TrainState, batch: Batch, joint: bool = True) -> models.Outputs:
    """`outputs` of a state's networks for a batch."""
    return outputs(state.model, state.variables, batch["image"], joint)
