"""Tests of caecnn_jax.data.cifar_sources, one of them with the real CIFAR-10.

Also of how CIFAR-10 is prepared; test_cifar_prepared has what is then read.
"""

import os
import pathlib
import shutil
import time

import numpy as np
import pytest
from cifar_files import assert_arrays_equal, failing

from caecnn_jax.data import cifar_archives, cifar_hosts, cifar_prepared, cifar_sources
from caecnn_jax.errors import DataError

TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR")
pytestmark = pytest.mark.usefixtures("alone")


def binary_folder(path, arrays):
    """The unpacked binary version of the arrays."""
    path.mkdir()
    images, labels = arrays
    records = np.hstack([labels[:, None], images.transpose(0, 3, 1, 2).reshape(-1, 3072)])
    for i, name in enumerate(cifar_archives.BATCHES):
        rows = records[4 * i : 4 * i + 4] if i < 5 else records[20:]
        (path / f"{name}.bin").write_bytes(rows.tobytes())
    return path


# --- Sources ---


def test_auto_takes_what_is_prepared(tiny, root, monkeypatch):
    assert_arrays_equal(cifar_sources.load("auto", str(root)), tiny)
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert_arrays_equal(cifar_sources.load(), tiny)
    assert_arrays_equal(cifar_sources.load("tfds", ""), tiny)


def test_tfds_default_is_below_home(tiny, prepared_once, tmp_path):
    shutil.copytree(prepared_once, tmp_path / "home" / "tensorflow_datasets")
    assert_arrays_equal(cifar_sources.load("tfds"), tiny)


@pytest.mark.parametrize("data_source", ["auto", "archive"])
def test_an_archive_is_prepared_in_the_default_folder(
    tiny, tmp_path, monkeypatch, data_source, caplog
):
    caplog.set_level("INFO", logger="absl")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = binary_folder(tmp_path / "cifar-10-batches-bin", tiny)
    assert_arrays_equal(cifar_sources.load(data_source, str(folder)), tiny)
    assert f"the prepared dataset goes to {tmp_path / 'tfds'}" in caplog.text
    shutil.rmtree(tmp_path / "tfds" / cifar_prepared.VERSION_DIR / "caecnn_cache")
    assert_arrays_equal(cifar_sources.load("tfds"), tiny)
    # The second time nothing is left to prepare, whatever became of the archive's content.
    (folder / "test_batch.bin").unlink()
    assert_arrays_equal(cifar_sources.load(data_source, str(folder)), tiny)


def test_auto_goes_from_the_host_to_npm(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_hosts, "from_npm", lambda: tiny)
    assert_arrays_equal(cifar_sources.load("auto", str(tmp_path / "new" / "folder")), tiny)
    assert_arrays_equal(cifar_sources.load("tfds", str(tmp_path / "new" / "folder")), tiny)


@pytest.mark.parametrize(
    ("data_source", "has_npm", "gives_up"),
    [("auto", True, True), ("auto", False, False), ("download", True, False)],
)
def test_only_auto_with_npm_gives_a_slow_host_up(
    tiny, tmp_path, monkeypatch, data_source, has_npm, gives_up
):
    asked = []
    monkeypatch.setattr(cifar_hosts, "has_npm", lambda: has_npm)
    monkeypatch.setattr(
        cifar_hosts, "download", lambda give_up_when_slow: asked.append(give_up_when_slow) or tiny
    )
    cifar_sources.load(data_source, str(tmp_path / "new"))
    assert asked == [gives_up]


# --- Errors ---


def test_without_any_source_the_error_says_what_was_tried_and_what_to_do(tmp_path):
    with pytest.raises(DataError) as error:
        cifar_sources.load("auto", str(tmp_path / "new"))
    for part in (
        f"{tmp_path}/new/cifar10/3.0.2 holds no prepared dataset",
        "the host is away",
        "npm is away",
        "three ways",
        "TFDS_DATA_DIR",
        "cifar-10-binary.tar.gz",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("data_source", "tried", "not_tried"),
    [("tfds", "no prepared", "away"), ("download", "host", "npm is"), ("npm", "npm is", "host is")],
)
def test_an_explicit_source_tries_no_other(tmp_path, data_source, tried, not_tried):
    with pytest.raises(DataError) as error:
        cifar_sources.load(data_source, str(tmp_path))
    assert tried in str(error.value)
    assert not_tried not in str(error.value)


def test_an_unknown_source_is_refused_with_the_choices():
    with pytest.raises(DataError, match="data_source='web': must be one of auto, tfds, ar"):
        cifar_sources.load("web")


@pytest.mark.parametrize(
    ("data_source", "name"), [("archive", "nothing"), ("auto", "typo.tar.gz"), ("archive", None)]
)
def test_no_archive_where_data_dir_points(tmp_path, data_source, name):
    with pytest.raises(DataError, match="is and holds no CIFAR-10 archive; set it to"):
        cifar_sources.load(data_source, name and str(tmp_path / name))


