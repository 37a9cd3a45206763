"""One process: how devices are dealt out, and the same numbers on one device and on many."""

import signal
import time

import jax
import pytest
from jobs import assert_same_numbers, finish, history, start, wait_for
from stress import kill_resume

from caecnn_jax import errors
from caecnn_jax.data import cache
from caecnn_jax.training import devices

FLOAT32 = '--config.dtype="float32"'
RUNS = ("mixed", FLOAT32, "--config.num_epoch=8")


def test_one_device_trains_one_run_at_a_time():
    lanes = devices.lanes(0)
    assert lanes == devices.lanes(1)
    assert [mesh.size for mesh in lanes.meshes] == [1] and not lanes.shared
    assert lanes.part.is_whole and lanes.writes_runs()
    with pytest.raises(errors.UserError, match="devices_per_run=2: must divide the 1 device"):
        devices.lanes(2)


@pytest.fixture
def machine(monkeypatch):
    """Stands for a job's devices: `machine(8)` of one process, `machine(4, processes=2)` of two."""
    (device,) = jax.devices()

    def of(per_process: int, processes: int = 1, process: int = 0) -> None:
        monkeypatch.setattr(jax, "local_devices", lambda: [device] * per_process)
        monkeypatch.setattr(jax, "devices", lambda: [device] * per_process * processes)
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        monkeypatch.setattr(jax, "process_index", lambda: process)

    return of


@pytest.mark.parametrize(
    ("devices_per_run", "sizes"), [(0, [1] * 8), (2, [2] * 4), (4, [4, 4]), (8, [8])]
)
def test_the_devices_of_a_process_are_dealt_out_evenly(machine, devices_per_run, sizes):
    machine(8)
    lanes = devices.lanes(devices_per_run)
    assert [mesh.size for mesh in lanes.meshes] == sizes and not lanes.shared


@pytest.mark.parametrize("devices_per_run", [3, 16])
def test_a_number_of_devices_that_does_not_divide_is_refused(machine, devices_per_run):
    machine(8)
    message = f"config.devices_per_run={devices_per_run}: must divide the 8 device"
    with pytest.raises(errors.UserError, match=message):
        devices.lanes(devices_per_run)


@pytest.mark.parametrize(("process", "runs"), [(0, [0, 2, 4]), (1, [1, 3])])
def test_each_process_of_a_job_has_runs_of_its_own(machine, process, runs):
    machine(4, processes=2, process=process)
    lanes = devices.lanes(2)
    assert [mesh.size for mesh in lanes.meshes] == [2, 2] and not lanes.shared
    assert [*lanes.part.of(range(5))] == runs and lanes.writes_runs()


@pytest.mark.parametrize("process", [0, 1])
def test_on_all_devices_of_a_job_its_processes_train_in_step(machine, process):
    machine(4, processes=2, process=process)
    lanes = devices.lanes(8)
    assert [mesh.size for mesh in lanes.meshes] == [8] and lanes.shared
    assert lanes.part.is_whole and lanes.writes_runs() == (process == 0)
    with pytest.raises(errors.UserError, match=r"divide the 4 device.*, or be the job's 8"):
        devices.lanes(3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of two folds and the test run, trained in float32 on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(start(workdir, *RUNS, num_devices=1))
    return workdir


@pytest.mark.slow
def test_runs_at_the_same_time_leave_what_each_leaves_alone(alone, tmp_path):
    finish(start(tmp_path, *RUNS, num_devices=4))
    assert kill_resume.differences(alone, tmp_path) == []


@pytest.mark.slow
def test_six_runs_on_eight_devices_leave_what_each_leaves_alone(tmp_path):
    runs = ("mixed", FLOAT32, "--config.num_folds=5", "--config.num_epoch=2")
    for name, num_devices in (("alone", 1), ("at_once", 8)):
        finish(start(tmp_path / name, *runs, num_devices=num_devices))
    assert kill_resume.differences(tmp_path / "alone", tmp_path / "at_once") == []
    assert len({line["run"] for line in history(tmp_path / "at_once")}) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 2)])
def test_a_killed_run_goes_on_with_other_devices_to_the_same_end(alone, tmp_path, before, after):
    process = start(tmp_path, *RUNS, num_devices=before)
    wait_for(tmp_path / "fold_1" / "2", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(start(tmp_path, *RUNS, num_devices=after))
    assert kill_resume.differences(alone, tmp_path) == []


@pytest.mark.slow
def test_a_signal_stops_all_runs_that_train(alone, tmp_path):
    process = start(tmp_path, *RUNS, num_devices=3)
    wait_for(tmp_path / "fold_2" / "1", process)
    process.send_signal(signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)
    finish(start(tmp_path, *RUNS, num_devices=3))
    assert kill_resume.differences(alone, tmp_path) == []


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> list[dict]:
    """The history of a mixed run in float64 on one device."""
    workdir = tmp_path_factory.mktemp("one")
    finish(start(workdir, "mixed", "--config.do_cv=False", num_devices=1))
    return history(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [8, 3])  # the batch of 32 does not divide by 3
def test_the_numbers_of_a_run_do_not_depend_on_its_devices(one_device, tmp_path, num_devices):
    all_of_them = f"--config.devices_per_run={num_devices}"
    arguments = ("mixed", "--config.do_cv=False", all_of_them)
    finish(start(tmp_path, *arguments, num_devices=num_devices))
    assert_same_numbers(history(tmp_path), one_device)


@pytest.fixture
def no_cache_yet():
    """JAX's setting of a cache, as it is in a fresh process, and put back after the test."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_small_programs_are_kept_too_unless_the_environment_says_otherwise(monkeypatch):
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    try:
        for given, expected in (("2", before), (None, 0.0)):
            monkeypatch.delenv(name.upper(), raising=False)
            if given:
                monkeypatch.setenv(name.upper(), given)
            jax.config.update(name, before)
            devices.start("float32")
            assert jax.config.values[name] == expected
    finally:
        jax.config.update(name, before)


def test_no_home_means_no_cache_and_a_warning(no_cache_yet, monkeypatch, caplog):
    """As in a container with an arbitrary user: no HOME, and no entry in /etc/passwd."""

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    devices.start("float32")
    assert jax.config.jax_compilation_cache_dir is None
    assert "Nothing compiled is kept" in caplog.text and "home directory" in caplog.text


def test_a_cache_of_compiled_programs_lies_beside_the_other_caches(
    no_cache_yet, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/c")
    devices.start("float32")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "c" / "caecnn_jax")
    assert cache.user_folder() == tmp_path / "c" / "caecnn_jax"


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


@pytest.mark.parametrize("address", ["", "host", "host:", ":1234", "host:port"])
def test_an_address_that_is_none_is_one_sentence(monkeypatch, address):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("not reached"))
    with pytest.raises(errors.UserError, match=f"ADDRESS='{address}' is no HOST:PORT"):
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
