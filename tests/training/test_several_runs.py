"""Runs that train at the same time: how they are dealt out, and one that ends for another."""

import queue
import signal
import time

import jax
import numpy as np
import pytest
from etils import epath
from trainings import config_of, contents

from caecnn_jax import errors
from caecnn_jax.data import sampling
from caecnn_jax.records import checkpoints, journal
from caecnn_jax.training import devices, sharing, signals, train, trainer

pytestmark = pytest.mark.usefixtures("draw_nothing")


@pytest.fixture
def two_at_once(monkeypatch):
    """As if there were two devices: two runs train at the same time."""
    (mesh,) = devices.lanes(0).meshes
    monkeypatch.setattr(devices, "lanes", lambda _: devices.Lanes((mesh, mesh), shared=False))


def shared_by(*meshes) -> sharing.Shared:
    """These meshes, for one run at a time each."""
    free = queue.SimpleQueue()
    for mesh in meshes:
        free.put(mesh)
    lanes = devices.Lanes(meshes, shared=False)
    return sharing.Shared(lanes, free, signals.StopRequest(), lambda *_: None)


class Failed(Exception):
    """What one of several runs may end with."""


def fake_journals(*names: str) -> list[journal.Journal]:
    splits = [sampling.Split(name, 1, *[np.arange(3)] * 3) for name in names]
    return [journal.Journal(epath.Path("nowhere"), split, None) for split in splits]


def test_the_error_of_one_run_stops_the_others_and_is_the_one_that_is_raised():
    (mesh,) = devices.lanes(0).meshes
    shared, stopped = shared_by(mesh, mesh), []
    request = shared.request

    def train_one(run, _mesh):
        if run.split.name == "fold_2":
            raise Failed
        while not request.is_made():
            time.sleep(0.01)
        stopped.append(run.split.name)
        raise errors.Interrupted(request.signum)

    runs = fake_journals("fold_1", "fold_2", "fold_3")
    with pytest.raises(Failed):
        train.deal_out(runs, shared, train_one)
    assert stopped == ["fold_1"]  # fold_3 has not begun


def test_a_run_that_had_not_begun_when_a_signal_came_does_not_begin():
    (mesh,) = devices.lanes(0).meshes
    other = jax.sharding.Mesh(mesh.devices, ("other",))
    shared, began = shared_by(mesh, other), []

    def train_one(run, _mesh):
        began.append(run.split.name)
        shared.request.receive(signal.SIGTERM)
        raise errors.Interrupted(signal.SIGTERM)

    runs = fake_journals("fold_1", "fold_2", "fold_3", "fold_4", "test")
    with pytest.raises(errors.Interrupted):
        train.deal_out(runs, shared, train_one)
    assert len(began) <= 2


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
    train.deal_out(runs, shared_by(mesh, other), train_one)
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
