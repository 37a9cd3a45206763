"""What lets any process of a job save; jobs of two processes are in training/test_processes.py."""

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from caecnn_jax.records import checkpoints, job_storage

ARRAYS = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3, np.int32)}


def test_what_is_stored_lies_on_every_device_of_the_job_whole():
    for name, array in job_storage.storable(ARRAYS).items():
        assert array.devices() == set(jax.devices()) and array.is_fully_replicated
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_a_checkpoint_of_a_job_is_restored_as_any_other(tmp_path):
    options = ocp.CheckpointManagerOptions(
        create=False,
        multiprocessing_options=job_storage.options(),
        enable_async_checkpointing=False,
    )
    manager = ocp.CheckpointManager(
        tmp_path, options=options, handler_registry=job_storage.handlers("variables")
    )
    arrays = ocp.args.PyTreeSave(job_storage.storable(ARRAYS))
    digests = {"variables": checkpoints.digest(ARRAYS), "progress": checkpoints._digest_json({})}
    content = ocp.args.JsonSave({"progress": {}, "digests": digests})
    manager.save(1, args=ocp.args.Composite(variables=arrays, progress=content))
    restored = checkpoints.Checkpoints(epath.Path(tmp_path)).restore(1, {"variables": ARRAYS})
    assert checkpoints.digest(restored.arrays["variables"]) == checkpoints.digest(ARRAYS)
    assert not list(tmp_path.rglob("_sharding"))  # what names devices
