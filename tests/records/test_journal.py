"""Tests of caecnn_jax.records.journal and board: what one run leaves, also when it is killed."""

import concurrent.futures
import json

import numpy as np
import pytest
from builders import make_data
from etils import epath
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from caecnn_jax.data import dataset, sampling
from caecnn_jax.records import checkpoints, figures, journal, workdir
from caecnn_jax.results import calibration, metrics

DATA = make_data(3, 1)
NAMES = DATA.class_names
TARGET = {"variables": {"x": np.zeros(3, np.float32)}, "opt_state": {"n": np.zeros(1, np.int32)}}


def record(epoch: int, accuracy: float = 0.5) -> dict:
    return {
        "run": "fold_1",
        "epoch": epoch,
        "phase": "joint",
        "train": {"loss_cae": None, "loss_cnn": 2.0},
        "valid": dict.fromkeys(metrics.FIGURES) | {"loss_cnn": 2.5, "accuracy": accuracy},
        "confusion_matrix": np.eye(10, dtype=int).tolist(),
        "reliability": calibration.reliability([0, 10], [0.0, 9.0], [0, 5]),
        "correct": f"epoch {epoch}",
        "seconds": 1.5,
        "images_per_second": 10.0,
    }


def arrays(epoch: int) -> dict:
    variables, opt_state = np.full(3, epoch, np.float32), np.full(1, epoch, np.int32)
    return {"variables": {"x": variables}, "opt_state": {"n": opt_state}}


def new_journal(folder, name: str = "fold_1", keep: int = 2) -> journal.Journal:
    split = sampling.Split(name, 1, *[np.arange(DATA.num_train)] * 3)
    return journal.Journal(epath.Path(folder), split, DATA, keep=keep)


@pytest.fixture
def open_journal(tmp_path):
    """Opens the run as training does, at its beginning or after a kill."""
    (tmp_path / "config.json").write_text("{}")
    every_one = []  # the killed too, which close no file themselves

    def opened(keep: int = 2) -> journal.Journal:
        run = new_journal(tmp_path, keep=keep)
        every_one.append(run)
        run.restore(TARGET)
        run.start()
        return run

    yield opened
    for run in every_one:
        run.close()


def train(run: journal.Journal, *epochs: int, accuracy: float = 0.5) -> None:
    for epoch in epochs:
        run.save(record(epoch, accuracy), arrays(epoch))
        run.show_epoch()


def steps_of(folder) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("[0-9]*"))


def scalars(tmp_path, tag: str = "valid/accuracy") -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "fold_1"))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_nothing_is_written_for_a_run_that_has_not_begun(open_journal, tmp_path):
    open_journal().close()
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


def test_only_the_last_and_the_best_epoch_know_which_images_were_right(open_journal):
    def correct(run) -> list[str | None]:
        return [record["correct"] for record in run.records]

    run = open_journal()
    train(run, 1, 2, accuracy=0.2)
    train(run, 3, accuracy=0.9)
    train(run, 4, 5, accuracy=0.3)
    assert correct(run) == [None, None, "epoch 3", None, "epoch 5"]
    assert correct(open_journal()) == correct(run)


def test_what_grows_with_the_classes_is_kept_of_the_last_and_the_best_epoch_alone(open_journal):
    run = open_journal()
    train(run, 1, 2, accuracy=0.2)
    train(run, 3, accuracy=0.9)
    train(run, 4, 5, accuracy=0.3)
    for field in ("confusion_matrix", "reliability"):
        assert [bool(one[field]) for one in run.records] == [False, False, True, False, True]
    assert [one.get("f1") for one in run.records] == [[1.0] * 10] * 2 + [None, [1.0] * 10, None]
    assert open_journal().records == run.records


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


def test_a_record_that_another_thread_may_be_writing_does_not_change(open_journal):
    run = open_journal()
    train(run, 1, accuracy=0.2)
    (first,) = run.records
    before = dict(first)
    train(run, 2, 3)
    assert first == before and run.records[0]["confusion_matrix"] is None


def test_a_kill_between_save_and_clean_up_leaves_nothing_for_good(open_journal, tmp_path):
    run = open_journal(keep=9)
    train(run, 1, 2)
    train(run, 3, 4, accuracy=0.6)
    assert steps_of(tmp_path / "fold_1") == [1, 2, 3, 4]
    open_journal(keep=1)
    assert steps_of(tmp_path / "fold_1") == [3, 4]


