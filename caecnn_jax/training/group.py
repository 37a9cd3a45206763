"""Runs that train as one program: their state and images on the devices, and epochs over them.

R: runs of the group; S: steps of an epoch; B: images of a batch. A group of one run has no axis R.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from caecnn_jax.data import augment, dataset, sampling
from caecnn_jax.networks import models
from caecnn_jax.training import devices, epochs, schedules, steps

EVAL_BATCH_SIZE = 256  # images; the running averages make the result independent of it
# Training steps in one compiled call. On an accelerator dispatching each step would cost more than
# the step; on CPU a call of several steps reuses its memory, and a signal waits under a second.
STEPS_PER_CALL = {"cpu": 8}
STEPS_PER_CALL_ELSEWHERE = 100

Arrays = dict[str, Any]  # what is saved of a run: {"variables", "opt_state"}


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


class Group:
    """The device side of one or several runs."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        splits: Sequence[sampling.Split],
        data: dataset.Dataset,
    ):
        """Puts the images on the devices; `put_state` must follow before anything is trained."""
        self.splits = splits
        self._config = config
        self._model = models.from_config(config)
        self._side_by_side = len(splits) > 1
        self._run_axis = ("fold",) if self._side_by_side else ()
        self._mesh = devices.make_mesh(len(splits))
        images = {"image": data.images, "label": data.labels}
        self._data = devices.put(self._mesh, images)
        self._aug = augment.Settings(**config.aug) if config.use_aug else None
        self._state: steps.TrainState | None = None
        self._train, self._train_call = self._order(
            [split.expanded for split in splits], config.batch_size
        )
        valid, self._eval_call = self._order([split.valid for split in splits], EVAL_BATCH_SIZE)
        self._valid = self._put_order(*valid)
        # The order is dealt out anew each epoch, run by run, and comes out split over the devices.
        shuffle = jax.vmap(epochs.shuffle) if self._side_by_side else epochs.shuffle
        sharding = devices.sharding(self._mesh, *self._run_axis, None, "data")
        self._shuffle = jax.jit(shuffle, out_shardings=(sharding, sharding))

    @property
    def num_steps(self) -> int:
        """Training steps of an epoch."""
        return self._train[0].shape[-2]

    def _order(self, indices: Sequence[np.ndarray], batch_size: int):
        """The runs' indices as order and mask [R, S, B], and the steps of one call, a divisor of S.

        B is padded to what the devices can split evenly.
        """
        longest = max(map(len, indices))
        num_steps = -(-longest // batch_size)
        limit = self._config.steps_per_call or STEPS_PER_CALL.get(
            jax.default_backend(), STEPS_PER_CALL_ELSEWHERE
        )
        per_call = -(-num_steps // -(-num_steps // limit))
        num_steps = -(-num_steps // per_call) * per_call
        width = -(-batch_size // self._mesh.shape["data"]) * self._mesh.shape["data"]
        batches = [sampling.in_batches(run, batch_size, num_steps, width) for run in indices]
        order, mask = map(self._stack, zip(*batches, strict=True))
        return (order, mask), per_call

    def _put_order(self, order: np.ndarray, mask: np.ndarray):
        return devices.put(self._mesh, (order, mask), *self._run_axis, None, "data")

    def _stack(self, trees: Sequence):
        """One tree with a leading R, or the only tree itself."""
        if not self._side_by_side:
            return trees[0]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    def unstack(self, tree) -> list:
        """The inverse of stacking, for host arrays: a tree for each run."""
        if not self._side_by_side:
            return [tree]
        return [jax.tree.map(lambda leaf: leaf[i], tree) for i in range(len(self.splits))]  # noqa: B023

    def new_arrays(self) -> list[Arrays]:
        """Every run's host arrays before its first step."""
        keys = [self._key(epochs.INIT, split, 0) for split in self.splits]
        states = [steps.create_state(self._model, self._config, key) for key in keys]
        return [
            jax.device_get({"variables": state.variables, "opt_state": state.opt_state})
            for state in states
        ]

    def put_state(self, arrays: Sequence[Arrays]) -> None:
        """Sets the state from every run's host arrays."""
        stacked = devices.put(self._mesh, self._stack(arrays), *self._run_axis)
        self._state = steps.restore_state(
            self._model, self._config, stacked["variables"], stacked["opt_state"]
        )

    def snapshot(self) -> steps.TrainState:
        """A copy of the state that outlives the next training step."""
        return _copy(self._state)

    def get_arrays(self, state: steps.TrainState) -> list[Arrays]:
        """Every run's host arrays of a state; waits until they are computed."""
        return self.unstack(
            devices.get({"variables": state.variables, "opt_state": state.opt_state})
        )

    def get_metrics(self, calls: Sequence[steps.Metrics]) -> list[dict[str, np.ndarray]]:
        """Every run's metrics of these calls by step, host arrays [steps, ...]; waits for them."""
        by_call = [self.unstack(call) for call in devices.get(list(calls))]
        names = calls[0] if calls else ()
        return [
            {name: np.concatenate([call[run][name] for call in by_call]) for name in names}
            for run in range(len(self.splits))
        ]

    def _key(self, purpose: int, split: sampling.Split, epoch: int) -> jax.Array:
        return epochs.random_key(self._config.seed, purpose, split.number, epoch)

    def _keys(self, purpose: int, epoch: int) -> jax.Array:
        keys = [self._key(purpose, split, epoch) for split in self.splits]
        return jnp.stack(keys) if self._side_by_side else keys[0]

    def _lr_factors(self, split: sampling.Split, epoch: int) -> dict[str, np.ndarray]:
        """The epoch's factors of the learning rates, float32 [S], 0 in a longer run's steps."""
        num_steps = -(-len(split.expanded) // self._config.batch_size)
        factors = schedules.lr_factors(self._config, epoch, num_steps)
        padding = (0, self.num_steps - num_steps)
        return {part: np.pad(values, padding) for part, values in factors.items()}

    def _take(self, start: int, length: int, *arrays: jax.Array) -> Iterator[jax.Array]:
        return (epochs.take(array, start, length) for array in arrays)

    def train_epoch(
        self, epoch: int, active: Sequence[bool], joint: bool, first_step: int = 0
    ) -> Iterator[tuple[int, steps.Metrics]]:
        """Dispatches an epoch call by call; yields the steps done and the call's metrics [R, T].

        Runs that are not `active` are left as they are. Never more than two calls are under way, so
        that a signal need not wait long, nor the devices.
        """
        order, mask = self._train
        live = np.asarray(active) if self._side_by_side else np.asarray(active[0])
        mask = mask & live[..., None, None]
        order, mask = self._shuffle(
            self._keys(epochs.SHUFFLE, epoch), *self._put_order(order, mask)
        )
        key = self._keys(epochs.AUGMENT, epoch)
        lr_factors = self._stack([self._lr_factors(split, epoch) for split in self.splits])
        under_way: list[steps.Metrics] = []
        for start in range(first_step, self.num_steps, self._train_call):
            self._state, metrics = epochs.train_chunk(
                self._state,
                self._data,
                *self._take(start, self._train_call, order, mask),
                key,
                start,
                {part: f[..., start : start + self._train_call] for part, f in lr_factors.items()},
                joint=joint,
                aug=self._aug,
                side_by_side=self._side_by_side,
            )
            under_way.append(metrics)
            if len(under_way) > 2:
                jax.block_until_ready(under_way.pop(0))
            yield start + self._train_call, metrics

    def evaluate(self, joint: bool) -> Iterator[steps.Metrics]:
        """Dispatches the evaluation of every run on its validation images, call by call."""
        order, mask = self._valid
        for start in range(0, order.shape[-2], self._eval_call):
            yield epochs.eval_chunk(
                self._state,
                self._data,
                *self._take(start, self._eval_call, order, mask),
                joint=joint,
                side_by_side=self._side_by_side,
            )
