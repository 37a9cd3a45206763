"""Which reader opens what config.dataset and config.data_dir name."""

import numpy as np
import pytest
from PIL import Image

from caecnn_jax.data import catalogue
from caecnn_jax.errors import DataError
from configs import default


def config_of(**fields):
    config = default.get_config()
    config.update(fields)
    return config


@pytest.fixture
def photos(tmp_path):
    """A folder with a folder of one image for each of two classes."""
    for name in ("cat", "dog"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "1.png")
    return tmp_path / "photos"


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, images=np.zeros((4, 4, 4, 3), np.uint8), labels=np.arange(4) % 2)
    return path


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "cifar100:coarse"])
@pytest.mark.parametrize("own", ["photos", "npz"])
def test_own_images_as_data_dir_are_no_reason_to_train_on_cifar(dataset, own, request):
    place = request.getfixturevalue(own)
    with pytest.raises(DataError, match=f"no place of {dataset}'s; .* set config.dataset to it"):
        catalogue.find(config_of(dataset=dataset, data_dir=str(place)))


def test_cifars_place_may_be_new_empty_or_hold_others(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new", tmp_path / "empty", photos.parent):
        assert catalogue.find(config_of(data_dir=str(place))).name == "cifar10"


def test_a_data_dir_that_is_not_used_is_warned_of(photos, caplog):
    catalogue.find(config_of(dataset=str(photos)))
    assert not caplog.records
    catalogue.find(config_of(dataset=str(photos), data_dir=str(photos.parent)))
    assert f"is not used: the data are the path {photos}" in caplog.text


def test_paths_are_absolute_and_names_are_left(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    config = catalogue.absolute(config_of(dataset="photos", data_dir="~/tfds"))
    assert config.dataset == str(photos)
    (photos.parent / "cifar10").mkdir()  # as TFDS leaves it
    assert catalogue.absolute(config_of()).dataset == "cifar10"
    assert config.data_dir.endswith("/tfds") and config.data_dir.startswith("/")
    assert catalogue.absolute(config_of(dataset="cifar10")).dataset == "cifar10"


def test_a_name_that_is_nothing_is_told_with_what_there_is(tmp_path):
    with pytest.raises(DataError, match="did you mean 'cifar100'"):
        catalogue.find(config_of(dataset="cifar-100"))
    other = tmp_path / "labels.txt"
    other.write_text("cat\n")
    with pytest.raises(DataError, match=r"is neither \.csv nor \.npz; give a folder"):
        catalogue.find(config_of(dataset=str(other)))


@pytest.mark.parametrize("data_source", ["auto", "tfds", "archive", "download", "npm"])
@pytest.mark.parametrize(
    ("dataset", "held", "source"),
    [
        ("cifar10", "cifar10/3.0.2/dataset_info.json", "tfds"),
        ("cifar10", "cifar-10-python.tar.gz", "archive"),
        ("cifar100", "cifar100/3.0.2/dataset_info.json", "tfds"),
        ("cifar100:coarse", "cifar-100-binary.tar.gz", "archive"),
        ("tfds:mnist", "mnist/3.0.1/dataset_info.json", "tfds"),
    ],
)
def test_data_are_found_where_they_lie_now_in_any_form(
    dataset, held, source, data_source, tmp_path, monkeypatch
):
    """Whatever they were trained from: an archive that is gone, or a folder that is empty now."""
    old, now = tmp_path / "old", tmp_path / "now"
    (now / held).parent.mkdir(parents=True)
    (now / held).touch()
    monkeypatch.setenv("TFDS_DATA_DIR", str(now))
    config = config_of(dataset=dataset, data_source=data_source, data_dir=str(old))
    for place in ("cifar-10-binary.tar.gz", ""):
        found = catalogue.at_hand(config, [str(old / place), ""])
        assert (found.data_source, found.data_dir) == (source, str(now))
        old.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=rf"no {dataset} in .*old: .* --config\.data_dir or TFDS"):
        catalogue.at_hand(config, [str(old)])
    assert not list(old.iterdir())
