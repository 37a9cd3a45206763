"""Two processes of a job: each with runs of its own, or both in step on all devices."""

import json
import signal
import time

import pytest
from jobs import assert_same_numbers, finish, history, start, start_two, wait_for
from stress import kill_resume

pytestmark = pytest.mark.slow

IN_STEP = "--config.devices_per_run=4"
RUNS = ("cae", '--config.dtype="float32"', "--config.num_epoch=30")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of two folds and the test run, trained by one process on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(start(workdir, *RUNS, num_devices=1))
    return workdir


def test_each_process_trains_its_runs_and_one_writes_what_they_came_to(alone, tmp_path):
    outputs = [finish(process) for process in start_two(tmp_path, *RUNS)]
    for output, trained, left in zip(
        outputs, (("fold_1", "test"), ("fold_2",)), (("fold_2",), ("fold_1", "test")), strict=True
    ):
        assert all(f"{run:6} 30/30" in output for run in trained)
        assert not any(f"{run:6} 30/30" in output for run in left)
    assert kill_resume.differences(alone, tmp_path) == []
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [fold["fold"] for fold in metrics["cv"]["folds"]] == [1, 2] and metrics["test"]
    for run in ("fold_1", "fold_2", "test"):
        assert len(list((tmp_path / "tensorboard" / run).glob("events*"))) == 1


def test_processes_that_are_stopped_go_on_to_the_same_end(alone, tmp_path):
    processes = start_two(tmp_path, *RUNS)
    for run in ("fold_1", "fold_2"):
        wait_for(tmp_path / run / "1", *processes)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        finish(process, 128 + signal.SIGTERM)
    assert not (tmp_path / "metrics.json").exists()
    before = {(one["run"], one["epoch"]) for one in history(tmp_path)}
    processes = start_two(tmp_path, *RUNS)
    while all(process.poll() is None for process in processes):
        assert before <= {(one["run"], one["epoch"]) for one in history(tmp_path)}
        time.sleep(0.1)
    for process in processes:
        finish(process)
    assert kill_resume.differences(alone, tmp_path) == []


def test_in_step_two_processes_give_the_numbers_of_one_and_one_of_them_writes(tmp_path):
    run = ("mixed", "--config.do_cv=False")
    finish(start(tmp_path / "one", *run, num_devices=1))
    outputs = [finish(process) for process in start_two(tmp_path / "two", *run, IN_STEP)]
    assert "process 1 of 2" in outputs[1]
    assert_same_numbers(history(tmp_path / "two"), history(tmp_path / "one"))
    assert len(list((tmp_path / "two" / "tensorboard" / "test").glob("events*"))) == 1


def test_in_step_a_signal_to_one_process_makes_all_save_and_stop(tmp_path):
    run = ("cae", "--config.num_epoch=1000", "--config.do_cv=False", IN_STEP)
    first, second = start_two(tmp_path, *run)
    wait_for(tmp_path / "history.jsonl", first, second)
    wait_for(tmp_path / "test" / "1", first, second)
    second.send_signal(signal.SIGTERM)
    for process in (first, second):
        finish(process, 128 + signal.SIGTERM)
    saved = [path.name for path in (tmp_path / "test" / "interrupted").iterdir()]
    assert saved == ["1"]


@pytest.mark.parametrize("how", [(), (IN_STEP,)], ids=["runs of its own", "in step"])
def test_a_lost_process_ends_the_other_with_an_error(tmp_path, how):
    job = ("mixed", "--config.num_epoch=1000", *how)
    first, second = start_two(tmp_path, *job, HEARTBEAT_SECONDS="10")
    wait_for(tmp_path / "fold_1" / "1", first, second)
    second.send_signal(signal.SIGKILL)
    second.wait()
    first.wait(timeout=55)  # sooner than by the program's own HEARTBEAT_SECONDS
    output = first.said()
    assert first.returncode != 0
    assert "error" in output.lower() or "fail" in output.lower(), output[-2000:]
