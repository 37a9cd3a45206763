"""Tests of caecnn_jax.reports.pages."""

import jinja2
import pytest
from etils import epath

from caecnn_jax.reports import pages

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (None, DASH),
        (0.0, "< 0.001"),
        (0.0009999, "< 0.001"),  # rounded it would be 0.001
        (0.001, "0.001"),
        (0.0494, "0.049"),
        (1.0, "1.000"),
    ],
)
def test_a_p_value_is_never_told_as_nothing(p, words):
    assert pages.p_value(p) == words


def test_a_metric_has_four_digits_or_a_dash():
    assert [pages.number(value) for value in (0.12346, 0, None)] == ["0.1235", "0.0000", DASH]
    assert pages.number(12.345, 1) == "12.3"


def test_a_difference_has_its_sign():
    assert [pages.signed(value) for value in (0.25, 0.0)] == ["+0.2500", "+0.0000"]
    assert pages.signed(-0.25) == f"{MINUS}0.2500"  # as wide as a plus, unlike a hyphen
    assert pages.signed(-0.0125, 2) == f"{MINUS}0.01"
    assert pages.signed(-1e-9) == "+0.0000"
    assert [pages.duration(value) for value in (61.4, None)] == ["0:01:01", pages.number(None)]


@pytest.mark.parametrize(
    ("use_cae", "use_cnn", "mixed", "words"),
    [
        (True, False, False, "CAE alone"),
        (True, False, True, "CAE alone"),
        (False, True, False, "CNN alone"),
        (True, True, False, "CAE + CNN, code mode"),
        (True, True, True, "CAE + CNN, mixed mode"),
    ],
)
def test_what_was_trained_in_words(use_cae, use_cnn, mixed, words):
    config = {"use_cae": use_cae, "use_cnn": use_cnn, "cnn": {"use_mixed_input": mixed}}
    assert pages.model_name(config) == words


def test_names_become_titles_and_headings():
    assert [pages.title(name) for name in ("fold_1", "test")] == ["fold 1", "test"]
    assert [pages.heading(words) for words in ("macro F1", "")] == ["Macro F1", ""]


def test_a_page_without_a_value_of_its_template_is_not_written(tmp_path, monkeypatch):
    template = jinja2.DictLoader({"page": "F1 {{ f1 | number(2) }} of {{ name }}"})
    monkeypatch.setattr(jinja2, "PackageLoader", lambda package: template)
    path = epath.Path(tmp_path / "page.html")
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        pages.write_page(path, "page", {"f1": 0.5})
    assert not list(tmp_path.iterdir())
    pages.write_page(path, "page", {"f1": 0.5, "name": "<b>"})
    assert path.read_text() == "F1 0.50 of &lt;b&gt;"


def test_a_file_may_hold_names_that_no_encoding_has(tmp_path):
    """As Python reads a file's name that is no UTF-8."""
    path = epath.Path(tmp_path / "new" / "study.md")
    assert pages.write_file(path, "b\udce4r, Bär") == path
    assert path.read_bytes() == b"b\\udce4r, B\xc3\xa4r"
    assert [file.name for file in path.parent.iterdir()] == ["study.md"]
