"""Data smaller than training is laid out for: fewer images than a batch, one batch an epoch."""

import math

import numpy as np
import pytest
from etils import epath
from trainings import config_of

from caecnn_jax.data import dataset
from caecnn_jax.networks import models
from caecnn_jax.records import checkpoints
from caecnn_jax.training import train

pytestmark = pytest.mark.usefixtures("draw_nothing", "quick_compilation")


def data_of(*labels: int, num_train: int) -> dataset.Dataset:
    """Noise with these labels, the training images first."""
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
    return dataset.from_arrays(images, np.int32(labels), num_train, ("few", "fewer"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "do_cv"),
    [
        (data_of(0, 0, 1, 0, 1, num_train=3), False),  # no fold could hold the class of one
        (data_of(*[0, 1] * 3, 0, 1, num_train=6), True),
    ],
    ids=["two and one image", "three images a class, two folds"],
)
def test_fewer_images_than_a_batch_train_as_one_step_an_epoch(data, do_cv, tmp_path):
    warmup = 0 if do_cv else 1  # which is compiled besides
    parts = {"do_cv": do_cv, "do_test": not do_cv, "only_train_cae_until": warmup}
    config = config_of("mixed", image_size=8, batch_size=64, num_epoch=3, **parts)
    config.train_data_regulation = config.train_data_expansion = {}
    summary = train.train_and_evaluate(config, tmp_path / "run", data)
    for result in summary["cv"]["folds"] if do_cv else [summary["test"]]:
        assert result["epochs"] == 3
        assert math.isfinite(result["loss_cnn"]) and math.isfinite(result["loss_cae"])
    shapes = train.saved_shapes(config, models.from_config(config, num_classes=2, channels=3))
    for run in ("fold_1", "fold_2") if do_cv else ("test",):
        saved = checkpoints.Checkpoints(epath.Path(tmp_path / "run" / run), read_only=True)
        restored = saved.restore(saved.steps()[-1], shapes)
        phases = [record["phase"] for record in restored.progress["records"]]
        assert phases == [*["warmup"] * warmup, *["joint"] * (3 - warmup)]
        for record in restored.progress["records"]:
            assert math.isfinite(record["train"]["loss_cae"])
        adams = {part: state[0] for part, state in restored.arrays["opt_state"].items()}
        steps = {part: int(adam.count) for part, adam in adams.items()}
        assert steps == {"cae": 3, "cnn": 3 - warmup}  # one an epoch
