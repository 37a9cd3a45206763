"""What an evaluation, an epoch's record and a run's result hold: in files as in memory.

Runs of earlier versions lack what came after them; who reads theirs takes it with `get`.
"""

from typing import Any, NotRequired, TypedDict

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
    correct: str | None  # `metrics.packed`; in records of the last and the best epoch alone


class Training(TypedDict):
    """What an epoch's training came to."""

    run: str  # "fold_1", ... or "test"
    epoch: int
    phase: str  # "warmup" | "joint"
    train: Losses
    seconds: float
    images_per_second: float


class Record(Training, Evaluation):
    """An epoch while its run trains, and in its checkpoint."""


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
