"""Tests of caecnn_jax.records.workdir: how a folder's files are written and read."""

import importlib.util
import os
import stat

import pytest
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax.records import workdir


def test_a_config_that_does_not_validate_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"use_cnn": "perhaps"}')
    with pytest.raises(config_lib.ConfigError, match=r"config\.json"):
        workdir.read_config(epath.Path(tmp_path))


def test_a_file_is_whole_whenever_a_write_ends(tmp_path, monkeypatch):
    path = epath.Path(tmp_path / "metrics.json")
    workdir.write_json(path, [1])

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", fails)
    with pytest.raises(workdir.WorkdirError, match=r"metrics.json: No space left on device; .*"):
        workdir.write_json(path, [2])
    assert workdir.read_json(path) == [1]


def test_what_is_no_file_is_left_and_a_link_is_followed(tmp_path):
    pipe, folder = epath.Path(tmp_path / "pipe"), epath.Path(tmp_path / "folder")
    os.mkfifo(pipe)
    folder.mkdir()
    for place in (pipe, folder):
        link = epath.Path(tmp_path / f"link to {place.name}")
        os.symlink(place, link)
        for path in (place, link):
            with pytest.raises(workdir.WorkdirError, match=f"{path}: .* no regular file; choose"):
                workdir.write_output(path, b"new")
    assert stat.S_ISFIFO(os.stat(pipe).st_mode) and not list(folder.iterdir())
    for name in ("there", "not yet"):
        (tmp_path / f"link {name}").symlink_to(tmp_path / name)
    (tmp_path / "there").write_bytes(b"old")
    for name in ("there", "not yet"):
        workdir.write_output(epath.Path(tmp_path / f"link {name}"), b"new")
        assert (tmp_path / f"link {name}").is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"


def test_what_orbax_says_of_a_disk_becomes_a_sentence(tmp_path):
    full = "cannot write here: No space left on device"
    with pytest.raises(workdir.WorkdirError, match=full), workdir.writing("here"):
        raise ValueError("OUT_OF_RANGE: Error writing ... [os_error_code='28']")
    with pytest.raises(ValueError, match="a mistake of ours"), workdir.writing("here"):
        raise ValueError("a mistake of ours")


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(workdir.WorkdirError, match=r"metrics\.json"):
        workdir.read_json(epath.Path(tmp_path / "metrics.json"))


def test_history_has_a_line_a_record_without_its_confusion_matrix(tmp_path):
    workdir.write_history(epath.Path(tmp_path), [{"epoch": 1, "confusion_matrix": [[1]]}])
    assert (tmp_path / "history.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_tilde_is_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert workdir.resolve("~/runs/x") == epath.Path(tmp_path / "runs" / "x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "gcsfs")
    assert str(workdir.resolve("gs://bucket/~x")) == "gs://bucket/~x"
    monkeypatch.chdir(tmp_path)
    assert workdir.resolve("a~b") == epath.Path(tmp_path / "a~b")


def test_a_bucket_without_its_package_is_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(workdir.WorkdirError, match=r"gs://runs/a: gcsfs is missing: pip install"):
        workdir.resolve("gs://runs/a")


def test_a_buckets_failure_is_a_sentence_and_a_programs_error_none():
    def fail(path, error):
        with workdir.writing(epath.Path(path)):
            raise error

    with pytest.raises(workdir.WorkdirError, match=r"KeyError: 'token'; .* rights to it, then"):
        fail("gs://runs/a", KeyError("token"))
    with pytest.raises(workdir.WorkdirError, match="OSError: Forbidden: runs/a; what"):
        fail("gs://runs/a", OSError("Forbidden: runs/a\nnot allowed"))
    with pytest.raises(KeyError):
        fail("/runs/a", KeyError("token"))


@pytest.mark.parametrize("address", ["foo://runs/a", "http://runs/a"])
def test_an_unknown_kind_of_address_is_a_sentence(address):
    with pytest.raises(workdir.WorkdirError, match="gs:// and s3:// are known"):
        workdir.resolve(address)
