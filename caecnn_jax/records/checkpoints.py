"""A run's Orbax checkpoints: the latest epochs, the best one, and a half-done epoch on a signal.

Every checkpoint holds the state as host arrays, so that it restores on any number of devices, and
`progress`, a JSON object. With them goes a digest of each: storage that lies is found out on
restoring.
"""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from caecnn_jax import errors
from caecnn_jax.records import workdir

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


def _digest_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints in one directory, numbered upwards."""

    def __init__(self, directory: epath.Path, read_only: bool = False):
        """Makes nothing before the first `save`."""
        self.directory = directory
        self._read_only = read_only
        self._damaged: list[int] = []  # that `restore_newest` passed over

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Makes the directory unless it is only read, and removes half-written checkpoints."""
        if not self._read_only:  # Orbax's own read_only warns at every opening
            with workdir.writing(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            create=False,
            cleanup_tmp_directories=not self._read_only,
            enable_async_checkpointing=False,
            # A run's checkpoints are the business of one process; Orbax would wait for all of them.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index(), active_processes={jax.process_index()}
            ),
        )
        return ocp.CheckpointManager(self.directory, options=options)

    def steps(self) -> list[int]:
        """The numbers of the complete checkpoints, ascending."""
        return sorted(self._manager.all_steps()) if self.directory.exists() else []

    def save(self, step: int, arrays: dict[str, Any], progress: dict[str, Any]) -> None:
        """Saves host arrays {"variables", "opt_state"}; complete when it returns.

        Raises WorkdirError when the disk does not take it.
        """
        digests = {name: digest(tree) for name, tree in arrays.items()}
        digests["progress"] = _digest_json(progress)
        saved = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
        saved["progress"] = ocp.args.JsonSave({"progress": progress, "digests": digests})
        with workdir.writing(self.directory / str(step)):
            self._manager.save(step, args=ocp.args.Composite(**saved), force=True)

    def keep_only(self, wanted: set[int]) -> None:
        """Removes every checkpoint that is not `wanted`; raises WorkdirError as `save` does."""
        with workdir.writing(self.directory):
            for step in self.steps():
                if step not in wanted:
                    self._manager.delete(step)

    def restore(self, step: int, target: dict[str, Any]) -> Restored:
        """Restores the items of `target`, a tree of arrays or shapes for each.

        Raises CheckpointError when the checkpoint is not there or is damaged.
        """
        place = self.directory / str(step)
        try:
            items = {
                name: ocp.args.StandardRestore(jax.tree.map(_as_host, tree))
                for name, tree in target.items()
            }
            restored = self._manager.restore(
                step, args=ocp.args.Composite(**items, progress=ocp.args.JsonRestore())
            )
            arrays = {name: restored[name] for name in target}
            progress, digests = restored["progress"]["progress"], restored["progress"]["digests"]
            found = {name: digest(tree) for name, tree in arrays.items()}
            found["progress"] = _digest_json(progress)
            damaged = [name for name in found if found[name] != digests[name]]
        except _DAMAGE as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise CheckpointError(f"checkpoint {place} is damaged: {reason}") from error
        if damaged:
            raise CheckpointError(
                f"checkpoint {place} is damaged: {', '.join(damaged)} differ from what was saved"
            )
        return Restored(step, arrays, progress)

    def restore_newest(self, target: dict[str, Any]) -> Restored | None:
        """Restores the newest good checkpoint, with a warning for each damaged one before it.

        `set_damaged_aside` renames those. None: there is no checkpoint. Raises CheckpointError when
        all are damaged.
        """
        failures: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, target)
            except CheckpointError as error:
                logging.warning("%s; falling back to the one before", error)
                failures[step] = str(error)
                continue
            self._damaged = list(failures)
            return restored
        if failures:
            raise CheckpointError(
                f"no checkpoint can be restored: {'; '.join(failures.values())}; bring one back, "
                f"or remove {self.directory} to train this run anew"
            )
        return None

    def set_damaged_aside(self) -> None:
        """Renames the damaged checkpoints that `restore_newest` passed over.

        Training goes on before them; and what one machine cannot read, another may.
        """
        if not self._damaged:
            return
        with workdir.writing(self.directory):
            for step in self._damaged:
                aside = self.directory / f"damaged-{step}"
                if aside.exists():
                    aside.rmtree()
                (self.directory / str(step)).rename(aside)
        self._damaged = []
        self._manager.reload()


def _as_host(leaf) -> np.ndarray:
    """A placeholder that makes Orbax restore a host array of this shape and dtype."""
    return np.empty(leaf.shape, leaf.dtype)
