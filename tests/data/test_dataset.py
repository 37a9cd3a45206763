"""Tests of caecnn_jax.data.dataset: from config.dataset to images, the table and the command."""

import contextlib
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import unicodedata

import cifar_files
import image_folders
import numpy as np
import pytest
from builders import PROJECT
from image_folders import assert_same, config_of
from PIL import Image

from caecnn_jax import config as config_lib
from caecnn_jax.data import cifar, cifar_prepared, dataset, image_files
from caecnn_jax.errors import DataError
from caecnn_jax.networks import models
from configs import mixed

pytestmark = pytest.mark.usefixtures("alone")


def test_an_odd_folder_becomes_a_data_set(tmp_path):
    data = dataset.load(config_of(image_folders.odd(tmp_path / "data")))
    assert data.name == "data"
    assert data.class_names == ("2", "10", "Bär")
    assert data.images.shape == (21, 16, 16, 3) and data.images.dtype == np.uint8
    assert data.labels.dtype == np.int32
    # A fifth of 9, 7 and 6 are held out, of the 9 perhaps the broken one.
    train, test = dataset.counts(data)
    assert [sum(pair) for pair in zip(train, test, strict=True)] == [8, 7, 6]
    assert test[1:] == [1, 1] and test[0] in (1, 2)
    notes = "\n".join(data.notes)
    assert "3 sizes, from 40x30 to 64x64 pixels; the most frequent is 40x30" in notes
    assert "1 cannot be read and are left out: " in notes and "broken.png" in notes
    assert "3 hidden" in notes and "test_share" in notes


def test_classes_without_a_test_image_are_noted(tmp_path):
    classes = ("ant", "bee", "cat", "dog", "emu", "fox")
    image_folders.plain(tmp_path / "train", classes=classes)
    image_folders.plain(tmp_path / "test", classes=classes[:2])
    data = dataset.load(config_of(tmp_path))
    assert "no test image of cat; dog; emu; and 1 more" in data.notes
    shutil.rmtree(tmp_path / "test")  # a share of each is held out
    assert "no test image" not in "".join(dataset.load(config_of(tmp_path)).notes)


def test_images_that_use_few_of_their_16_bits_are_noted(tmp_path):
    image_folders.plain(tmp_path)
    for name, top in (("dim", 4095), ("bright", 4096)):
        levels = np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(levels).save(tmp_path / "cat" / f"{name}.png")
    Image.fromarray(levels[:, ::2] // 2).save(tmp_path / "dog" / "dim.tif")
    notes = dataset.load(config_of(tmp_path)).notes
    assert "2 use 12 of their 16 bits at most, nearly black: scale them first" in notes


def test_images_are_those_that_predict_reads(tmp_path):
    image_folders.plain(tmp_path / "data" / "train")
    image_folders.plain(tmp_path / "data" / "test")
    for fit in config_lib.FITS:
        data = dataset.load(config_of(tmp_path / "data", fit=fit))
        picture = image_files.read(tmp_path / "data" / "test" / "dog" / "3.png", 16, fit=fit)
        np.testing.assert_array_equal(data.images[-1], picture.pixels)


def test_each_image_has_its_file_whatever_was_left_out(tmp_path):
    photos = image_folders.odd(tmp_path / "data")  # one file is damaged
    for _ in range(2):  # decoded, then from the cache
        data = dataset.load(config_of(photos))
        assert (
            len(data.files) == len(data.images) < sum(path.is_file() for path in photos.rglob("*"))
        )
        for image, path in zip(data.images, data.files, strict=True):
            np.testing.assert_array_equal(image_files.read(path, 16).pixels, image)
    assert dataset.from_arrays(data.images, data.labels, 3, data.class_names).files == ()


def test_the_digest_depends_on_the_images_and_not_on_where_they_lie(tmp_path, monkeypatch):
    first = dataset.load(config_of(image_folders.plain(tmp_path / "one")))
    shutil.copytree(tmp_path / "one", tmp_path / "other", copy_function=shutil.copyfile)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    assert_same(dataset.load(config_of(tmp_path / "other")), first)
    image_folders.picture(77).save(tmp_path / "other" / "cat" / "0.png")
    assert dataset.load(config_of(tmp_path / "other")).digest != first.digest
    (tmp_path / "one" / "cat").rename(tmp_path / "one" / "cow")
    assert dataset.load(config_of(tmp_path / "one")).digest != first.digest


def test_the_test_part_is_a_share_of_each_class_whatever_the_seed(tmp_path):
    image_folders.plain(tmp_path / "data", each=10)
    config = config_of(tmp_path / "data", test_share=0.3)
    source = dataset.open_source(config)
    assert (source.train_counts, source.test_counts, source.num_train) == ((7, 7), (3, 3), 14)
    assert source.labels.tolist() == [0] * 7 + [1] * 7 + [0] * 3 + [1] * 3
    data = source.read()
    config.seed = 5
    assert_same(dataset.load(config), data)


def test_grey_images_have_one_channel_where_all_are_grey(tmp_path):
    folder = image_folders.plain(tmp_path / "data")
    for path in folder.rglob("*.png"):
        image_files.Image.open(path).convert("L").save(path)
    assert dataset.load(config_of(folder)).images.shape[3] == 1
    assert dataset.load(config_of(folder, channels=3)).images.shape[3] == 3
    image_folders.picture(5).save(folder / "cat" / "0.png")
    assert dataset.load(config_of(folder)).images.shape[3] == 3
    assert dataset.load(config_of(folder, channels=1)).images.shape[3] == 1


def test_grey_images_have_the_channels_that_the_networks_name(tmp_path):
    labels = np.arange(8) % 2
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32), np.uint8)
    np.savez(tmp_path / "grey.npz", x_train=images, y_train=labels)
    open_to_any = config_of(tmp_path / "grey.npz", image_size=32)
    config = mixed.get_config()  # of blocks that take 3
    config.dataset, config.do_cv = open_to_any.dataset, False
    config.train_data_regulation = config.train_data_expansion = {}
    for _ in range(2):  # as they are, then from the cache
        grey, rgb = dataset.load(open_to_any), dataset.load(config)
        assert grey.images.shape[1:] == (32, 32, 1)
        assert rgb.images.shape[1:] == models.from_config(config).image_shape == (32, 32, 3)
        np.testing.assert_array_equal(rgb.images, np.repeat(grey.images, 3, axis=3))
        assert rgb.digest != grey.digest


