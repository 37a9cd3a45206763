"""Tests of caecnn_jax.data.cifar_archives with archives that are made on the spot."""

import gzip
import io
import pickle
import tarfile

import cifar_files
import numpy as np
import pytest

from caecnn_jax.data import cifar_archives
from caecnn_jax.errors import DataError


@pytest.fixture(autouse=True)
def tiny():
    with cifar_files.thirty_images() as arrays:
        yield arrays


@pytest.mark.parametrize("make_files", [cifar_files.binary_files, cifar_files.python_files])
def test_archive_and_its_unpacked_folder_give_the_same_arrays(tiny, tmp_path, make_files):
    files = make_files(tiny)
    tar = cifar_files.write_tar(
        tmp_path / "a.tar.gz", {f"cifar-10-batches/{n}": d for n, d in files.items()}
    )
    folder = cifar_files.write_folder(tmp_path / "unpacked", files)
    cifar_files.assert_arrays_equal(cifar_archives.from_archive(tar), tiny)
    cifar_files.assert_arrays_equal(cifar_archives.from_archive(folder), tiny)


def test_pickles_of_numpy_2_are_read_too(tiny, tmp_path):
    folder = cifar_files.write_folder(
        tmp_path / "unpacked", cifar_files.python_files(tiny, b"numpy._core")
    )
    cifar_files.assert_arrays_equal(cifar_archives.from_archive(folder), tiny)


@pytest.mark.parametrize("name", cifar_archives.ARCHIVE_NAMES)
def test_find_archive_looks_into_the_folder(tmp_path, name):
    assert cifar_archives.find_archive(tmp_path) is None
    (tmp_path / name).mkdir()
    assert cifar_archives.find_archive(tmp_path) == tmp_path / name


def test_a_missing_batch_is_named(tiny, tmp_path):
    files = cifar_files.binary_files(tiny)
    del files["data_batch_4.bin"]
    folder = cifar_files.write_folder(tmp_path / "unpacked", files)
    with pytest.raises(DataError, match=r"unpacked: lacks data_batch_4\.bin; point"):
        cifar_archives.from_archive(folder)


def test_a_cut_batch_is_named(tiny, tmp_path):
    files = cifar_files.binary_files(tiny)
    files["data_batch_2.bin"] = files["data_batch_2.bin"][:-1]
    folder = cifar_files.write_folder(tmp_path / "unpacked", files)
    with pytest.raises(DataError, match=r"data_batch_2\.bin: 12291 bytes are no whole"):
        cifar_archives.from_archive(folder)


@pytest.mark.parametrize("damage", ["cut", "flip", "no gzip", "empty"])
def test_a_damaged_tar_is_a_data_error(tiny, tmp_path, damage):
    path = cifar_files.write_tar(
        tmp_path / "cifar-10-binary.tar.gz", cifar_files.binary_files(tiny)
    )
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(
        {"cut": data[: len(data) // 2], "flip": data, "no gzip": b"<html>", "empty": b""}[damage]
    )
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        cifar_archives.from_archive(path)


# --- Archives made to harm ---


class Harm:
    """Unpickling this would create the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_pickle_runs_nothing(tmp_path):
    target = tmp_path / "created"
    data = pickle.dumps({b"data": Harm(target), b"labels": [1]}, protocol=3)
    with pytest.raises(DataError, match=r"batch: is no CIFAR batch .*open"):
        cifar_archives.parse_python(data, "batch")
    assert not target.exists()
    pickle.loads(data)[b"data"].close()
    assert target.exists()  # the counter-check: the pickle was a harmful one


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"not a pickle",
        pickle.dumps([1]),
        pickle.dumps({b"data": 1, b"labels": [1]}),
        pickle.dumps({b"data": np.zeros((1, 3072), np.float64), b"labels": [1]}, protocol=3),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, protocol=3),
        pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]}, protocol=3),
        pickle.dumps({b"data": np.zeros((1, 3072), object), b"labels": [1]}, protocol=3),
    ],
)
def test_other_pickles_are_a_data_error(batch):
    with pytest.raises(DataError, match="batch: is no CIFAR batch"):
        cifar_archives.parse_python(batch, "batch")


def test_a_tar_can_neither_write_elsewhere_nor_bring_links(tiny, tmp_path):
    path = tmp_path / "inside" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in (("../escaped", tarfile.REGTYPE), ("data_batch_1.bin", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(DataError, match=r"lacks data_batch_1, "):
        cifar_archives.from_archive(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "inside"]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_archives, "MAX_UNPACKED_BYTES", 1 << 16)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(1 << 17)))
    with pytest.raises(DataError, match=r"bomb\.tar\.gz: unpacks to more than any"):
        cifar_archives.read_tar(path, ["data_batch_1.bin"])


def test_a_member_that_claims_a_huge_size_is_refused(tmp_path):
    member = tarfile.TarInfo("data_batch_1.bin")
    member.size = 1 << 40
    path = tmp_path / "liar.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf() + bytes(1024)))
    with pytest.raises(DataError, match=r"liar\.tar\.gz: cannot be read as a \.tar\.gz"):
        cifar_archives.read_tar(path, ["data_batch_1.bin"])


def test_an_oversized_file_in_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar_archives, "MAX_MEMBER_BYTES", 100)
    folder = cifar_files.write_folder(tmp_path / "unpacked", {"data_batch_1.bin": bytes(101)})
    with pytest.raises(DataError, match=r"data_batch_1\.bin: is larger than"):
        cifar_archives.from_archive(folder)
