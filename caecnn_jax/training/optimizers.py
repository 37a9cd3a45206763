"""The optimizer of each part, how its learning rate changes over a run, and averages of weights.

A rate is its config's lr times a factor. A factor is a function of epoch and step alone, so that a
resumed run needs nothing saved for it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from caecnn_jax import config as config_lib

PyTree = Any


class Optimizer(NamedTuple):
    """One part's optimizer: config.cnn.opt or config.cae.opt as numbers, static under jit."""

    name: str = "adam"  # adam | adamw | sgd
    lr: float = 1e-5
    betas: tuple[float, float] = (0.0, 0.999)  # of adam and adamw
    momentum: float = 0.0  # of sgd
    nesterov: bool = False  # of sgd
    weight_decay: float = 0.0
    clip_norm: float = 0.0  # of the part's gradient; 0: not clipped


def settings(opt: ml_collections.ConfigDict) -> Optimizer:
    """The numbers of a config's group; floats, since a whole number may exceed an int32."""
    return Optimizer(
        name=opt.name,
        lr=float(opt.lr),
        betas=(float(opt.betas[0]), float(opt.betas[1])),
        momentum=float(opt.momentum),
        nesterov=opt.nesterov,
        weight_decay=float(opt.weight_decay),
        clip_norm=float(opt.clip_norm),
    )


def make(optimizer: Optimizer) -> optax.GradientTransformation:
    """The chain of a part's gradient: clipped, then decayed where that is coupled, then the rule.

    adam and adamw as PyTorch's, eps 1e-8 outside the root. The norm that `clip_norm` bounds is the
    whole part's (Pascanu et al. 2013, "On the difficulty of training recurrent neural networks").
    Weight decay is decoupled for adamw (Loshchilov and Hutter 2019, "Decoupled weight decay
    regularization"; times the learning rate, as in PyTorch) and added to the gradient for adam and
    sgd, as PyTorch's weight_decay is; it takes kernels, not biases and BatchNorm's parameters.
    """
    links = []
    if optimizer.clip_norm:
        links.append(optax.clip_by_global_norm(optimizer.clip_norm))
    if optimizer.weight_decay and optimizer.name != "adamw":
        links.append(optax.add_decayed_weights(optimizer.weight_decay, mask=is_kernel))
    rule = _rule(optimizer)
    return optax.chain(*links, rule) if links else rule


def _rule(optimizer: Optimizer) -> optax.GradientTransformation:
    lr, (b1, b2) = optimizer.lr, optimizer.betas
    if optimizer.name == "adam":
        return optax.adam(lr, b1=b1, b2=b2, eps=1e-8)
    if optimizer.name == "adamw":
        decay = optimizer.weight_decay
        return optax.adamw(lr, b1=b1, b2=b2, eps=1e-8, weight_decay=decay, mask=is_kernel)
    return optax.sgd(lr, momentum=optimizer.momentum or None, nesterov=optimizer.nesterov)


def is_kernel(params: PyTree) -> PyTree:
    """A bool for each parameter: whether weight decay takes it."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def lr_factors(
    config: ml_collections.ConfigDict, epoch: int, num_steps: int
) -> dict[str, np.ndarray]:
    """The factors float32 [num_steps] of an epoch's steps, for each part that the config trains.

    A part's schedule runs over the epochs that it trains in: warm-up does not count for the CNN,
    whose factors are those of its first epoch until then.
    """
    starts = {}
    if config.use_cae:
        starts["cae"] = 0
    if config.use_cnn:
        starts["cnn"] = min(config_lib.warmup_epochs(config), config.num_epoch)
    return {
        part: _factors(config, epoch - start, config.num_epoch - start, num_steps)
        for part, start in starts.items()
    }


def _factors(config, epoch: int, num_epoch: int, num_steps: int) -> np.ndarray:
    # Steps as floats, since there may be more of them than an int32 holds.
    ramp = float(config.lr_ramp_epochs * num_steps)
    schedules = [optax.linear_schedule(0.0, 1.0, max(ramp, 1.0)), optax.constant_schedule(1.0)]
    boundaries = [ramp]
    if config.lr_schedule == "cosine":
        schedules[1] = optax.cosine_decay_schedule(1.0, max(num_epoch * num_steps - ramp, 1.0))
    if config.lr_schedule == "step":
        schedules += [optax.constant_schedule(float(factor)) for factor in config.lr_factors]
        boundaries += [float(epochs * num_steps) for epochs in config.lr_milestones]
    schedule = optax.join_schedules(schedules, boundaries)
    step = (max(epoch, 1) - 1.0) * num_steps + np.arange(num_steps)
    return np.broadcast_to(np.asarray(schedule(step), np.float32), num_steps)


class Average(NamedTuple):
    """A part's weights averaged over its steps."""

    num_steps: jax.Array  # int32 []
    params: PyTree
    batch_stats: PyTree


def first_average(params: PyTree, batch_stats: PyTree) -> Average:
    """The average before the first step: the part as it starts."""
    return Average(jnp.zeros((), jnp.int32), params, batch_stats)


def first_averages(variables: PyTree) -> dict[str, Average]:
    """`first_average` of each part of {"params", "batch_stats"}."""
    params, batch_stats = variables["params"], variables["batch_stats"]
    return {part: first_average(params[part], batch_stats[part]) for part in params}


def next_average(average: Average, params: PyTree, batch_stats: PyTree, decay: float) -> Average:
    """The average after one more step: d average + (1 - d) the step's, BatchNorm averages included.

    d = min(decay, (1 + t) / (10 + t)) with t earlier steps: what training started from is soon
    forgotten, as in TensorFlow's ExponentialMovingAverage with num_updates. Averaging iterates:
    Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """
    t = average.num_steps.astype(jnp.float32)
    step_size = 1 - jnp.minimum(decay, (1 + t) / (10 + t))

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        return old + step_size.astype(old.dtype) * (new - old)

    return Average(
        average.num_steps + 1,
        jax.tree.map(moved, average.params, params),
        jax.tree.map(moved, average.batch_stats, batch_stats),
    )
