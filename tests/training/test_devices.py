"""The same numbers on one device and on many, in one process and in two."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from caecnn_jax.training import devices

JOB = pathlib.Path(__file__).parents[1] / "parallel_job.py"


def start(workdir, *args: str, num_devices: int, **environment: str) -> subprocess.Popen:
    """Starts a job's process with that many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, **environment}
    return subprocess.Popen(
        [sys.executable, str(JOB), str(workdir), *args],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(workdir, *args: str) -> list[subprocess.Popen]:
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
        )
        for process in range(2)
    ]


def finish(process: subprocess.Popen) -> str:
    """Waits for a process that must succeed."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


def history(workdir) -> list[dict]:
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


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> list[dict]:
    """The history of a mixed run in float64 on one device."""
    workdir = tmp_path_factory.mktemp("one")
    finish(start(workdir, "mixed", num_devices=1))
    return history(workdir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "changes"),
    [
        (8, []),
        (3, []),  # the batch of 32 does not divide
        (2, ["--config.folds_side_by_side=True"]),
    ],
)
def test_numbers_do_not_depend_on_the_devices(one_device, tmp_path, num_devices, changes):
    finish(start(tmp_path, "mixed", *changes, num_devices=num_devices))
    assert_same_numbers(history(tmp_path), one_device)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_and_one_of_them_writes(one_device, tmp_path):
    outputs = [finish(process) for process in start_two(tmp_path, "mixed")]
    assert "process 1 of 2" in outputs[1]
    assert_same_numbers(history(tmp_path), one_device)
    assert len(list((tmp_path / "tensorboard" / "fold_1").glob("events*"))) == 1


def wait_for_an_epoch(workdir, *processes: subprocess.Popen) -> None:
    while not (workdir / "history.jsonl").exists():
        for process in processes:
            assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.2)


@pytest.mark.slow
def test_a_signal_to_one_process_makes_all_save_and_stop(tmp_path):
    first, second = start_two(tmp_path, "cae", "--config.num_epoch=1000", "--config.do_cv=False")
    wait_for_an_epoch(tmp_path, first, second)
    second.send_signal(signal.SIGTERM)
    for process in (first, second):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 128 + signal.SIGTERM, output[-3000:]
    saved = [path.name for path in (tmp_path / "test" / "interrupted").iterdir()]
    assert saved == ["1"]


@pytest.mark.slow
def test_a_lost_process_ends_the_other_with_an_error(tmp_path):
    first, second = start_two(tmp_path, "mixed", "--config.num_epoch=1000")
    wait_for_an_epoch(tmp_path, first, second)
    second.send_signal(signal.SIGKILL)
    began = time.monotonic()
    output, _ = first.communicate(timeout=devices.HEARTBEAT_SECONDS + 60)
    assert first.returncode != 0
    assert time.monotonic() - began < devices.HEARTBEAT_SECONDS + 45
    assert "error" in output.lower() or "fail" in output.lower(), output[-2000:]


def test_as_many_devices_as_divide_the_runs_go_along_the_fold_axis():
    mesh = devices.make_mesh(num_runs=5)
    assert mesh.axis_names == ("fold", "data")
    assert mesh.devices.size == mesh.shape["fold"] * mesh.shape["data"]
