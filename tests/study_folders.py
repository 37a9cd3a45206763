"""Folders of a study as training leaves them, with results that a test can reckon by hand."""

import json

import numpy as np
from builders import tiny_config

from caecnn_jax import saved_config
from caecnn_jax import study as study_lib
from caecnn_jax.results import metrics

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_study(seeds=(0, 1, 2), **changes):
    base = tiny_config("cnn")
    variants = {"plain": {}, "other": {"batch_size": 16}, "third": {"cnn.opt.lr": 1e-3}}
    fields = {"base": base, "variants": variants, "seeds": seeds, "baseline": "plain"}
    return study_lib.expand("tiny", fields | changes)


def result(right: int) -> dict:
    """What a run came to: `right` of 20 images of each class are right, the rest the next class."""
    confusion = right * np.eye(10, dtype=int) + (20 - right) * np.roll(np.eye(10, dtype=int), 1, 1)
    losses = {"loss_cae": None, "loss_cnn": 1.0, "calibration_error": 0.1}
    valid = metrics.of_confusion(confusion) | losses
    record = {"epoch": 1, "valid": valid, "confusion_matrix": confusion, "reliability": None}
    found = metrics.run_result([record], CLASSES)
    found["confusion_matrix"] = confusion.tolist()
    found["best"]["confusion_matrix"] = confusion.tolist()
    return found


def write(folder, run, right, digest="same", seconds=60.0):
    """The folder of a finished run: `right` of 20 by run, such as {"fold_1": 12, "test": 11}."""
    place = folder / run.name
    place.mkdir(parents=True)
    (place / "config.json").write_text(saved_config.to_text(run.config))
    results = {name: result(count) for name, count in right.items()}
    folds = [{"fold": int(n[5:])} | one for n, one in results.items() if n != "test"]
    cv = {"folds": folds, "mean": folds[0], "std": folds[0]} if folds else None
    (place / "metrics.json").write_text(json.dumps({"cv": cv, "test": results.get("test")}))
    counts = {"train": dict.fromkeys(CLASSES, 40), "valid": dict.fromkeys(CLASSES, 20)}
    kept = dict.fromkeys(CLASSES, 60) | dict(run.config.train_data_regulation)
    info = {
        "class_names": CLASSES,
        "class_counts": {"regulated": kept} | dict.fromkeys(right, counts),
        "fold_digests": {name: f"{digest}-{run.seed}-{name}" for name in right},
        "environment": {"device_kind": "cpu", "num_devices": 1, "cpu_count": 2, "jax": "0"},
        "seconds": seconds,
    }
    (place / "run.json").write_text(json.dumps(info))
    about = {"name": "cifar10", "class_names": CLASSES, "image_size": 32, "channels": 3}
    about |= {"mean": [0.5] * 3, "std": [0.25] * 3, "digest": "d"}
    (place / "dataset.json").write_text(json.dumps(about))
    lines = [
        {
            "run": name, "epoch": epoch, "phase": "joint", "train": {"loss_cnn": 1.0},
            "valid": {"accuracy": count / 20}, "seconds": 1.0, "images_per_second": 100.0,
        }
        for name, count in right.items()
        for epoch in (1, 2)
    ]  # fmt: skip
    (place / "history.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


RIGHT = {"plain": [(10, 12), (11, 11), (12, 14)], "other": [(14, 15), (13, 15), (17, 16)]}


def write_all(folder):
    """Two of three variants finished, two folds under each of three seeds."""
    for run in make_study().runs:
        if run.variant in RIGHT:
            first, second = RIGHT[run.variant][run.seed]
            write(folder, run, {"fold_1": first, "fold_2": second})
