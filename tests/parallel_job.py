"""One process of a training job on tiny data, for test_devices.py and test_processes.py.

Run:  python tests/parallel_job.py WORKDIR KIND [--config.field=value ...]; the variables of
      jax.distributed, where set, make it one of several processes, and HEARTBEAT_SECONDS says
      after how long a lost one is given up.
"""

import ast
import os
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parent.parent), str(pathlib.Path(__file__).parent)]

from builders import make_data, tiny_config  # noqa: E402

from caecnn_jax import errors, logs  # noqa: E402
from caecnn_jax.training import devices, train  # noqa: E402


def main(workdir: str, kind: str, *changes: str) -> int:
    config = tiny_config(kind, dtype="float64", save_img_per_epoch=0)
    config.lr_schedule, config.lr_ramp_epochs = "cosine", 1
    config.aug.max_shift = 2
    for change in changes:
        name, value = change.removeprefix("--config.").split("=")
        config[name] = ast.literal_eval(value)
    logs.to_console("INFO")
    patience = os.environ.get("HEARTBEAT_SECONDS")
    devices.HEARTBEAT_SECONDS = int(patience) if patience else devices.HEARTBEAT_SECONDS
    devices.start(
        config.dtype, config.matmul_precision, distributed="JAX_COORDINATOR_ADDRESS" in os.environ
    )
    try:
        train.train_and_evaluate(config, workdir, make_data())
    except errors.Interrupted as stop:
        return 128 + stop.signum
    except errors.UserError as error:
        print(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
