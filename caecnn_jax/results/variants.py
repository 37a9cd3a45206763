"""What a study came to, from its runs' folders: every number of study.json.

A figure's values are one a fold and seed ("cv"), or one a seed ("test"); a difference is a
variant's value minus its baseline's under the same seed, on the same validation images.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import run_names
from caecnn_jax import study as study_lib
from caecnn_jax.records import about, runs
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.results import schema, statistics, trained
from caecnn_jax.training import parts as training
from caecnn_jax.training import train

FIGURES = (
    "accuracy", "balanced_accuracy", "macro_f1", "g_mean", "loss_cnn", "calibration_error",
    "loss_cae", "rare_recall",
)  # fmt: skip
PARTS = ("cv", "test")  # what results are of: the folds, and the test run


class Key(NamedTuple):
    """Where a value comes from."""

    seed: int
    run: str  # "fold_1", ... or "test"


Values = dict[Key, float]


def summary(study: study_lib.Study, workdir: epath.Path) -> dict[str, Any]:
    """What study.json holds; runs that are not finished are named, and otherwise left out."""
    finished, unfinished = _read(study, workdir)
    differing = differing_fields(study)
    parts = [part for part in PARTS if any(_results(run, part) for run in finished.values())]
    variants = {
        variant: {
            "baseline": study.baselines[variant],
            "config": differing[variant],
            "seeds": [seed for name, seed in finished if name == variant],
            **_of_variant(variant, finished, parts),
        }
        for variant in study.variants
    }
    for part in parts:
        _add_differences(study, finished, variants, part)
    return {
        "study": study.name,
        "seeds": list(study.seeds),
        "confidence": statistics.CONFIDENCE,
        "parts": parts,
        "primary": _primary(study),
        "published": dict(study.published),
        "environments": _environments(finished.values()),
        "seconds": sum(run.info.get("seconds") or 0.0 for run in finished.values()),
        "unfinished": unfinished,
        "failed": training.reasons(unfinished, workdir),
        "variants": variants,
    }


def _environments(finished: Iterable[runs.Run]) -> list[dict[str, Any]]:
    """The machines and versions that the runs were trained with, each once."""
    known: list[dict[str, Any]] = []
    for run in finished:
        environment = run.info.get("environment")
        if environment and environment not in known:
            known.append(environment)
    return known


def differing_fields(study: study_lib.Study) -> dict[str, dict[str, Any]]:
    """{variant: {dotted field: value}} of the fields that are not the same in all variants."""
    configs = {
        run.variant: config_lib.flatten(run.config.to_dict())
        for run in study.runs
        if run.seed == study.seeds[0]
    }
    first = next(iter(configs.values()))
    names = dict.fromkeys(name for config in configs.values() for name in config)
    differing = [
        name
        for name in names
        if any(config.get(name) != first.get(name) for config in configs.values())
    ]
    return {
        variant: {name: config[name] for name in differing if name in config}
        for variant, config in configs.items()
    }


# --- Values ---------------------------------------------------------------------------------------

Finished = Mapping[tuple[str, int], runs.Run]  # by variant and seed


def _read(study: study_lib.Study, workdir: epath.Path) -> tuple[Finished, list[str]]:
    done = training.finished(study.runs, workdir)
    training.check_images(study.runs, done)
    finished = {(run.variant, run.seed): done[run.name] for run in study.runs if run.name in done}
    return finished, [run.name for run in study.runs if run.name not in done]


def _results(run: runs.Run, part: str) -> dict[str, schema.RunResult]:
    return {name: result for name, result in run.results.items() if run_names.belongs(name, part)}


def _values(variant: str, finished: Finished, part: str, of: Callable) -> Values:
    """One figure's values; `of` takes it from a run and one of its results."""
    found = {
        Key(seed, name): of(run, result)
        for (of_variant, seed), run in finished.items()
        if of_variant == variant
        for name, result in _results(run, part).items()
    }
    return {key: value for key, value in found.items() if value is not None}


def _figure(name: str, rare: Sequence[str] | None = None) -> Callable:
    """What takes a figure; `rare` are the classes of "rare_recall", None: each run's own."""

    def of(run: runs.Run, result: Mapping[str, Any]) -> float | None:
        if name != "rare_recall":
            return result.get(name)
        classes = run.rare if rare is None else rare
        recalls = [_recall(class_name)(run, result) for class_name in classes]
        known = [recall for recall in recalls if recall is not None]
        return float(np.mean(known)) if known else None

    return of


