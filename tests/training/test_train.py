"""Tests of caecnn_jax.training.train: stopping, exact resume in-process, and the files of a run."""

import dataclasses
import json
import shutil
import signal

import numpy as np
import pytest
from builders import KINDS, less_optimized, tiny_config
from etils import epath
from trainings import RUNS, Killed, config_of, contents, kill_at_saves

from caecnn_jax import errors, saved_config
from caecnn_jax.data import augment, dataset
from caecnn_jax.part import Part
from caecnn_jax.records import about, journal, workdir
from caecnn_jax.results import evaluate
from caecnn_jax.training import signals, train

pytestmark = pytest.mark.usefixtures("draw_nothing")


def train_through(config, folder, data, stops) -> int:
    """Starts training again until it ends; returns how often it was stopped."""
    for count in range(99):
        try:
            train.train_and_evaluate(config, folder, data)
        except stops:
            continue
        return count
    raise AssertionError("it never ended")


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    kind, straight, tiny_data, tmp_path, monkeypatch
):
    expected = contents(straight(kind))
    # Six epochs: killed after the 2nd (fold_1 has ended), before the 3rd, after the 2nd again.
    for kill in (2, 1, 2):
        kill_at_saves(monkeypatch, kill)
        with pytest.raises(Killed):
            train.train_and_evaluate(config_of(kind), tmp_path / "run", tiny_data)
        monkeypatch.undo()
    train.train_and_evaluate(config_of(kind), tmp_path / "run", tiny_data)
    assert contents(tmp_path / "run") == expected


def test_parts_of_the_runs_come_to_what_one_command_does(
    straight, tiny_data, tmp_path, monkeypatch, caplog
):
    """In any order, and one of them killed: the part that ends last writes what all came to."""
    folder, config = tmp_path / "run", config_of("mixed")
    last, first = Part(1, 2), Part(0, 2)  # fold_2; fold_1 and the test run
    kill_at_saves(monkeypatch, 2)
    with pytest.raises(Killed):
        train.train_and_evaluate(config, folder, tiny_data, first)
    monkeypatch.undo()
    # Nothing is drawn here, whose last picture would say it.
    monkeypatch.setattr(journal.Journal, "is_complete", lambda self: len(self.records) == 2)
    with caplog.at_level("INFO", logger="absl"):
        assert train.train_and_evaluate(config, folder, tiny_data, last) is None
    assert "of this part have ended, but not yet test;" in caplog.text
    assert not (folder / "metrics.json").exists()
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["run"] for line in lines] == ["fold_1", "fold_1", "fold_2", "fold_2"]
    summary = train.train_and_evaluate(config, folder, tiny_data, first)
    assert summary == json.loads((folder / "metrics.json").read_text())
    assert contents(folder) == contents(straight("mixed"))
    assert {"train-0.log", "train-1.log"} < {path.name for path in folder.iterdir()}


def stop_after(monkeypatch, times_asked: int) -> None:
    """Makes a signal arrive when the training loop asks for the n-th time in a session."""

    def is_made(request) -> bool:
        request.asked = getattr(request, "asked", 0) + 1
        request.signum = signal.SIGTERM if request.asked >= times_asked else None
        return request.signum is not None

    monkeypatch.setattr(signals.StopRequest, "is_made", is_made)


@pytest.mark.parametrize("times_asked", [2, 5])
def test_a_run_stopped_by_signals_mid_epoch_ends_as_an_uninterrupted_one(
    times_asked, straight, tiny_data, tmp_path, monkeypatch
):
    config = {"batch_size": 16, "steps_per_call": 1, "do_cv": False}
    config |= {"lr_schedule": "cosine", "lr_ramp_epochs": 1}  # both within the two epochs
    expected = contents(straight("mixed", **config))
    stop_after(monkeypatch, times_asked)
    stopped = train_through(
        config_of("mixed", **config), tmp_path / "run", tiny_data, errors.Interrupted
    )
    assert stopped >= 20 / times_asked  # an epoch has 13 steps
    assert contents(tmp_path / "run") == expected


