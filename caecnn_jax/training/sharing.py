"""What the runs of a command share: the devices, the images on them, the request to stop."""

import contextlib
import queue
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from caecnn_jax.data import dataset
from caecnn_jax.training import devices, epochs, signals


class Shared(NamedTuple):
    """What the runs of a command have in common, be they of one folder or of several."""

    lanes: devices.Lanes
    free: queue.SimpleQueue  # those of the lanes' meshes that no run trains on
    request: signals.StopRequest
    images_on: Callable[[dataset.Dataset, Mesh], epochs.Data]  # put there the first time

    @contextlib.contextmanager
    def free_mesh(self) -> Iterator[Mesh]:
        """Waits for a mesh, which is the run's own while the context lasts."""
        mesh = self.free.get()
        try:
            with jax.default_device(mesh.local_devices[0]):
                yield mesh
        finally:
            self.free.put(mesh)


@contextlib.contextmanager
def share_devices(devices_per_run: int) -> Iterator[Shared]:
    """The devices, dealt out, and the request to stop, which signals make while the context lasts.

    Raises UserError where the devices cannot be dealt out so.
    """
    lanes = devices.lanes(devices_per_run)
    free: queue.SimpleQueue = queue.SimpleQueue()
    for mesh in lanes.meshes:
        free.put(mesh)
    placed: dict[tuple[int, Mesh], epochs.Data] = {}

    def images_on(data: dataset.Dataset, mesh: Mesh) -> epochs.Data:
        key = id(data), mesh  # the data outlives the runs, and a mesh has one run at a time
        if key not in placed:
            placed[key] = devices.put_images(mesh, data.images, data.labels)
        return placed[key]

    with signals.listen(in_step=lanes.shared) as request:
        yield Shared(lanes, free, request, images_on)