# --- Refused ---


def test_the_config_is_checked_before_an_image_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "decode", lambda *args, **kwargs: pytest.fail("decoded"))
    config = config_of(image_folders.plain(tmp_path / "data"))
    config.train_data_regulation = {"cta": 2}
    with pytest.raises(config_lib.ConfigError, match=r"regulation.cta is no class .* mean 'cat'"):
        dataset.load(config)


def test_cifar10s_classes_are_known_before_it_is_fetched(tmp_path):
    config = config_of("cifar10", data_dir=str(tmp_path), image_size=32)
    with pytest.raises(DataError, match="no CIFAR-10"):  # the counter-check: there is none
        dataset.load(config)
    config.train_data_regulation = {"brid": 2}
    with pytest.raises(config_lib.ConfigError, match=r"brid is no class .* mean 'bird'"):
        dataset.load(config)


def test_a_class_of_one_image_cannot_be_divided(tmp_path):
    image_folders.plain(tmp_path / "data")
    image_folders.plain(tmp_path / "data", each=1, classes=("emu",))
    with pytest.raises(DataError, match="class 'emu' has one image; it needs two"):
        dataset.load(config_of(tmp_path / "data"))


def test_more_than_one_in_a_hundred_unreadable_is_an_error_that_names_some(tmp_path):
    folder = image_folders.plain(tmp_path / "data")
    (folder / "cat" / "0.png").write_text("none")
    dataset.load(config_of(folder))  # one is allowed even of few
    (folder / "dog" / "0.png").write_text("none")
    with pytest.raises(DataError, match=r"one in a hundred .*cat/0.png: not a PNG.*dog/0.png: not"):
        dataset.load(config_of(folder))


def test_a_class_whose_images_cannot_be_read_is_an_error(tmp_path):
    image_folders.plain(tmp_path / "data" / "train", each=1)
    image_folders.plain(tmp_path / "data" / "test")
    (tmp_path / "data" / "train" / "cat" / "0.png").write_text("none")
    with pytest.raises(DataError, match="no training image of class 'cat' can be read"):
        dataset.load(config_of(tmp_path / "data"))


def test_images_in_both_parts_are_warned_of_with_their_number(tmp_path, caplog):
    image_folders.plain(tmp_path / "data" / "train")
    image_folders.plain(tmp_path / "data" / "test", each=2)
    image_folders.picture(55).save(tmp_path / "data" / "test" / "cat" / "0.png")
    dataset.load(config_of(tmp_path / "data"))
    assert "3 of 4 test images are among the training images too" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar-10", "there is nothing at that path; .* did you mean 'cifar10'"),
        ("{}/none", "there is nothing at that path; give a folder"),
        ("{}/a.txt", "is neither .csv nor .npz"),
        ("~nobody-of-this-name/x", "no such path|nothing at that path"),
        ("x" * 5000, "no such path|nothing at that path"),
    ],
)
def test_what_is_no_data_set_is_an_error(tmp_path, name, message):
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=message):
        dataset.load(config_of(name.format(tmp_path)))


