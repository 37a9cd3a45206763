"""Tests of caecnn_jax.training.signals: one signal is a request, a later one ends the process."""

import os
import signal
import subprocess
import sys
import time

import pytest
from builders import PROJECT

from caecnn_jax.training import signals

# Hashing stands for XLA's compiler: minutes in C, in which Python runs no handler.
CHILD = """
import hashlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind an "&"
from caecnn_jax.training import signals
with signals.listen():
    print("listening", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """As a shell starts a program in the foreground."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in signals.SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def wait_until(happened):
    deadline = time.time() + 10
    while not happened():
        assert time.time() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_signal_is_a_request_to_stop(signum, caplog):
    with signals.listen() as request:
        assert not request.is_made()
        os.kill(os.getpid(), signum)
        wait_until(request.is_made)
        assert request.signum == signum
    assert f"{signum.name}: stopping after this step" in caplog.text


def test_handlers_are_put_back():
    before = [signal.getsignal(signum) for signum in signals.SIGNALS]
    with signals.listen():
        pass
    assert [signal.getsignal(signum) for signum in signals.SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_another_signal_is_no_request():
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    try:
        with signals.listen() as request:
            os.kill(os.getpid(), signal.SIGWINCH)
            time.sleep(0.1)
            assert not request.is_made()
    finally:
        signal.signal(signal.SIGWINCH, before)


def test_an_ignored_signal_stays_ignored():
    """As nohup starts a program."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.listen() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert not request.is_made()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_request_of_the_programs_own_leaves_the_first_signal_polite():
    request = signals.StopRequest()
    request.make()
    request.receive(signal.SIGTERM)  # does not end this process
    assert request.signum == signal.SIGTERM


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1])
def test_processes_in_step_take_it_for_sigterm(signum):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with signals.listen(in_step=True):
            os.kill(os.getpid(), signum)
            wait_until(lambda: heard)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_signals_within_two_seconds_are_one_a_later_one_stops_at_once(monkeypatch):
    """As a process group and a wrapper send them both."""
    now, ends = [100.0], []
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    request = signals.StopRequest()
    for now[0], signum in [(100, 15), (100.2, 15), (101.9, 2)]:
        request.receive(signum)
    assert (request.signum, ends) == (signal.SIGTERM, [])
    now[0] = 102.1
    request.receive(signal.SIGINT)
    assert ends == [130]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGTERM, signal.SIGINT, 130),
     (signal.SIGTERM, signal.SIGTERM, 143)],
)  # fmt: skip
def test_a_second_signal_ends_the_process_at_once_even_while_it_compiles(first, second, code):
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", CHILD], env=environment, **pipes) as child:
        assert child.stdout.readline() == b"listening\n"
        time.sleep(0.2)  # into the hashing
        child.send_signal(first)
        assert b"stopping after this step" in child.stderr.readline()
        assert child.poll() is None
        child.send_signal(second)  # so close that it is the same
        time.sleep(signals.ONE + 0.2)
        assert child.poll() is None
        child.send_signal(second)
        assert child.wait(5) == code
