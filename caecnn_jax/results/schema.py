"""What an evaluation, an epoch's record and a run's result hold: in files as in memory.

Runs of earlier versions lack what came after them; who reads theirs takes it with `get`.
"""

import types
import typing
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from caecnn_jax import fields as field_checks
from caecnn_jax.results import calibration


class Losses(TypedDict):
    """Means over images; None where the part did not run."""

    loss_cae: float | None
    loss_cnn: float | None


class Valid(Losses):
    """The figures of one evaluation; None where there is no CNN, or it did not run.

    Whatever was trained, its loss_cnn is the mean cross-entropy, so the NLL.
    """

    accuracy: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    g_mean: float | None
    calibration_error: float | None
    shots: dict[str, float | None] | None  # many, medium, few: mean recall of those classes
    thirds: dict[str, float | None] | None  # head, middle, tail


class Evaluation(TypedDict):
    """One evaluation's figures, and what they and the pictures are made of."""

    valid: Valid
    confusion_matrix: list[list[int]] | None
    reliability: calibration.Reliability | None
    correct: str | None  # `metrics.packed`


class Training(TypedDict):
    """What an epoch's training came to."""

    run: str  # "fold_1", ... or "test"
    epoch: int
    phase: str  # "warmup" | "joint"
    train: Losses
    seconds: float
    images_per_second: float


class Record(Training, Evaluation):
    """An epoch while its run trains, and in its checkpoint.

    Of epochs that are neither the last nor the best, the matrix, reliability and correct are None.
    """

    f1: NotRequired[list[float] | None]  # of each class, where the matrix is no longer there


class Line(Training):
    """An epoch in history.jsonl."""

    valid: Valid


class Result(Valid):
    """What one run, or one evaluation of it, came to."""

    nll: float | None  # loss_cnn by the field's name
    confusion_matrix: list[list[int]] | None
    reliability: calibration.Reliability | None
    correct: str | None  # `metrics.packed`: whether each image was predicted right, in its order
    per_class: dict[str, dict[str, float]] | None
    data: NotRequired[dict[str, str]]  # which, where not the run's own: name, digest, trained_on
    weights: NotRequired[str]  # "raw" or "ema": of an evaluation
    post_hoc: NotRequired[dict[str, float] | None]  # tau and temperature, likewise
    epoch: NotRequired[int]  # in "best"


class RunResult(Result):
    """What a run came to: the last epoch's result, and the best epoch's."""

    epochs: int
    best_epoch: int
    best: Result


class FoldResult(RunResult):
    """What a fold came to."""

    fold: int  # from 1


class OverFolds(Valid):
    """The mean or the sample standard deviation over the folds that have a figure."""

    nll: float | None
    per_class: dict[str, dict[str, float]] | None


class Folds(TypedDict):
    """The cross-validation in metrics.json."""

    folds: list[FoldResult]
    mean: OverFolds
    std: OverFolds


class Summary(TypedDict):
    """metrics.json."""

    cv: Folds | None
    test: RunResult | None


class About(TypedDict, total=False):
    """run.json."""

    environment: dict[str, Any]  # versions, devices, processes
    class_names: list[str]
    class_counts: dict[str, dict[str, Any]]  # by "all", "regulated" and run: images by class
    data_digest: str  # of the training images that were kept
    fold_digests: dict[str, str]  # of each run's validation part
    started: str  # ISO 8601, UTC
    seconds: float | None  # of all epochs; None before the end


# --- What JSON holds ------------------------------------------------------------------------------

_IN_WORDS = {str: "text", int: "a whole number", float: "a number"}


def misfit(value: Any, kind: Any, place: str = "") -> str | None:
    """What of a value read from JSON is not of its kind, in words; None: it all is.

    `kind` is a class of this module, {field: kind}, or what their fields are. A field that is not
    there is no misfit; `place` is where the value lies in its file.
    """
    args, origin = typing.get_args(kind), typing.get_origin(kind) or kind
    if kind is Any:
        return None
    if origin in (types.UnionType, typing.Union):  # with None, all of them
        return None if value is None else misfit(value, args[0], place)
    fields = typing.get_type_hints(kind) if typing.is_typeddict(kind) else kind
    parts: list[tuple[Any, Any, Any]]  # the name, value and kind of each
    if isinstance(fields, Mapping) or origin is dict:
        if not isinstance(value, Mapping):
            return f"{place or 'it'} is not an object"
        of_any = None if isinstance(fields, Mapping) else args[1]
        optional = getattr(kind, "__optional_keys__", ())
        parts = [
            (name, item, of_any or fields[name])
            for name, item in value.items()
            if of_any or (name in fields and not (item is None and name in optional))
        ]
    elif origin in (list, tuple):
        if not isinstance(value, list | tuple):
            return f"{place or 'it'} is not a list"
        if args[0] in _IN_WORDS and all(_fits(item, args[0]) for item in value):
            return None  # soon told, as a matrix of many classes must be
        parts = [(number, item, args[0]) for number, item in enumerate(value, 1)]
    else:
        return None if _fits(value, kind) else f"{place or 'it'} is not {_IN_WORDS[kind]}"
    found = (misfit(item, of, f"{place}.{name}".lstrip(".")) for name, item, of in parts)
    return next(filter(None, found), None)


def _fits(value: Any, kind: type) -> bool:
    """Whether it is of one of the simple kinds; a number must be one that a float can hold."""
    if kind is str:
        return isinstance(value, str)
    return field_checks.is_number(value) and (kind is float or isinstance(value, int))
