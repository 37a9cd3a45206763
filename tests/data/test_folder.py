"""Tests of caecnn_jax.data.folder: folders of real files, and CSV files that list some."""

import os
import shutil

import image_folders
import numpy as np
import pytest

from caecnn_jax.data import folder, image_search, pixels
from caecnn_jax.errors import DataError


def counts(found):
    return dict(zip(found.class_names, found.train_counts, strict=True))


def test_an_odd_folder_is_read_as_people_mean_it(tmp_path):
    found = folder.open_folder(image_folders.odd(tmp_path / "data"))
    assert found.class_names == ("2", "10", "Bär")  # 2 before 10, and the umlaut composed
    # Six each; 2 has a linked folder, a linked file and a broken file more, 10 album.jpg's one.
    assert counts(found) == {"2": 9, "10": 7, "Bär": 6}
    assert found.test_counts == (0, 0, 0)
    assert found.passed_over == {
        image_search.HIDDEN: 3,
        image_search.SYSTEM: 1,
        image_search.NO_IMAGE: 2,
        image_search.LOOP: 1,
        image_search.NOWHERE: 1,
        folder.OUTSIDE: 1,
        folder.EMPTY: 1,
    }
    assert found.labels().tolist() == [0] * 9 + [1] * 7 + [2] * 6


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [("train", "val", "test"), ("Training", "validation", "TESTING"), ("train", "valid", "test")],
)
def test_parts_are_known_by_their_names_and_validation_joins_training(tmp_path, train, valid, test):
    for name, each in ((train, 3), (valid, 2), (test, 1)):
        image_folders.plain(tmp_path / name, each)
    (tmp_path / "annotations").mkdir()
    found = folder.open_folder(tmp_path)
    assert found.train_counts == (5, 5)
    assert found.test_counts == (1, 1)
    assert found.labels().tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1]
    assert found.passed_over == {folder.BESIDE: 1}


def test_classes_may_be_called_train_beside_others(tmp_path):
    image_folders.plain(tmp_path, classes=("bus", "train"))
    assert folder.open_folder(tmp_path).class_names == ("bus", "train")


def test_a_train_folder_of_folders_beside_others_with_images_may_be_a_class(tmp_path):
    image_folders.plain(tmp_path / "train", classes=("2024", "2025"))
    (tmp_path / "notes").mkdir()
    assert folder.open_folder(tmp_path).class_names == ("2024", "2025")
    image_folders.plain(tmp_path, classes=("bus", "car"))
    with pytest.raises(DataError, match="is train the training part, or a class as bus, car may"):
        folder.open_folder(tmp_path)
    image_folders.plain(tmp_path / "test", classes=("2024", "2025"))
    assert folder.open_folder(tmp_path).passed_over == {folder.BESIDE: 3}


def test_names_that_are_no_utf8_stay_apart(tmp_path):
    for name in (b"caf\xe9", b"caf\xe8", b"tea"):
        image_folders.plain(tmp_path / os.fsdecode(name), classes=("any",))
    assert folder.open_folder(tmp_path).class_names == ("caf\\xe8", "caf\\xe9", "tea")


def test_a_part_that_is_named_but_missing_is_an_error(tmp_path):
    image_folders.plain(tmp_path / "test")
    with pytest.raises(DataError, match="has test but no train folder with a folder for each"):
        folder.open_folder(tmp_path)
    image_folders.plain(tmp_path / "cat")
    with pytest.raises(DataError, match="has test but no train"):
        folder.open_folder(tmp_path)


@pytest.mark.parametrize("flat", [True, False])
def test_a_part_without_class_folders_is_an_error(tmp_path, flat):
    image_folders.plain(tmp_path / "train")
    (tmp_path / "test").mkdir()
    if flat:
        image_folders.picture(0).save(tmp_path / "test" / "0.png")
    with pytest.raises(DataError, match="test: holds no class folders with images"):
        folder.open_folder(tmp_path)


def test_a_class_whose_name_is_composed_in_two_ways_is_one(tmp_path):
    image_folders.plain(tmp_path / "train", classes=("Bär", "Ei"))  # composed
    image_folders.plain(tmp_path / "test", classes=("Ba\u0308r", "Ei"))  # decomposed
    found = folder.open_folder(tmp_path)
    assert found.class_names == ("Bär", "Ei")
    assert found.test_counts == (4, 4)


def test_folders_that_link_to_each_other_end(tmp_path):
    image_folders.plain(tmp_path)
    for number in range(12):  # walked once each; all ways through them are 12!
        (tmp_path / "cat" / f"room{number}").mkdir()
    for one in range(12):
        for other in range(12):
            link = tmp_path / "cat" / f"room{one}" / f"door{other}"
            link.symlink_to(tmp_path / "cat" / f"room{other}")
    assert counts(folder.open_folder(tmp_path)) == {"cat": 4, "dog": 4}


def test_a_link_to_the_folder_of_the_classes_is_no_class(tmp_path):
    image_folders.plain(tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "wolf").symlink_to(tmp_path / "data" / "dog")  # a class as any
    found = folder.open_folder(tmp_path / "data")
    assert counts(found) == {"cat": 4, "dog": 4, "wolf": 4}
    assert found.passed_over == {image_search.LOOP: 2}


def write_csv(path, text):
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_a_csv_names_files_labels_and_parts(tmp_path):
    image_folders.plain(tmp_path / "img", each=3)
    lines = [
        "File, Label ,split",
        "img/cat/0.png,10,test",
        "img/cat/1.png,10,train",
        '"img/cat/2.png",2,VAL',
        "img/dog/0.png, 2 ,training",
    ]
    found = folder.open_csv(write_csv(tmp_path / "list.csv", "\n".join(lines)))
    assert found.class_names == ("2", "10")
    assert found.train_counts == (2, 1)
    assert found.test_counts == (0, 1)
    assert found.labels().tolist() == [1, 0, 0, 1]  # as in the file, but the test part last


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line must name the columns .* lacks file and label"),
        ("image,label\na.png,1", "lacks file"),
        ("file,label\na.png,", "line 2 has no label"),
        ("file,label,split\na.png,1,train\nb.png,1,later", "line 3 has the split 'later'"),
        ("file,label\na.png,1\na.png,2", "lists .*a.png more than once"),
        ("file,label,split\na.png,1,", "line 2 has the split ''"),
        ("file,label\na.png", "line 2 has no label"),
    ],
)
def test_a_wrong_csv_is_an_error_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        folder.open_csv(write_csv(tmp_path / "list.csv", text))


def test_a_csv_with_a_name_that_no_file_has_leaves_that_one_out(tmp_path):
    image_folders.plain(tmp_path)
    found = folder.open_csv(write_csv(tmp_path / "list.csv", "file,label\ncat/0.png,1\nn\0.png,2"))
    read = found.read(np.arange(2), pixels.Form(8, "crop", 3))
    assert read.kept.tolist() == [0] and "n\0.png" in read.notes[1]


def test_a_csv_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "list.csv").write_bytes("file,label\nä.png,1".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as CSV in UTF-8"):
        folder.open_csv(tmp_path / "list.csv")


def test_the_fingerprint_tells_a_changed_file(tmp_path):
    data = image_folders.plain(tmp_path / "data")
    before = folder.open_folder(data).fingerprint
    shutil.copytree(data, tmp_path / "copy")  # with the times
    assert folder.open_folder(tmp_path / "copy").fingerprint == before
    image_folders.picture(9).save(data / "cat" / "0.png")
    assert folder.open_folder(data).fingerprint != before
    assert folder.open_folder(data).fingerprint[1:] == before[1:]
