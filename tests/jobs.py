"""Training jobs in processes of their own, on as many CPU devices as asked for."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np

JOB = pathlib.Path(__file__).parent / "parallel_job.py"


class Job(subprocess.Popen):
    """A process of a job; what it says goes to a file, for a pipe that nobody reads fills up."""

    def __init__(self, command: list[str], environment: dict[str, str], log: pathlib.Path):
        self._log = log
        with open(log, "w") as file:
            super().__init__(command, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def said(self) -> str:
        """What it has said."""
        return self._log.read_text()


def start(workdir, *args: str, num_devices: int, **environment: str) -> Job:
    """Starts a job's process with that many CPU devices.

    XLA has a thread for each of them at least, and how it divides a sum among its threads decides
    the last bits: so that they can be compared, there are eight threads whatever the devices.
    """
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    simulated = {"XLA_FLAGS": flags, "PJRT_NPROC": "8", **environment}
    log = pathlib.Path(f"{workdir}-{environment.get('JAX_PROCESS_ID', 0)}.log")
    return Job([sys.executable, str(JOB), str(workdir), *args], os.environ | simulated, log)


def start_two(workdir, *args: str, **environment: str) -> list[Job]:
    """Starts the two processes of a job on this machine, two devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            workdir,
            *args,
            num_devices=2,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(process),
            **environment,
        )
        for process in range(2)
    ]


def finish(process: Job, code: int = 0) -> str:
    """Waits for a process that must end with this exit code; returns what it said."""
    process.wait(timeout=300)
    assert process.returncode == code, process.said()[-3000:]
    return process.said()


def wait_for(path: pathlib.Path, *processes: Job) -> None:
    """Waits until a job has made a file or folder."""
    while not path.exists():
        for process in processes:
            assert process.poll() is None, process.said()[-3000:]
        time.sleep(0.01)


def history(workdir) -> list[dict]:
    """The lines of history.jsonl."""
    lines = (pathlib.Path(workdir) / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_same_numbers(ours: list[dict], theirs: list[dict]) -> None:
    """The losses of every epoch agree up to the rounding of float64."""
    assert [(one["run"], one["epoch"]) for one in ours] == [
        (one["run"], one["epoch"]) for one in theirs
    ]
    for one, other in zip(ours, theirs, strict=True):
        for part in ("train", "valid"):
            for name in ("loss_cae", "loss_cnn"):
                assert (one[part][name] is None) == (other[part][name] is None)
                if one[part][name] is not None:
                    np.testing.assert_allclose(one[part][name], other[part][name], rtol=1e-9)