def test_a_half_done_epoch_is_taken_up(open_journal):
    run = open_journal()
    train(run, 1)
    run.save_partial(2, {"loss_cnn": [0.1, 1 / 3], "images": [4, 4]}, 1.5, arrays(12))
    run = open_journal()
    assert (len(run.records), run.step) == (1, 2)
    assert run.losses == {"loss_cnn": [0.1, 1 / 3], "images": [4, 4]}
    assert run.arrays["opt_state"]["n"] == 12
    run.save_partial(3, run.losses, 2.5, arrays(13))  # interrupted once more
    run = open_journal()
    assert (run.step, run.seconds, run.arrays["opt_state"]["n"]) == (3, 2.5, 13)
    train(run, 2)
    run = open_journal()
    assert (len(run.records), run.step, run.losses, run.seconds) == (2, 0, {}, 0.0)


def test_a_first_epoch_half_done_is_taken_up(open_journal):
    run = open_journal()
    run.save_partial(1, {}, 0.0, arrays(11))
    run = open_journal()
    assert (run.records, run.step, run.arrays["opt_state"]["n"]) == ([], 1, 11)


def test_a_half_done_epoch_of_another_past_or_damaged_does_not_count(open_journal, tmp_path):
    run = open_journal()
    train(run, 1, 2)
    run.save_partial(2, {"images": [4]}, 1.0, arrays(13))
    (tmp_path / "fold_1" / "2" / "progress" / "metadata").write_text("{")
    run = open_journal()  # epoch 2 is gone, so a half of epoch 3 is of no use
    assert (len(run.records), run.step, run.arrays["opt_state"]["n"]) == (1, 0, 1)
    run.save_partial(1, {"images": [4]}, 1.0, arrays(12))
    next((tmp_path / "fold_1" / "interrupted").glob("*/progress/metadata")).write_text("{")
    assert open_journal().step == 0


def test_a_vanished_folder_is_named(open_journal, tmp_path):
    run = open_journal()
    (tmp_path / "config.json").unlink()
    with pytest.raises(workdir.WorkdirError, match=f"{tmp_path} has vanished"):
        train(run, 1)
    with pytest.raises(workdir.WorkdirError, match="has vanished"):
        run.save_partial(1, {}, 0.0, arrays(1))


def test_tensorboard_shows_every_epoch_once_whatever_a_kill_left(open_journal, tmp_path):
    run = open_journal()
    train(run, 1)
    run.save(record(2), arrays(2))  # killed before the events
    run = open_journal()
    run.show_epoch()  # as the trainer does when it goes on
    train(run, 3, accuracy=0.2)  # killed after them
    run = open_journal()
    run.show_epoch()
    train(run, 4)
    run.close()
    assert scalars(tmp_path) == [(1, 0.5), (2, 0.5), (3, pytest.approx(0.2)), (4, 0.5)]
    assert [step for step, _ in scalars(tmp_path, "valid/f1/cat")] == [1, 2, 3, 4]


def test_tensorboard_keeps_the_epoch_before_one_that_was_stopped_politely(open_journal, tmp_path):
    run = open_journal()
    train(run, 1)
    run.save_partial(2, {}, 0.0, arrays(1))
    run = open_journal()
    train(run, 2)  # going on, the trainer shows no epoch but those it ends
    run.close()
    assert scalars(tmp_path) == [(1, 0.5), (2, 0.5)]


def test_tensorboard_reads_on_after_an_event_file_that_is_cut_short(open_journal, tmp_path):
    train(open_journal(), 1, 2)
    (events,) = (tmp_path / "tensorboard" / "fold_1").glob("events*")
    events.write_bytes(events.read_bytes()[:-10])  # killed amid a write
    run = open_journal()
    run.show_epoch()
    train(run, 3)
    assert [step for step, _ in scalars(tmp_path)] == [1, 2, 3]


def autoencode(images: np.ndarray):
    """Stands for the CAE: codes of four numbers, and the images themselves."""
    return np.zeros((len(images), 2, 2, 1)), images


def test_settings_and_codes_are_shown_once_when_written_twice(open_journal, tmp_path):
    train(open_journal(), 1)
    for _ in range(2):
        run = open_journal()
        run.show_settings({"seed": 0, "cnn.block_sizes": ((3, 4, True),)})
        run.show_codes(autoencode)
        run.close()
    assert scalars(tmp_path, "final/accuracy") == [(1, 0.5)]
    folder = tmp_path / "tensorboard" / "fold_1"
    assert (folder / "projector_config.pbtxt").read_text().count("embeddings") == 1
    with Image.open(folder / "code" / "sprite.jpg") as sheet:
        assert sheet.size == (192, 192)  # six rows of pictures of 32 pixels
    assert len((folder / "code" / "metadata.tsv").read_text().splitlines()) == 30


