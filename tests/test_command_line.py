"""Tests of caecnn_jax.command_line: how a command ends. test_bad_input has what is refused."""

import ast
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest
from absl import flags
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


def test_a_flag_of_another_mode_is_refused():
    used = {"train": ("config",), "evaluate": ("fold", "split"), "predict": ("fold",)}
    with flagsaver.flagsaver():
        flags.FLAGS(["main.py", "--fold=1"])
        command_line.check_used("evaluate", used)
        with pytest.raises(errors.UserError, match="--fold is for --mode evaluate, predict, and n"):
            command_line.check_used("train", used)


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
        (
            ["--flagfile=missing", "--workdir", "runs/x"],
            2,
            "error: --flagfile: ERROR:: Unable to open flagfile: [Errno 2] No such file or "
            "directory: 'missing'\n",
        ),
    ],
)
def test_the_process_itself_ends_so(args, code, wanted):
    command = [sys.executable, "main.py", *args]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr, ended.stdout) == (code, wanted, "")


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
    code = "from caecnn_jax import command_line; command_line.open_streams()\n"
    code += f"import os; os.write(2, b'noise'); open({str(tmp_path / 'f')!r}, 'w').write('x')\n"
    code += "os.write(2, b'noise')"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} 2>&-"
    subprocess.run(["bash", "-c", line], cwd=PROJECT, check=True)
    assert (tmp_path / "f").read_text() == "x"


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [("own_images", "all=50", {"all": 50}), ("mixed", "bird=largest", {"bird": "largest"})],
)
def test_an_expansion_may_become_a_count_or_the_largest(config, given, expected):
    code = (
        "import sys, main; from absl import flags; from caecnn_jax import command_line, config;"
        "command_line.parse(sys.argv); made = flags.FLAGS.config; config.validate(made);"
        "print(made.train_data_expansion.to_dict())"
    )
    fields = [f"--config=configs/{config}.py", f"--config.train_data_expansion.{given}"]
    command = [sys.executable, "-c", code, *fields, "--workdir=unused"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout).items() >= expected.items()


def main_py(*args, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROJECT / "main.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_a_studys_flags_may_be_in_a_flagfile_and_its_files_are_found_from_anywhere(tmp_path):
    flagfile = tmp_path / "f.txt"
    flagfile.write_text("--mode=study\n--config=studies/ablation.py\n--config.num_epoch=0\n")
    done = main_py(f"--flagfile={flagfile}", f"--workdir={tmp_path}/runs", cwd=tmp_path)
    assert done.returncode == 2 and "variant 'best': config.num_epoch=0" in done.stderr
    mine = tmp_path / "mine.py"
    mine.write_text(
        "def get_study():\n    return {'base': 'configs/best.py', 'variants': {'a': {'x': 1}},"
        " 'seeds': (0,), 'baseline': 'a'}\n"
    )
    args = ("--mode=study", f"--config={mine}", f"--workdir={tmp_path}/runs")
    assert "variant 'a': config.x is no field" in main_py(*args, cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--config=configs/cnn.py", "--config", "configs/cae.py"], "--config is there more than"),
        (["--config=studies/ablation.py"], "no function get_config; a study needs --mode study"),
        (["--flagfile=docs/report.png"], "--flagfile: "),
        (["--mode=predict", "--images", ""], "'' names nothing: give a path"),
        (["--mode=report", "--runs", "runs/a", "b="], "'b=' names nothing: give a path"),
    ],
)
def test_what_is_wrong_with_the_flags_is_one_sentence(args, sentence, tmp_path):
    done = main_py(*args, f"--workdir={tmp_path}/run", cwd=PROJECT)
    assert done.returncode == 2 and done.stdout == ""
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_that_nobody_reads_ends_as_others_do():
    command = f"{sys.executable} main.py --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=PROJECT, capture_output=True, check=False)
    assert done.returncode in (0, 141) and done.stderr == b""
