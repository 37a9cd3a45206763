"""Tests of caecnn_jax.results.schema; test_report and test_about have it as files are read."""

import math
from typing import Any, NotRequired, TypedDict

import pytest

from caecnn_jax.results import schema


class Inner(TypedDict):
    size: int
    share: float | None


class Outer(Inner):
    names: list[str]
    inner: Inner
    by_name: dict[str, dict[str, float]] | None
    rows: list[Inner]
    note: NotRequired[str]
    free: Any


FITTING = {
    "size": 3,
    "share": 0.5,
    "names": ["a", "b"],
    "inner": {"size": 0, "share": None},
    "by_name": {"cat": {"f1": 0.5, "recall": 1}},  # JSON has one kind of number
    "rows": [{"size": 1, "share": 1}],
    "note": "none",
    "free": [{"anything": None}],
}


def test_what_fits_its_kind_fits():
    assert schema.misfit(FITTING, Outer) is None
    assert schema.misfit(FITTING | {"by_name": None, "names": [], "rows": []}, Outer) is None
    assert schema.misfit({}, Outer) is None  # of an earlier version
    assert schema.misfit({"added later": 5}, Outer) is None
    assert schema.misfit({"note": None}, Outer) is None  # as what is not there


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"size": None}, "size is not a whole number"),
        ({"size": 3.0}, "size is not a whole number"),
        ({"size": True}, "size is not a whole number"),
        ({"share": "0.5"}, "share is not a number"),
        ({"share": False}, "share is not a number"),
        ({"note": 5}, "note is not text"),
        ({"names": "ab"}, "names is not a list"),
        ({"names": {"a": "b"}}, "names is not a list"),
        ({"names": ["a", None]}, "names.2 is not text"),  # counted from 1
        ({"inner": None}, "inner is not an object"),
        ({"inner": [3]}, "inner is not an object"),
        ({"inner": {"size": "3"}}, "inner.size is not a whole number"),
        ({"by_name": {"cat": 0.5}}, "by_name.cat is not an object"),
        ({"by_name": {"cat": {"f1": 1}, "dog": {"f1": None}}}, "by_name.dog.f1 is not a number"),
        ({"rows": [{"size": 1}, {"size": 1, "share": [1]}]}, "rows.2.share is not a number"),
        ({"rows": [{"size": 1}, 7]}, "rows.2 is not an object"),
        ({"note": 5, "rows": 7}, "rows is not a list"),  # the first in the file
    ],
)
def test_a_misfit_is_told_with_its_place(changes, problem):
    assert schema.misfit(FITTING | changes, Outer) == problem
    within = schema.misfit(FITTING | changes, Outer, "cv.folds.1")
    assert within == f"cv.folds.1.{problem}"


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        (None, Outer, "it is not an object"),
        (7, list[int], "it is not a list"),
        (True, int, "it is not a whole number"),
        ([1, True], list[int], "2 is not a whole number"),
        ([1, 2.5, True], list[float], "3 is not a number"),
        ([[1], [2, "x"]], list[list[int]], "2.2 is not a whole number"),
        (math.nan, float, "it is not a number"),  # Python reads the word, which is no JSON
        (-math.inf, float, "it is not a number"),
        (10**400, int, "it is not a whole number"),
        ([[1, 2], [3, 10**400]], list[list[int]], "2.2 is not a whole number"),
        ([0.5, math.nan], list[float], "2 is not a number"),
        ((0.5, 1), tuple[float, ...], None),  # as Python's own tuples, or JSON's lists
        ([0.5, "1"], tuple[float, ...], "2 is not a number"),
        ({"mean": [0.5], "other": 7}, {"mean": list[float]}, None),
        ({"mean": None}, {"mean": list[float]}, "mean is not a list"),
        ({"a": 1, "b": "2"}, dict[str, int], "b is not a whole number"),
    ],
)
def test_kinds_may_be_those_of_fields_too(value, kind, problem):
    assert schema.misfit(value, kind) == problem


def test_a_runs_own_files_are_checked_to_the_last_number():
    bins = {"images": [1, 0], "confidence": [0.5, None], "accuracy": [1, None]}
    result = {"accuracy": 0.5, "reliability": bins, "confusion_matrix": [[1, 0], [0, 1]]}
    folds = [result, result | {"best": result}]
    assert schema.misfit({"cv": {"folds": folds}, "test": None}, schema.Summary) is None
    for broken, place in (
        (bins | {"images": [1, None]}, "images.2 is not a whole number"),
        (bins | {"accuracy": [1, "0"]}, "accuracy.2 is not a number"),
    ):
        folds[1] = result | {"best": result | {"reliability": broken}}
        found = schema.misfit({"cv": {"folds": folds}, "test": None}, schema.Summary)
        assert found == f"cv.folds.2.best.reliability.{place}"
