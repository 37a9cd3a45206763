"""Tests of caecnn_jax.data.image_search."""

import pytest

from caecnn_jax.data import image_files, image_search


def test_folders_globs_and_odd_names_are_found_once_each(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a[1].png", "sub/c.JPG", "notes.txt"):
        (tmp_path / name).touch()
    names = [str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "a[1].png")]
    found = image_search.find(names).paths
    assert [path.name for path in found] == ["a[1].png", "b.png", "c.JPG"]
    assert image_search.find([names[2], "missing.png"]).paths[1].name == "missing.png"


@pytest.mark.parametrize("names", [[], ["missing.png"], ["nothing/*.png"]])
def test_nothing_to_read_is_an_error(names):
    with pytest.raises(image_files.ImageError, match="--images"):
        image_search.find(names)


def test_what_is_no_photo_is_passed_over_with_a_count_and_why(tmp_path):
    for name in ("cat.jfif", "a10.tif", "a2.BMP", "._cat.jpg", "Thumbs.db", "notes.txt"):
        (tmp_path / name).touch()
    for name in (".ipynb_checkpoints", "album.jpg", "@eaDir", "linked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside.png").touch()
    (tmp_path / "sub").symlink_to(tmp_path / "linked")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    found = image_search.find([str(tmp_path)])
    names = [str(path.relative_to(tmp_path)) for path in found.paths]
    assert names == ["a2.BMP", "a10.tif", "album.jpg/inside.png", "cat.jfif", "linked/inside.png"]
    assert found.passed_over == {
        image_search.HIDDEN: 2,
        image_search.SYSTEM: 2,
        image_search.NO_IMAGE: 1,
        image_search.LOOP: 2,
        image_search.NOWHERE: 1,
    }
    assert "2 hidden (the name begins with a dot)" in image_search.in_words(found.passed_over)


def test_a_linked_folder_elsewhere_is_followed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    found = image_search.find([str(tmp_path / "photos")])
    assert [path.name for path in found.paths] == ["a.png"]
    assert not found.passed_over


def test_a_folder_that_looks_like_a_file_counts_once(tmp_path):
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "album.jpg" / "a.png").touch()
    found = image_search.find([str(tmp_path / "*.jpg"), str(tmp_path), str(tmp_path / "album.jpg")])
    assert [path.name for path in found.paths] == ["a.png"]


def test_files_that_are_named_are_read_whatever_they_are_called(tmp_path):
    (tmp_path / ".hidden").touch()
    assert image_search.find([str(tmp_path / ".hidden")]).paths == [tmp_path / ".hidden"]


def test_a_name_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("~$cat.jpg", "~dog.png", "home/a.png"):
        (tmp_path / name).touch()
    found = image_search.find(["~$cat.jpg", "~dog.png", "~/*.png"]).paths
    assert [path.name for path in found] == ["~$cat.jpg", "~dog.png", "a.png"]


def test_numbers_in_names_sort_as_numbers():
    names = ["b", "a10", "A2", "a", "10", "2", "a2b3", "a2b10", ""]
    in_order = ["", "2", "10", "a", "A2", "a2b3", "a2b10", "a10", "b"]
    assert sorted(names, key=image_search.natural_key) == in_order
    digits = ["9" * 5000, "1" + "0" * 5000, "1" * 4300, "007", "6"]
    assert sorted(digits, key=image_search.natural_key) == [digits[i] for i in (4, 3, 2, 0, 1)]


def test_the_pictures_of_a_run_in_the_data_are_no_data(tmp_path):
    """`cd photos; python main.py ... --config.dataset=. --workdir runs/a` makes no class "runs"."""
    pictures = tmp_path / "runs" / "a" / "images" / "test"
    pictures.mkdir(parents=True)
    (pictures / "learning_curves.png").touch()
    (tmp_path / "cat.png").touch()
    for name in image_search.RUN_FILES:
        (tmp_path / "runs" / "a" / name).touch()
    found = image_search.walk(tmp_path)
    assert [path.name for path in found.paths] == ["cat.png"]
    assert found.passed_over == {image_search.RUN: 1}


def test_what_predict_wrote_among_images_is_no_image(tmp_path):
    """`--images photos --output photos` again: its reconstructions are not predicted in turn."""
    for name in ("cat.png", "reconstructions/0001-cat.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*given):
        return [path.name for path in image_search.find(given).paths]

    folder, all_below = str(tmp_path), f"{tmp_path}/**/*.png"
    assert names(folder) == ["cat.png", "0001-cat.png"]  # a folder of that name may be anything
    (tmp_path / "predictions.json").touch()
    assert names(folder) == names(all_below) == names(f"{tmp_path}/c*") == ["cat.png"]
    assert image_search.find([all_below]).passed_over == {image_search.PREDICTED: 1}
    asked_for = str(tmp_path / "reconstructions" / "0001-cat.png")
    assert names(asked_for) == ["0001-cat.png"]
    # Of data to train on it may be a class.
    assert len(image_search.walk(tmp_path).paths) == 2


def test_globs_name_files_in_natural_order(tmp_path):
    for name in ("10.png", "1.png", "2.png"):
        (tmp_path / name).touch()
    found = image_search.find([f"{tmp_path}/*.png"]).paths
    assert [path.name for path in found] == ["1.png", "2.png", "10.png"]
