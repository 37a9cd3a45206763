"""Tests of caecnn_jax.data.dataset: most with 30 images, a few with the real CIFAR-10."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from caecnn_jax.data import cifar, dataset

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TFDS_DATA_DIR = os.environ.get("TFDS_DATA_DIR")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No test finds this user's data and caches, or the network."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(cifar, "download", failing("the host is away"))
    monkeypatch.setattr(cifar, "from_npm", failing("npm is away"))


@contextlib.contextmanager
def thirty_images():
    """Makes 30 random images pass for CIFAR-10; yields them."""
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar, "NUM_TRAIN", 20)
        patch.setattr(cifar, "NUM_TEST", 10)
        for split, rows in (("train", slice(0, 20)), ("test", slice(20, 30))):
            for name, array in (("images", images), ("labels", labels)):
                digest = hashlib.sha256(array[rows].tobytes()).hexdigest()
                patch.setitem(cifar.SHA256, f"{split} {name}", digest)
        yield images, labels


@pytest.fixture
def tiny():
    with thirty_images() as arrays:
        yield arrays


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    with thirty_images() as arrays:
        dataset.prepare(root / dataset.VERSION_DIR, *arrays)
    return root


@pytest.fixture
def root(prepared_once, tmp_path):
    """A prepared TFDS folder of this test's own."""
    return shutil.copytree(prepared_once, tmp_path / "tfds")


def failing(message):
    def fail(*args, **kwargs):
        raise cifar.DataError(message)

    return fail


def cache_of(root):
    return root / dataset.VERSION_DIR / "caecnn_cache" / "cifar10.bin"


def shard_of(root, split):
    (shard,) = (root / dataset.VERSION_DIR).glob(f"cifar10-{split}.array_record-*")
    return shard


def binary_folder(path, arrays):
    """The unpacked binary version of the arrays."""
    path.mkdir()
    images, labels = arrays
    records = np.hstack([labels[:, None], images.transpose(0, 3, 1, 2).reshape(-1, 3072)])
    for i, name in enumerate(cifar.BATCHES):
        rows = records[4 * i : 4 * i + 4] if i < 5 else records[20:]
        (path / f"{name}.bin").write_bytes(rows.tobytes())
    return path


def assert_is(loaded, arrays):
    images, labels = arrays
    assert loaded.images.dtype == np.uint8
    assert loaded.labels.dtype == np.int32
    np.testing.assert_array_equal(loaded.images, images)
    np.testing.assert_array_equal(loaded.labels, labels)
    assert loaded.num_train == 20
    assert loaded.class_names == dataset.CLASS_NAMES


# --- Sources ---


def test_auto_takes_what_is_prepared(tiny, root, monkeypatch):
    assert_is(dataset.load("auto", str(root)), tiny)
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert_is(dataset.load(), tiny)
    assert_is(dataset.load("tfds", ""), tiny)


def test_tfds_default_is_below_home(tiny, prepared_once, tmp_path):
    shutil.copytree(prepared_once, tmp_path / "home" / "tensorflow_datasets")
    assert_is(dataset.load("tfds"), tiny)


def test_records_are_shuffled_on_disk_but_not_in_the_arrays(tiny, root):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(root / dataset.VERSION_DIR)
    labels = [int(example["label"]) for example in builder.as_data_source("train")]
    assert labels != tiny[1][:20].tolist()
    assert builder.info.features["label"].names == list(dataset.CLASS_NAMES)
    assert_is(dataset.load("tfds", str(root)), tiny)


