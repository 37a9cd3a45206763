"""Devices and processes: start-up, which devices a run has, and where arrays lie on them.

A run trains on a mesh with one axis, `data`, along which a batch's images are split.
"""

import contextlib
import errno
import os
import re
import threading
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from caecnn_jax import errors
from caecnn_jax.data import cache
from caecnn_jax.part import WHOLE, Part

HEARTBEAT_SECONDS = 60  # a process not heard of for so long is lost
PATIENCE_SECONDS = 10  # before it is said for whom a process waits
# How a float32 product is computed, by config.matmul_precision.
_PRODUCTS = {
    "tpu": {
        "default": "one product of bfloat16, 8 bits",
        "high": "three products of bfloat16, 16 bits",
        "highest": "six products of bfloat16, float32's 24 bits",
    },
    "gpu": {
        "default": "TF32 where the card has it, 11 bits",
        "high": "TF32 where the card has it, 11 bits",
        "highest": "float32",
    },
}
_PLACE = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}


def start(dtype: str, matmul_precision: str = "highest", *, distributed: bool = False) -> None:
    """Sets JAX up before its first use; `distributed` joins this process to a multi-host job.

    `matmul_precision` (default, high or highest) is how exactly an accelerator multiplies float32.
    """
    jax.config.update("jax_enable_x64", dtype == "float64")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", _cache())
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Of the dozens of small programs, too: together they take as long as the large ones' start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
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
    products = _PRODUCTS.get(jax.default_backend())
    if products:  # a CPU multiplies float32 as it is, and should compile what it always did
        jax.config.update("jax_default_matmul_precision", matmul_precision)
        logging.info(
            "config.matmul_precision=%s: a float32 product is %s",
            matmul_precision,
            products[matmul_precision],
        )


def precision(matmul_precision: str) -> contextlib.AbstractContextManager:
    """The context of what is computed for callers that never called `start`, as from Python."""
    if jax.default_backend() not in _PRODUCTS:
        return contextlib.nullcontext()
    return jax.default_matmul_precision(matmul_precision)


def _cache() -> str | None:
    """The folder of compiled programs; None, with a warning, where there can be none."""
    folder = cache.user_folder()
    try:
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "no home directory")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "no right to write", str(folder))
    except OSError as error:
        logging.warning(
            "Nothing compiled is kept for the next start (%s); XDG_CACHE_HOME names a folder", error
        )
        return None
    return str(folder)


def _join() -> None:
    """Joins the processes of a job; TPU pods, SLURM and MPI say by themselves who is who.

    Elsewhere the environment variables of `_PLACE` say it. A process that is lost ends the others
    after HEARTBEAT_SECONDS; one that never comes is said to be waited for.
    """
    place: dict[str, int] = {}
    for name, key in _PLACE.items():
        try:
            place |= {name: int(os.environ[key])} if key in os.environ else {}
        except ValueError:
            raise errors.UserError(
                f"--distributed: {key}={os.environ[key]!r} is no whole number: set it, or unset it "
                "where TPU pods, SLURM or MPI say who is who"
            ) from None
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is not None and not re.fullmatch(r".+:\d+", address):
        raise errors.UserError(
            f"--distributed: JAX_COORDINATOR_ADDRESS={address!r} is no HOST:PORT: set it, or unset "
            "it where TPU pods, SLURM or MPI say who is who"
        )
    waiting = threading.Timer(PATIENCE_SECONDS, _say_waiting, [place])
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            num_processes=place.get("num_processes"),
            process_id=place.get("process_id"),
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise errors.UserError(
            f"--distributed: cannot join the job ({error}): start it on a TPU pod, under SLURM or "
            f"MPI, or set JAX_COORDINATOR_ADDRESS and {' and '.join(_PLACE.values())}"
        ) from error
    finally:
        waiting.cancel()


def _say_waiting(place: dict[str, int]) -> None:
    """Logs for whom this process waits, as far as the environment tells."""
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "its coordinator")
    if place.get("process_id") == 0:
        others = f"the {place['num_processes'] - 1} other" if "num_processes" in place else "other"
        whom = f"{others} process(es) of the job to come to {address}"
    else:
        whom = f"the job's first process, at {address}, and those that it waits for"
    own = f" as process {place['process_id']}" if "process_id" in place else ""
    logging.warning("--distributed: waiting%s for %s: is each started?", own, whom)


def is_writer() -> bool:
    """Whether this process writes the run's files: one of a job does."""
    return jax.process_index() == 0


class Lanes(NamedTuple):
    """The devices as they are dealt out to the runs."""

    meshes: tuple[Mesh, ...]  # of this process, axis "data": each trains one run at a time
    shared: bool  # one mesh, over the devices of a job's processes, which then go in step

    @property
    def part(self) -> Part:
        """Which of the runs this process trains: those of a job share them, unless in step."""
        return WHOLE if self.shared else Part(jax.process_index(), jax.process_count())

    def writes_runs(self) -> bool:
        """Whether this process writes what its runs leave: of those in step, one does."""
        return not self.shared or is_writer()


def lanes(devices_per_run: int) -> Lanes:
    """Deals the devices out, `devices_per_run` (0: one) to a run.

    A run has devices of one process, or all of the job's. Raises UserError for any other number.
    """
    here, everywhere = jax.local_devices(), jax.devices()
    size = devices_per_run or 1
    if size == len(everywhere) > len(here):
        return Lanes((_mesh(everywhere),), shared=True)
    if len(here) % size:
        of_a_job = f" of a process, or be the job's {len(everywhere)}" if here != everywhere else ""
        raise errors.UserError(
            f"config.devices_per_run={devices_per_run}: must divide the {len(here)} device(s)"
            f"{of_a_job}"
        )
    starts = range(0, len(here), size)
    return Lanes(tuple(_mesh(here[start : start + size]) for start in starts), shared=False)


def _mesh(devices) -> Mesh:
    return Mesh(np.asarray(devices), ("data",))


def put(mesh: Mesh, tree, *axes: str | None):
    """Host arrays, whole on every process, onto the mesh, their dimensions split along `axes`.

    On the axes that are not named an array lies everywhere.
    """
    placed = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(
            np.shape(leaf), placed, lambda index: np.asarray(leaf)[index]
        ),
        tree,
    )


def put_images(mesh: Mesh, images: np.ndarray, labels: np.ndarray) -> dict[str, jax.Array]:
    """Images uint8 [N, H, W, C], as rows of bytes, and labels int32 [N], whole on every device.

    An accelerator would pad the few channels of [N, H, W, C] to its registers' width. Raises
    UserError where a device's memory cannot hold them.
    """
    for device in mesh.local_devices:
        limit = (device.memory_stats() or {}).get("bytes_limit")
        if limit and images.nbytes > limit:
            raise errors.UserError(
                f"{len(images):,} images of {'x'.join(map(str, images.shape[1:]))} bytes take "
                f"{images.nbytes / 1e9:.1f} GB, but {device.device_kind} has {limit / 1e9:.1f} GB: "
                "set config.image_size lower or take fewer images"
            )
    return put(mesh, {"image": images.reshape(len(images), -1), "label": labels})


def get(tree):
    """Arrays on a mesh as host arrays, whole on every process that has a part of them."""
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    from jax.experimental import multihost_utils  # only multi-host jobs pay for the import

    return multihost_utils.process_allgather(tree, tiled=True)


def wait_for_all(what: str) -> None:
    """Waits until every process of the job has come here; `what` names the place."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils  # only multi-host jobs pay for the import

        multihost_utils.sync_global_devices(what)
