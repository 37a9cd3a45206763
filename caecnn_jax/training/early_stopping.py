"""When a run has come to its end: by its epochs, or because its score does not get better."""

from collections.abc import Sequence
from typing import Any

import ml_collections

from caecnn_jax.results import schema

ACCURACY_WINDOW, LOSS_WINDOW = 10, 5  # epochs without a better score that end a run


def should_stop(scores: Sequence[float], window: int, higher_is_better: bool) -> bool:
    """Whether the score `window` epochs ago is not beaten by any since; oldest first."""
    if len(scores) <= window:
        return False
    before, *since = scores[-window - 1 :]
    return before >= max(since) if higher_is_better else before <= min(since)


def is_finished(
    records: Sequence[schema.Record], config: ml_collections.ConfigDict, is_test: bool
) -> bool:
    """Whether a run with these records has come to its end, by its epochs or by early stopping.

    Warm-up epochs record no score when there is a CNN.
    """
    if len(records) >= config.num_epoch:
        return True
    if not (config.test_early_stopping if is_test else config.cv_early_stopping):
        return False
    measure, window = "loss_cae", LOSS_WINDOW
    if config.use_cnn:
        measure, window = config.selection_metric, ACCURACY_WINDOW
    valids: list[Any] = [record["valid"] for record in records if record["phase"] == "joint"]
    scores = [valid[measure] for valid in valids]
    return should_stop(scores, window, higher_is_better=config.use_cnn)
