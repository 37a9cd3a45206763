"""Two processes of a job, which train in step on all of its devices."""

import signal
import time

import pytest
from jobs import assert_same_numbers, finish, history, start, start_two, wait_for

from caecnn_jax.training import devices

pytestmark = pytest.mark.slow


def test_in_step_two_processes_give_the_numbers_of_one_and_one_of_them_writes(tmp_path):
    run = ("mixed", "--config.do_cv=False")
    finish(start(tmp_path / "one", *run, num_devices=1))
    outputs = [finish(process) for process in start_two(tmp_path / "two", *run)]
    assert "process 1 of 2" in outputs[1]
    assert_same_numbers(history(tmp_path / "two"), history(tmp_path / "one"))
    assert len(list((tmp_path / "two" / "tensorboard" / "test").glob("events*"))) == 1


def test_in_step_a_signal_to_one_process_makes_all_save_and_stop(tmp_path):
    run = ("cae", "--config.num_epoch=1000", "--config.do_cv=False")
    first, second = start_two(tmp_path, *run)
    wait_for(tmp_path / "history.jsonl", first, second)
    wait_for(tmp_path / "test" / "1", first, second)
    second.send_signal(signal.SIGTERM)
    for process in (first, second):
        finish(process, 128 + signal.SIGTERM)
    saved = [path.name for path in (tmp_path / "test" / "interrupted").iterdir()]
    assert saved == ["1"]


def test_a_lost_process_ends_the_other_with_an_error(tmp_path):
    first, second = start_two(tmp_path, "mixed", "--config.num_epoch=1000")
    wait_for(tmp_path / "fold_1" / "1", first, second)
    second.send_signal(signal.SIGKILL)
    second.wait()
    began = time.monotonic()
    first.wait(timeout=devices.HEARTBEAT_SECONDS + 60)
    output = first.said()
    assert first.returncode != 0
    assert time.monotonic() - began < devices.HEARTBEAT_SECONDS + 45
    assert "error" in output.lower() or "fail" in output.lower(), output[-2000:]
