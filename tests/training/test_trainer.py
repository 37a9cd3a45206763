"""Tests of caecnn_jax.training.trainer: what an epoch is given, how it ends and what it shows."""

import concurrent.futures
import itertools
import json
import signal
import time
import types

import jax
import numpy as np
import pytest
from builders import tiny_config
from etils import epath
from tensorboard.backend.event_processing import event_accumulator
from trainings import Killed, config_of, contents

from caecnn_jax import errors
from caecnn_jax.networks import models
from caecnn_jax.records import checkpoints, journal
from caecnn_jax.training import epochs, progress, signals, train, trainer

pytestmark = pytest.mark.usefixtures("draw_nothing")


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


def test_a_clock_that_is_set_back_spoils_no_figure(tiny_data, tmp_path, monkeypatch):
    clock = itertools.count(2e9, -3600)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    train.train_and_evaluate(config_of("cae", do_cv=False), tmp_path, tiny_data)
    for line in (tmp_path / "history.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert 0 < record["seconds"] < 3600 and record["images_per_second"] < 1e6


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
    changes = {"cae": {"loss_weight": 0.1}, "cnn": {"loss": {"logit_adjustment": 1.5}}}
    state, _, pipeline = epoch_of(expansion={}, aug={"max_shift": 4}, **changes)
    assert state.recipe.reconstruction_weight == 0.1 and state.recipe.loss.logit_adjustment == 1.5
    assert pipeline.aug.max_shift == 4
    assert epoch_of(use_aug=False)[2].aug is None


def test_a_schedule_and_a_ramp_reach_training(epoch_of):
    falling = epoch_of(lr_schedule="cosine")[1].lr_factors["cae"]
    assert falling[0] == 1 and (np.diff(falling) < 0).all()
    rising = epoch_of(lr_schedule="cosine", lr_ramp_epochs=1)[1].lr_factors["cae"]
    assert rising[0] == 0 and (np.diff(rising) > 0).all()


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


def test_the_last_epochs_train_on_images_that_are_flipped_alone(tiny_data, tmp_path, monkeypatch):
    train_epoch, shifts = epochs.train, []

    def noted(*args, pipeline, **named):
        shifts.append(pipeline.aug.max_shift)
        return train_epoch(*args, pipeline=pipeline, **named)

    monkeypatch.setattr(epochs, "train", noted)
    changes = {"num_epoch": 3, "refine_epochs": 2, "aug": {"max_shift": 4}}
    train.train_and_evaluate(config_of("cae", do_cv=False, **changes), tmp_path, tiny_data)
    assert shifts == [4, 0, 0]


class AtOnce:
    """An executor that calls a function in the thread that submits it."""

    def submit(self, function, *args):
        done = concurrent.futures.Future()
        done.set_result(function(*args))
        return done


@pytest.fixture
def ahead(monkeypatch):
    """Epochs are dispatched before the last one is saved, as on an accelerator."""
    as_on_one = {**vars(jax), "default_backend": lambda: "gpu"}
    monkeypatch.setattr(trainer, "jax", types.SimpleNamespace(**as_on_one))


@pytest.mark.usefixtures("ahead")
def test_a_run_whose_epochs_are_dispatched_ahead_ends_as_any_other(straight, tiny_data, tmp_path):
    train.train_and_evaluate(tiny_config("cae", save_img_per_epoch=2), tmp_path / "run", tiny_data)
    assert contents(tmp_path / "run") == contents(straight("cae"))


@pytest.mark.usefixtures("ahead")
@pytest.mark.parametrize("stop_at", [3, 7, 11])
def test_one_that_is_stopped_so_goes_on_as_any_other(
    stop_at, straight, tiny_data, tmp_path, monkeypatch
):
    asked = itertools.count(1)

    def is_made(request) -> bool:
        request.signum = signal.SIGTERM if next(asked) == stop_at else None
        return request.signum is not None

    monkeypatch.setattr(signals.StopRequest, "is_made", is_made)
    config = tiny_config("cae", save_img_per_epoch=2)
    with pytest.raises(errors.Interrupted):
        train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    assert contents(tmp_path / "run") == contents(straight("cae"))


@pytest.mark.usefixtures("ahead")
def test_an_epochs_seconds_are_its_own_where_the_next_is_dispatched_ahead(
    tiny_data, tmp_path, monkeypatch
):
    asked = []

    def is_made(request) -> bool:  # asked after each call, which so takes a twentieth of a second
        asked.append(0)
        time.sleep(0.05)
        return False

    monkeypatch.setattr(signals.StopRequest, "is_made", is_made)
    config = config_of("cae", do_cv=False, num_epoch=3, batch_size=16, steps_per_call=1)
    train.train_and_evaluate(config, tmp_path, tiny_data)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    seconds = [json.loads(line)["seconds"] for line in lines]
    assert min(seconds) > 0.05 * (len(asked) / 3 - 2)


def test_an_epoch_cut_short_counts_all_its_seconds(tiny_data, tmp_path, monkeypatch):
    config = config_of("cae", do_cv=False, num_epoch=1, batch_size=16, steps_per_call=1)
    clock, stop_at = [0.0], [0.0]

    def is_made(request) -> bool:  # asked after each call, which so takes a second
        clock[0] += 1
        request.signum = signal.SIGTERM if clock[0] == stop_at[0] else None
        return request.signum is not None

    monkeypatch.setattr(signals.StopRequest, "is_made", is_made)
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    at_once = types.SimpleNamespace(ThreadPoolExecutor=lambda _: AtOnce())
    monkeypatch.setattr(trainer, "concurrent", types.SimpleNamespace(futures=at_once))
    figures = []
    for folder, stops in (("straight", ()), ("stopped", (5, 8))):
        for stop in stops:
            clock[0], stop_at[0] = 0.0, stop
            with pytest.raises(errors.Interrupted):
                train.train_and_evaluate(config, tmp_path / folder, tiny_data)
        train.train_and_evaluate(config, tmp_path / folder, tiny_data)
        record = json.loads((tmp_path / folder / "history.jsonl").read_text())
        figures.append((record["seconds"], record["images_per_second"]))
    assert figures[0] == figures[1]
    assert figures[0][0] > 13  # steps, then calls of the evaluation
