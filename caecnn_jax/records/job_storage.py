"""Orbax in a job of several processes, each of which saves runs of its own.

By itself it makes all processes wait for each other, stores host arrays and JSON in the job's first
process alone, and refuses arrays that lie on one process's devices.
"""

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def options() -> ocp.options.MultiprocessingOptions:
    """A checkpoint is the business of this process."""
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})


def handlers(*items: str) -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """What stores JSON and these `items` of arrays, in the form that `storable` gives them."""
    own = {"multiprocessing_options": options()}
    arrays = ocp.type_handlers.ArrayHandler(
        primary_host=jax.process_index(),
        replica_id=None,  # the array's part that this process has, of whatever number
        use_replica_parallel=False,
        enable_write_sharding_file=False,
    )
    types = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in items:
        stores = ocp.PyTreeCheckpointHandler(type_handler_registry=types, **own)
        registry.add(item, ocp.args.PyTreeSave, stores)
        registry.add(item, ocp.args.StandardRestore, ocp.StandardCheckpointHandler(**own))
    json = ocp.JsonCheckpointHandler(**own)
    registry.add(None, ocp.args.JsonSave, json)
    registry.add(None, ocp.args.JsonRestore, json)
    return registry


def storable(tree):
    """Host arrays as arrays on all devices of the job, of which each process knows its own."""
    everywhere = NamedSharding(Mesh(np.asarray(jax.devices()), ("all",)), PartitionSpec())

    def on_own_devices(leaf: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(np.shape(leaf), everywhere, lambda _: leaf)

    return jax.tree.map(on_own_devices, tree)
