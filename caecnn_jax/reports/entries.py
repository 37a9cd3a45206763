"""What a comparison compares: entries of runs on the same data and folds, and what they share."""

import fnmatch
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax.records import runs
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.reports import pages


class Entry(NamedTuple):
    """What is compared under one name: runs of one config, a seed each, in the seeds' order."""

    name: str
    runs: tuple[runs.Run, ...]


def read(given: Sequence[epath.PathLike]) -> list[Entry]:
    """The entries that folders, and NAME=FOLDER or NAME=PATTERN, stand for.

    In a PATTERN the folder's last part has * or ?; the same NAME may come again. A folder without a
    NAME is an entry under its own, or its path where two have the same. Raises ReportError.
    """
    named: dict[str, list[epath.Path]] = {}
    single = []
    for item in map(str, given):
        name, equals, pattern = item.partition("=")
        if equals and not workdir_lib.resolve(item).exists():
            named.setdefault(name, []).extend(_matching(item, pattern))
        else:
            single.append(workdir_lib.resolve(item))
    short = [folder.name for folder in single]
    distinct = len({*short, *named}) == len(short) + len(named)
    for folder in single:
        named.setdefault(folder.name if distinct else str(folder), []).append(folder)
    return [
        Entry(name, tuple(sorted(map(runs.read, folders), key=lambda run: run.config["seed"])))
        for name, folders in named.items()
    ]


def _matching(item: str, pattern: str) -> list[epath.Path]:
    """The runs' folders that a pattern stands for."""
    place = workdir_lib.resolve(pattern)
    if place.exists():
        return [place]
    parent = place.parent
    found = [
        folder
        for folder in sorted(parent.iterdir() if parent.exists() else ())
        if fnmatch.fnmatch(folder.name, place.name) and (folder / "config.json").exists()
    ]
    if not found:
        raise pages.ReportError(f"--runs {item}: no run's folder is called {place}")
    return found


def check(compared: Sequence[Entry]) -> None:
    """Refuses entries whose numbers cannot be set side by side."""
    folders = [run.workdir for entry in compared for run in entry.runs]
    if len(compared) < 2 or len(set(folders)) < len(folders):
        raise pages.ReportError("a comparison needs two or more different folders: see --runs")
    baseline = compared[0]
    for entry in compared:
        seeds, theirs = ([run.config["seed"] for run in one.runs] for one in (entry, baseline))
        if len(entry.runs) > 1 and len(set(seeds)) < len(seeds):
            raise pages.ReportError(
                f"{entry.name} holds two runs of one seed: give each seed's run once"
            )
        for run in entry.runs[1:]:
            _check_one_config(entry.runs[0], run)
        if max(len(seeds), len(theirs)) > 1 and seeds != theirs:
            raise pages.ReportError(
                f"{entry.name} has the seeds {_listed(seeds)} and {baseline.name} "
                f"{_listed(theirs)}: compare runs of the same seeds"
            )
        for run, other in zip(entry.runs, baseline.runs, strict=True):
            _check_pair(run, other)
    if not parts(compared):
        raise pages.ReportError("the runs share neither folds nor test: leave out those without")


def _check_one_config(first: runs.Run, other: runs.Run) -> None:
    mine, theirs = (config_lib.deciding(run.config) for run in (first, other))
    differing = {name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]}
    if named := sorted(differing - {"seed"}):
        raise pages.ReportError(
            f"{first.workdir} and {other.workdir} differ in config.{named[0]}, so that their mean "
            "says nothing: give the runs of each config a NAME of their own"
        )


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _check_pair(run: runs.Run, baseline: runs.Run) -> None:
    both = f"{run.workdir} and {baseline.workdir}"
    if not run.config["use_cnn"]:
        problem = f"{run.workdir} trained no CNN, so it has no F1 to compare: leave it out"
    elif not run.metrics:
        problem = f"{run.workdir} is unfinished (no metrics.json): resume it or leave it out"
    elif any(result["accuracy"] is None for result in run.results.values()):
        problem = f"{run.workdir} trained its CNN in no epoch (warm-up took all): leave it out"
    elif not run.info.get("data_digest") or not run.info.get("fold_digests"):
        problem = (
            f"{run.workdir}/run.json lacks data_digest or fold_digests, so nobody knows "
            "whether data and folds are the same: train again or leave it out"
        )
    elif run.dataset_digest != baseline.dataset_digest:
        problem = (
            f"{both} were trained on different data sets, or on one that was changed in between: "
            "compare runs whose dataset.json has the same digest"
        )
    elif run.info["data_digest"] != baseline.info["data_digest"]:
        problem = (
            f"{both} were trained on different images of their data set: "
            "compare runs with the same seed, is_local and train_data_regulation"
        )
    elif not same_folds(run, baseline):
        problem = (
            f"{both} have different folds: compare runs with the same seed and num_folds, or give "
            "several seeds of a config as one, NAME=PATTERN"
        )
    elif not _parts_of([run, baseline]):
        problem = f"{both} share neither folds nor test: give them the same do_cv and do_test"
    else:
        return
    raise pages.ReportError(problem)


def same_folds(run: runs.Run, baseline: runs.Run) -> bool:
    """Whether what both runs hold, folds or test, was evaluated on the same images."""
    if run.folds and baseline.folds and len(run.folds) != len(baseline.folds):
        return False
    mine, theirs = run.info["fold_digests"], baseline.info["fold_digests"]
    shared = run.results.keys() & baseline.results.keys()
    return all(mine.get(name) == theirs.get(name) for name in shared)


def parts(compared: Sequence[Entry]) -> list[str]:
    """What all runs hold of cv and test."""
    return _parts_of([run for entry in compared for run in entry.runs])


def _parts_of(every: Sequence[runs.Run]) -> list[str]:
    found = {"cv": all(run.cv for run in every), "test": all(run.test for run in every)}
    return [part for part, in_all in found.items() if in_all]
