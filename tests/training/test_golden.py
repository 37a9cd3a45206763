"""The steps against numbers of the reference program, in golden/ (its README explains them)."""

import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import pytest
from builders import KINDS

from caecnn_jax import backend
from caecnn_jax.data import augment
from caecnn_jax.networks import models, torch_weights
from caecnn_jax.training import steps
from configs import from_json

DATA = pathlib.Path(__file__).parents[1] / "golden"
MOMENTUM = 0.9


class Golden(NamedTuple):
    """One mode's numbers."""

    config: object
    warmup_steps: int
    arrays: dict[str, np.ndarray]

    def weights(self, which):
        return {
            name.removeprefix(f"{which}/"): array
            for name, array in self.arrays.items()
            if name.startswith(f"{which}/")
        }

    def batch(self, step, dtype):
        images = (self.arrays["images"][step] / 255 - augment.CIFAR10.mean) / augment.CIFAR10.std
        labels = self.arrays["labels"][step].astype(np.int32)
        return {"image": images.astype(dtype), "label": labels}


def load(kind, dtype="float64"):
    config = from_json.get_config(str(DATA / f"{kind}.json"))
    config.dtype = dtype
    warmup_steps = json.loads((DATA / f"{kind}.json").read_text())["warmup_steps"]
    with np.load(DATA / f"{kind}.npz") as arrays:
        return Golden(config, warmup_steps, dict(arrays))


def train(golden, weights):
    """The state after all steps, and the losses by step."""
    dtype = golden.config.dtype
    weights = {name: array.astype(dtype) for name, array in weights.items()}
    variables = torch_weights.from_torch(weights, golden.config)
    model = models.from_config(golden.config)
    state = steps.create_state(model, golden.config, jax.random.key(0), variables)
    losses = {"loss_cae": [], "loss_cnn": []}
    for step in range(len(golden.arrays["images"]) - 1):
        joint = step >= golden.warmup_steps
        state, metrics = steps.train_step(state, golden.batch(step, dtype), joint=joint)
        for name, values in losses.items():
            values.append(float(metrics[name]))
    return state, losses


def with_unbiased_variance(weights, golden):
    """Our weights, as they would be had the running variances been updated by PyTorch's rule.

    A running variance after k steps is 0.9^k (its start, 1) plus a weighted sum of batch variances.
    All of them are over the same count n of values, and PyTorch's are larger by n / (n - 1).
    """
    num_steps = len(golden.arrays["images"]) - 1
    batch_size = golden.arrays["images"].shape[1]
    weights = dict(weights)
    for name, pixels in variances(golden.config).items():
        is_cnn = not name.startswith("cae.") and golden.config.use_cnn
        count = num_steps - (golden.warmup_steps if is_cnn else 0)
        n = batch_size * pixels
        start = MOMENTUM**count
        weights[name] = start + (weights[name] - start) * n / (n - 1)
    return weights


def variances(config):
    """{name of a running variance: pixels of the feature maps that it is over}."""
    found = {}
    both = config.use_cae and config.use_cnn
    if config.use_cae:
        prefix = "cae." if both else ""
        found[f"{prefix}encoder.3.running_var"] = 16 * 16
        found[f"{prefix}decoder.2.running_var"] = 32 * 32
    if config.use_cnn and config.cnn.use_mixed_input:
        sizes = {"bn1": 16, "bn2": 8, "bn3": 4}
    elif config.use_cnn:
        sizes = {"main.2": 16, "main.6": 8, "main.10": 4} if both else {}
        sizes = sizes or {"main.3": 16, "main.7": 8, "main.11": 4}
    else:
        sizes = {}
    prefix = "cnn." if both else ""
    return found | {f"{prefix}{name}.running_var": size**2 for name, size in sizes.items()}


