"""run.json: the images that a run uses, and the versions and devices that it runs on."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging

from caecnn_jax.data import dataset, sampling

PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
}


def describe(
    data: dataset.Dataset, kept: np.ndarray, splits: Sequence[sampling.Split]
) -> dict[str, object]:
    """What run.json holds at the start of a run; `kept` are the regulated training images."""

    def counts(indices: np.ndarray) -> dict[str, int]:
        return sampling.class_counts(indices, data.labels, data.class_names)

    everything = np.arange(len(data.labels))
    class_counts = {
        "all": {
            "train": counts(everything[: data.num_train]),
            "test": counts(everything[data.num_train :]),
        },
        "regulated": counts(kept),
    }
    for split in splits:
        parts = {"train": split.train, "expanded": split.expanded, "valid": split.valid}
        class_counts[split.name] = {name: counts(indices) for name, indices in parts.items()}
    return {
        "environment": environment(),
        "class_names": list(data.class_names),
        "class_counts": class_counts,
        "data_digest": sampling.digest(kept),
        "fold_digests": {split.name: sampling.digest(split.valid) for split in splits},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": None,
    }


def environment() -> dict[str, object]:
    """Versions, devices and processes."""
    versions = {name: importlib.metadata.version(package) for name, package in PACKAGES.items()}
    return {
        "python": platform.python_version(),
        **versions,
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "cpu_count": os.cpu_count(),
    }


def log_class_counts(class_counts: dict) -> None:
    """One line for each split: its name, its images, and how many each class has."""
    for run, parts in class_counts.items():
        tables = parts if isinstance(next(iter(parts.values())), dict) else {"": parts}
        for part, table in tables.items():
            line = " ".join(f"{name} {count}" for name, count in table.items())
            logging.info("%s %s: %d images: %s", run, part, sum(table.values()), line)
