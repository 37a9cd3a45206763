"""Tests of caecnn_jax.training.train: stopping, exact resume in-process, and the files of a run."""

import json
import signal
import time

import jax
import numpy as np
import pytest
from builders import KINDS, PROJECT, less_optimized, tiny_config
from etils import epath
from tensorboard.backend.event_processing import event_accumulator

from caecnn_jax import errors
from caecnn_jax.data import dataset, sampling
from caecnn_jax.networks import models
from caecnn_jax.records import board, checkpoints, journal, workdir
from caecnn_jax.results import evaluate
from caecnn_jax.training import devices, early_stopping, epochs, progress, signals, train, trainer

GOLDEN = json.loads((PROJECT / "tests" / "golden" / "early_stopping.json").read_text())
TIMINGS = ("seconds", "images_per_second")
RUNS = ("fold_1", "fold_2", "test")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture(autouse=True)
def draw_nothing():
    """Drawing is slow, and tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "finish", lambda self: None)
        patch.setattr(board.Board, "codes", lambda *_: None)
        yield


def config_of(kind: str, **changes):
    return tiny_config(kind, save_img_per_epoch=0, **changes)


def contents(folder) -> dict:
    """Everything of a run but its timings."""
    config = workdir.read_config(epath.Path(folder))
    shapes = train.saved_shapes(config, models.from_config(config))
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
    """Kills at the n-th save of this process, before (odd n) or after (even n) it is done."""
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


def kill_when_shown(monkeypatch, count: int):
    """Kills before the n-th epoch that is shown, when its checkpoint and history are written."""
    show, calls = journal.Journal.show_epoch, []

    def killed(self):
        calls.append(0)
        if len(calls) == count:
            raise Killed
        show(self)

    monkeypatch.setattr(journal.Journal, "show_epoch", killed)


def shown(folder, run: str) -> list[int]:
    """The epochs that TensorBoard shows of a run."""
    reader = event_accumulator.EventAccumulator(str(folder / "tensorboard" / run))
    return [event.step for event in reader.Reload().Scalars("train/images_per_second")]


@pytest.mark.parametrize("count", [1, 2], ids=["amid the run", "at its end"])
def test_what_a_kill_kept_from_being_shown_is_shown_when_the_run_goes_on(
    count, tiny_data, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    config = tiny_config("cae", do_cv=False, save_img_per_epoch=1)
    kill_when_shown(monkeypatch, count)
    with pytest.raises(Killed):
        train.train_and_evaluate(config, folder, tiny_data)
    monkeypatch.undo()
    # The epoch itself counts, and history tells of it.
    assert len((folder / "history.jsonl").read_text().splitlines()) == count
    pictures = folder / "images" / "test"
    assert not (pictures / f"reconstruction-epoch-{count:04d}.png").exists()
    settings = []
    monkeypatch.setattr(journal.Journal, "show_settings", lambda self, config: settings.append(1))
    trained = train.train_and_evaluate(config, folder, tiny_data)
    assert shown(folder, "test") == [1, 2] and settings == [1]
    names = {"reconstruction-epoch-0001.png", "reconstruction-epoch-0002.png"}
    assert names == {path.name for path in pictures.iterdir()}
    assert trained["test"]["epochs"] == 2


@pytest.mark.parametrize("method", ["show_epoch", "show_reconstructions", "show_settings"])
def test_what_fails_to_be_shown_is_a_warning_and_costs_no_epoch(
    method, straight, tiny_data, tmp_path, monkeypatch, caplog
):
    def fails(*_):
        raise ValueError("what no picture likes")

    monkeypatch.setattr(journal.Journal, method, fails)
    config = tiny_config("cae", save_img_per_epoch=2)
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    assert "fold_1: cannot be shown in full: what no picture likes" in caplog.text
    assert contents(tmp_path / "run") == contents(straight("cae"))


def test_the_checkpoint_comes_first_then_history_then_what_is_shown(
    tiny_data, tmp_path, monkeypatch
):
    order = []

    def noted(owner, method):
        original = getattr(owner, method)

        def note(self, *args):
            order.append(method)
            return original(self, *args)

        monkeypatch.setattr(owner, method, note)

    noted(checkpoints.Checkpoints, "save")
    noted(progress.Progress, "write_history")
    noted(journal.Journal, "show_epoch")
    noted(journal.Journal, "show_reconstructions")
    config = tiny_config("cae", do_cv=False, num_epoch=1)
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    began = order.index("save")
    expected = ["save", "write_history", "show_epoch", "show_reconstructions"]
    assert order[began : began + 4] == expected


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


@pytest.fixture
def epoch_of(tiny_data, tmp_path, monkeypatch):
    """What reaches the training of an epoch of a run with these changes: (state, moment, pipeline).

    It is told from the call that would train it; nothing is trained.
    """

    def of(expansion=None, **changes):
        config = config_of("mixed", do_cv=False, **changes)
        config.train_data_expansion = config.train_data_expansion if expansion is None else {}

        def called(state, data, order, key, moment, *, pipeline, **_):
            seen.extend((state, moment, pipeline))
            raise Killed

        seen = []
        monkeypatch.setattr(epochs, "train", called)
        with pytest.raises(Killed):
            train.train_and_evaluate(config, tmp_path / str(len(changes)), tiny_data)
        return seen

    return of


def test_by_default_nothing_bends_rates_losses_or_classes(epoch_of):
    state, moment, pipeline = epoch_of()
    assert state.recipe.reconstruction_weight == 1 and not state.recipe.loss.needs_counts
    assert all((factors == 1).all() for factors in moment.lr_factors.values())
    assert pipeline.aug.max_shift == 0
    # 20 images of a class, of three 12 and 6 of those again.
    assert state.class_counts.tolist() == [20, 20, 18, 20, 18, 20, 20, 20, 20, 18]


def test_the_settings_of_the_losses_and_the_augmentation_reach_training(epoch_of):
    changes = {"cae": {"loss_weight": 0.1}, "cnn": {"logit_adjustment": 1.5}}
    state, _, pipeline = epoch_of(expansion={}, aug={"max_shift": 4}, **changes)
    assert state.recipe.reconstruction_weight == 0.1 and state.recipe.logit_adjustment == 1.5
    assert pipeline.aug.max_shift == 4
    assert epoch_of(use_aug=False)[2].aug is None


def test_a_schedule_and_a_ramp_reach_training(epoch_of):
    falling = epoch_of(lr_schedule="cosine")[1].lr_factors["cae"]
    assert falling[0] == 1 and (np.diff(falling) < 0).all()
    rising = epoch_of(lr_schedule="cosine", lr_ramp_epochs=1)[1].lr_factors["cae"]
    assert rising[0] == 0 and (np.diff(rising) > 0).all()


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
    saved.restore(1, train.saved_shapes(config, models.from_config(config)))


def test_a_step_compiles_once_for_all_folds_of_a_phase(tiny_data, tmp_path, compilations):
    config = config_of("mixed", num_epoch=3, steps_per_call=1)
    with less_optimized():
        train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    # Warm-up and joint, for two folds and the test run.
    assert compilations.count("jit(_train_chunk)") == 2
    assert compilations.count("jit(_eval_chunk)") == 2


@pytest.fixture
def two_at_once(monkeypatch):
    """As if there were two devices: two runs train at the same time."""
    (mesh,) = devices.lanes(0).meshes
    monkeypatch.setattr(devices, "lanes", lambda _: devices.Lanes((mesh, mesh), shared=False))


class Failed(Exception):
    """What one of several runs may end with."""


def fake_journals(*names: str) -> list[journal.Journal]:
    splits = [sampling.Split(name, 1, *[np.arange(3)] * 3) for name in names]
    return [journal.Journal(epath.Path("nowhere"), split, None) for split in splits]


def test_the_error_of_one_run_stops_the_others_and_is_the_one_that_is_raised():
    (mesh,) = devices.lanes(0).meshes
    request, stopped = signals.StopRequest(), []

    def train_one(run, _mesh):
        if run.split.name == "fold_2":
            raise Failed
        while not request.is_made():
            time.sleep(0.01)
        stopped.append(run.split.name)
        raise errors.Interrupted(request.signum)

    runs = fake_journals("fold_1", "fold_2", "fold_3")
    with pytest.raises(Failed):
        train.deal_out(runs, (mesh, mesh), train_one, request)
    assert sorted(stopped) == ["fold_1", "fold_3"]


def test_no_two_runs_share_a_mesh_at_the_same_time():
    (mesh,) = devices.lanes(0).meshes
    other = jax.sharding.Mesh(mesh.devices, ("other",))  # to tell them apart
    busy, seen = set(), []

    def train_one(run, on):
        assert on.axis_names not in busy
        busy.add(on.axis_names)
        time.sleep(0.02)
        seen.append((run.split.name, on.axis_names))
        busy.remove(on.axis_names)

    runs = fake_journals("fold_1", "fold_2", "fold_3", "fold_4", "test")
    train.deal_out(runs, (mesh, other), train_one, signals.StopRequest())
    assert sorted(name for name, _ in seen) == ["fold_1", "fold_2", "fold_3", "fold_4", "test"]
    assert {axes for _, axes in seen} == {("data",), ("other",)}


def test_runs_that_stop_for_anothers_divergence_end_as_uninterrupted_ones(
    straight, tiny_data, tmp_path, monkeypatch, two_at_once
):
    config = {"batch_size": 16, "steps_per_call": 1}
    folder, check = tmp_path / "run", trainer.check_finite

    def diverges(run, epoch, *losses):
        if (run, epoch) == ("fold_1", 2):
            raise errors.Diverged("fold_1 is of no use")
        check(run, epoch, *losses)

    monkeypatch.setattr(trainer, "check_finite", diverges)
    with pytest.raises(errors.Diverged, match="fold_1 is of no use"):
        train.train_and_evaluate(config_of("cae", **config), folder, tiny_data)
    saved = checkpoints.Checkpoints(epath.Path(folder / "fold_1"), read_only=True)
    assert saved.steps() == [1] and not (folder / "metrics.json").exists()
    monkeypatch.setattr(trainer, "check_finite", check)
    train.train_and_evaluate(config_of("cae", **config), folder, tiny_data)
    assert contents(folder) == contents(straight("cae", **config))


def test_a_process_that_waits_for_the_others_heeds_a_signal(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SECONDS_BETWEEN_LOOKS", 0.01)
    runs = fake_journals("fold_1", "fold_2")
    config = config_of("cnn")
    runs[0].records = records_of([0.5, 0.6])
    shown = progress.Progress(config, epath.Path(tmp_path), runs, at_once=1, writes=False)
    request = signals.StopRequest()
    request.receive(signal.SIGTERM)
    with pytest.raises(errors.Interrupted):
        train.wait_for_others(config, runs, runs[:1], progress=shown, request=request)
    # But where there is nothing to wait for, the job has ended.
    runs[1].records = records_of([0.5, 0.6])
    monkeypatch.setattr(journal.Journal, "reread", lambda self: None)
    train.wait_for_others(config, runs, runs[:1], progress=shown, request=request)
