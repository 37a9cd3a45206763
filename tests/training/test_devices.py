"""One process: how devices are dealt out, and the same numbers on one device and on many."""

import signal

import jax
import pytest
from jobs import assert_same_numbers, finish, history, start, wait_for
from stress import kill_resume

from caecnn_jax import errors
from caecnn_jax.training import devices

FLOAT32 = '--config.dtype="float32"'
RUNS = ("mixed", FLOAT32, "--config.num_epoch=8")


def test_one_device_trains_one_run_at_a_time():
    lanes = devices.lanes(0)
    assert lanes == devices.lanes(1)
    assert [mesh.size for mesh in lanes.meshes] == [1] and not lanes.shared
    assert lanes.at_once == 1 and [*lanes.runs_of_this_process(3)] == [0, 1, 2]
    assert lanes.writes_runs()
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
    assert lanes.at_once == len(sizes)


@pytest.mark.parametrize("devices_per_run", [3, 16])
def test_a_number_of_devices_that_does_not_divide_is_refused(machine, devices_per_run):
    machine(8)
    message = f"config.devices_per_run={devices_per_run}: must divide the 8 device.* or be all 8 of"
    with pytest.raises(errors.UserError, match=message):
        devices.lanes(devices_per_run)


@pytest.mark.parametrize(("process", "runs"), [(0, [0, 2, 4]), (1, [1, 3])])
def test_each_process_of_a_job_has_runs_of_its_own(machine, process, runs):
    machine(4, processes=2, process=process)
    lanes = devices.lanes(2)
    assert [mesh.size for mesh in lanes.meshes] == [2, 2] and not lanes.shared
    assert lanes.at_once == 4 and lanes.writes_runs()
    assert [*lanes.runs_of_this_process(5)] == runs


@pytest.mark.parametrize("process", [0, 1])
def test_on_all_devices_of_a_job_its_processes_train_in_step(machine, process):
    machine(4, processes=2, process=process)
    lanes = devices.lanes(8)
    assert [mesh.size for mesh in lanes.meshes] == [8] and lanes.shared
    assert lanes.at_once == 1 and [*lanes.runs_of_this_process(3)] == [0, 1, 2]
    assert lanes.writes_runs() == (process == 0)
    with pytest.raises(errors.UserError, match=r"divide the 4 device.*, or be all 8 of the job"):
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
@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 2)])
def test_a_killed_run_goes_on_with_other_devices_to_the_same_end(alone, tmp_path, before, after):
    process = start(tmp_path, *RUNS, num_devices=before)
    wait_for(tmp_path / "fold_1" / "2", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
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
