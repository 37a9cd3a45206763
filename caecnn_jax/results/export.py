"""A trained model for use elsewhere: a program for JAX alone, or weights for the reference.

The program is a `jax.export` artifact: uint8 images [B, H, W, C], any B from 1, to a dict of
"probabilities" float32 [B, K], "code" [B, h, w, c] and "reconstruction" uint8 [B, H, W, C], of
which it holds what the model has. Normalisation and weights are inside. Of an operation that has
two forms it holds the one that suits the machine that writes it; both give the same to rounding.
"""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export

from caecnn_jax import errors
from caecnn_jax.networks import torch_weights
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import predict
from caecnn_jax.results.corrections import NONE, Correction

PLATFORMS = ("cpu", "cuda", "tpu")
OUTPUTS = ("probabilities", "code", "reconstruction")


class ExportError(errors.UserError):
    """A model that the file's format cannot hold."""


def write(
    workdir: epath.Path,
    *,
    fold: str | None = None,
    checkpoint: str = "last",
    output: str,
    weights: str | None = None,
    correction: Correction = NONE,
) -> epath.Path:
    """Writes a run's model to `output`: PyTorch's weights if that ends in .npz, else the program.

    `fold`, `checkpoint`, `weights` and `correction` are as for `predict.load`. Raises a UserError
    when there is no such model, `output` cannot be written, or .npz cannot hold the correction.
    """
    path = workdir_lib.resolve(output)
    is_npz = path.suffix.lower() == ".npz"
    if path.suffix.lower() in (".pt", ".pth", ".onnx", ".h5", ".safetensors"):
        raise ExportError(
            f"--output={output}: no {path.suffix} file is written: end its name in .npz for "
            "PyTorch's weights, or in .jax for a program of JAX"
        )
    if is_npz and correction != NONE:
        raise ExportError(
            "--tau, --temperature and --calibrate: an .npz file holds weights alone, nothing that "
            "is done to logits: leave them out, or export a program"
        )
    predictor = predict.load(
        workdir, fold=fold, checkpoint=checkpoint, weights=weights, correction=correction
    )
    content = as_npz(predictor) if is_npz else as_program(predictor)
    workdir_lib.write_output(path, content)
    return path


def as_program(predictor: predict.Predictor) -> bytes:
    """The serialized artifact, for every platform of PLATFORMS."""

    def run(images: jax.Array) -> dict[str, Any]:
        result = predict.forward(predictor.recipe, predictor.variables, images)
        return {name: result[name] for name in OUTPUTS if name in result}

    batch = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((*batch, *predictor.image_shape), jnp.uint8)
    # Said here too: on a CPU, whose own products have one precision, no other default is set.
    with jax.default_matmul_precision(predictor.config.matmul_precision):
        exported = export.export(jax.jit(run), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def as_npz(predictor: predict.Predictor) -> bytes:
    """An .npz file of the weights with the names and layouts of the reference's state dict."""
    if len(predictor.variables) > 1:
        raise ExportError("--fold=all: an .npz file holds the weights of one model: choose a fold")
    state_dict: dict[str, Any] = torch_weights.to_torch(predictor.variables[0], predictor.config)
    buffer = io.BytesIO()
    np.savez(buffer, **state_dict)
    return buffer.getvalue()