# --- Cache ---


def test_what_could_not_be_reached_is_not_cached_as_missing(tmp_path, monkeypatch):
    folder = image_folders.plain(tmp_path / "data", each=8)
    opened = pathlib.Path.open

    def closed(path, *args, **named):
        if path.name == "3.png" and path.parent.name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", closed)
        assert len(dataset.load(config_of(folder)).labels) == 15
    assert len(dataset.load(config_of(folder)).labels) == 16
    (folder / "cat" / "3.png").write_bytes(b"broken for good")
    assert len(dataset.load(config_of(folder)).labels) == 15
    monkeypatch.setattr(image_files, "read_each", None)
    assert len(dataset.load(config_of(folder)).labels) == 15  # from the cache


def test_bits_that_flip_in_a_cache_or_a_npz_never_escape_as_another_error(tmp_path, caplog):
    folder = image_folders.plain(tmp_path / "data", each=2)
    expected = dataset.load(config_of(folder))
    (path,) = (tmp_path / "xdg").rglob("*.npz")
    whole = path.read_bytes()
    central = whole.index(b"PK\x01\x02")  # the directory: method, version, flags, sizes, names
    own = tmp_path / "own.npz"
    arrays = {"x_train": expected.images, "y_train": expected.labels}
    np.savez(own, **arrays, x_test=expected.images, y_test=expected.labels)
    good = own.read_bytes()
    for place in range(60):
        for bit in (1, 64):
            altered = bytearray(whole)
            altered[central + place] ^= bit
            path.write_bytes(altered)
            assert_same(dataset.load(config_of(folder)), expected)
            altered = bytearray(good)
            altered[good.index(b"PK\x01\x02") + place] ^= bit
            own.write_bytes(altered)
            with contextlib.suppress(DataError):
                dataset.load(config_of(own))


def test_the_digest_is_the_same_however_names_are_composed(tmp_path):
    digests = set()
    for form in ("NFC", "NFD"):
        names = [unicodedata.normalize(form, name) for name in ("énot", "fox", "ab")]
        image_folders.plain(tmp_path / form, classes=names)
        for folder in (tmp_path / form).iterdir():
            (folder / "1.png").rename(folder / unicodedata.normalize(form, "é.png"))
        digests.add(dataset.load(config_of(tmp_path / form)).digest)
    assert len(digests) == 1


# --- CIFAR-10 ---


def test_cifar10_is_as_it_was_and_its_digest_that_of_the_official_sums(tmp_path):
    with cifar_files.thirty_images() as (images, labels):
        cifar_prepared.write(tmp_path / cifar_prepared.VERSION_DIR, images, labels)
        config = config_of("cifar10", data_dir=str(tmp_path), image_size=32)
        data = dataset.load(config)
        np.testing.assert_array_equal(data.images, images)
        np.testing.assert_array_equal(data.labels, labels)
        assert (data.name, data.class_names, data.num_train) == ("cifar10", cifar.CLASS_NAMES, 20)
        assert data.digest == cifar.DIGEST
        small = dataset.load(config_of("cifar10", data_dir=str(tmp_path), channels=1))
        assert small.images.shape == (30, 16, 16, 1)
        assert small.digest != cifar.DIGEST  # it is of other arrays


# --- What is told ---


def made_up(class_names, per_class=3):
    labels = np.tile(np.arange(len(class_names), dtype=np.int32), per_class)
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    return dataset.from_arrays(images, labels, len(labels) - len(class_names), class_names)


def test_the_table_tells_counts_and_fits_the_terminal():
    data = made_up(("ant", "b" * 200))
    lines = dataset.table(data)
    assert lines[0] == "arrays: 6 images of 2 classes, 8x8 RGB"
    assert lines[2].split() == ["ant", "2", "1"]
    assert lines[4].split() == ["all", "4", "2"]
    assert max(map(len, lines)) <= 100
    noted = dataset.dataclasses.replace(data, notes=("word " * 60,))
    assert max(map(len, dataset.table(noted))) <= 100


def test_the_table_of_many_classes_is_short():
    lines = dataset.table(made_up([f"class {k}" for k in range(1000)]))
    assert len(lines) < 20
    assert any("990 classes between" in line for line in lines)


