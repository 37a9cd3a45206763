"""Tests of caecnn_jax.command_line: how a command ends. test_bad_input has what is refused."""

import pathlib
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


@pytest.mark.parametrize(
    ("args", "code", "wanted"),
    [
        ([], 2, "error: --workdir is missing: give the run's folder\n"),
        (
            ["--config", "configs/mixed.py:quik", "--workdir", "runs/x"],
            2,
            "error: --config=configs/mixed.py:quik: config argument 'quik': the only one known is "
            "'quick'\n",
        ),
    ],
)
def test_the_process_itself_ends_so(args, code, wanted):
    command = [sys.executable, "main.py", *args]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (code, wanted, "")
