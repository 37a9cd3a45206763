"""A run of the first config format, as the program of then left it: it stays readable."""

import json
import shutil

import jax
import numpy as np
import pytest
from builders import PROJECT, prepared_data_dir, tiny_config
from etils import epath
from PIL import Image

from caecnn_jax import config as config_lib
from caecnn_jax import modes, saved_config
from caecnn_jax.data import dataset
from caecnn_jax.records import claims, workdir
from caecnn_jax.results import evaluate, predict

OLD_RUN = PROJECT / "tests" / "old_run"
METRICS = json.loads((OLD_RUN / "metrics.json").read_text())


@pytest.fixture
def run(tmp_path):
    """A copy of the run's folder, to write into."""
    return shutil.copytree(OLD_RUN, tmp_path / "old_run")


@pytest.fixture
def no_data(monkeypatch):
    """Whoever loads the training data fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("the training data are not needed")

    monkeypatch.setattr(dataset, "open_source", refuse)  # by which all data are read


def test_its_config_reads_as_what_it_meant_then():
    text = (OLD_RUN / "config.json").read_text()
    assert "format" not in json.loads(text)
    config = saved_config.from_text(text)
    config_lib.validate(config)
    assert config.devices_per_run == 0  # instead of what is gone: folds side by side
    assert "folds_side_by_side" not in config
    assert config.cnn.block_sizes == ((3, 2, True), (8, 8, True), (8, 8, True))


def test_it_is_reported_on_without_its_data(run, no_data, capsys):
    assert modes.report(str(run), [], None) == 0
    page = (run / "report.html").read_text()
    assert "31.6" in page or "0.316" in page  # the test accuracy
    assert f"written to {run / 'report.html'}" in capsys.readouterr().out


def test_it_predicts_without_its_data(run, no_data, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    assert (
        modes.predict(
            str(run),
            fold="all",
            checkpoint="best",
            images=paths,
            output=str(tmp_path / "out"),
            save_reconstructions=False,
        )
        == 0
    )
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert len(found) == 3
    probabilities = predict.load(run, fold="test").classify(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_it_is_exported_without_its_data(run, no_data, tmp_path):
    output = str(tmp_path / "old.jax")
    assert modes.export(str(run), fold="test", checkpoint="last", output=output) == 0
    program = jax.export.deserialize(bytearray((tmp_path / "old.jax").read_bytes()))
    outputs = program.call(np.zeros((2, 32, 32, 3), np.uint8))
    assert outputs["probabilities"].shape == (2, 10)


@pytest.mark.real_data
@pytest.mark.skipif(
    prepared_data_dir() is None, reason="no prepared CIFAR-10: set TFDS_DATA_DIR to evaluate on it"
)
@pytest.mark.parametrize("fold", ["1", "2", "test"])
def test_it_evaluates_to_its_very_numbers(run, fold):
    _, result = evaluate.evaluate(epath.Path(run), fold=fold)
    then = METRICS["test"] if fold == "test" else METRICS["cv"]["folds"][int(fold) - 1]
    for name in ("accuracy", "macro_f1", "confusion_matrix", "per_class"):
        assert result[name] == then[name]
    for name in ("loss_cae", "loss_cnn"):
        assert result[name] == pytest.approx(then[name], rel=1e-6)


def test_going_on_with_it_is_refused_in_one_sentence(run):
    config = saved_config.from_text((OLD_RUN / "config.json").read_text())
    for given in (config, tiny_config()):
        with (
            pytest.raises(workdir.WorkdirError, match=r"earlier version \(format 1\)"),
            claims.claim(epath.Path(run), given),
        ):
            pass
    assert json.loads((run / "config.json").read_text()) == json.loads(
        (OLD_RUN / "config.json").read_text()
    )
