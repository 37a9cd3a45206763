"""What a run is about: its data (dataset.json), and its images and surroundings (run.json)."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from caecnn_jax import legible, run_names, saved_config
from caecnn_jax.data import augment, cifar, dataset, sampling
from caecnn_jax.data.description import Description
from caecnn_jax.records import workdir
from caecnn_jax.results import schema, tables

DESCRIPTION, RUN = "dataset.json", "run.json"
PACKAGES = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
}


def describe(
    data: dataset.Dataset, kept: np.ndarray, splits: Sequence[sampling.Split]
) -> schema.About:
    """What run.json holds at the start of a run; `kept` are the regulated training images."""

    def counts(indices: np.ndarray) -> dict[str, int]:
        return sampling.class_counts(indices, data.labels, data.class_names)

    everything = np.arange(len(data.labels))
    class_counts: dict[str, dict[str, Any]] = {
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


def write_description(folder: epath.Path, description: Description) -> None:
    """Writes dataset.json."""
    workdir.write_json(folder / DESCRIPTION, description._asdict())


def write(folder: epath.Path, about: schema.About) -> None:
    """Writes run.json."""
    workdir.write_json(folder / RUN, about)


def read(folder: epath.Path) -> schema.About:
    """What run.json holds, {} where there is none; raises WorkdirError when it is damaged."""
    path = folder / RUN
    if not path.exists():
        return {}
    return workdir.fitting(workdir.read_json(path), path, schema.About)


def read_description(folder: epath.Path) -> Description:
    """What dataset.json holds; raises WorkdirError when it is missing or damaged.

    Runs of format 1 have none: they are about CIFAR-10.
    """
    path = folder / DESCRIPTION
    if workdir.read_format(folder) == 1:
        statistics = augment.CIFAR10
        return Description("cifar10", cifar.CLASS_NAMES, 32, 3, *statistics, cifar.DIGEST)
    kinds = typing.get_type_hints(Description)
    fields = workdir.fitting(workdir.read_json(path), path, kinds)
    if differing := fields.keys() ^ kinds.keys():
        listed = ", ".join(sorted(differing))
        raise workdir.damaged(path, f"it lacks, or should not have, {listed}")
    return Description(**saved_config.as_tuples(fields))


def check_same(folder: epath.Path, data: dataset.Dataset) -> None:
    """Raises WorkdirError where the run in the folder was trained on other images than these.

    Warns where its dataset.json, which would tell, is missing or damaged.
    """
    try:
        saved = read_description(folder)
    except workdir.WorkdirError as error:
        logging.warning("%s: whether the run's images were these is not known", error)
        return
    if saved.digest != data.digest:
        raise workdir.WorkdirError(
            f"{folder} holds a run on other images ({saved.name}, digest {saved.digest[:12]}, now "
            f"{data.name}, {data.digest[:12]}): bring the old ones back, or choose "
            "another --workdir"
        )


def started(folder: epath.Path) -> str | None:
    """When the run in the folder was started, from run.json; None where that does not tell."""
    try:
        return workdir.read_json(folder / RUN)["started"]
    except (workdir.WorkdirError, KeyError, TypeError):
        return None


def commit() -> str | None:
    """The commit that the program was started from, "-dirty" where files differ from it.

    None where it does not lie in a clone of its repository, or there is no git.
    """
    root = pathlib.Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def environment() -> dict[str, Any]:
    """Versions, devices and processes."""
    versions = {name: importlib.metadata.version(package) for name, package in PACKAGES.items()}
    return {
        "commit": commit(),
        "python": platform.python_version(),
        **versions,
        "backend": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_processes": jax.process_count(),
        "cpu_count": os.cpu_count(),
    }


def train_counts(folder: epath.Path, run: str, *, visited: bool = False) -> list[int] | None:
    """A run's training images of each class, from run.json; None without one.

    Each is counted once, or, where `visited`, as often as an epoch visits it.
    """
    part = "expanded" if visited else "train"
    counts = (read(folder).get("class_counts") or {}).get(run, {}).get(part)
    workdir.fitting(counts, folder / RUN, dict[str, int] | None, f"class_counts.{run}.{part}")
    return None if counts is None else list(counts.values())


def split_table(class_counts: Mapping[str, Any]) -> list[str]:
    """Lines of one table: a row a class, a column a split; the folds share their columns.

    "visited" are the images of an epoch, those drawn again included. Of many classes only the
    largest and the smallest stand in it.
    """
    everything, names = class_counts["all"], list(class_counts["all"]["train"])
    folds = [parts for name, parts in class_counts.items() if run_names.is_fold(name)]
    tests = [class_counts[name] for name in (run_names.TEST,) if name in class_counts]
    columns = [
        ("all: train", [everything["train"]]),
        ("test", [everything["test"]]),
        ("kept", [class_counts["regulated"]]),
    ]
    for title, runs in (("fold", folds), ("run test", tests)):
        if runs:
            columns.append((f"{title}: train", [parts["train"] for parts in runs]))
            columns.append(("visited", [parts["expanded"] for parts in runs]))
            columns.append(("valid", [parts["valid"] for parts in runs]))
    if len(names) > dataset.LISTED_CLASSES:
        names.sort(key=lambda name: -class_counts["regulated"][name])
        names = [*names[:5], *names[-5:]]
    rows = [
        [legible.short(name, 20)]
        + [legible.span(counts[name] for counts in of_split) for _, of_split in columns]
        for name in names
    ]
    sums = [[sum(counts.values()) for counts in of_split] for _, of_split in columns]
    rows.append(["all", *map(legible.span, sums)])
    lines = [["class", *(heading for heading, _ in columns)], *rows]
    return tables.aligned(lines)
