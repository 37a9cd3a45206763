"""Reading a run's folder back: config, history, metrics and run.json, checked, as one Run."""

import dataclasses
import functools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from caecnn_jax import run_names
from caecnn_jax.records import about
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import groups, schema

SCALARS = ("accuracy", "macro_f1", "loss_cnn", "loss_cae")  # what every result has had
# What each object must hold, and of which kind.
RESULT_FIELDS = dict.fromkeys(
    (*SCALARS, "epochs", "best_epoch", "confusion_matrix", "per_class"), Any
)
CONFIG_FIELDS = dict.fromkeys(
    ("use_cnn", "use_cae", "num_epoch", "seed", "cnn", "train_data_regulation"), Any
)
RECORD_FIELDS = typing.get_type_hints(schema.Line)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run's folder holds."""

    workdir: epath.Path
    config: Mapping[str, Any]
    history: Mapping[str, Sequence[schema.Line]]  # by "fold_1".. and "test", in order of epochs
    metrics: schema.Summary | None  # None until the run has ended
    info: schema.About  # empty where run.json is missing

    @property
    def name(self) -> str:
        return self.workdir.name

    @property
    def cv(self) -> schema.Folds | None:
        """The folds' results, their mean and standard deviation; None without."""
        return self.metrics and self.metrics["cv"]

    @property
    def folds(self) -> Sequence[schema.FoldResult]:
        """What each fold came to; empty without cross-validation."""
        return self.cv["folds"] if self.cv else ()

    @property
    def test(self) -> schema.RunResult | None:
        return self.metrics and self.metrics["test"]

    @property
    def results(self) -> dict[str, schema.RunResult]:
        """What has ended, by run: fold_1, ..., test."""
        found: dict[str, schema.RunResult] = {
            run_names.of_number(one["fold"]): one for one in self.folds
        }
        if self.test:
            found[run_names.TEST] = self.test
        return found

    @functools.cached_property
    def dataset_digest(self) -> str:
        """What tells the whole of the data that it was trained on."""
        return about.read_description(self.workdir).digest

    def share_held_out(self, part: str) -> float:
        """Validation images over training images, a mean over the folds; 0 of the part "test".

        The training images of a fold count once each, whatever the expansion. Of a run of an
        earlier version, which told no counts, 1 / (folds - 1).
        """
        if part == "test":  # its images never train
            return 0.0
        names = [name for name in self.results if run_names.is_fold(name)]
        counts = self.info.get("class_counts") or {}
        if not all(name in counts for name in names):
            return 1 / max(len(names) - 1, 1)
        images = [{split: sum(counts[n][split].values()) for split in counts[n]} for n in names]
        return float(np.mean([of["valid"] / of["train"] for of in images]))

    @property
    def class_names(self) -> list[str]:
        if names := self.info.get("class_names"):
            return names
        return next((list(r["per_class"]) for r in self.results.values() if r["per_class"]), [])

    @property
    def train_counts(self) -> Mapping[str, int]:
        """The images of each class in training, once regulated; empty without run.json."""
        return (self.info.get("class_counts") or {}).get("regulated", {})

    @functools.cached_property
    def rare(self) -> list[str]:
        """The classes that are rare in training, or were made so, the most frequent first.

        Of steps the cut ones; of a long tail the last third; else those with at most half of the
        largest class's images, at most a third, rounded, where the config regulates none by
        name. Of a run of an earlier version, which told no counts, those that it regulates.
        """
        regulated = set(self.config["train_data_regulation"] or ()) - {"all"}
        counts = self.train_counts
        if not counts:
            return [name for name in self.class_names if name in regulated]
        by_count = sorted(counts, key=lambda name: counts[name], reverse=True)
        largest, third = counts[by_count[0]], max(len(counts) // len(groups.THIRDS), 1)
        kind = self.config.get("imbalance", {}).get("type", "none")
        if kind == "step":
            cut = list(counts)[len(counts) // 2 :]
            return [name for name in by_count if name in cut and counts[name] < largest]
        if kind == "exp":
            return by_count[-third:] if counts[by_count[-1]] < largest else []
        rare = [name for name in by_count if counts[name] <= largest / 2]
        return rare if regulated else rare[-max(round(len(counts) / len(groups.THIRDS)), 1) :]


def read(workdir: epath.PathLike) -> Run:
    """Reads a run's folder: config.json must be there, the rest may be missing.

    Raises WorkdirError where a file cannot be read, or does not hold what it should.
    """
    workdir = epath.Path(workdir)
    workdir_lib.check_is_run(workdir)
    run = Run(
        workdir=workdir,
        config=_read_json(workdir / "config.json", CONFIG_FIELDS),
        history=_read_history(workdir / "history.jsonl"),
        metrics=_read_metrics(workdir / "metrics.json"),
        info=about.read(workdir),
    )
    for name, result in run.results.items():
        if len(run.history.get(name, ())) < result["epochs"]:
            raise workdir_lib.damaged(
                workdir / "history.jsonl", f"it has fewer epochs of {name} than metrics.json"
            )
    return run


def accuracy_curve(several: Sequence[Run], part: str) -> list[tuple[int, float]]:
    """(epoch, validation accuracy), averaged over the runs' folds, or over their test runs.

    From the epoch on in which all have one; empty where there was no CNN. A fold that stopped
    early keeps its last accuracy, so that the curve ends at the mean.
    """
    curves = []
    for run in several:
        for name, records in run.history.items():
            found = {record["epoch"]: record["valid"]["accuracy"] for record in records}
            curve = {epoch: value for epoch, value in found.items() if value is not None}
            if curve and run_names.belongs(name, part):
                curves.append(curve)
    return [
        (epoch, float(np.mean([curve.get(epoch, curve[max(curve)]) for curve in curves])))
        for epoch in sorted(set().union(*curves))
        if all(epoch >= min(curve) for curve in curves)
    ]


def f1_by_class(result: schema.Result | schema.OverFolds | None) -> dict[str, float] | None:
    """{class: F1} of a result or of the folds' mean or std; None where there was no CNN."""
    if not result or not result["per_class"]:
        return None
    return {name: scores["f1"] for name, scores in result["per_class"].items()}


def _read_json(path: epath.Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The object in a file that must hold these fields; {} where there is no file."""
    if not path.exists():
        return {}
    return _checked(workdir_lib.read_json(path), path, fields)


def _read_metrics(path: epath.Path) -> schema.Summary | None:
    """The results, each with what they had from the first version on; None before the end."""
    summary = _read_json(path, typing.get_type_hints(schema.Summary))
    if not summary:
        return None
    results = [summary["test"]] if summary["test"] else []
    if summary["cv"]:
        cv = _checked(summary["cv"], path, typing.get_type_hints(schema.Folds))
        for part in ("mean", "std"):
            _checked(cv[part], path, dict.fromkeys((*SCALARS, "per_class"), Any))
        results += cv["folds"]
    for result in results:
        _checked(result, path, RESULT_FIELDS)
    return schema.Summary(cv=summary["cv"], test=summary["test"])


def _read_history(path: epath.Path) -> dict[str, list[schema.Line]]:
    """Records by run. Of an epoch that was trained again after a resume, the later counts."""
    history: dict[str, dict[int, schema.Line]] = {}
    lines = workdir_lib.read_text(path).splitlines(keepends=True) if path.exists() else []
    for index, line in enumerate(lines):
        if not line.endswith("\n"):  # an interrupted run's last line, cut off while written
            break
        place = f"{path} line {index + 1}"
        record = _checked(workdir_lib.parse_json(line, place), place, RECORD_FIELDS)
        history.setdefault(record["run"], {})[record["epoch"]] = record
    return {run: [epochs[epoch] for epoch in sorted(epochs)] for run, epochs in history.items()}


def _checked(content: Any, place: epath.Path | str, fields: Mapping[str, Any]) -> Any:
    """`content`, an object that holds the fields; raises WorkdirError for anything else."""
    workdir_lib.fitting(content, place, fields)
    if missing := set(fields) - set(content):
        raise workdir_lib.damaged(place, f"it lacks {', '.join(sorted(missing))}")
    return content
