"""Faults of the disk while a run trains: one sentence, and the run goes on once it is mended."""

import contextlib
import pathlib
import resource
import shutil
import subprocess

import numpy as np
import pytest
from builders import tiny_config
from etils import epath

from caecnn_jax.networks import models
from caecnn_jax.records import board, checkpoints, claims, journal, workdir
from caecnn_jax.training import train


@pytest.fixture(autouse=True)
def draw_nothing(monkeypatch):
    """Drawing is slow, and tested elsewhere."""
    monkeypatch.setattr(journal.Journal, "finish", lambda self: None)
    monkeypatch.setattr(board.Board, "codes", lambda *_: None)


def config_of(num_epoch: int):
    return tiny_config("cnn", save_img_per_epoch=0, num_epoch=num_epoch, do_cv=False)


@contextlib.contextmanager
def files_no_larger_than(size: int):
    """The system refuses to write a file beyond this many bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def small_disk(place: pathlib.Path, size: str):
    """A file system of its own in a folder; needs the right to mount one."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def newest(folder: pathlib.Path) -> int:
    """The newest checkpoint's epoch, restored whole."""
    saved = checkpoints.Checkpoints(epath.Path(folder / "test"), read_only=True)
    config = workdir.read_config(epath.Path(folder))
    return saved.restore_newest(train.saved_shapes(config, models.from_config(config))).step


def train_to(num_epoch: int, folder: pathlib.Path, data) -> None:
    train.train_and_evaluate(config_of(num_epoch), folder, data)


@pytest.mark.parametrize(
    "size", [0, 300, 1500]
)  # bytes: config.json, events, a checkpoint's arrays
def test_a_file_that_cannot_grow_is_one_sentence(size, tiny_data, tmp_path):
    folder = tmp_path / "run"
    train_to(1, folder, tiny_data)
    with files_no_larger_than(size), pytest.raises(workdir.WorkdirError) as error:
        train_to(2, folder, tiny_data)
    assert str(error.value).startswith(f"cannot write {folder}")
    assert "File too large; what was saved before is whole" in str(error.value)
    assert newest(folder) == 1
    train_to(2, folder, tiny_data)
    assert newest(folder) == 2


@pytest.mark.parametrize("room", [0, 4096, 16384])  # bytes left when training goes on
def test_a_full_disk_is_one_sentence(room, tiny_data, tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        folder = disk / "run"
        train_to(1, folder, tiny_data)
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(bytes(max(free - room, 0)))
        with pytest.raises(workdir.WorkdirError, match="No space left on device") as error:
            train_to(2, folder, tiny_data)
        assert str(error.value).startswith(f"cannot write {folder}")
        (disk / "filler").unlink()
        assert newest(folder) == 1
        train_to(2, folder, tiny_data)
        assert newest(folder) == 2


def test_a_read_only_folder_is_one_sentence(tiny_data, tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        folder = disk / "run"
        train_to(1, folder, tiny_data)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for path in (folder, disk / "new"):
            with pytest.raises(workdir.WorkdirError, match="Read-only file system"):
                train_to(2, path, tiny_data)
        assert newest(folder) == 1  # to evaluate, no right to write is needed


def test_a_folder_that_vanishes_is_one_sentence(tiny_data, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    save = journal.Journal.save

    def vanishes(self, *args):
        shutil.rmtree(folder)
        save(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "save", vanishes)
        with pytest.raises(workdir.WorkdirError, match=f"{folder} has vanished"):
            train_to(1, folder, tiny_data)
    assert not folder.exists()  # it is not made anew, where it would hide what comes back


def test_the_log_of_a_full_disk_stops_nothing(tmp_path, capfd):
    """A line of train.log that cannot be written is not worth a run, or a page of errors."""
    config = config_of(1)
    with claims.claim(epath.Path(tmp_path), config), files_no_larger_than(0):
        from absl import logging

        logging.warning("lost")
    assert "Traceback" not in capfd.readouterr().err


def test_every_event_is_written_or_refused_at_once(tmp_path):
    """No thread that dies of a full disk and leaves the program waiting for it."""
    events = board.Board(epath.Path(tmp_path / "events"), first_epoch=1)
    picture = np.zeros((64, 64, 3), np.uint8)
    with files_no_larger_than(400):
        for _ in range(30):
            with contextlib.suppress(workdir.WorkdirError):
                events.picture("reconstruction", picture, 1)
        with pytest.raises(workdir.WorkdirError, match="File too large"):
            events.picture("reconstruction", picture, 1)
        events.close()
