"""Tests of the Makefile: what it would do, nothing is installed."""

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.mark.parametrize("installed", ["installed", "installed-with-tpu"])
def test_another_extra_is_installed_after_an_earlier_installation(project, tmp_path, installed):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(project / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    (tmp_path / ".venv" / installed).touch()

    def would(*arguments):
        command = ["make", "-n", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    assert "pip install -qq --editable '.[cuda]'" in would("demo", "EXTRA=cuda")
    again = would("demo", *(["EXTRA=tpu"] if "tpu" in installed else []))
    assert "main.py" in again and "pip install" not in again
    assert "'.[test]'" in would("test")