@pytest.fixture(scope="module", params=[*KINDS, *(f"{kind}-accelerator" for kind in KINDS)])
def trained(request):
    """(golden numbers, our state after their steps, our losses), in float64.

    In the CPU's forms of the operations, and in those of the accelerators.
    """
    kind, _, accelerator = request.param.partition("-")
    golden = load(kind)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        if accelerator:
            jax.clear_caches()
            patch.setattr(backend, "use_plain", lambda plain=None: plain is None or plain)
        yield golden, *train(golden, golden.weights("init"))
    if accelerator:
        jax.clear_caches()


def test_float64_losses_match(trained):
    golden, _, losses = trained
    for name, values in losses.items():
        np.testing.assert_allclose(values, golden.arrays[name], rtol=1e-9, atol=0)
        assert np.isnan(values).sum() in (0, golden.warmup_steps, len(values))


def test_float64_parameters_and_averages_match(trained):
    golden, state, _ = trained
    ours = torch_weights.to_torch(jax.device_get(state.variables), golden.config)
    ours, wanted = with_unbiased_variance(ours, golden), golden.weights("final")
    assert ours.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=1e-7, err_msg=name)


def test_float64_evaluation_matches(trained):
    golden, state, _ = trained
    ours = torch_weights.to_torch(jax.device_get(state.variables), golden.config)
    ours = with_unbiased_variance(ours, golden)
    variables = torch_weights.from_torch(ours, golden.config)
    state = steps.create_state(state.model, golden.config, jax.random.key(0), variables)
    outputs = steps.eval_step(state, golden.batch(-1, "float64"))
    compared = set()
    for name in ("code", "reconstruction", "logits"):
        if f"eval_{name}" in golden.arrays:
            wanted = golden.arrays[f"eval_{name}"]
            np.testing.assert_allclose(getattr(outputs, name), wanted, rtol=0, atol=1e-7)
            compared.add(name)
    wanted = {"code", "reconstruction"} if golden.config.use_cae else {"logits"}
    assert compared == ({"reconstruction", "logits"} if golden.warmup_steps else wanted)


def test_the_variance_rule_is_the_only_difference(trained):
    golden, state, _ = trained
    ours = torch_weights.to_torch(jax.device_get(state.variables), golden.config)
    wanted = golden.weights("final")
    differing = {
        name for name in wanted if not np.allclose(ours[name], wanted[name], rtol=0, atol=1e-7)
    }
    assert differing == set(variances(golden.config))


def test_one_perturbed_weight_fails():
    golden = load("cae")
    weights = golden.weights("init")
    weights["encoder.0.weight"][0, 0, 0, 0] += 1e-6
    with jax.enable_x64(True):
        state, losses = train(golden, weights)
        ours = torch_weights.to_torch(jax.device_get(state.variables), golden.config)
    assert not np.allclose(losses["loss_cae"], golden.arrays["loss_cae"], rtol=1e-9, atol=0)
    wanted = golden.weights("final")["encoder.0.weight"]
    assert not np.allclose(ours["encoder.0.weight"], wanted, rtol=0, atol=1e-7)


def test_float32_matches_as_far_as_its_rounding_allows():
    """The first joint step to 1e-5; then to what Adam makes of rounding.

    With betas (0, 0.999) Adam's first steps are about the learning rate times the gradient's sign.
    Where a gradient is all rounding the sign is chance, and the parameter ends up to two learning
    rates a step from the reference's; such parameters are few, and matter little to the losses.
    """
    golden = load("mixed", "float32")
    state, losses = train(golden, golden.weights("init"))
    first = golden.warmup_steps
    for name, values in losses.items():
        wanted = golden.arrays[name]
        np.testing.assert_allclose(values[: first + 1], wanted[: first + 1], rtol=1e-5)
        np.testing.assert_allclose(values, wanted, rtol=1e-3)
    ours = torch_weights.to_torch(jax.device_get(state.variables), golden.config)
    bound = 2 * golden.config.cnn.opt.lr * len(losses["loss_cae"])
    for name, wanted in golden.weights("final").items():
        if "running" not in name:
            error = np.abs(ours[name] - wanted)
            assert error.max() <= bound, name
            assert np.median(error) <= golden.config.cnn.opt.lr / 10, name
