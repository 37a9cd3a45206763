"""Tests of caecnn_jax.exits: how a command ends. test_bad_input has what is refused."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest
from absl.testing import flagsaver

import main  # noqa: F401, for it defines the flags
from caecnn_jax import command_line, errors

PROJECT = pathlib.Path(__file__).parent.parent


def raises(error):
    def program(argv):
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (errors.UserError("mend this"), 2, "error: mend this"),
        (errors.Diverged("loss_cae is nan"), 3, "diverged: loss_cae is nan"),
        (
            errors.Interrupted(signal.SIGTERM),
            143,
            "stopped by SIGTERM: give the same command again to continue",
        ),
        (
            KeyboardInterrupt(),
            130,
            "stopped by SIGINT: give the same command again to continue",
        ),
        (
            OSError(28, "No space left on device", "runs/a"),
            2,
            "error: [Errno 28] No space left on device: 'runs/a': see to that path and its disk, "
            "then give the same command again",
        ),
    ],
)
def test_a_known_end_is_one_sentence_and_a_code(monkeypatch, capsys, error, code, sentence):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        command_line.run(raises(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == f"{sentence}\n"


SIGNALLED_WITHIN_A_CALLBACK = """
import gc, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind an "&"
import main
from caecnn_jax import command_line

def program(argv):
    gc.callbacks.append(lambda phase, info: os.kill(os.getpid(), signal.SIGINT))
    gc.collect()
    time.sleep(1)
    return 0

sys.argv = ["main.py"]
command_line.run(program)
"""


def test_an_interrupt_within_a_callback_of_the_garbage_collector_is_heard():
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED_WITHIN_A_CALLBACK],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == "stopped by SIGINT: give the same command again to continue\n"
    assert done.returncode == 130


def test_a_fault_of_the_program_itself_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    with flagsaver.flagsaver(), pytest.raises(ZeroDivisionError):
        command_line.run(raises(ZeroDivisionError()))


def test_the_exit_code_is_what_the_program_returns(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py"])
    for code in (0, 1):
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
            command_line.run(lambda argv, code=code: code)
        assert ended.value.code == code


PROGRAM = """
import sys, time
import main
from caecnn_jax import command_line
def program(argv):
    for _ in range(3):
        print("a line with ±", flush=True)
        time.sleep(0.3)
    sys.stderr.write("said\\n")
    return 4
command_line.run(program)
"""


def shell(line: str, **environment) -> subprocess.CompletedProcess:
    """A line of bash in which $PROGRAM is the command; the exit code is the command's."""
    program = f"{shlex.quote(sys.executable)} -c {shlex.quote(PROGRAM)}"
    line = line.replace("$PROGRAM", program) + "; exit ${PIPESTATUS[0]}"
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, timeout=60)


def test_a_closed_pipe_ends_quietly():
    ended = shell("$PROGRAM | head -n 1")
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_stream_that_cannot_encode_gets_other_characters():
    ended = shell("$PROGRAM", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (4, b"said\n")
    assert ended.stdout == b"a line with ?\n" * 3


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_stop_nothing(closed):
    assert shell(f"$PROGRAM {closed}").returncode == 4


def test_no_file_takes_a_closed_streams_number(tmp_path):
    """What libraries write to stderr would land in it."""
    code = "from caecnn_jax import exits; exits.open_streams()\n"
    code += f"import os; os.write(2, b'noise'); open({str(tmp_path / 'f')!r}, 'w').write('x')\n"
    code += "os.write(2, b'noise')"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} 2>&-"
    subprocess.run(["bash", "-c", line], cwd=PROJECT, check=True)
    assert (tmp_path / "f").read_text() == "x"
