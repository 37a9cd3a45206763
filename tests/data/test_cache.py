"""Tests of caecnn_jax.data.cache, alone and as data are loaded."""

import image_folders
import numpy as np
import pytest
from image_folders import assert_same, config_of

from caecnn_jax.data import cache, dataset, image_files, pixels

pytestmark = pytest.mark.usefixtures("alone")


def cache_files(tmp_path):
    return list((tmp_path / "xdg").rglob("*.npz"))


def test_what_was_decoded_is_not_decoded_again(tmp_path, monkeypatch):
    config = config_of(image_folders.odd(tmp_path / "data"))
    first = dataset.load(config)
    assert len(cache_files(tmp_path)) == 1
    monkeypatch.setattr(image_files, "decode", lambda *args, **kwargs: pytest.fail("decoded"))
    again = dataset.load(config)
    assert_same(again, first)
    assert again.notes == first.notes


@pytest.mark.parametrize("changed", ["file", "added", "image_size", "fit", "channels"])
def test_what_changed_is_decoded_again(tmp_path, changed):
    config = config_of(image_folders.plain(tmp_path / "data"))
    first = dataset.load(config)
    if changed == "file":
        image_folders.picture(9).save(tmp_path / "data" / "cat" / "0.png")
    elif changed == "added":
        image_folders.picture(9).save(tmp_path / "data" / "cat" / "9.png")
    else:
        config[changed] = {"image_size": 20, "fit": "pad", "channels": 1}[changed]
    assert dataset.load(config).digest != first.digest


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_is_read_anew_with_a_warning(tmp_path, damage, caplog):
    config = config_of(image_folders.plain(tmp_path / "data"))
    first = dataset.load(config)
    (path,) = cache_files(tmp_path)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[1000] ^= 1
    path.write_bytes({"cut": good[:-900], "flip": bytes(bad), "empty": b""}[damage])
    assert_same(dataset.load(config), first)
    assert "Reading the images again, for their cache" in caplog.text
    assert_same(dataset.load(config), first)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing is left aside


@pytest.mark.parametrize("how", ["a file", "refused", "no home"])
def test_without_a_place_for_a_cache_data_are_read_with_a_warning(
    tmp_path, monkeypatch, caplog, how
):
    if how == "a file":
        (tmp_path / "xdg").write_text("")
    elif how == "refused":  # even to be looked at, as another user's home is; root's is never
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("x" * 300)))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    data = dataset.load(config_of(image_folders.plain(tmp_path / "data")))
    assert len(data.images) == 8
    assert "every start will decode them again" in caplog.text
    assert not (tmp_path / "~").exists()


PIXELS = pixels.Pixels(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 3]), ("a note",))
FORM = pixels.Form(4, "crop", 3)


def test_a_key_tells_files_order_and_form_apart():
    keys = [
        cache.key([["a", 1, 2]], np.arange(3), FORM),
        cache.key([["a", 1, 3]], np.arange(3), FORM),
        cache.key([["a", 1, 2]], np.array([0, 2, 1]), FORM),
        cache.key([["a", 1, 2]], np.arange(3), FORM._replace(fit="pad")),
    ]
    assert len(set(keys)) == 4
    assert cache.key([["a", 1, 2]], np.arange(3, dtype=np.int32), FORM) == keys[0]


@pytest.mark.parametrize(
    "about", ["null", "[]", "{", '{"notes": []}', '{"sha256": "0", "notes": []}', None]
)
def test_what_another_program_left_in_its_place_is_passed_over(tmp_path, about, caplog):
    cache.save("key", PIXELS)
    assert cache.load("key").kept.tolist() == [0, 3]  # the counter-check
    (path,) = cache_files(tmp_path)
    arrays = PIXELS._asdict() | ({} if about is None else {"about": np.array(about)})
    np.savez(path, **{name: arrays[name] for name in ("images", "kept", "about") if name in arrays})
    assert cache.load("key") is None
    assert f"Reading the images again, for their cache {path} is damaged" in caplog.text


def test_the_first_place_that_takes_the_file_has_it(tmp_path):
    closed, full, free = (tmp_path / name / "new" / "file" for name in ("closed", "full", "free"))
    for path in (closed, full, free):
        path.parent.parent.mkdir()
    closed.parent.parent.chmod(0o555)

    def write(file):
        file.write(b"part")
        if file.name.startswith(str(full.parent)):
            raise OSError(28, "No space left on device")

    assert cache.write_first([closed, full, free], write)
    assert free.read_bytes() == b"part"
    assert [path.name for path in free.parent.iterdir()] == ["file"]
    assert not closed.parent.exists() and not list(full.parent.iterdir())
    assert not cache.write_first([closed, full], write)
