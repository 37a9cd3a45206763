"""Tests of caecnn_jax.records.journal and board: what one run leaves, also when it is killed."""

import json

import numpy as np
import pytest
from builders import make_data
from etils import epath
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from caecnn_jax.data import sampling
from caecnn_jax.records import checkpoints, figures, journal, workdir

NAMES = make_data(1, 1).class_names
TARGET = {"variables": {"x": np.zeros(3, np.float32)}, "opt_state": {"n": np.zeros(1, np.int32)}}


def record(epoch: int, accuracy: float = 0.5) -> dict:
    return {
        "run": "fold_1",
        "epoch": epoch,
        "phase": "joint",
        "train": {"loss_cae": None, "loss_cnn": 2.0},
        "valid": {"loss_cae": None, "loss_cnn": 2.5, "accuracy": accuracy},
        "confusion_matrix": np.eye(10, dtype=int).tolist(),
        "seconds": 1.5,
        "images_per_second": 10.0,
    }


def arrays(epoch: int) -> dict:
    variables, opt_state = np.full(3, epoch, np.float32), np.full(1, epoch, np.int32)
    return {"variables": {"x": variables}, "opt_state": {"n": opt_state}}


@pytest.fixture
def open_journal(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    split = sampling.Split("fold_1", 1, *[np.arange(3)] * 3)

    def opened() -> journal.Journal:
        run = journal.Journal(split, epath.Path(tmp_path), NAMES)
        run.restore(TARGET)
        run.start()
        return run

    return opened


def train(run: journal.Journal, *epochs: int, keep: int = 2, accuracy: float = 0.5) -> None:
    for epoch in epochs:
        run.add(record(epoch, accuracy))
        run.save(arrays(epoch), keep)


def steps_of(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("[0-9]*"))


def scalars(tmp_path, tag: str = "valid/accuracy") -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "fold_1"))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_nothing_is_written_for_a_run_that_has_not_begun(open_journal, tmp_path):
    run = open_journal()
    run.clean_up(keep=2)
    run.close()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_run_goes_on_from_its_last_checkpoint(open_journal):
    train(open_journal(), 1, 2)
    run = open_journal()
    assert [one["epoch"] for one in run.records] == [1, 2]
    assert run.records == [record(1), record(2)]
    np.testing.assert_array_equal(run.arrays["variables"]["x"], [2.0, 2.0, 2.0])
    assert run.arrays["opt_state"]["n"] == 2
    assert run.step == 0


def test_the_best_and_the_latest_checkpoints_are_kept(open_journal, tmp_path):
    run = open_journal()
    train(run, 1, accuracy=0.2)
    train(run, 2, accuracy=0.9)
    train(run, 3, 4, 5, accuracy=0.3)
    assert steps_of(tmp_path / "fold_1") == [2, 4, 5]


def test_the_best_is_kept_after_falling_back(open_journal, tmp_path):
    run = open_journal()
    train(run, 1, accuracy=0.2)
    train(run, 2, accuracy=0.9)
    train(run, 3, 4, accuracy=0.3)
    (tmp_path / "fold_1" / "4" / "progress" / "metadata").write_text("{")
    run = open_journal()
    assert len(run.records) == 3
    train(run, 4, 5, accuracy=0.4)
    assert steps_of(tmp_path / "fold_1") == [2, 4, 5]


def test_a_kill_between_save_and_clean_up_leaves_nothing_for_good(open_journal, tmp_path):
    run = open_journal()
    train(run, 1, 2, keep=9)
    train(run, 3, 4, keep=9, accuracy=0.6)
    assert steps_of(tmp_path / "fold_1") == [1, 2, 3, 4]
    open_journal().clean_up(keep=1)
    assert steps_of(tmp_path / "fold_1") == [3, 4]


def test_a_half_done_epoch_is_taken_up(open_journal):
    run = open_journal()
    train(run, 1)
    run.add_partial(2, {"loss_cnn": [0.1, 1 / 3], "images": [4, 4]}, arrays(12))
    run = open_journal()
    run.clean_up(keep=2)
    assert (len(run.records), run.step) == (1, 2)
    assert run.losses == {"loss_cnn": [0.1, 1 / 3], "images": [4, 4]}
    assert run.arrays["opt_state"]["n"] == 12
    run.add_partial(3, run.losses, arrays(13))  # interrupted once more
    run = open_journal()
    assert (run.step, run.arrays["opt_state"]["n"]) == (3, 13)
    train(run, 2)
    run = open_journal()
    assert (len(run.records), run.step, run.losses) == (2, 0, {})


def test_a_first_epoch_half_done_is_taken_up(open_journal):
    run = open_journal()
    run.add_partial(1, {}, arrays(11))
    run = open_journal()
    assert (run.records, run.step, run.arrays["opt_state"]["n"]) == ([], 1, 11)


