"""Tests of caecnn_jax.command_line: its flags. test_bad_input has what is refused."""

import ast
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

import main  # noqa: F401, for it defines the flags
from caecnn_jax import command_line, errors

PROJECT = pathlib.Path(__file__).parent.parent


def test_a_flag_of_another_mode_is_refused():
    used = {"train": ("config",), "evaluate": ("fold", "split"), "predict": ("fold",)}
    with flagsaver.flagsaver():
        flags.FLAGS(["main.py", "--fold=1"])
        command_line.check_used("evaluate", used)
        with pytest.raises(errors.UserError, match="--fold is for --mode evaluate, predict, and n"):
            command_line.check_used("train", used)


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


@pytest.mark.parametrize("flag", ["--config", "-config", "-config=", "--config="])
def test_a_config_of_the_programs_own_is_found_from_anywhere(flag, tmp_path):
    path = "configs/mixed.py"
    given = [f"{flag}{path}"] if flag.endswith("=") else [flag, path]
    done = main_py(*given, "--config.num_epoch=0", f"--workdir={tmp_path}/run", cwd=tmp_path)
    assert done.returncode == 2 and "config.num_epoch=0: must be" in done.stderr


def test_help_that_nobody_reads_ends_as_others_do():
    command = f"{sys.executable} main.py --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=PROJECT, capture_output=True, check=False)
    assert done.returncode in (0, 141) and done.stderr == b""
