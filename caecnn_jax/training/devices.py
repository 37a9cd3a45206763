"""Devices and processes: start-up, the mesh, and where arrays lie on it.

The mesh has the axes `fold` (runs side by side) and `data` (a batch's images).
"""

import os
import pathlib

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from caecnn_jax import errors

HEARTBEAT_SECONDS = 60  # a process not heard of for so long is lost
_PLACE = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}


def start(dtype: str, distributed: bool = False) -> None:
    """Sets JAX up before its first use; `distributed` joins this process to a multi-host job."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    if jax.config.jax_compilation_cache_dir is None:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "caecnn_jax"))
    if distributed:
        _join()
    try:
        jax.devices()
    except RuntimeError as error:
        reason = str(error).split("\n")[0]
        raise errors.UserError(
            f"JAX finds no device: {reason}; see to the environment variable JAX_PLATFORMS, or "
            "install the extra for this device (cuda, tpu)"
        ) from error
    logging.info(
        "JAX %s on %d %s device(s) (%s), process %d of %d",
        jax.__version__,
        jax.device_count(),
        jax.default_backend(),
        jax.devices()[0].device_kind,
        jax.process_index(),
        jax.process_count(),
    )


def _join() -> None:
    """Joins the processes of a job; TPU pods, SLURM and MPI say by themselves who is who.

    Elsewhere the environment variables of `_PLACE` say it. A process that is lost ends the others
    after HEARTBEAT_SECONDS.
    """
    place = {name: int(os.environ[key]) for name, key in _PLACE.items() if key in os.environ}
    try:
        jax.distributed.initialize(**place, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        raise errors.UserError(
            f"--distributed: cannot join the job ({error}): start it on a TPU pod, under SLURM or "
            f"MPI, or set JAX_COORDINATOR_ADDRESS and {' and '.join(_PLACE.values())}"
        ) from error


def is_writer() -> bool:
    """Whether this process writes the run's files: one of a job does."""
    return jax.process_index() == 0


def make_mesh(num_runs: int = 1) -> Mesh:
    """A mesh of all devices, as many of them along `fold` as `num_runs` can be dealt out to."""
    devices = np.asarray(jax.devices())
    along_fold = np.gcd(num_runs, devices.size)
    return Mesh(devices.reshape(along_fold, -1), ("fold", "data"))


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
    """An array's dimensions split along the named axes; on the others it lies everywhere."""
    return NamedSharding(mesh, PartitionSpec(*axes))


def put(mesh: Mesh, tree, *axes: str | None):
    """Host arrays, whole on every process, onto the mesh, split along the named axes."""
    placed = sharding(mesh, *axes)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            np.shape(leaf), placed, lambda index: np.asarray(leaf)[index]
        ),
        tree,
    )


def get(tree):
    """Arrays on the mesh as host arrays, whole on every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental import multihost_utils  # only multi-host jobs pay for the import

    return multihost_utils.process_allgather(tree, tiled=True)