def test_pictures_are_files_and_on_the_board(open_journal, tmp_path):
    run = open_journal()
    train(run, 1, 2, 3)
    run.show_reconstructions(autoencode)
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "fold_1"))
    reader.Reload()
    assert [event.step for event in reader.Images("reconstruction")] == [3]
    (on_the_board,) = reader.Images("reconstruction")
    with Image.open(run.pictures / "reconstruction-epoch-0003.png") as picture:
        assert picture.size == (on_the_board.width, on_the_board.height)


def test_of_many_classes_few_images_pass_through_the_networks(tmp_path):
    """All at once would take more memory than training did."""
    labels = np.repeat(np.arange(400), 2)
    names = tuple(map(str, range(400)))
    images = np.zeros((len(labels), 8, 8, 1), np.uint8)
    data = dataset.from_arrays(images, labels.astype(np.int32), len(labels), names)
    split = sampling.Split("fold_1", 1, *[np.arange(len(labels))] * 3)
    run = journal.Journal(epath.Path(tmp_path), split, data)
    run.records.append(record(1))
    seen = []

    def counted(images):
        seen.append(len(images))
        return autoencode(images)

    run.show_reconstructions(counted)
    run.show_codes(counted)
    assert seen == [40, 300]


def test_a_process_that_does_not_write_takes_records_in_and_leaves_nothing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    run = new_journal(tmp_path)
    run.restore(TARGET)  # and no start
    train(run, 1)
    run.save_partial(1, {}, 0.0, arrays(1))
    run.show_reconstructions(autoencode)
    run.show_codes(autoencode)
    run.show_settings({})
    run.finish()
    assert run.records == [record(1)]
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


def test_what_cannot_be_shown_is_a_warning(open_journal, caplog):
    run = open_journal()
    with run.showing():
        raise OSError(28, "No space left on device")
    assert "fold_1: cannot be shown in full: [Errno 28] No space left on device" in caplog.text
    with pytest.raises(KeyboardInterrupt), run.showing():
        raise KeyboardInterrupt


def test_the_final_pictures_say_that_a_run_is_complete_until_it_goes_on(open_journal):
    run = open_journal()
    train(run, 1)
    assert not run.is_complete()
    run.finish()
    curves = run.pictures / "learning_curves.png"
    first = curves.read_bytes()
    assert open_journal().is_complete()
    for name in ("confusion_matrix", "reliability"):
        assert (run.pictures / f"{name}.png").exists()
    run = open_journal()
    train(run, 2)
    assert not run.is_complete()  # it was to be shorter
    run.finish()
    assert curves.read_bytes() != first


def test_a_run_whose_last_pictures_cannot_be_drawn_is_complete_and_says_why(
    open_journal, monkeypatch
):
    def fail(*_):
        raise ValueError("no font")

    run = open_journal()
    train(run, 1)
    monkeypatch.setattr(figures, "learning_curves", fail)
    with run.showing():
        run.finish()
    assert open_journal().is_complete()
    assert (run.pictures / "not_drawn.txt").read_text() == "no font\n"
    run = open_journal()
    train(run, 2)
    assert not run.is_complete()


def test_runs_that_end_at_the_same_time_draw_what_each_draws_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    runs = [new_journal(tmp_path, f"fold_{number}") for number in range(1, 9)]
    for run in runs:
        run.start()
        train(run, 1)
        run.close()
    runs[0].finish()
    alone = [path.read_bytes() for path in sorted(runs[0].pictures.iterdir())]
    with concurrent.futures.ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(journal.Journal.finish, runs))
    for run in runs:
        assert [path.read_bytes() for path in sorted(run.pictures.iterdir())] == alone


def test_an_epoch_visits_so_many_images_of_each_class(tmp_path):
    expanded = np.concatenate([np.flatnonzero(DATA.labels == 3)] * 2)
    split = sampling.Split("fold_1", 1, np.arange(3), expanded, np.arange(3))
    counts = journal.Journal(epath.Path(tmp_path), split, DATA).visited_counts
    assert counts.tolist() == [0, 0, 0, 8, 0, 0, 0, 0, 0, 0]  # 3 to train on, 1 to test, twice


def test_records_are_plain_json(open_journal, tmp_path):
    train(open_journal(), 1)
    saved = checkpoints.Checkpoints(epath.Path(tmp_path / "fold_1")).restore(1, {})
    assert json.loads(json.dumps(saved.progress)) == {"epoch": 1, "records": [record(1)]}
