"""What a trained folder has: its runs by name, and their checkpoints while it still trains."""

import dataclasses
import shutil

import image_folders
import numpy as np
import pytest
from builders import PROJECT, source_of, tiny_config
from etils import epath

from caecnn_jax import errors
from caecnn_jax.data import cifar_hosts, dataset, image_files
from caecnn_jax.records import checkpoints
from caecnn_jax.results import corrections, evaluate, trained

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "7"}, "fold_7.*--fold may be 1, 2, test$"),
        ({"fold": "nonsense"}, "nonsense.*--fold may be"),
        ({"checkpoint": "99"}, "--checkpoint=99: .* has last, best and"),
        ({"weights": "EMA"}, "--weights=EMA: must be one of raw, ema"),
        ({"weights": "ema"}, "--weights=ema: this run kept no averages"),
    ],
)
def test_what_the_run_has_not_got_is_said(trained_run, same_data, options, message):
    with pytest.raises(trained.TrainedError, match=message):
        evaluate.evaluate(epath.Path(trained_run), **options)


def test_a_data_dir_that_a_path_does_not_use_is_an_error(tmp_path):
    elsewhere = {"dataset": str(image_folders.plain(tmp_path)), "data_dir": "/elsewhere"}
    with pytest.raises(trained.TrainedError, match=r"data_dir=/elsewhere: .* --config\.dataset"):
        evaluate.evaluate(epath.Path(PROJECT / "tests" / "old_run"), elsewhere=elsewhere)


def test_images_that_moved_are_asked_for(tmp_path):
    config = tiny_config(dataset=str(tmp_path / "moved"))
    run = dataclasses.replace(trained.open_folder(PROJECT / "tests" / "old_run"), config=config)
    with pytest.raises(trained.TrainedError, match=r"moved': there is noth.*--config\.dataset wh"):
        run.data()


def test_data_are_never_fetched_for_a_finished_run(tmp_path, monkeypatch):
    for fetch in ("download", "from_npm"):
        monkeypatch.setattr(cifar_hosts, fetch, None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    run = trained.open_folder(PROJECT / "tests" / "old_run")
    for elsewhere in ({"data_dir": str(tmp_path / "mistyped")}, None):
        with pytest.raises(errors.DataError, match=r"no cifar10 in .*: bring it back, or say"):
            run.data(elsewhere)
    assert not list(tmp_path.iterdir())


def test_of_other_data_the_remedy_is_the_flag_that_finds_them(trained_run, tiny_data):
    run = trained.open_folder(trained_run)
    data = dataclasses.replace(tiny_data, digest="another")
    for name, field in (("cifar10", "data_dir"), ("/photos", "dataset")):
        run.config.dataset = name
        with pytest.raises(trained.TrainedError, match=f"with --config.{field} where the old"):
            run.indices(data, run="test", split=None)


def test_tau_without_run_json_has_a_remedy(tmp_path):
    shutil.copy(PROJECT / "tests" / "old_run" / "config.json", tmp_path)
    run = trained.open_folder(tmp_path)
    with pytest.raises(trained.TrainedError, match=r"run\.json lacks: restore it, or leave --tau"):
        run.post_hoc({}, "test", corrections.Correction(tau=1.0), None)


def test_other_classes_are_told_before_an_image_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "read_each", None)
    elsewhere = {"dataset": str(image_folders.plain(tmp_path / "photos"))}
    with pytest.raises(trained.TrainedError, match=r"has the classes cat, dog.*names must agree"):
        trained.open_folder(PROJECT / "tests" / "old_run").data(elsewhere)


def test_classes_in_another_order_go_by_their_names(trained_run, tiny_data, monkeypatch, caplog):
    caplog.set_level("INFO", logger="absl")
    backwards = dataset.from_arrays(
        tiny_data.images, 9 - tiny_data.labels, tiny_data.num_train, tiny_data.class_names[::-1]
    )
    monkeypatch.setattr(dataset, "open_at_hand", lambda *_: source_of(backwards))
    run = trained.open_folder(trained_run)
    data = run.data()
    assert data.class_names == tiny_data.class_names and run.is_own(data)
    np.testing.assert_array_equal(data.labels, tiny_data.labels)
    assert data.labels.dtype == np.int32
    assert "has the classes in another order" in caplog.text


def test_a_run_is_named_by_number_or_test(trained_run):
    folder = trained.open_folder(trained_run)
    assert folder.run_name("2") == "fold_2"
    assert folder.run_name("fold_2") == "fold_2" and folder.run_name("test") == "test"
    # Folds are counted from 1, the test run is no fold, and a path is none either.
    for no_run in ("0", "²", "fold_2/", str(trained_run / "fold_2")):
        with pytest.raises(trained.TrainedError, match=r"no run .*: --fold may be 1, 2, test$"):
            folder.run_name(no_run)
    assert folder.run_name(None) == "test"
    folder.config.do_test = False
    assert folder.run_name(None) == "fold_1"


def test_a_checkpoint_that_training_removes_is_looked_for_again(trained_run, tmp_path, monkeypatch):
    """As predict.load in a loop meets it: the newest of the listing is gone, and a newer there."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    steps_of, moved = checkpoints.Checkpoints.steps, []

    def steps(self):
        found = steps_of(self)
        if not moved:  # training saves the next epoch and removes this one
            moved.append((folder / "test" / str(found[-1])).rename(folder / "test" / "77"))
        return found

    def restore():
        return trained.open_folder(folder).restore("test", checkpoint="last").variables

    monkeypatch.setattr(checkpoints.Checkpoints, "steps", steps)
    assert restore().keys() == {"params", "batch_stats"}
    monkeypatch.setattr(checkpoints.Checkpoints, "steps", lambda self: [99])  # always gone
    with pytest.raises(checkpoints.GoneError, match="try again where the run still trains"):
        restore()


def test_a_damaged_checkpoint_has_a_remedy(trained_run, tmp_path):
    folder = epath.Path(shutil.copytree(trained_run, tmp_path / "run"))
    for path in (tmp_path / "run" / "test").glob("*/variables/**/d/*"):
        path.write_bytes(path.read_bytes()[:-7])
    found = trained.open_folder(folder)
    remedy = r"is damaged: .*take another --checkpoint, or remove .*metrics\.json and give the tr"
    with pytest.raises(checkpoints.DamagedError, match=remedy):
        found.restore("test", checkpoint="last")