def test_a_half_done_epoch_can_be_forgotten(open_journal):
    run = open_journal()
    train(run, 1)
    run.add_partial(2, {"images": [4]}, arrays(12))
    run = open_journal()
    run.forget_partial_epoch(TARGET)
    assert (run.step, run.losses, run.arrays["opt_state"]["n"]) == (0, {}, 1)
    assert open_journal().step == 0


def test_a_half_done_epoch_of_another_past_or_damaged_does_not_count(open_journal, tmp_path):
    run = open_journal()
    train(run, 1, 2)
    run.add_partial(2, {"images": [4]}, arrays(13))
    (tmp_path / "fold_1" / "2" / "progress" / "metadata").write_text("{")
    run = open_journal()  # epoch 2 is gone, so a half of epoch 3 is of no use
    assert (len(run.records), run.step, run.arrays["opt_state"]["n"]) == (1, 0, 1)
    run.clean_up(keep=2)
    run.add_partial(1, {"images": [4]}, arrays(12))
    next((tmp_path / "fold_1" / "interrupted").glob("*/progress/metadata")).write_text("{")
    assert open_journal().step == 0


def test_a_vanished_folder_is_named(open_journal, tmp_path):
    run = open_journal()
    run.add(record(1))
    (tmp_path / "config.json").unlink()
    with pytest.raises(workdir.WorkdirError, match=f"{tmp_path} has vanished"):
        run.save(arrays(1), keep=2)
    with pytest.raises(workdir.WorkdirError, match="has vanished"):
        run.add_partial(1, {}, arrays(1))


def test_tensorboard_shows_every_epoch_once_whatever_a_kill_left(open_journal, tmp_path):
    run = open_journal()
    train(run, 1)
    run.add(record(2, 0.1))  # killed after the events and before the checkpoint
    run = open_journal()
    train(run, 2, 3)
    run = open_journal()
    run.add(record(4, 0.2))  # and again
    run.close()
    train(open_journal(), 4)
    assert scalars(tmp_path) == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5)]
    assert [step for step, _ in scalars(tmp_path, "valid/f1/cat")] == [1, 2, 3, 4]


def test_tensorboard_reads_on_after_an_event_file_that_is_cut_short(open_journal, tmp_path):
    run = open_journal()
    train(run, 1)
    run.add(record(2))
    (events,) = (tmp_path / "tensorboard" / "fold_1").glob("events*")
    events.write_bytes(events.read_bytes()[:-10])  # killed amid a write
    train(open_journal(), 2, 3)
    assert [step for step, _ in scalars(tmp_path)] == [1, 2, 3]


def test_settings_and_codes_are_shown_once_when_written_twice(open_journal, tmp_path):
    images = np.zeros((10, 32, 32, 3), np.uint8)
    run = open_journal()
    for _ in range(2):
        run.add(record(1))
        run.show_settings({"seed": 0, "cnn.block_sizes": ((3, 4, True),)})
        run.show_codes(np.zeros((10, 2, 2, 1)), images, np.arange(10))
        run.close()
        run = open_journal()
    assert scalars(tmp_path, "final/accuracy") == [(1, 0.5)]
    folder = tmp_path / "tensorboard" / "fold_1"
    assert (folder / "projector_config.pbtxt").read_text().count("embeddings") == 1
    assert Image.open(folder / "code" / "sprite.jpg").size == (128, 128)
    assert len((folder / "code" / "metadata.tsv").read_text().splitlines()) == 10


def test_pictures_are_files_and_on_the_board(open_journal, tmp_path):
    png = figures.confusion_matrix(np.eye(10), NAMES)
    run = open_journal()
    run.picture("reconstruction", png, epoch=3)
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "fold_1"))
    reader.Reload()
    assert [event.step for event in reader.Images("reconstruction")] == [3]
    assert (run.pictures / "reconstruction-epoch-0003.png").read_bytes() == png


def test_a_process_that_does_not_write_saves_checkpoints_only(open_journal, tmp_path):
    run = journal.Journal(open_journal().split, epath.Path(tmp_path), NAMES)
    train(run, 1)
    run.picture("reconstruction", b"", 1)
    run.show_settings({})
    run.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "fold_1"}


def test_the_final_pictures_are_drawn_once_and_anew_after_more_epochs(open_journal):
    run = open_journal()
    train(run, 1)
    run.finish()
    curves = run.pictures / "learning_curves.png"
    first = curves.read_bytes()
    assert (run.pictures / "confusion_matrix.png").exists()
    run = open_journal()
    curves.write_bytes(b"kept")
    run.finish()
    assert curves.read_bytes() == b"kept"
    train(run, 2)
    assert not curves.exists()
    run.finish()
    assert curves.read_bytes() not in (first, b"kept")


def test_records_are_plain_json(open_journal, tmp_path):
    train(open_journal(), 1)
    saved = checkpoints.Checkpoints(epath.Path(tmp_path / "fold_1")).restore(1, {})
    assert json.loads(json.dumps(saved.progress)) == {"epoch": 1, "records": [record(1)]}
