"""Checks that the quick main job learned: exit 1 with the figure that says it did not.

Run:  python .ci/check_metrics.py runs/mixed/metrics.json
"""

import json
import pathlib
import sys

LEAST_ACCURACY = 0.25  # chance is 0.1; the job reaches about 0.45
MOST_LOSS_CAE = 0.3  # per pixel, normalised; predicting the mean gives about 1


def main(path: str) -> None:
    metrics = json.loads(pathlib.Path(path).read_text())
    assert [fold["fold"] for fold in metrics["cv"]["folds"]] == [1, 2, 3, 4, 5]
    for name, result in (("mean over folds", metrics["cv"]["mean"]), ("test", metrics["test"])):
        print(f"{name}: accuracy {result['accuracy']:.4f}, loss_cae {result['loss_cae']:.4f}")
        assert result["accuracy"] > LEAST_ACCURACY, name
        assert result["loss_cae"] < MOST_LOSS_CAE, name
        assert len(result["per_class"]) == 10, name
    assert sum(map(sum, metrics["test"]["confusion_matrix"])) == 500


if __name__ == "__main__":
    main(*sys.argv[1:])
