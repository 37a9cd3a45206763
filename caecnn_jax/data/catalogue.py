"""Which reader knows the data that config.dataset names."""

import difflib
import os
import pathlib

import ml_collections

from caecnn_jax.data import arrays, cifar_sources, folder, listing, prepared
from caecnn_jax.errors import DataError

NAMES = ("cifar10", "cifar100", "cifar100:coarse")


def absolute(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its data's paths absolute, so that its run knows them from any folder."""
    config = config.copy_and_resolve_references()
    for field in ("dataset", "data_dir"):
        path = os.path.abspath(os.path.expanduser(config[field]))
        if config[field] and (os.path.exists(path) or field == "data_dir"):
            config[field] = path
    return config


def uses_data_dir(config: ml_collections.ConfigDict) -> bool:
    """Whether config.data_dir tells where the data lie; else config.dataset is their path."""
    return config.dataset in NAMES or config.dataset.startswith("tfds:")


def find(config: ml_collections.ConfigDict) -> listing.Listing:
    """The listing of config.dataset; raises DataError where there are no such data."""
    name, data_source, data_dir = config.dataset, config.data_source, config.data_dir or None
    if name == "cifar10":
        return cifar_sources.open_10(data_source, data_dir)
    if name in ("cifar100", "cifar100:coarse"):
        return cifar_sources.open_100("coarse" if ":" in name else "fine", data_source, data_dir)
    if name.startswith("tfds:"):
        return prepared.open_named(name.removeprefix("tfds:"), data_dir)
    try:
        path = pathlib.Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"config.dataset={name!r}: no such path ({error})") from error
    if is_folder:
        return arrays.open_idx(path) if arrays.is_idx(path) else folder.open_folder(path)
    if is_file and path.suffix.lower() == ".csv":
        return folder.open_csv(path)
    if is_file and path.suffix.lower() == ".npz":
        return arrays.open_npz(path)
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "or tfds:NAME, or cifar10 or cifar100"
    problem = "is neither .csv nor .npz" if is_file else "there is nothing at that path"
    raise DataError(
        f"config.dataset={name!r}: {problem}; give a folder with a folder for each class, a .csv, "
        f"a .npz, a folder of IDX files, {hint}"
    )
