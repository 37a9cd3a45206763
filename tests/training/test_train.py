"""Tests of caecnn_jax.training.train: stopping, exact resume in-process, and the files of a run."""

import json
import signal

import numpy as np
import pytest
from builders import KINDS, PROJECT, less_optimized, tiny_config
from etils import epath

from caecnn_jax import errors
from caecnn_jax.data import dataset
from caecnn_jax.records import board, checkpoints, journal, workdir
from caecnn_jax.reports import report
from caecnn_jax.results import evaluate
from caecnn_jax.training import early_stopping, epochs, signals, train

GOLDEN = json.loads((PROJECT / "tests" / "golden" / "early_stopping.json").read_text())
TIMINGS = ("seconds", "images_per_second")
RUNS = ("fold_1", "fold_2", "test")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture(autouse=True)
def draw_nothing():
    """Drawing is slow, and tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "write", lambda folder: (folder / "report.html").write_text(""))
        patch.setattr(journal.Journal, "finish", lambda self: None)
        patch.setattr(board.Board, "codes", lambda *_: None)
        yield


def config_of(kind: str, **changes):
    return tiny_config(kind, save_img_per_epoch=0, **changes)


def contents(folder) -> dict:
    """Everything of a run but its timings."""
    config = workdir.read_config(epath.Path(folder))
    shapes = train.saved_shapes(config)
    found = {"metrics": json.loads((folder / "metrics.json").read_text())}
    lines = (folder / "history.jsonl").read_text().splitlines()
    found["history"] = [without_timings(json.loads(line)) for line in lines]
    for name in RUNS:
        saved = checkpoints.Checkpoints(epath.Path(folder / name), read_only=True)
        for step in saved.steps():
            restored = saved.restore(step, shapes)
            records = [without_timings(record) for record in restored.progress["records"]]
            found[name, step] = checkpoints.digest(restored.arrays), records
    return found


def without_timings(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in TIMINGS}


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_data):
    """The folder of an uninterrupted run of a kind, trained once."""
    folders = {}

    def of(kind: str, **changes):
        key = (kind, *changes.items())
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(kind) / "run"
            train.train_and_evaluate(config_of(kind, **changes), folders[key], tiny_data)
        return folders[key]

    return of


def kill_at_saves(monkeypatch, *counts: int):
    """Makes the n-th save of this process fail, before (odd n) or after (even n) it is done."""
    save, calls = journal.Journal.save, []

    def killed(self, *args):
        calls.append(0)
        if len(calls) in counts and len(calls) % 2:
            raise Killed
        save(self, *args)
        if len(calls) in counts:
            raise Killed

    monkeypatch.setattr(journal.Journal, "save", killed)


def train_through(config, folder, data, stops) -> int:
    """Starts training again until it ends; returns how often it was stopped."""
    for count in range(99):
        try:
            train.train_and_evaluate(config, folder, data)
        except stops:
            continue
        return count
    raise AssertionError("it never ended")


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['score']}-{len(case['history'])}")
def test_stops_where_the_reference_stops(case):
    higher = case["score"] == "acc"
    stops = [
        epoch
        for epoch in range(1, len(case["history"]) + 1)
        if train.should_stop(case["history"][:epoch], case["improve_range"], higher)
    ]
    assert (stops or [None])[0] == case["stops_after_epoch"]


def records_of(accuracies, losses=None, phase="joint") -> list[dict]:
    losses = losses or [0.0] * len(accuracies)
    return [
        {"phase": phase, "valid": {"accuracy": accuracy, "loss_cae": loss}}
        for accuracy, loss in zip(accuracies, losses, strict=True)
    ]


def test_a_run_ends_with_its_epochs_or_when_its_score_gets_no_better():
    config = tiny_config("mixed", num_epoch=40)
    worse = records_of([0.5] + [0.4] * 10)
    assert not early_stopping.is_finished(worse[:10], config, is_test=False)
    assert early_stopping.is_finished(worse, config, is_test=False)
    assert early_stopping.is_finished(records_of(range(40)), config, is_test=True)
    # Warm-up epochs have no score.
    assert not early_stopping.is_finished(
        records_of([None] * 20, phase="warmup") + worse[:10], config, is_test=False
    )


def test_the_test_set_steers_training_only_when_asked_to():
    worse = records_of([0.5] + [0.4] * 10)
    config = tiny_config("mixed", num_epoch=30)
    assert not early_stopping.is_finished(worse, config, is_test=True)
    config.test_early_stopping = True
    assert early_stopping.is_finished(worse, config, is_test=True)


def test_the_autoencoder_alone_is_judged_by_its_loss():
    config = tiny_config("cae", num_epoch=30)
    falling = records_of([None] * 6, [6, 5, 4, 3, 2, 1])
    rising = records_of([None] * 6, [1, 2, 3, 4, 5, 6])
    assert not early_stopping.is_finished(falling, config, is_test=False)
    assert early_stopping.is_finished(rising, config, is_test=False)


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


@pytest.mark.slow
def test_folds_side_by_side_stopped_and_killed_end_as_uninterrupted(
    straight, tiny_data, tmp_path, monkeypatch
):
    config = {"batch_size": 16, "steps_per_call": 1, "folds_side_by_side": True}
    expected = contents(straight("mixed", **config))
    kill_at_saves(monkeypatch, 2, 3, 5)  # one fold's epoch is saved and the other's is not
    stop_after(monkeypatch, 4)
    train_through(
        config_of("mixed", **config), tmp_path / "run", tiny_data, (errors.Interrupted, Killed)
    )
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


SETTINGS = {
    "nothing": {},
    "lr_schedule": {"lr_schedule": "cosine"},
    "lr_ramp_epochs": {"lr_ramp_epochs": 1},
    "aug": {"aug": {"max_shift": 4}},
    "loss_weight": {"cae": {"loss_weight": 0.1}},
    "logit_adjustment": {"cnn": {"logit_adjustment": 1.0}},
}


@pytest.fixture(scope="module")
def trained_with(tmp_path_factory, tiny_data):
    """What one joint epoch of few steps left, with each of SETTINGS."""
    found = {}
    with less_optimized():  # each compiles anew
        for name, changes in SETTINGS.items():
            config = config_of("mixed", do_cv=False, num_epoch=1, only_train_cae_until=0)
            config.train_data_expansion = {}
            config.update(changes)
            folder = tmp_path_factory.mktemp(name) / "run"
            train.train_and_evaluate(config, folder, tiny_data)
            saved = checkpoints.Checkpoints(epath.Path(folder / "test"), read_only=True)
            found[name] = checkpoints.digest(saved.restore(1, train.saved_shapes(config)).arrays)
    return found


@pytest.mark.slow
def test_every_setting_reaches_training(trained_with):
    assert len(set(trained_with.values())) == len(SETTINGS)


def test_a_finished_run_says_so_and_loads_nothing(straight, monkeypatch, caplog):
    monkeypatch.setattr(dataset, "load", None)
    folder = straight("mixed")
    before = contents(folder)
    with caplog.at_level("INFO"):
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
def test_evaluation_gives_the_numbers_that_training_logged(which, straight, tiny_data, monkeypatch):
    folder = epath.Path(straight("cnn"))
    monkeypatch.setattr(dataset, "load", lambda *_: tiny_data)
    stem, result = evaluate.evaluate(folder, "1", "valid", which)
    logged = json.loads((folder / "metrics.json").read_text())["cv"]["folds"][0]
    logged = logged if which == "last" else logged["best"]
    assert stem == f"fold_1-valid-{which}"
    for name in ("accuracy", "macro_f1", "confusion_matrix", "per_class"):
        assert result[name] == logged[name]
    assert result["loss_cnn"] == pytest.approx(logged["loss_cnn"], rel=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run_each_time_alike(tiny_data, tmp_path):
    config = config_of("mixed", num_epoch=3)
    config.cnn.opt.lr = 1e30
    for _ in range(2):
        with pytest.raises(errors.Diverged) as error:
            train.train_and_evaluate(config, tmp_path / "run", tiny_data)
        for expected in ("no longer finite in fold_1, epoch 2, step", "lower config.cnn.opt.lr"):
            assert expected in str(error.value)
    saved = checkpoints.Checkpoints(epath.Path(tmp_path / "run" / "fold_1"), read_only=True)
    assert saved.steps() == [1]
    saved.restore(1, train.saved_shapes(config))


def test_a_step_compiles_once_for_all_folds_of_a_phase(tiny_data, tmp_path):
    config = config_of("mixed", num_epoch=3, steps_per_call=1)
    config.cnn.opt.lr = 0.00123  # of no other test, so that nothing is compiled yet
    compiled = epochs._compiled(epochs._train_chunk, donates=True)
    before = compiled._cache_size()
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    assert compiled._cache_size() - before == 2  # warm-up and joint, for two folds and the test
