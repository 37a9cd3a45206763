"""Each mode's real command, as a user gives it."""

import errno
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from builders import prepared_data_dir
from PIL import Image

from caecnn_jax import modes
from caecnn_jax.records import workdir
from caecnn_jax.reports import pages, report
from caecnn_jax.results import tables


def command(project, *arguments, timeout=180):
    """The ended command `python main.py ARGUMENTS`, its output as text."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "main.py", *map(str, arguments)],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_help_shows_each_mode_with_an_example(project):
    shown = command(project, "--help")
    assert shown.returncode == 0, shown.stderr
    text = shown.stdout
    for mode in ("evaluate", "predict", "export", "report"):
        assert f"python main.py --mode {mode} --workdir" in text
    assert "python main.py --config configs/mixed.py" in text
    assert "--helpfull" in text


def test_a_report_that_fails_hides_no_figure_of_the_training(monkeypatch, tmp_path, capsys):
    def fails(_):
        raise pages.ReportError("no room")

    monkeypatch.setattr(report, "write", fails)
    monkeypatch.setattr(tables, "summary_table", lambda _: "the table")
    monkeypatch.setattr(tables, "summary_sentence", lambda _: "the sentence")
    with pytest.raises(pages.ReportError):
        modes.after_training({}, str(tmp_path))
    assert capsys.readouterr().out == "\nthe table\n\nlearnt: the sentence\n"


def test_predict(project, trained_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    common = ["--mode=predict", "--workdir", trained_run, "--output", tmp_path / "out"]
    done = command(project, *common, "--images", tmp_path / "a.png", tmp_path / "b.jpg")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 images were resized" in done.stdout
    (tmp_path / "c.png").write_bytes(b"damaged")
    done = command(project, *common, "--images", tmp_path, "--fold=all")
    assert done.returncode == 4, done.stderr
    assert f"{tmp_path / 'c.png'}: not a PNG" in done.stderr
    assert "1 of 3 files were skipped" in done.stdout
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]) == 2


def test_predict_without_an_image_is_a_users_error(project, trained_run):
    done = command(project, "--mode=predict", "--workdir", trained_run, "--images", "missing.png")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: --images=missing.png: ")
    assert "Traceback" not in done.stderr


def test_export(project, trained_run, tmp_path):
    file = tmp_path / "model.jax"
    done = command(project, "--mode=export", "--workdir", trained_run, "--output", file)
    assert done.returncode == 0, done.stderr
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    outputs = program.call(np.zeros((2, 32, 32, 3), np.uint8))
    assert outputs["probabilities"].shape == (2, 10)


def test_report_and_comparison(project, trained_run, tmp_path):
    (trained_run / "report.html").unlink(missing_ok=True)  # of another test
    done = command(project, "--mode=report", "--workdir", trained_run)
    assert done.returncode == 0, done.stderr
    assert "F1 by class" in (trained_run / "report.html").read_text()
    other = tmp_path / "other"
    other.symlink_to(trained_run)
    runs = ["--runs", trained_run, other]
    done = command(project, "--mode=report", *runs, "--workdir", tmp_path / "compared")
    assert done.returncode == 0, done.stderr
    assert "Comparison with mixed" in (tmp_path / "compared" / "comparison.html").read_text()


def test_report_into_another_folder(project, trained_run, tmp_path):
    where = ["--output", tmp_path / "new"]
    done = command(project, "--mode=report", "--workdir", trained_run, *where)
    assert done.returncode == 0, done.stderr
    assert "F1 by class" in (tmp_path / "new" / "report.html").read_text()


def test_evaluate_prints_what_it_cannot_write(
    trained_run, same_data, tmp_path, monkeypatch, capsys
):
    """In a run's folder that is read-only; the same where --output names such a place."""

    def refuses(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    first = {"fold": "1", "checkpoint": "last", "split": None, "elsewhere": {}}
    with monkeypatch.context() as patch:
        patch.setattr(workdir, "_write", refuses)
        assert modes.evaluate(trained_run, **first, output=None) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("fold_1-valid-last\n") and "accuracy" in printed
        assert re.search("not written: cannot write .* Read-only .* another --output", printed)
        with pytest.raises(workdir.WorkdirError):
            modes.evaluate(trained_run, **first, output=str(tmp_path / "out"))
        assert "accuracy" in capsys.readouterr().out
    assert modes.evaluate(trained_run, **first, output=str(tmp_path / "out")) == 0
    assert (tmp_path / "out" / "fold_1-valid-last.json").exists()


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(prepared_data_dir() is None, reason="no prepared CIFAR-10")
def test_train_then_evaluate(project, tmp_path):
    options = ["--config=configs/mixed.py:quick", "--config.num_epoch=1"]
    options += ["--config.only_train_cae_until=0", "--config.num_folds=2"]
    options += [f"--config.data_dir={prepared_data_dir()}"]
    done = command(project, *options, "--workdir", tmp_path / "run", timeout=400)
    assert done.returncode == 0, done.stderr
    assert re.search(r"fold_2 +1/1 +joint", done.stderr)
    assert "\r" not in done.stderr  # no progress bar where nobody watches
    table = done.stdout.splitlines()
    assert any("fold 1  fold 2       mean ± std    test" in line for line in table)
    assert any(line.startswith("F1 truck") and "±" in line for line in table)
    assert (tmp_path / "run" / "report.html").exists()
    done = command(project, "--mode=evaluate", "--workdir", tmp_path / "run", "--fold=2")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "evaluations" / "fold_2-valid-last.json").exists()