@pytest.mark.parametrize("data_source", ["auto", "archive"])
def test_an_archive_is_prepared_in_the_default_folder(
    tiny, tmp_path, monkeypatch, data_source, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = binary_folder(tmp_path / "cifar-10-batches-bin", tiny)
    assert_is(dataset.load(data_source, str(folder)), tiny)
    assert f"the prepared dataset goes to {tmp_path / 'tfds'}" in caplog.text
    shutil.rmtree(tmp_path / "tfds" / dataset.VERSION_DIR / "caecnn_cache")
    assert_is(dataset.load("tfds"), tiny)
    # The second time nothing is left to prepare, whatever became of the archive's content.
    (folder / "test_batch.bin").unlink()
    assert_is(dataset.load(data_source, str(folder)), tiny)


def test_auto_goes_from_the_host_to_npm(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "from_npm", lambda: tiny)
    assert_is(dataset.load("auto", str(tmp_path / "new" / "folder")), tiny)
    assert_is(dataset.load("tfds", str(tmp_path / "new" / "folder")), tiny)


@pytest.mark.parametrize(
    ("data_source", "has_npm", "gives_up"),
    [("auto", True, True), ("auto", False, False), ("download", True, False)],
)
def test_only_auto_with_npm_gives_a_slow_host_up(
    tiny, tmp_path, monkeypatch, data_source, has_npm, gives_up
):
    asked = []
    monkeypatch.setattr(cifar, "has_npm", lambda: has_npm)
    monkeypatch.setattr(
        cifar, "download", lambda give_up_when_slow: asked.append(give_up_when_slow) or tiny
    )
    dataset.load(data_source, str(tmp_path / "new"))
    assert asked == [gives_up]


# --- Errors ---


def test_without_any_source_the_error_says_what_was_tried_and_what_to_do(tmp_path):
    with pytest.raises(dataset.DataError) as error:
        dataset.load("auto", str(tmp_path / "new"))
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
    with pytest.raises(dataset.DataError) as error:
        dataset.load(data_source, str(tmp_path))
    assert tried in str(error.value)
    assert not_tried not in str(error.value)


def test_an_unknown_source_is_refused_with_the_choices():
    with pytest.raises(dataset.DataError, match="data_source='web': must be one of auto, tfds, ar"):
        dataset.load("web")


@pytest.mark.parametrize(
    ("data_source", "name"), [("archive", "nothing"), ("auto", "typo.tar.gz"), ("archive", None)]
)
def test_no_archive_where_data_dir_points(tmp_path, data_source, name):
    with pytest.raises(dataset.DataError, match="is and holds no CIFAR-10 archive; set it to"):
        dataset.load(data_source, name and str(tmp_path / name))


def test_a_folder_that_is_no_complete_dataset_is_named(tmp_path):
    (tmp_path / dataset.VERSION_DIR).mkdir(parents=True)
    with pytest.raises(dataset.DataError, match=r"3\.0\.2: is no complete TFDS dataset; delete"):
        dataset.load("auto", str(tmp_path))


def test_a_read_only_folder_is_found_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "download", failing("it was asked"))
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(dataset.DataError, match="not prepared and cannot be written; allow"):
            dataset.load("download", str(tmp_path / "new"))
        with pytest.raises(
            dataset.DataError, match=r"new/cifar10/3\.0\.2 holds no prepared dataset"
        ):
            dataset.load("tfds", str(tmp_path / "new"))
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_the_folder_should_be_is_found_before_the_download(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        dataset.DataError, match=r"file/cifar10/.* is not prepared and cannot be wr"
    ):
        dataset.load("npm", str(tmp_path / "file"))


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
    with pytest.raises(dataset.DataError, match=f"{shard.name}: cannot be read .*; delete .*3.0.2"):
        dataset.load("tfds", str(root))
    assert not cache_of(root).exists()


def test_a_shard_of_other_images_is_named(tiny, root, tmp_path):
    images, labels = tiny
    images = images.copy()
    images[7] = 0
    dataset.prepare(tmp_path / "other" / dataset.VERSION_DIR, images, labels)
    shutil.copy(shard_of(tmp_path / "other", "train"), shard_of(root, "train"))
    with pytest.raises(dataset.DataError, match=r"cifar10-train.*train images are not .*; delete"):
        dataset.load("tfds", str(root))


def test_json_that_somebody_altered_is_an_error(root):
    (root / dataset.VERSION_DIR / "dataset_info.json").write_text('{"name": ')
    with pytest.raises(dataset.DataError, match=r"3\.0\.2: its JSON files cannot be read .*delete"):
        dataset.load("tfds", str(root))


def test_another_file_format_is_named(root):
    info = root / dataset.VERSION_DIR / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(dataset.DataError, match="in the format tfrecord, which cannot be read"):
        dataset.load("tfds", str(root))


def test_a_full_disk_is_an_error_that_leaves_nothing(tiny, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, limits[1]))  # a shard needs 64 KiB
    try:
        with pytest.raises(
            dataset.DataError, match=r"3\.0\.2: cannot be written \(.*; set data_dir"
        ):
            dataset.prepare(tmp_path / dataset.VERSION_DIR, *tiny)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "cifar10").iterdir()) == []


# --- Cache ---


def test_a_good_cache_is_enough_and_imports_nothing_slow(tiny, root, monkeypatch):
    dataset.load("tfds", str(root))
    shard_of(root, "train").write_bytes(b"nobody reads this")
    assert_is(dataset.load("tfds", str(root)), tiny)
    shutil.rmtree(cache_of(root).parent)
    with pytest.raises(dataset.DataError):  # the counter-check
        dataset.load("tfds", str(root))


