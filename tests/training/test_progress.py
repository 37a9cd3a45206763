"""Tests of caecnn_jax.training.progress: history.jsonl, an epoch's line, the time left."""

import json

import numpy as np
import pytest
from builders import tiny_config
from etils import epath

from caecnn_jax.data import sampling
from caecnn_jax.records import journal
from caecnn_jax.training import progress


def record(run: str, epoch: int, seconds: float, phase: str = "joint") -> dict:
    return {
        "run": run,
        "epoch": epoch,
        "phase": phase,
        "train": {"loss_cae": None, "loss_cnn": 0.5},
        "valid": {"loss_cae": None, "loss_cnn": 0.25, "accuracy": 0.75},
        "confusion_matrix": [[1]],
        "seconds": seconds,
        "images_per_second": 1234.5,
    }


@pytest.fixture
def runs():
    """Two runs of which nothing is trained."""
    splits = [sampling.Split(f"fold_{n}", n, *[np.arange(3)] * 3) for n in (1, 2)]
    return [journal.Journal(epath.Path("nowhere"), split, None) for split in splits]


def progress_of(runs, folder="nowhere", *, at_once=1, writes=True, **changes):
    config = tiny_config("mixed", num_epoch=10, **changes)
    return progress.Progress(config, epath.Path(folder), runs, at_once=at_once, writes=writes)


def test_history_is_written_run_by_run_by_one_process(runs, tmp_path):
    runs[1].records = [record("fold_2", 1, 1.0)]
    runs[0].records = [record("fold_1", 1, 1.0), record("fold_1", 2, 1.0)]
    progress_of(runs, tmp_path, writes=False).write_history()
    assert not (tmp_path / "history.jsonl").exists()
    progress_of(runs, tmp_path).write_history()
    lines = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert [(one["run"], one["epoch"]) for one in lines] == [
        ("fold_1", 1),
        ("fold_1", 2),
        ("fold_2", 1),
    ]


@pytest.mark.parametrize(("at_once", "left"), [(1, "0:01:15"), (2, "0:00:38")])
def test_an_epochs_line_tells_its_figures_and_the_time_left(runs, caplog, at_once, left):
    runs[0].records = [record("fold_1", epoch, 5.0) for epoch in range(1, 6)]
    # 5 epochs of one run and 10 of the other, of 5 seconds each.
    with caplog.at_level("INFO", logger="absl"):
        progress_of(runs, at_once=at_once, only_train_cae_until=0).log(runs[0].records[-1])
    assert caplog.messages[-1] == (
        f"fold_1  5/10 joint   cae     -/    -  cnn 0.500/0.250  accuracy 0.7500  {left} left"
    )


def test_the_time_left_knows_that_warmup_is_quicker(runs, caplog):
    runs[0].records = [record("fold_1", 1, 1.0, "warmup"), record("fold_1", 2, 3.0)]
    with caplog.at_level("INFO", logger="absl"):
        progress_of(runs, only_train_cae_until=1).log(runs[0].records[-1])
    # 8 joint epochs of the first, and of the second a warm-up epoch and 9 joint ones.
    assert caplog.messages[-1].endswith("  0:00:52 left")


def test_a_bar_is_of_the_next_epoch(runs):
    runs[0].records = [record("fold_1", 1, 1.0)]
    with progress_of(runs).bar(runs[0], epoch=2, first_step=3, num_steps=8) as bar:
        assert (bar.n, bar.total) == (3, 8)
        assert bar.disable  # where nobody watches


@pytest.mark.parametrize(
    ("kind", "epoch", "joint"), [("mixed", 2, False), ("mixed", 3, True), ("cnn", 1, True)]
)
def test_warmup_is_of_both_networks(kind, epoch, joint):
    config = tiny_config(kind, only_train_cae_until=2 if kind == "mixed" else 0)
    assert progress.is_joint(epoch, config) == joint
