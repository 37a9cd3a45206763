"""--tau, --temperature, --calibrate and --weights, against formulas, on trained runs."""

import json

import numpy as np
import pytest
from builders import less_optimized, tiny_config
from etils import epath
from jax import export as jax_export

from caecnn_jax.records import about
from caecnn_jax.results import calibration, corrections, evaluate, export, predict, trained
from caecnn_jax.results.corrections import Correction


def corrected(probabilities, counts, tau, temperature):
    """The formula from probabilities: softmax(log p / T - tau log prior)."""
    prior = np.maximum(counts, 1) / np.maximum(counts, 1).sum()
    scores = probabilities ** (1 / temperature) / prior**tau
    return scores / scores.sum(axis=1, keepdims=True)


def test_predictions_and_programs_are_corrected_by_the_formula(
    trained_run, tiny_data, tmp_path, monkeypatch
):
    counts = np.arange(1, 11) ** 2
    monkeypatch.setattr(about, "train_counts", lambda *_, **__: counts.tolist())
    folder, images = epath.Path(trained_run), tiny_data.images[:8]
    correction = Correction(tau=0.7, temperature=2.0)
    plain = predict.load(folder, fold=1).classify(images)
    got = predict.load(folder, fold=1, correction=correction).classify(images)
    np.testing.assert_allclose(got, corrected(plain, counts, 0.7, 2.0), rtol=2e-4)
    file = str(tmp_path / "model.jax")
    path = export.write(folder, fold="1", output=file, correction=correction)
    program = jax_export.deserialize(bytearray(path.read_bytes()))
    np.testing.assert_allclose(program.call(images)["probabilities"], got, rtol=1e-4, atol=1e-6)


def test_tau_knows_the_images_that_an_epoch_visits(trained_run):
    run = json.loads((trained_run / "run.json").read_text())["class_counts"]["fold_1"]
    got = about.train_counts(epath.Path(trained_run), "fold_1", visited=True)
    assert got == list(run["expanded"].values())


def test_a_calibrated_fold_has_the_least_nll_on_its_validation_part(trained_run, same_data):
    folder = epath.Path(trained_run)

    def nll(temperature):
        correction = Correction(temperature=temperature)
        return evaluate.evaluate(folder, fold="1", correction=correction)[1]["nll"]

    name, result = evaluate.evaluate(
        folder, fold="1", split="test", correction=Correction(calibrate=True)
    )
    assert name == "fold_1-test-last-calibrated"
    assert (result["weights"], result["post_hoc"]["tau"]) == ("raw", 0.0)
    found = result["post_hoc"]["temperature"]
    assert nll(found) < min(nll(0.8 * found), nll(1.25 * found))
    assert result["accuracy"] == evaluate.evaluate(folder, fold="1", split="test")[1]["accuracy"]


@pytest.mark.parametrize(("best", "tell"), [(0.01, "tell all"), (100.0, "tell nothing")])
def test_a_temperature_out_of_bounds_is_said(
    trained_run, same_data, monkeypatch, caplog, best, tell
):
    monkeypatch.setattr(calibration, "fit_temperature", lambda logits, labels: best)
    predict.load(trained_run, fold=1, correction=Correction(calibrate=True))
    assert tell in caplog.text


def test_each_folds_model_is_calibrated_on_its_own_part(trained_run, same_data):
    model = predict.load(trained_run, fold="all", correction=Correction(calibrate=True))
    assert len({made.temperature for made in model.recipe.corrections}) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"balanced_batches_from": 2}, "balanced_batches_from=2"),
        ({"cnn": {"loss": {"logit_adjustment": 1.0}}}, "cnn.loss.logit_adjustment=1.0"),
        ({"cnn": {"loss": {"class_weights": "inverse"}}}, "cnn.loss.class_weights=inverse"),
    ],
)
def test_a_prior_that_is_taken_out_twice_is_warned_of(changes, said, caplog, monkeypatch):
    monkeypatch.setattr(about, "train_counts", lambda *_, **__: [1, 2])
    config, folder = tiny_config(**changes), epath.Path("runs")
    opened = trained.Trained(folder, config, None)
    for tau in (0.0, 1.0):
        caplog.clear()
        correction = Correction(tau=tau, temperature=2.0)
        opened.post_hoc({}, "fold_1", correction, None)
        expected = said if tau else None
        assert len(caplog.messages) == (expected is not None)
        assert expected is None or f"fold_1 was trained with config.{expected}" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": "1", "correction": Correction(calibrate=True)}, "cannot be judged on it"),
        ({"fold": "test", "correction": Correction(calibrate=True)}, "choose a fold with --fold"),
        ({"correction": Correction(temperature=0.0)}, "must be from 0.01 to 100"),
        ({"correction": Correction(temperature=1e-45)}, "must be from 0.01 to 100"),
        ({"correction": Correction(tau=float("nan"))}, "must be from -100 to 100, often 1"),
        ({"correction": Correction(tau=1e39)}, "must be from -100 to 100, often 1"),
        ({"fold": "1", "correction": Correction(temperature=2.0, calibrate=True)}, "leave --temp"),
        ({"weights": "ema"}, "kept no averages"),
    ],
)
def test_what_cannot_be_done_is_said(trained_run, same_data, options, message):
    with pytest.raises((corrections.CorrectionError, trained.TrainedError), match=message):
        evaluate.evaluate(epath.Path(trained_run), **options)


def test_an_npz_of_weights_cannot_hold_a_correction(trained_run, tmp_path):
    folder, correction = epath.Path(trained_run), Correction(tau=1.0)
    with pytest.raises(export.ExportError, match="leave them out"):
        export.write(folder, output=str(tmp_path / "w.npz"), correction=correction)


def test_raw_weights_and_averages_are_both_evaluated(tmp_path, tiny_data, same_data):
    from caecnn_jax.training import train

    config = tiny_config("cnn", do_cv=False, ema_decay=0.9, save_img_per_epoch=0)
    with less_optimized():
        train.train_and_evaluate(config, tmp_path / "run", tiny_data)
    folder = epath.Path(tmp_path / "run")
    nll = {name: evaluate.evaluate(folder, weights=name)[1]["nll"] for name in (None, "raw", "ema")}
    assert nll[None] == nll["ema"] != nll["raw"]
    assert evaluate.evaluate(folder, weights="raw")[0] == "test-test-last-raw"
