"""What a run is about: its data (dataset.json), and its images and surroundings (run.json)."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax.data import augment, cifar, dataset, sampling
from caecnn_jax.records import workdir

DESCRIPTION = "dataset.json"
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


def write_description(folder: epath.Path, description: dataset.Description) -> None:
    """Writes dataset.json."""
    workdir.write_json(folder / DESCRIPTION, description._asdict())


def read_description(folder: epath.Path) -> dataset.Description:
    """What dataset.json holds; raises WorkdirError when it is missing or damaged.

    Runs of format 1 have none: they are about CIFAR-10.
    """
    path = folder / DESCRIPTION
    if workdir.read_format(folder) == 1:
        statistics = augment.CIFAR10
        return dataset.Description("cifar10", cifar.CLASS_NAMES, 32, 3, *statistics, cifar.DIGEST)
    fields = config_lib.as_tuples(workdir.read_json(path))
    try:
        return dataset.Description(**fields)
    except TypeError as error:
        raise workdir.WorkdirError(
            f"{path} is damaged: {error}; train again to write it"
        ) from error


def check_same(folder: epath.Path, description: dataset.Description) -> None:
    """Raises WorkdirError where the run in the folder was trained on other images."""
    saved = read_description(folder)
    if saved.digest != description.digest:
        raise workdir.WorkdirError(
            f"{folder} holds a run on other images ({saved.name}, digest {saved.digest[:12]}, now "
            f"{description.name}, {description.digest[:12]}): bring the old ones back, or choose "
            "another --workdir"
        )


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


def train_counts(folder: epath.Path, run: str) -> list[int] | None:
    """A run's training images of each class, each counted once, from run.json; None without one."""
    if not (folder / "run.json").exists():
        return None
    class_counts = workdir.read_json(folder / "run.json").get("class_counts", {})
    return list(class_counts[run]["train"].values()) if run in class_counts else None


def log_class_counts(class_counts: dict) -> None:
    """One line for each split: its name, its images, and how many each class has."""
    for run, parts in class_counts.items():
        tables = parts if isinstance(next(iter(parts.values())), dict) else {"": parts}
        for part, table in tables.items():
            line = " ".join(f"{name} {count}" for name, count in table.items())
            logging.info("%s %s: %d images: %s", run, part, sum(table.values()), line)
