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
