"""Fixtures of the tests of data."""

import shutil

import cifar_files
import pytest

from caecnn_jax.data import cifar_hosts, cifar_prepared


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No test finds this user's data and caches, or the network."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(cifar_hosts, "download", cifar_files.failing("the host is away"))
    monkeypatch.setattr(cifar_hosts, "from_npm", cifar_files.failing("npm is away"))


@pytest.fixture
def tiny():
    """Images and labels that pass for CIFAR-10's during the test."""
    with cifar_files.thirty_images() as arrays:
        yield arrays


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory):
    """The TFDS folder of `tiny`, for no test to change."""
    root = tmp_path_factory.mktemp("tfds")
    with cifar_files.thirty_images() as arrays:
        cifar_prepared.write(root / cifar_prepared.VERSION_DIR, *arrays)
    return root


@pytest.fixture
def root(prepared_once, tmp_path):
    """A prepared TFDS folder of this test's own."""
    return shutil.copytree(prepared_once, tmp_path / "tfds")
