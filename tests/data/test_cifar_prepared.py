"""Tests of caecnn_jax.data.cifar_prepared: what is read of the prepared CIFAR-10, and its cache."""

import shutil

import pytest
from cifar_files import assert_arrays_equal

from caecnn_jax.data import cifar, cifar_prepared, cifar_sources
from caecnn_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("alone")


def cache_of(root):
    return root / cifar_prepared.VERSION_DIR / "caecnn_cache" / "cifar10.bin"


def shard_of(root, split):
    (shard,) = (root / cifar_prepared.VERSION_DIR).glob(f"cifar10-{split}.array_record-*")
    return shard


def test_records_are_shuffled_on_disk_but_not_in_the_arrays(tiny, root):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(root / cifar_prepared.VERSION_DIR)
    labels = [int(example["label"]) for example in builder.as_data_source("train")]
    assert labels != tiny[1][:20].tolist()
    assert builder.info.features["label"].names == list(cifar.CLASS_NAMES)
    assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)


@pytest.mark.parametrize("damage", ["cut", "flip", "missing"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_damaged_shard_is_named_with_the_remedy(tiny, root, split, damage):
    shard = shard_of(root, split)
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[len(data) // 4] ^= 1
    shard.unlink()
    if damage != "missing":
        shard.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    with pytest.raises(DataError, match=f"{shard.name}: cannot be read .*; delete .*3.0.2"):
        cifar_sources.load("tfds", str(root))
    assert not cache_of(root).exists()


def test_a_shard_of_other_images_is_named(tiny, root, tmp_path):
    images, labels = tiny
    images = images.copy()
    images[7] = 0
    cifar_prepared.write(tmp_path / "other" / cifar_prepared.VERSION_DIR, images, labels)
    shutil.copy(shard_of(tmp_path / "other", "train"), shard_of(root, "train"))
    with pytest.raises(DataError, match=r"cifar10-train.*train images are not .*; delete"):
        cifar_sources.load("tfds", str(root))


# --- Cache ---


def test_a_good_cache_is_enough_and_imports_nothing_slow(tiny, root, monkeypatch):
    cifar_sources.load("tfds", str(root))
    shard_of(root, "train").write_bytes(b"nobody reads this")
    assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)
    shutil.rmtree(cache_of(root).parent)
    with pytest.raises(DataError):  # the counter-check
        cifar_sources.load("tfds", str(root))


@pytest.mark.parametrize("damage", ["cut", "flip", "label", "longer", "empty"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(tiny, root, damage, caplog):
    cifar_sources.load("tfds", str(root))
    good = cache_of(root).read_bytes()
    bad = bytearray(good)
    bad[-1 if damage == "label" else 1000] ^= 1
    bad = {"cut": good[:-1], "longer": good + b"x", "empty": b""}.get(damage, bytes(bad))
    cache_of(root).write_bytes(bad)
    assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)
    assert "Rebuilding the cache" in caplog.text
    assert str(cache_of(root)) in caplog.text
    assert cache_of(root).read_bytes() == good
    assert [path.name for path in cache_of(root).parent.iterdir()] == ["cifar10.bin"]


@pytest.mark.parametrize("how", ["read-only", "OSError"])
def test_where_the_folder_is_not_writable_the_cache_goes_to_the_users(tiny, root, tmp_path, how):
    prepared = root / cifar_prepared.VERSION_DIR
    if how == "read-only":
        prepared.chmod(0o555)
    else:
        (prepared / "caecnn_cache").write_text("a file where the folder should be")
    try:
        assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)
        assert not cache_of(root).is_file()
        assert (tmp_path / "xdg" / "caecnn_jax" / "cifar10.bin").is_file()
        shard_of(root, "train").write_bytes(b"nobody reads this")
        assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)
    finally:
        prepared.chmod(0o755)


def test_without_a_place_for_the_cache_data_is_still_loaded(tiny, root, tmp_path, caplog):
    (root / cifar_prepared.VERSION_DIR / "caecnn_cache").write_text("a file")
    (tmp_path / "xdg").write_text("a file")
    assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)
    assert "every start will decode them again" in caplog.text


def test_a_good_cache_of_the_users_stands_in_for_a_damaged_one(tiny, root, tmp_path, caplog):
    cifar_sources.load("tfds", str(root))
    users = tmp_path / "xdg" / "caecnn_jax" / "cifar10.bin"
    users.parent.mkdir(parents=True)
    shutil.copy(cache_of(root), users)
    cache_of(root).write_bytes(b"of another program")
    shard_of(root, "train").write_bytes(b"nobody reads this")
    assert_arrays_equal(cifar_sources.load("tfds", str(root)), tiny)
    assert str(cache_of(root)) in caplog.text and str(users) not in caplog.text
