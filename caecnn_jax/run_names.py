"""The names of runs: fold_1, fold_2, ... are numbers 1, 2, ..., and the test run is number 0."""

import re

TEST = "test"  # the run that trains on all folds


def of_number(number: int) -> str:
    """The name of fold 1, 2, ... or, for 0, of the test run."""
    return f"fold_{number}" if number else TEST


def number_of(name: str) -> int:
    """The inverse of `of_number`; raises ValueError for what names no run."""
    if name == TEST:
        return 0
    fold = re.fullmatch(r"fold_([1-9][0-9]*)", name)
    if not fold:
        raise ValueError(f"{name!r} is no run: known are {TEST}, fold_1, fold_2, ...")
    return int(fold[1])


def belongs(name: str, part: str) -> bool:
    """Whether a run of this name is of the part: "cv", the folds, or "test"."""
    return is_fold(name) == (part == "cv")


def is_fold(name: str) -> bool:
    """Whether this is a fold's name, not the test run's or no run's at all."""
    try:
        return number_of(name) > 0
    except ValueError:
        return False
