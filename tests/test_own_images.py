"""The real command on a folder of photographs as people have them, from training to the report."""

import json
import shutil
import signal
import subprocess
import sys
import time

import image_folders
import numpy as np
import pytest
from builders import PROJECT
from stress import kill_resume

SMALL = (
    "cnn.block_sizes=((0,4,True),(10,6,True))",
    "image_size=16",
    "num_folds=2",
    "num_epoch=8",
    "image_budget=0",
    "batch_size=8",
    "save_img_per_epoch=4",
    "steps_per_call=1",
)


def command(*words) -> list[str]:
    return [sys.executable, "main.py", *map(str, words)]


def training(photos, workdir) -> list[str]:
    settings = [f"--config.{setting}" for setting in SMALL]
    config = ["--config=configs/own_images.py", f"--config.dataset={photos}", *settings]
    return command(*config, "--workdir", workdir)


def run(words: list[str], code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Classes 2, 10 and Bär, without a test part, with everything that is no photograph."""
    return image_folders.odd(
        tmp_path_factory.mktemp("photos") / "my photos", take=image_folders.photograph
    )


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    """A run's folder, of a command that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    done = run(training(photos, workdir))
    assert "broken.png" in done.stderr and "learnt: accuracy" in done.stdout
    return workdir


@pytest.mark.slow
def test_what_a_run_says_of_its_data(alone):
    description = json.loads((alone / "dataset.json").read_text())
    assert [len(name) for name in description["class_names"]] == [1, 2, 3]
    assert description["class_names"][:2] == ["2", "10"]  # natural order
    assert (description["image_size"], description["channels"]) == (16, 3)
    counts = json.loads((alone / "run.json").read_text())["class_counts"]
    assert sum(counts["all"]["test"].values()) == 4  # a share of each class is held out
    visited = set(counts["test"]["expanded"].values())
    assert len(visited) == 1  # each class as often as the largest


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bits_of_one_left_alone(photos, alone, tmp_path):
    workdir = tmp_path / "run"
    for epochs in (3, 11):  # in the first fold, and in the second
        with subprocess.Popen(
            training(photos, workdir), cwd=PROJECT, stderr=subprocess.DEVNULL
        ) as process:
            history = workdir / "history.jsonl"
            while not (history.exists() and len(history.read_text().splitlines()) >= epochs):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    run(training(photos, workdir))
    assert kill_resume.differences(alone, workdir) == []


@pytest.mark.slow
def test_a_finished_run_is_evaluated_where_its_photographs_lie_now(photos, alone, tmp_path):
    logged = json.loads((alone / "metrics.json").read_text())["test"]
    moved = shutil.copytree(photos, tmp_path / "moved", symlinks=True)
    (moved / "2" / "loop").unlink()  # which leads to where the photographs were
    evaluate = command("--mode=evaluate", "--workdir", alone)
    run([*evaluate, f"--config.dataset={moved}"])
    found = json.loads((alone / "evaluations" / "test-test-last.json").read_text())
    assert found["confusion_matrix"] == logged["confusion_matrix"]
    assert found["loss_cnn"] == pytest.approx(logged["loss_cnn"], rel=1e-6)

    image_folders.photograph(99).save(moved / "10" / "one more.png")
    refused = run([*evaluate, f"--config.dataset={moved}"], code=2)
    assert "holds other images" in refused.stderr and "--split test" in refused.stderr
    done = run([*evaluate, f"--config.dataset={moved}", "--split=train"])
    assert "other images than the run was trained on" in done.stdout
    (written,) = (alone / "evaluations").glob("test-train-last-on-moved-????????.json")
    found = json.loads(written.read_text())
    assert found["data"]["digest"] != found["data"]["trained_on"]
    refused = run([*evaluate, f"--config.data_dir={moved}", "--config.seed=1"], code=2)
    assert "config.seed" in refused.stderr


@pytest.mark.slow
def test_predict_export_and_report_need_no_training_data(photos, alone, tmp_path):
    gone = tmp_path / "run"
    shutil.copytree(alone, gone)
    (gone / "config.json").write_text(
        (gone / "config.json").read_text().replace(str(photos), str(tmp_path / "nowhere"))
    )
    photo = photos / "10" / "a photo.png"
    run(command("--mode=predict", "--workdir", gone, "--images", photo, "--fold=all"))
    (row,) = json.loads((gone / "predictions" / "predictions.json").read_text())["predictions"]
    names = json.loads((gone / "dataset.json").read_text())["class_names"]
    assert list(row["probabilities"]) == names and row["top_class"] in names
    run(command("--mode=export", "--workdir", gone, "--output", tmp_path / "model.npz"))
    assert np.load(tmp_path / "model.npz")["cnn.linear.weight"].shape[0] == len(names)
    (gone / "report.html").unlink()
    run(command("--mode=report", "--workdir", gone))
    page = (gone / "report.html").read_text()
    assert all(name in page for name in names)