def test_a_folder_that_is_no_complete_dataset_is_named(tmp_path):
    (tmp_path / cifar_prepared.VERSION_DIR).mkdir(parents=True)
    with pytest.raises(DataError, match=r"3\.0\.2: is no complete TFDS dataset; delete"):
        cifar_sources.load("auto", str(tmp_path))


def test_a_read_only_folder_is_found_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_hosts, "download", failing("it was asked"))
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(DataError, match="not prepared and cannot be written; allow"):
            cifar_sources.load("download", str(tmp_path / "new"))
        with pytest.raises(DataError, match=r"new/cifar10/3\.0\.2 holds no prepared dataset"):
            cifar_sources.load("tfds", str(tmp_path / "new"))
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_the_folder_should_be_is_found_before_the_download(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/cifar10/.* is not prepared and cannot be wr"):
        cifar_sources.load("npm", str(tmp_path / "file"))


def test_json_that_somebody_altered_is_an_error(root):
    (root / cifar_prepared.VERSION_DIR / "dataset_info.json").write_text('{"name": ')
    with pytest.raises(DataError, match=r"3\.0\.2: its JSON files cannot be read .*delete"):
        cifar_sources.load("tfds", str(root))


def test_another_file_format_is_named(root):
    info = root / cifar_prepared.VERSION_DIR / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match="in the format tfrecord, which cannot be read"):
        cifar_sources.load("tfds", str(root))


def test_a_full_disk_is_an_error_that_leaves_nothing(tiny, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, limits[1]))  # a shard needs 64 KiB
    try:
        with pytest.raises(DataError, match=r"3\.0\.2: cannot be written \(.*; set data_dir"):
            cifar_prepared.write(tmp_path / cifar_prepared.VERSION_DIR, *tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "cifar10").iterdir()) == []


# --- Preparing ---


def test_an_interrupted_preparation_leaves_nothing_that_loads(tiny, tmp_path, monkeypatch):
    images, labels = tiny
    with pytest.raises(IndexError):
        cifar_prepared.write(tmp_path / cifar_prepared.VERSION_DIR, images, labels[:25])
    assert not (tmp_path / cifar_prepared.VERSION_DIR).exists()
    # What a kill would leave behind: the folder that TFDS writes to before it renames it.
    (tmp_path / "cifar10" / "incomplete.ABCDEF_3.0.2").mkdir()
    with pytest.raises(DataError, match="holds no prepared dataset"):
        cifar_sources.load("tfds", str(tmp_path))
    monkeypatch.setattr(cifar_hosts, "from_npm", lambda: tiny)
    assert_arrays_equal(cifar_sources.load("auto", str(tmp_path)), tiny)


def test_another_process_may_finish_first(tiny, prepared_once, tmp_path, monkeypatch):
    images, labels = tiny

    class Racing(np.ndarray):
        def __getitem__(self, row):
            if not (tmp_path / "tfds").joinpath(cifar_prepared.VERSION_DIR).exists():
                shutil.copytree(prepared_once, tmp_path / "tfds", dirs_exist_ok=True)
            return super().__getitem__(row)

    cifar_prepared.write(
        tmp_path / "tfds" / cifar_prepared.VERSION_DIR, images, labels.view(Racing)
    )
    names = sorted(path.name for path in (tmp_path / "tfds" / "cifar10").iterdir())
    assert names == ["3.0.2"]
    assert_arrays_equal(cifar_sources.load("tfds", str(tmp_path / "tfds")), tiny)


# --- The real CIFAR-10 ---

real_data = pytest.mark.skipif(not TFDS_DATA_DIR, reason="TFDS_DATA_DIR is unset")


@pytest.mark.slow
@pytest.mark.real_data
@real_data
def test_the_real_dataset_decodes_to_the_official_arrays_and_caches_them(tmp_path):
    """Its hashes are checked on the way, so it is enough that it loads."""
    prepared = tmp_path / cifar_prepared.VERSION_DIR
    prepared.mkdir(parents=True)
    for file in (pathlib.Path(TFDS_DATA_DIR).resolve() / cifar_prepared.VERSION_DIR).iterdir():
        if file.is_file():
            (prepared / file.name).symlink_to(file)
    images, labels = cifar_sources.load("tfds", str(tmp_path))
    assert images.shape == (60000, 32, 32, 3)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1]
    means = images[:50000].mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.49139968, 0.48215841, 0.44653091], atol=1e-8)

    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        cached, _ = cifar_sources.load("tfds", str(tmp_path))
        seconds.append(time.perf_counter() - start)
    np.testing.assert_array_equal(cached, images)
    assert min(seconds) < 1.0