def test_a_damaged_latest_checkpoint_changes_nothing_in_the_end(
    straight, tiny_data, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "run"
    kill_at_saves(monkeypatch, 4)
    with pytest.raises(Killed):
        train.train_and_evaluate(config_of("cnn"), folder, tiny_data)
    monkeypatch.undo()
    for path in (folder / "fold_2" / "2" / "variables").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-7])
    train.train_and_evaluate(config_of("cnn"), folder, tiny_data)
    assert "fold_2/2 is damaged" in caplog.text
    assert contents(folder) == contents(straight("cnn"))


def test_history_keeps_every_epoch_of_every_run_while_one_goes_on(
    straight, tiny_data, tmp_path, monkeypatch
):
    config = config_of("cnn")
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    config.num_epoch = 3
    kill_at_saves(monkeypatch, 1)
    with pytest.raises(Killed):
        train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    positions = [(json.loads(line)["run"], json.loads(line)["epoch"]) for line in lines]
    assert positions == [(run, epoch) for run in RUNS for epoch in (1, 2)]
    monkeypatch.undo()
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    assert contents(tmp_path / "run") == contents(straight("cnn", num_epoch=3))


def test_a_falling_rate_cannot_go_on_for_more_epochs(tiny_data, tmp_path):
    config = config_of("cnn", lr_schedule="cosine", do_cv=False)
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    config.num_epoch = 3
    with pytest.raises(workdir.WorkdirError, match=r"config\.num_epoch was 2 and is 3"):
        train.train_and_evaluate(config, tmp_path / "run", tiny_data)


def test_a_finished_run_says_so_and_loads_nothing(straight, monkeypatch, caplog):
    folder = straight("mixed")
    before = contents(folder)
    with caplog.at_level("INFO", logger="absl"), monkeypatch.context() as patched:
        patched.setattr(dataset, "open_source", None)  # by which all data are read
        results = train.train_and_evaluate(config_of("mixed"), folder)
    assert "is finished; there is nothing left to do" in caplog.text
    assert results == before["metrics"] == contents(folder)["metrics"]


