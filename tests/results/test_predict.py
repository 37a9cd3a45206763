"""A trained run used from Python: arrays classified, reconstructed and encoded."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
from builders import ABOUT, KINDS, source_of, tiny_config, untrained
from etils import epath

from caecnn_jax import saved_config
from caecnn_jax.data import augment, dataset
from caecnn_jax.networks import models
from caecnn_jax.records import about, checkpoints
from caecnn_jax.results import predict, trained
from caecnn_jax.training import steps

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_gives_what_the_evaluation_step_gives(kind, images):
    predictor = untrained(kind)
    outputs = predictor.outputs(images)
    state = steps.create_state(predictor.model, predictor.config, None, predictor.variables[0])
    expected = steps.eval_step(state, {"image": augment.normalize(images)})
    if kind != "cae":
        probabilities = jax.nn.softmax(expected.logits)
        np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-4)
        np.testing.assert_allclose(predictor.classify(images).sum(1), 1, rtol=1e-5)
    if kind != "cnn":
        np.testing.assert_allclose(predictor.encode(images), expected.code, rtol=1e-4, atol=1e-5)
        assert predictor.reconstruct(images).dtype == np.uint8
        error = np.square(expected.reconstruction - augment.normalize(images)).mean((1, 2, 3))
        np.testing.assert_allclose(outputs["reconstruction_error"], error, rtol=1e-4)
    assert set(outputs) == {
        "cae": {"code", "reconstruction", "reconstruction_error"},
        "cnn": {"probabilities"},
    }.get(kind, {"code", "reconstruction", "reconstruction_error", "probabilities"})


def test_any_number_of_images_is_predicted_alike(images):
    predictor = untrained("mixed")
    many = np.tile(images, (60, 1, 1, 1))  # more than a batch
    first = predictor.classify(images)
    np.testing.assert_allclose(predictor.classify(many), np.tile(first, (60, 1)), rtol=1e-5)
    assert predictor.classify(images[:0]).shape == (0, 10)


@pytest.mark.parametrize(("precision", "written"), [("highest", True), ("default", False)])
def test_float32_is_as_exact_as_the_config_says(precision, written, images, monkeypatch):
    """On an accelerator, of which a script that only predicts has never set the default."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    forward, texts = predict.forward, []

    def lowered(*arguments):
        texts.append(forward.lower(*arguments).as_text())
        return forward(*arguments)

    monkeypatch.setattr(predict, "forward", lowered)
    untrained("cnn", matmul_precision=precision).classify(images)
    assert ("HIGHEST" in texts[0]) == written


def test_what_the_run_has_not_got_is_said(images):
    with pytest.raises(predict.PredictError, match="no CNN"):
        untrained("cae").classify(images)
    with pytest.raises(predict.PredictError, match="no CAE"):
        untrained("cnn").reconstruct(images)


@pytest.mark.parametrize("wrong", [np.zeros((2, 32, 32, 3)), np.zeros((32, 32, 3), np.uint8)])
def test_other_arrays_are_refused_with_their_shape(wrong):
    with pytest.raises(ValueError, match=r"uint8 \[N, 32, 32, 3\], not"):
        untrained("cnn").classify(wrong)


def test_all_folds_are_averaged(trained_run, images):
    folds = [predict.load(trained_run, fold=fold, checkpoint="best") for fold in (1, "2")]
    together = predict.load(trained_run, fold="all", checkpoint="best")
    mean = np.mean([one.classify(images) for one in folds], axis=0)
    np.testing.assert_allclose(together.classify(images), mean, rtol=1e-5)
    with pytest.raises(predict.PredictError, match="choose one fold"):
        together.encode(images)


def test_the_images_that_a_model_was_judged_by_are_at_hand(trained_run, tiny_data, same_data):
    test = tiny_data.num_train
    for fold in ("test", "all"):
        found = predict.load(trained_run, fold=fold).held_out()
        np.testing.assert_array_equal(found.images, tiny_data.images[test:])
        np.testing.assert_array_equal(found.labels, tiny_data.labels[test:])
    first, second = (predict.load(trained_run, fold=fold).held_out() for fold in (1, 2))
    digests = [{image.tobytes() for image in one.images} for one in (first, second)]
    assert [len(one) for one in digests] == [88, 88] and not digests[0] & digests[1]
    assert not any(image.tobytes() in digests[0] | digests[1] for image in tiny_data.images[test:])
    model = predict.load(trained_run, fold=1, checkpoint="last")
    metrics = json.loads((trained_run / "metrics.json").read_text())
    tops = model.classify(first.images).argmax(axis=1)
    accuracy = metrics["cv"]["folds"][0]["accuracy"]
    assert np.mean(tops == first.labels) == pytest.approx(accuracy, abs=1.5 / 88)


def test_held_out_images_have_their_files(trained_run, tiny_data, monkeypatch):
    files = tuple(pathlib.Path(f"{number}.png") for number in range(len(tiny_data.labels)))
    data = dataclasses.replace(tiny_data, files=files)
    monkeypatch.setattr(dataset, "open_at_hand", lambda *_: source_of(data))
    held_out = predict.load(trained_run).held_out()
    assert held_out.files == files[tiny_data.num_train :]
    assert len(held_out.files) == len(held_out.labels) == len(held_out.images)


def test_of_other_data_nobody_knows_what_was_held_out(trained_run, tiny_data, monkeypatch):
    data = dataclasses.replace(tiny_data, digest="another")
    monkeypatch.setattr(dataset, "open_at_hand", lambda *_: source_of(data))
    with pytest.raises(trained.TrainedError, match=r"other images than .* was trained on"):
        predict.load(trained_run).held_out()
    with pytest.raises(predict.PredictError, match=r"predict\.load"):
        untrained("cnn").held_out()


def test_a_float64_run_is_used_in_float32_without_x64(tmp_path, images):
    config = tiny_config("cae", dtype="float64", do_cv=False)
    with jax.enable_x64(True):
        state = steps.create_state(models.from_config(config), config, jax.random.key(0))
        variables = jax.device_get(state.variables)
    assert jax.tree.leaves(variables)[0].dtype == np.float64
    saved = checkpoints.Checkpoints(tmp_path / "test")
    saved.save(1, {"variables": variables}, {"records": [{"epoch": 1, "phase": "joint"}]})
    (tmp_path / "config.json").write_text(saved_config.to_text(config))
    about.write_description(epath.Path(tmp_path), ABOUT)
    model = predict.load(tmp_path)
    assert jax.tree.leaves(model.variables)[0].dtype == np.float32
    assert model.reconstruct(images).shape == images.shape
