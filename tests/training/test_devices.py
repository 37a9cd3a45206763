"""The same numbers on one device and on many, in one process and in two."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from caecnn_jax import errors
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


@pytest.fixture
def no_cache_yet():
    """JAX's setting of a cache, as it is in a fresh process, and put back after the test."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_no_home_means_no_cache_and_a_warning(no_cache_yet, monkeypatch, caplog):
    """As in a container with an arbitrary user: no HOME, and no entry in /etc/passwd."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", home)
    devices.start("float32")
    assert jax.config.jax_compilation_cache_dir is None
    assert "Nothing compiled is kept" in caplog.text and "home directory" in caplog.text


def test_a_home_that_cannot_be_written_means_no_cache(no_cache_yet, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    devices.start("float32")
    assert jax.config.jax_compilation_cache_dir is None
    assert "Nothing compiled is kept" in caplog.text


@pytest.mark.parametrize("value", ["", "two", "1.5"])
@pytest.mark.parametrize("name", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_a_place_in_a_job_that_is_no_number_is_one_sentence(monkeypatch, name, value):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("not reached"))
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.UserError, match=f"{name}='{value}' is no whole number"):
        devices.start("float32", distributed=True)


@pytest.mark.parametrize(
    ("process", "sentence"),
    [
        ("0", "waiting as process 0 for the 2 other process(es) of the job to come to host:1234"),
        ("1", "waiting as process 1 for the job's first process, at host:1234"),
        (None, "waiting for the job's first process, at host:1234"),
    ],
)
def test_it_is_said_for_whom_a_process_waits(monkeypatch, caplog, process, sentence):
    monkeypatch.setattr(devices, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: time.sleep(0.5))
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    monkeypatch.delenv("JAX_PROCESS_ID", raising=False)
    if process:
        monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
        monkeypatch.setenv("JAX_PROCESS_ID", process)
    devices.start("float32", distributed=True)
    assert sentence in caplog.text


def test_nothing_is_said_where_all_come_at_once(monkeypatch, caplog):
    monkeypatch.setattr(devices, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: None)
    devices.start("float32", distributed=True)
    time.sleep(0.4)
    assert "waiting" not in caplog.text


@pytest.mark.parametrize("precision", ["default", "highest"])
def test_an_accelerator_multiplies_as_asked_and_a_cpu_as_ever(monkeypatch, caplog, precision):
    caplog.set_level("INFO", logger="absl")
    before = jax.config.jax_default_matmul_precision
    devices.start("float32", precision)
    assert jax.config.jax_default_matmul_precision == before
    assert "matmul_precision" not in caplog.text
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    try:
        devices.start("float32", precision)
        assert jax.config.jax_default_matmul_precision == precision
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    bits = {"default": "8 bits", "highest": "24 bits"}[precision]
    assert f"config.matmul_precision={precision}: a float32 product is" in caplog.text
    assert bits in caplog.text