def test_importing_the_module_imports_nothing_slow():
    program = (
        "import sys; from caecnn_jax.data import dataset;"
        "print([m for m in ('tensorflow_datasets', 'jax', 'PIL', 'requests') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("damage", ["cut", "flip", "label", "longer", "empty"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(tiny, root, damage, caplog):
    dataset.load("tfds", str(root))
    good = cache_of(root).read_bytes()
    bad = bytearray(good)
    bad[-1 if damage == "label" else 1000] ^= 1
    bad = {"cut": good[:-1], "longer": good + b"x", "empty": b""}.get(damage, bytes(bad))
    cache_of(root).write_bytes(bad)
    assert_is(dataset.load("tfds", str(root)), tiny)
    assert "Rebuilding the cache" in caplog.text
    assert str(cache_of(root)) in caplog.text
    assert cache_of(root).read_bytes() == good
    assert [path.name for path in cache_of(root).parent.iterdir()] == ["cifar10.bin"]


@pytest.mark.parametrize("how", ["read-only", "OSError"])
def test_where_the_folder_is_not_writable_the_cache_goes_to_the_users(tiny, root, tmp_path, how):
    prepared = root / dataset.VERSION_DIR
    if how == "read-only":
        prepared.chmod(0o555)
    else:
        (prepared / "caecnn_cache").write_text("a file where the folder should be")
    try:
        assert_is(dataset.load("tfds", str(root)), tiny)
        assert not cache_of(root).is_file()
        assert (tmp_path / "xdg" / "caecnn_jax" / "cifar10.bin").is_file()
        shard_of(root, "train").write_bytes(b"nobody reads this")
        assert_is(dataset.load("tfds", str(root)), tiny)
    finally:
        prepared.chmod(0o755)


def test_without_a_place_for_the_cache_data_is_still_loaded(tiny, root, tmp_path, caplog):
    (root / dataset.VERSION_DIR / "caecnn_cache").write_text("a file")
    (tmp_path / "xdg").write_text("a file")
    assert_is(dataset.load("tfds", str(root)), tiny)
    assert "every start will decode them again" in caplog.text


# --- Preparing ---


def test_an_interrupted_preparation_leaves_nothing_that_loads(tiny, tmp_path, monkeypatch):
    images, labels = tiny
    with pytest.raises(IndexError):
        dataset.prepare(tmp_path / dataset.VERSION_DIR, images, labels[:25])
    assert not (tmp_path / dataset.VERSION_DIR).exists()
    # What a kill would leave behind: the folder that TFDS writes to before it renames it.
    (tmp_path / "cifar10" / "incomplete.ABCDEF_3.0.2").mkdir()
    with pytest.raises(dataset.DataError, match="holds no prepared dataset"):
        dataset.load("tfds", str(tmp_path))
    monkeypatch.setattr(cifar, "from_npm", lambda: tiny)
    assert_is(dataset.load("auto", str(tmp_path)), tiny)


def test_another_process_may_finish_first(tiny, prepared_once, tmp_path, monkeypatch):
    images, labels = tiny

    class Racing(np.ndarray):
        def __getitem__(self, row):
            if not (tmp_path / "tfds").joinpath(dataset.VERSION_DIR).exists():
                shutil.copytree(prepared_once, tmp_path / "tfds", dirs_exist_ok=True)
            return super().__getitem__(row)

    dataset.prepare(tmp_path / "tfds" / dataset.VERSION_DIR, images, labels.view(Racing))
    names = sorted(path.name for path in (tmp_path / "tfds" / "cifar10").iterdir())
    assert names == ["3.0.2"]
    assert_is(dataset.load("tfds", str(tmp_path / "tfds")), tiny)


# --- The command ---


def test_the_command_says_where_the_data_lies(tiny, root, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dataset", "--data_dir", str(root)])
    assert dataset.main() == 0
    assert f"(30 images) is ready in {root}/cifar10/3.0.2" in capsys.readouterr().out


def test_the_command_ends_a_user_error_with_one_line_and_2(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "caecnn_jax.data.dataset",
            "--data_source=tfds",
            f"--data_dir={tmp_path}",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no CIFAR-10 from data_source='tfds'")
    assert done.stderr.count("\n") == 1


# --- The real CIFAR-10 ---

real_data = pytest.mark.skipif(not TFDS_DATA_DIR, reason="TFDS_DATA_DIR is unset")


@pytest.mark.slow
@pytest.mark.real_data
@real_data
def test_the_real_dataset_decodes_to_the_official_arrays_and_caches_them(tmp_path):
    """Its hashes are checked on the way, so it is enough that it loads."""
    prepared = tmp_path / dataset.VERSION_DIR
    prepared.mkdir(parents=True)
    for file in (pathlib.Path(TFDS_DATA_DIR).resolve() / dataset.VERSION_DIR).iterdir():
        if file.is_file():
            (prepared / file.name).symlink_to(file)
    decoded = dataset.load("tfds", str(tmp_path))
    assert decoded.images.shape == (60000, 32, 32, 3)
    assert decoded.num_train == 50000
    assert decoded.labels[:5].tolist() == [6, 9, 9, 4, 1]
    means = decoded.images[:50000].mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.49139968, 0.48215841, 0.44653091], atol=1e-8)

    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        cached = dataset.load("tfds", str(tmp_path))
        seconds.append(time.perf_counter() - start)
    np.testing.assert_array_equal(cached.images, decoded.images)
    assert min(seconds) < 1.0
