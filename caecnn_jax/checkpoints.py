"""A run's Orbax checkpoints: the latest epochs, the best one, and a half-done epoch on a signal.

Every checkpoint holds the state as host arrays, so that it restores on any number of devices, and
`progress`, a JSON object with a digest of the arrays: storage that lies is found out on restoring.
"""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from caecnn_jax import errors

# What Orbax and its storage were seen to raise for files that are missing, cut short or altered.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


class CheckpointError(errors.UserError):
    """No checkpoint that can be restored where one is needed."""


class Restored(NamedTuple):
    """One checkpoint: its number, {"variables", "opt_state"} as host arrays, and its progress."""

    step: int
    arrays: dict[str, Any]
    progress: dict[str, Any]


def digest(arrays) -> str:
    """SHA-256 over all arrays of a tree, their dtypes and shapes, in the tree's own order."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        leaf = np.ascontiguousarray(leaf)
        total.update(f"{leaf.dtype}{leaf.shape}".encode())
        total.update(leaf.tobytes())
    return total.hexdigest()


class Checkpoints:
    """The checkpoints in one directory, numbered upwards."""

    def __init__(self, directory: epath.Path, read_only: bool = False):
        """Opens `directory`, and makes it unless it is only read; half-written ones are removed."""
        self.directory = directory
        options = ocp.CheckpointManagerOptions(
            create=not read_only,  # Orbax's own read_only warns at every opening
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(directory, options=options)

    def steps(self) -> list[int]:
        """The numbers of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, arrays: dict[str, Any], progress: dict[str, Any]) -> None:
        """Saves host arrays {"variables", "opt_state"}; complete when it returns."""
        progress = progress | {
            "digests": {name: digest(tree) for name, tree in arrays.items()},
        }
        items = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        self._manager.save(
            step, args=ocp.args.Composite(**items, progress=ocp.args.JsonSave(progress)), force=True
        )

    def keep_only(self, wanted: set[int]) -> None:
        """Removes every checkpoint that is not `wanted`."""
        for step in self.steps():
            if step not in wanted:
                self._manager.delete(step)

    def restore(self, step: int, target: dict[str, Any]) -> Restored:
        """Restores the items of `target`, a tree of arrays or shapes for each.

        Raises CheckpointError when the checkpoint is not there or is damaged.
        """
        try:
            items = {
                name: ocp.args.StandardRestore(jax.tree.map(_as_host, tree))
                for name, tree in target.items()
            }
            restored = self._manager.restore(
                step, args=ocp.args.Composite(**items, progress=ocp.args.JsonRestore())
            )
            arrays = {name: restored[name] for name in target}
            damaged = [
                name
                for name, tree in arrays.items()
                if digest(tree) != restored.progress["digests"][name]
            ]
        except _DAMAGE as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(f"checkpoint {self.directory / str(step)}: {reason}") from error
        if damaged:
            raise CheckpointError(
                f"checkpoint {self.directory / str(step)}: {damaged[0]} differ from what was saved"
            )
        return Restored(step, arrays, restored.progress)

    def restore_newest(self, target: dict[str, Any]) -> Restored | None:
        """Restores the newest good checkpoint, with a warning for each damaged one before it.

        Damaged ones are removed, since training goes on before them. None: there is no checkpoint.
        Raises CheckpointError when all are damaged.
        """
        failures = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, target)
            except CheckpointError as error:
                logging.warning("%s; falling back to the one before", error)
                failures.append(str(error))
                continue
            for damaged in self.steps():
                if damaged > step:
                    self._manager.delete(damaged)
            return restored
        if failures:
            raise CheckpointError(
                f"every checkpoint is damaged: {'; '.join(failures)}; remove {self.directory} to "
                "train this run anew"
            )
        return None


def _as_host(leaf) -> np.ndarray:
    """A placeholder that makes Orbax restore a host array of this shape and dtype."""
    return np.empty(leaf.shape, leaf.dtype)
