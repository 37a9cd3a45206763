"""Classification datasets that TFDS prepared in array_record files, read without TensorFlow."""

import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from caecnn_jax.data import image_files, listing
from caecnn_jax.data.image_search import natural_key
from caecnn_jax.data.pixels import Form, Pixels, collect
from caecnn_jax.errors import DataError

TRAIN_SPLITS, TEST_SPLIT = ("train", "validation"), "test"
CHUNK = 1024  # records in memory at a time, before they are decoded


def root(data_dir: str | None) -> pathlib.Path:
    """Where prepared datasets lie: `data_dir`, else TFDS_DATA_DIR, else TFDS's default."""
    try:
        return pathlib.Path(
            data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
        ).expanduser()
    except RuntimeError as error:  # no HOME and no entry in passwd, as in some containers
        raise DataError(
            "there is no home directory to look for prepared datasets in: set data_dir or "
            "TFDS_DATA_DIR to where they are or go"
        ) from error


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a version's folder is complete."""
    # TFDS writes beside this folder and renames it at the end: an unfinished one never shows.
    return (folder / "dataset_info.json").is_file()


def find(name: str, data_dir: str | None) -> pathlib.Path | None:
    """The folder of the latest version that is prepared of "NAME" or "NAME/CONFIG", if any."""
    folder = root(data_dir) / name
    versions = sorted(folder.glob("*/dataset_info.json"), key=lambda p: natural_key(p.parent.name))
    return versions[-1].parent if versions else None


def open_named(name: str, data_dir: str | None) -> listing.Listing:
    """The listing of any prepared dataset "NAME" or "NAME/CONFIG" with image and label."""
    if not name or any(part in ("", "..", ".") for part in name.split("/")):
        raise DataError(f"config.dataset='tfds:{name}': give a name such as tfds:mnist")
    folder = find(name, data_dir)
    if folder is None:
        below = root(data_dir) / name
        configs = sorted({path.parent.parent.name for path in below.glob("*/*/dataset_info.json")})
        remedy = "prepare it with TFDS in the file format array_record, and set data_dir to it"
        hint = f"it has the configs {', '.join(configs)}" if configs else remedy
        raise DataError(f"config.dataset='tfds:{name}': nothing is prepared in {below}: {hint}")
    return open_folder(folder, f"tfds:{name}")


def open_folder(folder: pathlib.Path, name: str, label: str = "label") -> listing.Listing:
    """The listing of a prepared version's folder, whose classes are the feature `label`."""
    info = read_info(folder)
    class_names = _class_names(info.features, folder, label)
    train = [split for split in TRAIN_SPLITS if split in info.splits]
    test = [TEST_SPLIT] if TEST_SPLIT in info.splits else []
    if not train:
        raise DataError(f"{folder}: has no split train, but {', '.join(info.splits)}")
    # Records are shuffled on disk; their ids, where they have any, tell the official order.
    places, parts, num_train, start = [], [], 0, 0
    for split in [*train, *test]:
        place, part = _labels(info, split, label)
        places.append(place + start)
        parts.append(part)
        start += len(part)
        num_train += len(part) if split in train else 0
    order, labels = np.concatenate(places), np.concatenate(parts)
    if labels.min() < 0:
        raise DataError(f"{folder}: {(labels < 0).sum()} of its images have no {label}")
    shards = [shard for split in [*train, *test] for shard in info.splits[split].filepaths]

    def read(wanted: np.ndarray, form: Form) -> Pixels:
        return _read(shards, info.features, order[wanted], form, str(folder))

    marks = [listing.mark(shard, shard.name) for shard in map(pathlib.Path, shards)]
    return listing.of_labels(name, class_names, labels, num_train, read, [name, label, *marks])


def read_info(folder: pathlib.Path):
    """TFDS's description of the dataset; raises DataError where it cannot be used."""
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(folder).info
        assert all(split.filepaths for split in info.splits.values())
    except Exception as error:  # whatever TFDS meets in a JSON file that somebody altered
        raise DataError(
            f"{folder}: its JSON files cannot be read ({error}); delete {folder} to have it "
            "prepared again, or set data_dir to another folder"
        ) from error
    if info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder}: is in the format {info.file_format.value}, which cannot be read without "
            "TensorFlow; set data_dir to another folder, where it is prepared as array_record"
        )
    return info


def _class_names(features, folder: pathlib.Path, label: str) -> list[str]:
    import tensorflow_datasets as tfds

    parts = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    image = parts.get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise DataError(f"{folder}: has no feature 'image' of uint8: it is no classification set")
    if not isinstance(parts.get(label), tfds.features.ClassLabel):
        raise DataError(f"{folder}: has no feature {label!r} that is a class")
    return features[label].names


def examples(shards: Sequence[os.PathLike], features) -> Iterator[dict[str, Any]]:
    """The records of array_record files in turn, their images as they are encoded."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    encoded = {"image": tfds.decode.SkipDecoding()}
    for shard in shards:
        try:
            reader = array_record_module.ArrayRecordReader(os.fspath(shard))
            for start in range(0, reader.num_records(), CHUNK):
                stop = min(start + CHUNK, reader.num_records())
                for record in reader.read(start, stop):
                    yield features.deserialize_example_np(record, decoders=encoded)
            reader.close()
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            remedy = f"delete {pathlib.Path(shard).parent} to have it prepared again"
            raise DataError(
                f"{shard}: cannot be read ({error}); {remedy}, or set data_dir to another folder"
            ) from error


def _labels(info, split: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The places of the split's records in their files, in official order, and their labels."""
    found = [
        (str(example.get("id", "")), int(example[label]))
        for example in examples(info.splits[split].filepaths, info.features)
    ]
    order = sorted(range(len(found)), key=lambda place: natural_key(found[place][0]))
    return np.array(order, int), np.array([found[place][1] for place in order], int)


def _read(
    shards: Sequence[os.PathLike], features, records: np.ndarray, form: Form, where: str
) -> Pixels:
    """Decodes the records at these places in the files, a chunk at a time on all cores."""
    places = {int(record): place for place, record in enumerate(records)}

    def decode(item: tuple[int, bytes]) -> tuple[int, image_files.Picture | image_files.ImageError]:
        record, data = item
        try:
            name = f"record {record}"
            picture = image_files.decode(
                io.BytesIO(data), name, form.size, fit=form.fit, channels=form.channels or 3
            )
        except image_files.ImageError as error:
            return places[record], error
        return places[record], picture

    def decoded() -> Iterator[tuple[int, image_files.Picture | image_files.ImageError]]:
        chunk: list[tuple[int, bytes]] = []
        for record, example in enumerate(examples(shards, features)):
            if record in places:
                chunk.append((record, example["image"]))
            if len(chunk) == CHUNK:
                yield from image_files.on_all_cores(decode, chunk)
                chunk = []
        yield from image_files.on_all_cores(decode, chunk)

    with image_files.quiet():
        return collect(decoded(), len(records), form, where)
