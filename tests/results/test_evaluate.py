"""Evaluation of a run from its own folder, and what the run's end shows on TensorBoard."""

import dataclasses
import json

import numpy as np
import pytest
from builders import source_of
from etils import epath
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from caecnn_jax.data import dataset
from caecnn_jax.records import board, checkpoints
from caecnn_jax.results import corrections, evaluate, metrics, predict, tables, trained

pytestmark = pytest.mark.usefixtures("quick_compilation")


def result_of(run, name):
    metrics = json.loads((run / "metrics.json").read_text())
    return metrics["test"] if name == "test" else metrics["cv"]["folds"][int(name) - 1]


@pytest.mark.parametrize("fold", ["1", "test"])
def test_the_last_checkpoint_gives_the_runs_own_result(trained_run, same_data, tmp_path, fold):
    stem, result = evaluate.evaluate(epath.Path(trained_run), fold=fold)
    expected = result_of(trained_run, fold)
    assert stem == ("test-test-last" if fold == "test" else "fold_1-valid-last")
    assert result["loss_cnn"] == pytest.approx(expected["loss_cnn"], rel=1e-3)
    assert result["loss_cae"] == pytest.approx(expected["loss_cae"], rel=1e-3)
    assert np.sum(result["confusion_matrix"]) == np.sum(expected["confusion_matrix"])
    evaluate.write(epath.Path(tmp_path / "new"), stem, result)
    assert json.loads((tmp_path / "new" / f"{stem}.json").read_text()) == result
    for name in (stem, f"{stem}-reliability"):
        assert (tmp_path / "new" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_other_data_of_the_same_name_overwrite_nothing(trained_run, tiny_data, monkeypatch):
    none = {"valid": {"loss_cnn": None}, "confusion_matrix": None, "reliability": None}
    monkeypatch.setattr(evaluate, "_evaluation", lambda *_, **__: none)
    stems = []
    for name, digest in (("/a/photos", "0123456789ab"), ("/b/photos", "ba9876543210")):
        data = dataclasses.replace(tiny_data, name=name, digest=digest)
        monkeypatch.setattr(dataset, "open_at_hand", lambda *_, data=data: source_of(data))
        stem, result = evaluate.evaluate(epath.Path(trained_run), split="test")
        assert (result["data"]["name"], result["data"]["digest"]) == (name, digest)
        stems.append(stem)
    assert stems == ["test-test-last-on-photos-01234567", "test-test-last-on-photos-ba987654"]


def test_a_result_says_which_images_were_right(trained_run, same_data):
    run = epath.Path(trained_run)
    _, result = evaluate.evaluate(run, fold="1", checkpoint="best")
    correct = metrics.correctness(result)
    assert len(correct) == np.sum(result["confusion_matrix"])
    assert correct.mean() == pytest.approx(result["accuracy"])
    of_run = result_of(trained_run, "1")
    for epoch in (of_run, of_run["best"]):
        right = metrics.correctness(epoch)
        assert right.sum() == np.trace(epoch["confusion_matrix"])
    # The order is that of the split: class by class, the images are those of the matrix's rows.
    own = trained.open_folder(run)
    data = own.own_data()
    labels = data.labels[own.indices(data, run="fold_1", split="valid")]
    by_class = np.bincount(labels[correct], minlength=len(data.class_names))
    np.testing.assert_array_equal(by_class, np.diag(result["confusion_matrix"]))


def test_a_cnn_that_warm_up_left_untrained_is_not_used(trained_run, same_data, monkeypatch):
    restore = checkpoints.Checkpoints.restore

    def of_warmup(*args):
        restored = restore(*args)
        restored.progress["records"][-1]["phase"] = "warmup"
        return restored

    monkeypatch.setattr(checkpoints.Checkpoints, "restore", of_warmup)
    folder = epath.Path(trained_run)
    _, result = evaluate.evaluate(folder, fold="1")
    assert result["loss_cae"] is not None
    assert result["accuracy"] is result["loss_cnn"] is result["confusion_matrix"] is None
    assert tables.text_table(result)
    with pytest.raises(corrections.CorrectionError, match="trained no CNN"):
        evaluate.evaluate(folder, fold="1", correction=corrections.Correction(tau=1.0))
    with pytest.raises(predict.PredictError, match="fold_1 is of warm-up, in which the CNN is not"):
        predict.load(folder, fold=1)


def test_any_split_can_be_evaluated(trained_run, same_data):
    counts = {
        split: np.sum(
            evaluate.evaluate(epath.Path(trained_run), fold="2", checkpoint="1", split=split)[1][
                "confusion_matrix"
            ]
        )
        for split in ("train", "valid", "test")
    }
    assert counts == {"train": 88, "valid": 88, "test": 50}


@pytest.fixture(scope="module")
def events(trained_run):
    """The events of fold 1 as TensorBoard itself reads them."""
    everything = {"images": 0, "scalars": 0, "tensors": 0}
    folder = str(trained_run / "tensorboard" / "fold_1")
    return event_accumulator.EventAccumulator(folder, everything).Reload()


def test_tensorboard_reads_scalars_and_pictures(events, trained_run):
    lines = (trained_run / "history.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines if json.loads(line)["run"] == "fold_1"][-1]
    tails = events.Scalars("valid/accuracy/tail")
    assert tails[-1].value == pytest.approx(last["valid"]["thirds"]["tail"])
    assert {f"valid/{name}" for name in ("balanced_accuracy", "g_mean", "calibration_error")} <= {
        *events.Tags()["scalars"]
    }
    accuracies = events.Scalars("valid/accuracy")
    assert accuracies[-1].step == last["epoch"]
    assert accuracies[-1].value == pytest.approx(last["valid"]["accuracy"])
    assert set(events.Tags()["images"]) == {
        "reconstruction",
        "confusion_matrix",
        "reliability",
    }
    assert [image.step for image in events.Images("reconstruction")] == [1, 2]
    assert events.Images("confusion_matrix")[-1].width > 300


def test_tensorboard_reads_settings_and_final_figures(events, trained_run):
    metadata = events.summary_metadata["_hparams_/session_start_info"]
    content = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    settings = content.session_start_info.hparams
    assert settings["cae.opt.lr"].number_value == pytest.approx(1e-2)
    assert settings["cnn.use_mixed_input"].bool_value is True
    expected = result_of(trained_run, "1")
    for name in ("accuracy", "macro_f1", "loss_cae", "loss_cnn"):
        assert events.Scalars(f"final/{name}")[-1].value == pytest.approx(expected[name])


def test_the_projector_has_as_many_codes_of_each_class(trained_run):
    folder = trained_run / "tensorboard" / "fold_1"
    assert 'tensor_name: "code:00002"' in (folder / "projector_config.pbtxt").read_text()
    labels = (folder / "code" / "metadata.tsv").read_text().split()
    codes = np.loadtxt(folder / "code" / "tensors.tsv")
    assert codes.shape == (len(labels), board.MOST_COORDINATES)  # of 16 * 16 * 2
    assert set(np.unique(labels, return_counts=True)[1]) == {6}
    assert (folder / "code" / "sprite.jpg").exists()
