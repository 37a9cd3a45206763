"""Tests of caecnn_jax.python_file; what a study's file may import: test_study."""

import sys

import pytest

from caecnn_jax import errors, python_file


def test_a_function_is_called_with_the_argument_that_follows_the_file(tmp_path):
    (tmp_path / "my.py").write_text("def get(arg='none'): return arg + '!'")
    for given, returned in (("my.py", "none!"), ("my.py:quick", "quick!"), ("my.py:", "!")):
        assert python_file.call(str(tmp_path / given), "get") == returned
        assert python_file.call(given, "get", folder=str(tmp_path)) == returned


def test_a_file_or_function_that_is_not_there_is_named(tmp_path):
    (tmp_path / "my.py").write_text("x = 1")
    with pytest.raises(errors.UserError, match=r"my\.py: has no function get"):
        python_file.call(str(tmp_path / "my.py"), "get")
    with pytest.raises(errors.UserError, match=r"your\.py: there is no such file"):
        python_file.call("your.py", "get", folder=str(tmp_path))


def test_pythons_path_is_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "my.py").write_text("def get(): return 1")
    for on_path in (False, True):
        if on_path:
            monkeypatch.syspath_prepend(str(tmp_path))
        path = list(sys.path)
        assert python_file.call(str(tmp_path / "my.py"), "get") == 1
        assert sys.path == path