def test_the_files_of_a_run_agree(straight):
    folder = straight("mixed")
    history = contents(folder)["history"]
    assert [(one["run"], one["epoch"], one["phase"]) for one in history] == [
        (run, epoch, phase) for run in RUNS for epoch, phase in ((1, "warmup"), (2, "joint"))
    ]
    for record in history:
        names = {"loss_cae"} if record["phase"] == "warmup" else {"loss_cae", "loss_cnn"}
        assert {name for name, value in record["train"].items() if value is not None} == names
    results = json.loads((folder / "metrics.json").read_text())
    assert [fold["fold"] for fold in results["cv"]["folds"]] == [1, 2]
    assert results["test"]["accuracy"] == history[-1]["valid"]["accuracy"]
    assert results["test"]["epochs"] == 2
    assert np.sum(results["test"]["confusion_matrix"]) == 50
    accuracies = [fold["accuracy"] for fold in results["cv"]["folds"]]
    assert results["cv"]["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))


def test_run_json_keeps_the_first_start_and_counts_every_session(tiny_data, tmp_path, monkeypatch):
    folder, config = tmp_path / "run", config_of("cnn")
    kill_at_saves(monkeypatch, 2)
    with pytest.raises(Killed):
        train.train_and_evaluate(config, folder, tiny_data)
    started = {**json.loads((folder / "run.json").read_text()), "started": "2001-02-03T04:05:06"}
    (folder / "run.json").write_text(json.dumps(started))
    train.train_and_evaluate(config, folder, tiny_data)
    described = json.loads((folder / "run.json").read_text())
    lines = (folder / "history.jsonl").read_text().splitlines()
    assert described["started"] == "2001-02-03T04:05:06"
    total = sum(json.loads(line)["seconds"] for line in lines)
    assert described["seconds"] == pytest.approx(total)


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.usefixtures("same_data")
def test_evaluation_gives_the_numbers_that_training_logged(which, straight):
    folder = epath.Path(straight("cnn"))
    stem, result = evaluate.evaluate(folder, fold="1", split="valid", checkpoint=which)
    logged = json.loads((folder / "metrics.json").read_text())["cv"]["folds"][0]
    logged = logged if which == "last" else logged["best"]
    assert stem == f"fold_1-valid-{which}"
    for name in ("accuracy", "macro_f1", "confusion_matrix", "per_class"):
        assert result[name] == logged[name]
    assert result["loss_cnn"] == pytest.approx(logged["loss_cnn"], rel=1e-6)


def test_a_step_compiles_once_for_all_folds_of_a_phase(tiny_data, tmp_path, compilations):
    config = config_of("mixed", num_epoch=3, steps_per_call=1)
    with less_optimized():
        train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    # Warm-up and joint, for two folds and the test run.
    assert compilations.count("jit(_train_chunk)") == 2
    assert compilations.count("jit(_eval_chunk)") == 2


def test_grey_cifar10_is_normalised_by_its_own_numbers(tiny_data):
    config, kept = config_of("cnn"), np.arange(8)
    assert train.statistics_of(config, tiny_data, kept) == augment.CIFAR10
    grey = dataclasses.replace(tiny_data, images=tiny_data.images[..., :1])
    assert len(train.statistics_of(config, grey, kept).mean) == 1


def test_a_folder_in_which_nothing_was_trained_takes_other_images(tiny_data, tmp_path, monkeypatch):
    """As after a kill while it compiled, or an error that asked for smaller images."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "deal_out", lambda *_: raise_killed())
        train.train_and_evaluate(config_of("cnn"), tmp_path / "run", tiny_data)
    other = dataclasses.replace(tiny_data, digest="another")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "deal_out", lambda *_: raise_killed())
        train.train_and_evaluate(config_of("cnn"), tmp_path / "run", other)
    assert about.read_description(epath.Path(tmp_path / "run")).digest == "another"
    (tmp_path / "run" / "fold_1").mkdir()
    with pytest.raises(workdir.WorkdirError, match="holds a run on other images"):
        train.train_and_evaluate(config_of("cnn"), tmp_path / "run", tiny_data)


def files_of(folder) -> dict[str, bytes]:
    """The run's files besides checkpoints, pictures, events and log."""
    return {path.name: path.read_bytes() for path in folder.glob("*.json*")}


def test_a_refused_command_leaves_a_finished_run_as_it_is(trained_run, tiny_data, tmp_path):
    folder = shutil.copytree(trained_run, tmp_path / "run")
    before = files_of(folder)
    config = tiny_config("mixed", save_img_per_epoch=1, only_train_cae_until=0, num_epoch=3)
    other = dataclasses.replace(tiny_data, digest="another")
    with pytest.raises(workdir.WorkdirError, match="holds a run on other images"):
        train.train_and_evaluate(config, folder, other)
    assert files_of(folder) == before


@pytest.mark.parametrize("damage", [None, "half"])
@pytest.mark.parametrize("name", ["metrics.json", "run.json", "dataset.json", "history.jsonl"])
def test_a_damaged_file_of_a_finished_run_is_written_anew(
    name, damage, trained_run, tiny_data, tmp_path
):
    folder = shutil.copytree(trained_run, tmp_path / "run")
    before = files_of(folder)
    if damage:
        (folder / name).write_bytes(before[name][: len(before[name]) // 2])
    else:
        (folder / name).unlink()
    config = tiny_config("mixed", save_img_per_epoch=1, only_train_cae_until=0)
    train.train_and_evaluate(config, folder, tiny_data)
    after = files_of(folder)
    if name == "run.json":  # of the first start nothing is known any more
        assert json.loads(after.pop(name)).keys() == json.loads(before.pop(name)).keys()
    assert after == before


def raise_killed():
    raise Killed


def test_a_part_with_fewer_epochs_than_are_asked_for_now_writes_no_end(tmp_path, caplog):
    folder = epath.Path(tmp_path)
    (folder / "config.json").write_text(saved_config.to_text(config_of("cnn", num_epoch=5)))
    with caplog.at_level("INFO", logger="absl"):
        assert train._asks_for_more(folder, 4)
    assert "have ended with num_epoch=4, which is 5 now" in caplog.text
    assert not train._asks_for_more(folder, 5)