def _recall(class_name: str) -> Callable:
    def of(run: runs.Run, result: schema.RunResult) -> float | None:
        of_class = (result["per_class"] or {}).get(class_name)  # the baseline's may be others
        return of_class["recall"] if of_class and of_class["support"] else None

    return of


def _over(values: Values, share: float) -> dict[str, Any]:
    """The mean with its interval, which values that do not vary have not, and the values."""
    mean, low, high, _ = statistics.estimate([*values.values()], share)
    return {"mean": mean, "low": low, "high": high, "values": _by_name(values)}


def _by_name(values: Values) -> dict[str, float]:
    return {f"seed_{seed}/{run}": value for (seed, run), value in values.items()}


def _of_variant(variant: str, finished: Finished, parts: Sequence[str]) -> dict[str, Any]:
    """A variant's own figures: means with intervals, time a seed, parameters, rare classes."""
    of_variant = [run for (name, _), run in finished.items() if name == variant]
    if not of_variant:
        return {"finished": False}
    seconds = [known for run in of_variant if (known := run.info.get("seconds"))]
    found: dict[str, Any] = {
        "finished": True,
        "parameters": num_parameters(of_variant[0]),
        "rare_classes": of_variant[0].rare,
        "seconds": float(np.mean(seconds)) if seconds else None,
    }
    for part in parts:
        values = {name: _values(variant, finished, part, _figure(name)) for name in FIGURES}
        if filled := {name: one for name, one in values.items() if one}:
            share = of_variant[0].share_held_out(part)
            of_part: dict[str, Any] = {name: _over(one, share) for name, one in filled.items()}
            found[part] = of_part | {"accuracy_curve": runs.accuracy_curve(of_variant, part)}
    return found


def num_parameters(run: runs.Run) -> int:
    """The numbers that training changes."""
    config = workdir_lib.read_config(run.workdir)
    model = trained.networks(config, about.read_description(run.workdir))
    shapes = train.saved_shapes(config, model)["variables"]["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


# --- Differences ----------------------------------------------------------------------------------


def _add_differences(study, finished: Finished, variants: dict, part: str) -> None:
    """Adds each variant's differences from its baseline, with p-values adjusted over variants.

    Of a figure as many p-values are adjusted as variants have it; of the rare classes' recalls, as
    many as there are pairs of variant and class.
    """
    differences: dict[str, list[dict]] = {}
    for variant, found in variants.items():
        baseline = study.baselines[variant]
        if variant == baseline or not found["finished"] or not variants[baseline]["finished"]:
            continue
        figures = {name: _figure(name, found["rare_classes"]) for name in FIGURES}
        recalls = {name: _recall(name) for name in found["rare_classes"]}
        of_part: dict[str, Any] = {"recall": {}}
        for name, of in (figures | recalls).items():
            one = _difference(variant, baseline, finished, part, of)
            if one is None:
                continue
            place, family = (of_part, name) if name in figures else (of_part["recall"], "recall")
            place[name] = one
            differences.setdefault(family, []).append(one)
            found.setdefault("difference", {})[part] = of_part
    for family in differences.values():
        with_p = [one for one in family if one["p"] is not None]
        adjusted = statistics.holm([one["p"] for one in with_p])
        for one, p in zip(with_p, adjusted, strict=True):
            one["p_holm"] = p


def _difference(variant, baseline, finished: Finished, part: str, of) -> dict[str, Any] | None:
    """Paired differences with interval and p-value; None where nothing can be paired."""
    mine, theirs = (_values(name, finished, part, of) for name in (variant, baseline))
    pairs = {
        key: mine[key] - theirs[key]
        for key in mine.keys() & theirs.keys()
        if _same_images(finished[variant, key.seed], finished[baseline, key.seed], key.run)
    }
    if not pairs:
        return None
    pairs = dict(sorted(pairs.items()))
    share = finished[baseline, next(iter(pairs)).seed].share_held_out(part)
    found = statistics.estimate([*pairs.values()], share)._asdict()
    return found | {"p_holm": None, "values": _by_name(pairs)}


def _same_images(one: runs.Run, other: runs.Run, run: str) -> bool:
    """Whether both were evaluated on the same images."""
    digests = [each.info.get("fold_digests", {}).get(run) for each in (one, other)]
    same_data = one.dataset_digest == other.dataset_digest
    return None not in digests and digests[0] == digests[1] and same_data


def _primary(study: study_lib.Study) -> str:
    """The figure that charts and tables show first."""
    config = study.runs[0].config
    return config.selection_metric if config.use_cnn else "loss_cae"
