"""Exported models: JAX alone runs the program, and the reference's names hold the weights."""

import io
import subprocess
import sys

import jax
import numpy as np
import pytest
from builders import KINDS, tiny_config
from jax import export as jax_export

from caecnn_jax import errors
from caecnn_jax.data import augment, cifar
from caecnn_jax.data.description import Description
from caecnn_jax.networks import models, torch_weights
from caecnn_jax.results import export, predict
from caecnn_jax.training import steps

pytestmark = pytest.mark.usefixtures("quick_compilation")

# README, "Export": JAX and NumPy alone.
SCRIPT = """
import sys
import jax
import numpy as np
with open(sys.argv[1], "rb") as file:
    model = jax.export.deserialize(bytearray(file.read()))
images = np.load(sys.argv[2])
np.savez(sys.argv[3], **model.call(images), one=model.call(images[:1])["probabilities"])
assert not {"caecnn_jax", "flax", "orbax", "optax"} & set(sys.modules), "more than JAX is imported"
"""


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)


def untrained(kind):
    config = tiny_config(kind)
    state = steps.create_state(models.from_config(config), config, jax.random.key(0))
    description = Description("cifar10", cifar.CLASS_NAMES, 32, 3, *augment.CIFAR10, cifar.DIGEST)
    return predict.Predictor(config, description, [jax.device_get(state.variables)])


def test_jax_alone_runs_the_program(trained_run, images, tmp_path):
    program = export.write(
        trained_run, output=str(tmp_path / "deep" / "mixed.jax"), checkpoint="best"
    )
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "run.py").write_text(SCRIPT)
    arguments = [tmp_path / "run.py", program, tmp_path / "images.npy", tmp_path / "out.npz"]
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=tmp_path, timeout=120)
    outputs = np.load(tmp_path / "out.npz")
    model = predict.load(trained_run, checkpoint="best")
    np.testing.assert_allclose(outputs["probabilities"], model.classify(images), rtol=1e-5)
    np.testing.assert_allclose(outputs["one"], model.classify(images[:1]), rtol=1e-5)
    np.testing.assert_allclose(outputs["code"], model.encode(images), rtol=1e-4, atol=1e-5)
    difference = outputs["reconstruction"].astype(int) - model.reconstruct(images)
    assert abs(difference).max() <= 1  # a rounding apart


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_gives_what_the_model_has(kind, images):
    predictor = untrained(kind)
    program = jax_export.deserialize(bytearray(export.as_program(predictor)))
    assert program.platforms == ("cpu", "cuda", "tpu")
    outputs, expected = program.call(images), predictor.outputs(images)
    assert set(outputs) == set(expected) - {"reconstruction_error"}
    for name in set(outputs) - {"reconstruction"}:
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5)


def test_the_weights_come_back_from_the_references_names(trained_run, tmp_path):
    path = export.write(trained_run, output=str(tmp_path / "weights.npz"), fold="2")
    state_dict = dict(np.load(path))
    assert {"cae.encoder.0.weight", "cnn.conv1.bias", "cnn.linear.weight"} < set(state_dict)
    model = predict.load(trained_run, fold=2)
    back = torch_weights.from_torch(state_dict, model.config)
    jax.tree.map(np.testing.assert_array_equal, back, model.variables[0])


def test_folds_are_averaged_in_a_program_and_refused_as_weights(trained_run, images, tmp_path):
    model = predict.load(trained_run, fold="all")
    program = jax_export.deserialize(bytearray(export.as_program(model)))
    np.testing.assert_allclose(
        program.call(images)["probabilities"], model.classify(images), rtol=1e-5
    )
    for name in ("weights.npz", "WEIGHTS.NPZ"):
        with pytest.raises(export.ExportError, match="choose a fold"):
            export.write(trained_run, output=str(tmp_path / name), fold="all")


@pytest.mark.parametrize("name", ["model.pt", "model.PTH", "model.onnx"])
def test_a_name_of_another_format_is_refused(trained_run, tmp_path, name):
    with pytest.raises(export.ExportError, match=r"end its name in \.npz for PyTorch's weights"):
        export.write(trained_run, output=str(tmp_path / name))


def test_the_npz_is_readable_without_pickle():
    content = np.load(io.BytesIO(export.as_npz(untrained("cnn"))), allow_pickle=False)
    assert all(content[name].dtype == np.float32 for name in content)


def test_a_file_that_cannot_be_written_is_named(trained_run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match="file"):
        export.write(trained_run, output=str(tmp_path / "file" / "model.jax"))
