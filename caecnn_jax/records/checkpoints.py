"""A run's Orbax checkpoints: the latest epochs, the best one, and a half-done epoch on a signal.

Every checkpoint holds the state as host arrays, so that it restores on any number of devices, and
`progress`, a JSON object. With them goes a digest of each: storage that lies is found out on
restoring.
"""

import errno
import functools
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from caecnn_jax import errors
from caecnn_jax.records import job_storage, workdir

# What Orbax and its storage were seen to raise for altered files, where the arrays asked for are
# those that were saved: ValueError where tensorstore meets a wrong check sum or too few bytes, or
# text that is no JSON; KeyError for a changed name in it; TypeError and AttributeError for JSON of
# another shape. OSErrors are no damage, but for a missing file (Orbax says NotADirectoryError of a
# missing folder): a disk may do better next time.
_MISSING = (FileNotFoundError, NotADirectoryError)
_DAMAGE = (*_MISSING, ValueError, KeyError, TypeError, AttributeError)
ITEMS = ("variables", "opt_state", "averages")  # of arrays, of which a checkpoint has some
TRIES = 3  # of a look at a folder in which another process removes checkpoints


class CheckpointError(errors.UserError):
    """No checkpoint that can be restored where one is needed."""


class DamagedError(CheckpointError):
    """A checkpoint whose files are not what was saved."""


class GoneError(CheckpointError):
    """A checkpoint that is not there, or was removed while it was read."""


class Restored(NamedTuple):
    """One checkpoint: its number, those of ITEMS asked for as host arrays, and its progress."""

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


def structure(tree) -> str:
    """SHA-256 over names, dtypes and shapes of a tree of arrays or of their shapes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    lines = [f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}" for path, leaf in leaves]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _ignore_closed_loops() -> None:
    """Keeps tracebacks that concern nobody from a terminal.

    Orbax reads arrays at the same time and closes its event loop at the first that fails; the
    others then find it closed, which Python reports with a traceback for each.
    """
    report = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            report(unraisable)

    sys.unraisablehook = hook


_ignore_closed_loops()


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
                workdir.make_folder(self.directory)
        has_commit_files = os.fspath(self.directory).startswith("gs://")
        options = ocp.CheckpointManagerOptions(
            create=False,
            cleanup_tmp_directories=not self._read_only and not has_commit_files,
            enable_async_checkpointing=False,
            # Else folders are made in threads that others wait for by a number, which Orbax counts
            # for the whole process: runs that save at the same time would take each other's folders
            # for their own.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            multiprocessing_options=job_storage.options(),
        )
        handlers = job_storage.handlers(*ITEMS) if jax.process_count() > 1 else None
        manager = ocp.CheckpointManager(self.directory, options=options, handler_registry=handlers)
        if has_commit_files and not self._read_only:
            self._remove_partial(complete=manager.all_steps())
        return manager

    def _remove_partial(self, complete: Sequence[int]) -> None:
        """Removes half-written checkpoints where a file in it, no name, says that one is complete.

        Orbax's own way would also remove the folder of interrupted epochs, which has no such file.
        """
        with workdir.writing(self.directory):
            for path in self.directory.iterdir() if self.directory.exists() else ():
                if path.name.isdecimal() and int(path.name) not in complete:
                    path.rmtree()

    def steps(self) -> list[int]:
        """The numbers of the complete checkpoints, ascending."""
        for _ in range(TRIES - 1):
            try:
                return self._listed()
            except _MISSING:  # one was removed between Orbax's listing and its look at it
                self.__dict__.pop("_manager", None)
        return self._listed()

    def _listed(self) -> list[int]:
        return sorted(self._manager.all_steps()) if self.directory.exists() else []

    def save(self, step: int, arrays: Mapping[str, Any], progress: dict[str, Any]) -> None:
        """Saves host arrays, a tree for each of ITEMS that there is; complete when it returns.

        Raises WorkdirError when the disk does not take it.
        """
        digests = {name: digest(tree) for name, tree in arrays.items()}
        digests["progress"] = _digest_json(progress)
        saved: dict[str, Any] = {name: _to_save(tree) for name, tree in arrays.items()}
        structures = {name: structure(tree) for name, tree in arrays.items()}
        content = {"progress": progress, "digests": digests, "structures": structures}
        saved["progress"] = ocp.args.JsonSave(content)
        with workdir.writing(self.directory / str(step)):
            self._manager.save(step, args=ocp.args.Composite(**saved), force=True)

    def keep_only(self, wanted: set[int]) -> None:
        """Removes every checkpoint that is not `wanted`; raises WorkdirError as `save` does."""
        with workdir.writing(self.directory):
            for step in self.steps():
                if step not in wanted:
                    self._manager.delete(step)

    def restore(self, step: int, target: Mapping[str, Any]) -> Restored:
        """Restores the items of `target`, a tree of arrays or shapes for each.

        Raises DamagedError when the files are not what was saved, GoneError when they were removed,
        CheckpointError when arrays of other names or shapes were saved, and OSError when the disk
        fails.
        """
        place = self.directory / str(step)
        saved = self._read(place, progress=ocp.args.JsonRestore())["progress"]
        try:
            progress, digests = saved["progress"], saved["digests"]
            structures = saved.get("structures", {})  # earlier versions wrote none
            damaged = ["progress"] * (_digest_json(progress) != digests["progress"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"checkpoint {place} is damaged: progress: {error!r}") from error
        for name, tree in target.items():
            if name not in digests or structures.get(name, structure(tree)) != structure(tree):
                raise CheckpointError(
                    f"checkpoint {place} holds other arrays than this program's networks have: "
                    "use the version that wrote it, or train again in another --workdir"
                )
        placeholders = {name: jax.tree.map(_as_host, tree) for name, tree in target.items()}
        items = {name: ocp.args.StandardRestore(tree) for name, tree in placeholders.items()}
        arrays = self._read(place, **items) if items else {}
        damaged += [name for name in items if digest(arrays[name]) != digests[name]]
        if damaged:
            raise DamagedError(
                f"checkpoint {place} is damaged: {', '.join(damaged)} differ from what was saved"
            )
        return Restored(step, {name: arrays[name] for name in items}, progress)

    def _read(self, place: epath.Path, **items):
        """These items of a checkpoint, by Orbax; raises as `restore` does."""
        try:
            return self._manager.restore(int(place.name), args=ocp.args.Composite(**items))
        except _DAMAGE as error:
            if not place.exists():
                raise GoneError(
                    f"checkpoint {place} is not there, or no longer: choose another --checkpoint, "
                    "or try again where the run still trains"
                ) from error
            reason = str(error).strip().split("\n")[0][:300]
            code = workdir.os_error_code(error)
            if code is not None and code != errno.ENOENT:
                raise OSError(code, os.strerror(code), str(place)) from error
            raise DamagedError(f"checkpoint {place} is damaged: {reason}") from error

    def restore_newest(self, target: Mapping[str, Any]) -> Restored | None:
        """Restores the newest good checkpoint, with a warning for each damaged one before it.

        `set_damaged_aside` renames those. None: there is no checkpoint. Raises CheckpointError when
        all are damaged, or as `restore` does.
        """
        failures: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, target)
            except DamagedError as error:
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


def _to_save(tree) -> ocp.args.CheckpointArgs:
    if jax.process_count() > 1:
        return ocp.args.PyTreeSave(job_storage.storable(tree))
    return ocp.args.StandardSave(tree)


def _as_host(leaf) -> np.ndarray:
    """A placeholder that makes Orbax restore a host array of this shape and dtype."""
    return np.empty(leaf.shape, leaf.dtype)
