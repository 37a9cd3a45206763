"""Tests of caecnn_jax.data.prepared, and of CIFAR-100, with sets that TFDS prepares on the spot."""

import io
import os
import subprocess
import sys

import cifar_files
import numpy as np
import pytest
from builders import PROJECT
from PIL import Image

from caecnn_jax.data import cifar, cifar_prepared, cifar_sources, pixels, prepared
from caecnn_jax.errors import DataError

FORM = pixels.Form(32, "crop", 3)
COUNTS = {"train": 40, "validation": 20, "test": 20}


def write(root, name="birds", splits=COUNTS, damaged=()):
    """A prepared set of random images whose fine label is the id modulo 10, and 20 coarse ones.

    The images at the numbers in `damaged` are no PNG.
    """
    import tensorflow_datasets as tfds

    class Birds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            names = [f"bird {k}" for k in range(10)]
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=names),
                "coarse_label": tfds.features.ClassLabel(num_classes=20),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, size) for split, size in splits.items()}

        def _generate_examples(self, split, size):
            for index in range(size):
                png = io.BytesIO(b"none" if index in damaged else b"")
                if index not in damaged:
                    Image.fromarray(image(split, index)).save(png, "PNG")
                png.seek(0)
                yield (
                    f"{split}_{index}",
                    {
                        "id": f"{split}_{index}",
                        "image": png,
                        "label": index % 10,
                        "coarse_label": index % 20,
                    },
                )

    Birds.name = name
    Birds(data_dir=str(root)).download_and_prepare(
        file_format="array_record",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return root


def image(split, index):
    return np.full((32, 32, 3), [len(split), index, 7], np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tfds"))


def test_a_prepared_set_is_read_in_the_order_of_its_ids(root):
    found = prepared.open_named("birds", str(root))
    assert found.name == "tfds:birds"
    assert found.class_names[:2] == ("bird 0", "bird 1")
    assert (found.train_counts, found.test_counts) == ((6,) * 10, (2,) * 10)
    np.testing.assert_array_equal(found.labels(), np.arange(80) % 10)
    wanted = np.array([image(split, n) for split, size in COUNTS.items() for n in range(size)])
    np.testing.assert_array_equal(found.read(np.arange(80), FORM).images, wanted)
    some = np.array([70, 3, 41])
    np.testing.assert_array_equal(found.read(some, FORM).images, wanted[some])


def test_no_tensorflow_is_imported(root):
    program = (
        "import sys, numpy\nfrom caecnn_jax.data import pixels, prepared\n"
        f"found = prepared.open_named('birds', {str(root)!r})\n"
        "found.read(numpy.arange(3), pixels.Form(8, 'crop', 3))\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_record_that_is_no_image_is_left_out_and_two_are_an_error(tmp_path):
    one = prepared.open_named("birds", str(write(tmp_path / "one", damaged=[3], splits=COUNTS)))
    with pytest.raises(DataError, match=r"more than one in a hundred of its 80 images .*record"):
        one.read(np.arange(80), FORM)  # one in each of three splits
    some = one.read(np.arange(10), FORM)
    assert some.kept.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert "1 cannot be read" in some.notes[-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fish", "nothing is prepared in .*fish: prepare it"),
        ("sets", "nothing is prepared in .*sets: it has the configs big, small"),
        ("../tfds", "give a name such as"),
        ("", "give a name such as"),
    ],
)
def test_what_is_not_prepared_is_an_error(root, name, message):
    for config in ("big", "small"):
        (root / "sets" / config / "1.0.0").mkdir(parents=True, exist_ok=True)
        (root / "sets" / config / "1.0.0" / "dataset_info.json").touch()
    with pytest.raises(DataError, match=message):
        prepared.open_named(name, str(root))


def test_the_latest_version_counts(tmp_path):
    for version in ("1.2.0", "1.10.0"):
        (tmp_path / "x" / version).mkdir(parents=True)
        (tmp_path / "x" / version / "dataset_info.json").touch()
    (tmp_path / "x" / "incomplete.2.0.0").mkdir()
    assert prepared.find("x", str(tmp_path)).name == "1.10.0"
    assert prepared.find("y", str(tmp_path)) is None


def test_a_home_that_nobody_has_is_an_error(monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what there is without a home
    with pytest.raises(DataError, match=r"no home directory .* set data_dir or TFDS_DATA_DIR"):
        prepared.root(None)


def test_cifar10_is_one_of_them(tmp_path):
    with cifar_files.thirty_images() as (images, labels):
        cifar_prepared.write(tmp_path / cifar_prepared.VERSION_DIR, images, labels)
        found = prepared.open_named("cifar10", str(tmp_path))
        np.testing.assert_array_equal(found.labels(), labels)
        np.testing.assert_array_equal(found.read(np.arange(30), FORM).images, images)


# --- CIFAR-100 ---


@pytest.fixture
def small_100(monkeypatch):
    """CIFAR-100 of 60 and 20 images, of 10 fine and 20 coarse classes."""
    monkeypatch.setattr(cifar, "PARTS_100", {"train": 60, "test": 20})
    monkeypatch.setattr(cifar, "CLASSES_100", {"fine": 10, "coarse": 20})


def test_cifar100_is_found_prepared_with_fine_or_coarse_labels(tmp_path, small_100):
    root = write(tmp_path, "cifar100", {"train": 60, "test": 20})
    fine = cifar_sources.open_100("fine", "auto", str(root))
    assert (fine.name, fine.train_counts, fine.test_counts) == ("cifar100", (6,) * 10, (2,) * 10)
    coarse = cifar_sources.open_100("coarse", "tfds", str(root))
    assert (coarse.name, coarse.train_counts) == ("cifar100:coarse", (3,) * 20)
    cifar.PARTS_100["train"] = 70
    with pytest.raises(DataError, match="train has 60 images, 6 to 6 of each of 10 classes; CIFAR"):
        cifar_sources.open_100("fine", "auto", str(root))


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar100_is_found_in_the_official_archive(tmp_path, small_100, version, packed):
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32, 3), np.uint8)
    files = cifar_files.files_100(images, np.arange(80) % 10, np.arange(80) % 20, version, 60)
    name = f"cifar-100-{version}"
    if packed:
        members = {f"{name}/{file}": data for file, data in files.items()}
        cifar_files.write_tar(tmp_path / f"{name}.tar.gz", members)
    else:
        cifar_files.write_folder(tmp_path / name, files)
    found = cifar_sources.open_100("coarse", "auto", str(tmp_path))
    assert found.class_names == tuple(f"coarse_{k}" for k in range(20))
    np.testing.assert_array_equal(found.labels(), np.arange(80) % 20)
    np.testing.assert_array_equal(found.read(np.arange(80), FORM).images, images)
    fine = cifar_sources.open_100("fine", "archive", str(tmp_path))
    assert fine.class_names == tuple(f"fine_{k}" for k in range(10))
    np.testing.assert_array_equal(fine.labels(), np.arange(80) % 10)


def test_an_unpacked_cifar100_that_changed_is_another_in_the_cache(tmp_path, small_100):
    folder = tmp_path / "cifar-100-python"
    marks = []
    for seed in (0, 1):
        images = np.random.default_rng(seed).integers(0, 256, (80, 32, 32, 3), np.uint8)
        args = images, np.arange(80) % 10, np.arange(80) % 20, "python", 60
        for name, content in cifar_files.files_100(*args).items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)  # in place: the folder's own time stays
            os.utime(folder / name, (seed, seed))
        marks.append(cifar_sources.open_100("fine", "auto", str(tmp_path)).fingerprint)
    assert marks[0] != marks[1]


def test_without_cifar100_the_error_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no CIFAR-100 in data_dir=.*: set it to cifar-100-binary"):
        cifar_sources.open_100("fine", "auto", str(tmp_path))
