"""Each method for rare classes, optimizer and average: it trains, counts and resumes exactly."""

import json

import pytest
from builders import tiny_config
from etils import epath

from caecnn_jax.records import checkpoints, journal
from caecnn_jax.training import train

# Together these hold each method once.
METHODS = {
    "weights, mixup, averages, sgd in steps": {
        "cnn": {
            "loss": {"class_weights": "effective", "deferred_until": 1},
            "opt": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 2e-4},
        },
        "cae": {"opt": {"clip_norm": 1.0, "weight_decay": 1e-4}},
        "mixup_alpha": 1.0,
        "ema_decay": 0.9,
        "lr_schedule": "step",
        "lr_milestones": (1,),
        "lr_factors": (0.1,),
    },
    "LDAM, balanced batches, adamw": {
        "cnn": {
            "head": "cosine",
            "loss": {"name": "ldam"},
            "opt": {"name": "adamw", "weight_decay": 0.05},
        },
        "balanced_batches_from": 2,
        "selection_metric": "balanced_accuracy",
    },
    "focal, logit adjustment": {
        "cnn": {"loss": {"name": "focal", "logit_adjustment": 1.0, "class_weights": "inverse"}},
        "selection_metric": "macro_f1",
    },
    "label smoothing": {"cnn": {"loss": {"label_smoothing": 0.1}}},
}

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(autouse=True)
def draw_nothing(monkeypatch):
    monkeypatch.setattr(journal.Journal, "finish", lambda self: None)


def config_of(kind, **changes):
    config = tiny_config(kind, save_img_per_epoch=0, do_cv=False, num_epoch=3)
    config.update(changes)
    return config


def outcome(folder, config, data):
    """The last checkpoint's digest and the records, without times."""
    channels = data.images.shape[-1]
    model = train.models.from_config(config, num_classes=10, channels=channels)
    saved = checkpoints.Checkpoints(epath.Path(folder / "test"), read_only=True)
    restored = saved.restore(saved.steps()[-1], train.saved_shapes(config, model))
    records = restored.progress["records"]
    for record in records:
        del record["seconds"], record["images_per_second"]
    return checkpoints.digest(restored.arrays), records


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny_data):
    """What the kind comes to without any method."""
    found = {}

    def of(kind):
        if kind not in found:
            folder, config = tmp_path_factory.mktemp(kind) / "run", config_of(kind)
            train.train_and_evaluate(config, folder, tiny_data)
            found[kind] = outcome(folder, config, tiny_data)
        return found[kind]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_counts_and_resumes_exactly(
    method, plain, tiny_data, tmp_path, monkeypatch
):
    kind = "mixed" if "cae" in METHODS[method] else "cnn"
    config = config_of(kind, **METHODS[method])
    train.train_and_evaluate(config, tmp_path / "straight", tiny_data)
    straight = outcome(tmp_path / "straight", config, tiny_data)
    losses = [record["train"]["loss_cnn"] for record in straight[1] if record["phase"] == "joint"]
    assert losses[-1] < losses[0]
    # In which direction is not known beforehand: most sets change several things at once, and a
    # smoothed, focal or margin loss that has led to other weights may be larger or smaller. What
    # each does to one loss or step stands in test_losses, test_optimizers and test_steps.
    assert straight[0] != plain(kind)[0]

    save = journal.Journal.save

    def killed(self, *args):
        save(self, *args)
        raise Killed

    monkeypatch.setattr(journal.Journal, "save", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            train.train_and_evaluate(config, tmp_path / "killed", tiny_data)
    monkeypatch.setattr(journal.Journal, "save", save)
    train.train_and_evaluate(config, tmp_path / "killed", tiny_data)
    assert outcome(tmp_path / "killed", config, tiny_data) == straight
    results = [
        json.loads((tmp_path / name / "metrics.json").read_text())["test"]
        for name in ("straight", "killed")
    ]
    assert results[0] == results[1]
    assert None not in (results[0]["calibration_error"], results[0]["g_mean"], results[0]["nll"])
    assert set(results[0]["shots"]) == {"many", "medium", "few"}
