"""--mode study as a command."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from builders import make_data

from caecnn_jax import command_line, modes, study
from caecnn_jax.training import devices, parts

PROJECT = pathlib.Path(__file__).parent.parent
FILE = """
from configs import default

def get_study(arg="2"):
    base = default.get_config()
    base.dataset, base.train_data_regulation = {data!r}, {{}}
    base.num_folds, base.run_folds, base.batch_size, base.save_img_per_epoch = 2, 1, 32, 0
    base.do_test, base.num_epoch = False, int(arg)
    base.cnn.block_sizes = ((3, 4, True), (4, 6, True))
    variants = {{"plain": {{}}, "wild": {{"cnn.opt.lr": 1e30}}}}
    return {{"base": base, "variants": variants, "seeds": (0,), "baseline": "plain"}}
"""


@pytest.fixture
def file(tmp_path):
    """A study of two variants, of which one diverges."""
    data, n = make_data(), 200
    parts = {"x_train": data.images[:n], "y_train": data.labels[:n]}
    np.savez(tmp_path / "tiny.npz", **parts, x_test=data.images[n:], y_test=data.labels[n:])
    (tmp_path / "mine.py").write_text(FILE.format(data=str(tmp_path / "tiny.npz")))
    return tmp_path / "mine.py"


def run(*args: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "main.py", "--mode=study", *map(str, args)]
    options = {"cwd": PROJECT, "env": os.environ | environment, "check": False}
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.mark.slow
def test_a_study_trains_with_its_base_changed_and_names_what_failed(file, tmp_path):
    args = ("--config", f"{file}:3", "--config.num_epoch=1", "--workdir", tmp_path / "runs")
    in_ascii = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(*args, **in_ascii)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "| plain | 1 | " in done.stdout and "failed: wild/seed_0: " in done.stdout
    found = json.loads((tmp_path / "runs" / "study.json").read_text())
    assert list(found["variants"]["plain"]["cv"]["accuracy"]["values"]) == ["seed_0/fold_1"]
    assert found["unfinished"] == ["wild/seed_0"] == list(found["failed"])
    assert found["failed"]["wild/seed_0"] in (tmp_path / "runs" / "study.html").read_text()
    config = json.loads((tmp_path / "runs" / "plain" / "seed_0" / "config.json").read_text())
    assert config["num_epoch"] == 1


@pytest.mark.slow
def test_a_dry_run_tells_what_would_train_and_writes_nothing(file, tmp_path):
    done = run("--config", file, "--workdir", tmp_path / "runs", "--dry_run")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:6] for row in rows[1:3]] == [
        [name, "0", "1", "1", "100", "2"] for name in ("plain", "wild")
    ]
    assert "2 trainings, 0 done; the other 2 take about" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_part_does_not_begin_where_another_parts_variant_is_wrong(file, tmp_path):
    text = file.read_text().replace('{"cnn.opt.lr": 1e30}', '{"train_data_regulation": {"x": 1}}')
    file.write_text(text)
    done = run("--config", file, "--workdir", tmp_path / "runs", "--index=0", "--count=2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: variant 'wild': config.train_data_reg")
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_of_the_launcher_tells_of_all_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(command_line, "study_file", lambda: "studies/ablation.py")
    monkeypatch.setattr(devices, "start", lambda *_: None)
    told = []
    monkeypatch.setattr(parts, "plan", lambda study, runs, folder: told.append((study, runs)))
    base = study.get_config("studies/ablation.py")
    assert (
        modes.study(base, str(tmp_path), index=None, count=16, launcher="submitit", dry_run=True)
        == 0
    )
    ((told_study, runs),) = told
    assert list(runs) == list(told_study.runs)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "--config is missing: for example --config studies/ablation.py"),
        (["--config", "configs/cnn.py"], "has no function get_study"),
        (["--config", "studies/ablation.py", "--index=3"], "--index and --count go together"),
        (["--config", "studies/ablation.py", "--fold=1"], "--fold is for --mode evaluate"),
        (["--config", "studies/ablation.py", "--config.num_epochs=1"], "num_epochs is no field"),
        (["--config", "studies/ablation.py", "--config.dataset=a.npz"], "nothing at that path"),
        (
            ["--config", "studies/ablation.py", "--launcher=submitit", "--index=0", "--count=2"],
            "--index is for one part, --launcher for all",
        ),
        (
            ["--config", "studies/ablation.py", "--launcher=submitit", "--count=0"],
            "flag --count=0: 0 is not a positive integer",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(args, sentence, tmp_path):
    done = run(*args, "--workdir", tmp_path / "runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()
