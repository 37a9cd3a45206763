"""Which reader knows the data that config.dataset names."""

import collections
import difflib
import os
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import logging

from caecnn_jax import config as config_lib
from caecnn_jax.data import arrays, cifar_sources, folder, image_search, listing, prepared
from caecnn_jax.errors import DataError


def absolute(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config with its data's paths absolute, so that its run knows them from any folder."""
    config = config.copy_and_resolve_references()
    if config.data_dir:
        config.data_dir = os.path.abspath(os.path.expanduser(config.data_dir))
    if not uses_data_dir(config):  # a folder of a data set's name is not what is meant
        path = os.path.abspath(os.path.expanduser(config.dataset))
        config.dataset = path if os.path.exists(path) else config.dataset
    return config


def uses_data_dir(config: ml_collections.ConfigDict) -> bool:
    """Whether config.data_dir tells where the data lie; else config.dataset is their path."""
    return not config_lib.is_path(config.dataset)


def find(config: ml_collections.ConfigDict) -> listing.Listing:
    """The listing of config.dataset; raises DataError where there are no such data."""
    name, data_dir = config.dataset, config.data_dir
    if data_dir and name in config_lib.DATASET_NAMES and _holds_own_images(prepared.root(data_dir)):
        raise DataError(
            f"config.data_dir={data_dir!r}: is no place of {name}'s; to train on what it holds, "
            "set config.dataset to it"
        )
    found = _open(name, config.data_source, data_dir or None)
    if data_dir and not uses_data_dir(config):
        logging.warning("config.data_dir=%s is not used: the data are the path %s", data_dir, name)
    return found


def at_hand(config: ml_collections.ConfigDict, places: Sequence[str]) -> ml_collections.ConfigDict:
    """The config of data that `uses_data_dir`, with the first of the places that holds them.

    In whatever form; nothing is fetched. "" is where they are without a data_dir. Raises DataError
    where no place has them.
    """
    roots = list(dict.fromkeys(map(prepared.root, places)))
    name = config.dataset
    for root in roots:
        if name.startswith("tfds:"):
            source = "tfds" if prepared.find(name.removeprefix("tfds:"), str(root)) else None
        else:
            source = cifar_sources.source_at(name.partition(":")[0], root)
        if source:
            if root != roots[0]:
                logging.info("no %s in %s: taking that in %s", name, roots[0], root)
            config = config.copy_and_resolve_references()
            config.data_source, config.data_dir = source, str(root)
            return config
    raise DataError(
        f"no {name} in {' or '.join(map(str, roots))}: bring it back, or say where it lies now "
        "with --config.data_dir or TFDS_DATA_DIR"
    )


def _open(name: str, data_source: str, data_dir: str | None) -> listing.Listing:
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
    near = difflib.get_close_matches(name, config_lib.DATASET_NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "or tfds:NAME, or cifar10 or cifar100"
    problem = "is neither .csv nor .npz" if is_file else "there is nothing at that path"
    raise DataError(
        f"config.dataset={name!r}: {problem}; give a folder with a folder for each class, a .csv, "
        f"a .npz, a folder of IDX files, {hint}"
    )


def _holds_own_images(path: pathlib.Path) -> bool:
    """Whether these are a user's data: a file that is no archive, or folders full of images."""
    if path.is_file():
        return not path.name.endswith((".gz", ".tgz", ".tar"))
    passed_over: collections.Counter[str] = collections.Counter()
    inside = image_search.entries(path, passed_over) if path.is_dir() else []
    classes = [entry for entry in inside if entry.is_dir()]
    return len(classes) > 1 and all(
        any(
            file.suffix.lower() in image_search.SUFFIXES
            for file in image_search.entries(entry, passed_over)
        )
        for entry in classes
    )