def test_the_command_describes_a_folder_and_says_how_to_train(tmp_path, monkeypatch, capsys):
    folder = image_folders.odd(tmp_path / "my data")
    monkeypatch.setattr(sys, "argv", ["dataset", str(folder), "--image_size=40", "--fit=pad"])
    dataset.main()
    out = capsys.readouterr().out
    assert "my data: 21 images of 3 classes, 40x40 RGB" in out
    assert "test images are among the training images too" in out and "broken.png" in out
    assert (
        f"python main.py --config configs/own_images.py '--config.dataset={folder}' "
        "--config.image_size=40 --config.fit=pad --workdir 'runs/my data'" in out
    )


@pytest.mark.parametrize(
    ("smallest", "field"), [(3, "num_folds=2"), (2, "do_cv=False"), (9, "--workdir")]
)
def test_the_command_that_trains_fits_small_classes(tmp_path, monkeypatch, capsys, smallest, field):
    image_folders.plain(tmp_path / "data", each=smallest, classes=("few",))
    image_folders.plain(tmp_path / "data", each=12, classes=("many", "more"))
    monkeypatch.setattr(sys, "argv", ["dataset", str(tmp_path / "data")])
    dataset.main()
    command = capsys.readouterr().out.splitlines()[-1]
    assert field in command and ("config.num_folds" in command or smallest != 3)
    assert "cannot train" not in command


def test_the_command_gives_no_command_that_would_be_refused(tmp_path, monkeypatch, capsys):
    folder = image_folders.odd(tmp_path / "my data")
    monkeypatch.setattr(sys, "argv", ["dataset", str(folder), "--image_size=27"])
    dataset.main()
    out = capsys.readouterr().out
    assert "configs/own_images.py cannot train on them so: config.cae.enc_block_sizes" in out
    assert "config.image_size=24 or 32 would do" in out and "main.py" not in out


def test_the_command_prepares_cifar10_and_says_where_it_lies(tmp_path, monkeypatch, capsys):
    with cifar_files.thirty_images() as (images, labels):
        cifar_prepared.write(tmp_path / cifar_prepared.VERSION_DIR, images, labels)
        monkeypatch.setattr(sys, "argv", ["dataset", "--data_dir", str(tmp_path)])
        dataset.main()
    assert f"(30 images) is ready in {tmp_path}/cifar10/3.0.2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_source=tfds"], "error: no CIFAR-10 from data_source='tfds'"),
        (["nothing"], "error: config.dataset='nothing': there is nothing at that path"),
        (["nothing", "--fit=wide"], "error: config.fit='wide': must be one of crop, pad, stretch"),
    ],
)
def test_the_command_ends_a_user_error_with_one_line_and_2(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "caecnn_jax.data.dataset", f"--data_dir={tmp_path}", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_the_command_warns_without_a_librarys_words(tmp_path):
    folder = image_folders.plain(tmp_path / "photos")
    done = subprocess.run(
        [sys.executable, "-m", "caecnn_jax.data.dataset", str(folder), f"--data_dir={tmp_path}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert f"is not used: the data are the path {folder}\n" in done.stderr
    assert "flag parsing" not in done.stderr  # absl's own, of a command that has none of its flags


def test_the_command_needs_no_stderr_and_no_reader_and_prints_in_ascii(tmp_path):
    folder = image_folders.plain(tmp_path / "photos", classes=("bär", "dog"))
    program = f"{shlex.quote(sys.executable)} -m caecnn_jax.data.dataset {folder} 2>&-"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "XDG_CACHE_HOME": str(tmp_path)}
    for line, wanted in [(program, 0), (f"{program} | true; exit ${{PIPESTATUS[0]}}", 141)]:
        command = ["bash", "-c", line]
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True)
        assert done.returncode == wanted
        assert wanted or b"b?r" in done.stdout


def test_another_package_called_configs_on_the_path_does_not_win(tmp_path):
    folder = image_folders.plain(tmp_path / "photos")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").touch()
    (tmp_path / "configs" / "default.py").touch()
    command = [sys.executable, "-m", "caecnn_jax.data.dataset", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "To train on them:" in done.stdout
    command = [sys.executable, "-c", "from caecnn_jax.results import predict"]
    assert not subprocess.run(command, cwd=tmp_path, env=environment).returncode


def test_importing_the_module_imports_nothing_slow():
    program = (
        "import sys; from caecnn_jax.data import dataset;"
        "print([m for m in ('tensorflow_datasets', 'jax', 'requests') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
