"""A study: one config in several variants, each under several seeds; read from a file, checked.

A file of `studies/` has a function `get_study` that returns
    {"base": "configs/best.py" or a ConfigDict,
     "variants": {name: {"dotted.field": value, ...}, ...},
     "seeds": (0, 1, 2),
     "baseline": a variant's name, or {name of a variant: name of its baseline},
     "submit": {...}, what each job asks of the cluster (optional; see `training.launch`),
     "published": {"source": whose, "cv" or "test": {variant: its figure}} (optional)}.
A change replaces what it names: a table of classes or a group of fields as a whole. The file may
import those beside it, and "base" be one of them.
"""

import builtins
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from caecnn_jax import command_line, errors, python_file
from caecnn_jax import config as config_lib
from caecnn_jax import fields as field_checks

Changes = Mapping[str, Any]  # {"dotted.field": value}
Variants = Mapping[str, Changes]  # by name
KEYS = {"base", "variants", "seeds", "baseline"}
OPTIONAL_KEYS = {"submit", "published"}
_NAME = re.compile(r"[A-Za-z0-9][\w.=+,-]{0,199}", re.ASCII)  # of a variant, a folder's as well
OWN_NAMES = ("study.html", "study.json", "study.md", "jobs")  # beside the variants' folders
_KINDS: dict[str, tuple[Any, str]] = {  # what a study's fields are, in code and in words
    "variants": (Mapping, "a dict of changes by name"),
    "seeds": (list | tuple | range, "a tuple of whole numbers"),
    "baseline": (str | Mapping, "a variant's name, or a dict of them by variant"),
    "submit": (Mapping, "a dict of what submitit takes"),
    "published": (Mapping, "a dict of source, cv and test"),
}


class StudyError(errors.UserError, ValueError):
    """A study that cannot be run; one sentence with what is wrong and what is allowed."""


class Run(NamedTuple):
    """One training of a study: a variant under a seed."""

    variant: str
    seed: int
    config: ml_collections.ConfigDict

    @property
    def name(self) -> str:
        """Its folder below the study's."""
        return f"{self.variant}/seed_{self.seed}"


class Study(NamedTuple):
    """A study whose every run is valid."""

    name: str
    variants: dict[str, Changes]
    seeds: tuple[int, ...]
    baselines: dict[str, str]  # of each variant; a baseline is its own
    submit: Mapping[str, Any]
    published: Mapping[str, Any]
    runs: tuple[Run, ...]  # all variants of the first seed, then of the second, ...


# --- Variants -------------------------------------------------------------------------------------


def product(*axes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The variants of every combination: one of each axis, their names joined by "-".

    An axis is {name: changes} or {"dotted.field": values}; there each value is a variant, and each
    further field a further axis: product({"cae.loss_weight": (0.1, 1.0)}, {"cut": {...}, ...}).
    Raises StudyError where two axes change the same field, or one a group and another a field of
    it, or two combinations have one name.
    """
    return _joined(itertools.product(*_axes(axes)))


def zip(*axes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The variants of the axes' first ones together, of their second ones, and so on.

    Axes as in `product`; raises StudyError also where they are not of the same length.
    """
    lists = list(_axes(axes))
    if len({len(axis) for axis in lists}) > 1:
        lengths = ", ".join(str(len(axis)) for axis in lists)
        raise StudyError(f"zip of axes of {lengths} variants: give each as many")
    return _joined(builtins.zip(*lists, strict=True))


def _axes(given: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[tuple[str, Changes]]]:
    for axis in given:
        if not isinstance(axis, Mapping) or not all(isinstance(name, str) for name in axis):
            raise StudyError(f"{axis!r}: an axis must be a dict by names or fields")
        if all(isinstance(changes, Mapping) for changes in axis.values()):
            yield list(axis.items())
            continue
        for field, values in axis.items():
            if not isinstance(values, list | tuple | range):
                raise StudyError(f"{field}={values!r}: an axis needs a tuple of values")
            short = field.rpartition(".")[2]
            variants = [(f"{short}={value}", {field: value}) for value in map(_plain, values)]
            for name, changes in variants:
                if not _NAME.fullmatch(name):
                    raise StudyError(f"{name!r} is no variant's name: write {{NAME: {changes}}}")
            yield variants


def _joined(combinations) -> dict[str, dict[str, Any]]:
    variants = {}
    for combination in combinations:
        name = "-".join(name for name, _ in combination)
        changes: dict[str, Any] = {}
        for _, part in combination:
            for one, other in itertools.product(changes, part):
                if f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
                    twice = " and ".join(sorted({one, other}))
                    raise StudyError(f"variant {name!r}: two axes change {twice}")
            changes |= part
        if name in variants:
            raise StudyError(f"variant {name!r}: two combinations of the axes have this name")
        variants[name] = changes
    return variants


# --- Reading --------------------------------------------------------------------------------------


def load(path: str, base: ml_collections.ConfigDict | None = None) -> Study:
    """The study of a file, "FILE" or "FILE:argument", with every variant and seed validated.

    `base` takes the place of the study's own. Raises StudyError or ConfigError.
    """
    fields = _fields(path)
    if base is not None:
        if base.get("seed") != fields["base"].get("seed"):
            raise StudyError(f"config.seed={base.get('seed')}: the seeds are those of {path}")
        fields["base"] = base
    return expand(pathlib.Path(path.partition(":")[0]).stem, fields)


def get_config(path: str) -> ml_collections.ConfigDict:
    """The base of a study's file, as --config of a study loads it: its fields may be overridden."""
    return _fields(path)["base"]


def _fields(path: str) -> dict[str, Any]:
    """What the file's get_study returns, and for "base" the ConfigDict."""
    fields = python_file.call(path, "get_study")
    if not isinstance(fields, Mapping):
        raise StudyError(f"{path}: get_study must return a dict, not {fields!r}")
    if missing := KEYS - fields.keys():
        raise StudyError(f"{path}: the study lacks {', '.join(sorted(missing))}")
    if unknown := fields.keys() - KEYS - OPTIONAL_KEYS:
        known = ", ".join(sorted(KEYS | OPTIONAL_KEYS))
        raise StudyError(f"{path}: {', '.join(sorted(unknown))}: a study has {known}")
    folder = os.path.dirname(command_line.own_file(path).partition(":")[0])
    return {**fields, "base": _base(fields["base"], folder)}


def _base(base: str | ml_collections.ConfigDict, folder: str = "") -> ml_collections.ConfigDict:
    config = python_file.call(base, "get_config", folder) if isinstance(base, str) else base
    if not isinstance(config, ml_collections.ConfigDict):
        raise StudyError(f"base={base!r}: must be a config file or a ConfigDict")
    return config


# --- Expansion ------------------------------------------------------------------------------------


def expand(name: str, fields: Mapping[str, Any]) -> Study:
    """The study that get_study's fields describe, every run of it validated."""
    _check_kinds(fields)
    variants, seeds = fields["variants"], tuple(fields["seeds"])
    if not variants or not seeds or len(set(seeds)) < len(seeds):
        raise StudyError("a study needs a variant and a seed, and each seed once")
    for variant, changes in variants.items():
        _check_variant(variant, changes)
    base = _base(fields["base"])
    configs = {}
    for variant, changes in variants.items():
        try:
            configs[variant] = changed(base, changes)
        except StudyError as error:
            raise StudyError(f"variant {variant!r}: {error}") from error
    runs = []
    for seed in seeds:
        for variant, config in configs.items():
            run = Run(variant, seed, _config(config.to_dict() | {"seed": seed}))
            try:
                config_lib.validate(run.config)
            except config_lib.ConfigError as error:
                raise config_lib.ConfigError(f"variant {variant!r}: {error}") from error
            runs.append(run)
    _check_process(configs)
    baselines = _baselines(fields["baseline"], variants)
    optional = (fields.get("submit", {}), fields.get("published", {}))
    return Study(name, dict(variants), seeds, baselines, *optional, tuple(runs))


def changed(base: ml_collections.ConfigDict, changes: Changes) -> ml_collections.ConfigDict:
    """A copy of `base` with each dotted field replaced; validation finds unknown ones."""
    fields = base.to_dict()
    for earlier, later in itertools.combinations(changes, 2):
        if earlier.startswith(f"{later}."):
            raise StudyError(f"config.{later}: would undo {earlier} before it: put it first")
    for name, value in changes.items():
        *groups, last = name.split(".")
        group = fields
        for part in groups:
            group = group.setdefault(part, {}) if isinstance(group, dict) else None
        if not isinstance(group, dict):
            raise StudyError(f"config.{name}: {'.'.join(groups)} is no group of fields")
        group[last] = _plain(value)
    return _config(fields)


def _plain(value: Any) -> Any:
    """A copy, with Python's numbers in place of NumPy's and dicts in place of ConfigDicts."""
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return {name: _plain(of_name) for name, of_name in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _config(fields: dict) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(fields, allow_dotted_keys=True)  # a class's name may have dots


def _check_kinds(fields: Mapping[str, Any]) -> None:
    for field, (kind, words) in _KINDS.items():
        if field in fields and not isinstance(fields[field], kind):
            raise StudyError(f"{field}={fields[field]!r}: must be {words}")
    for seed in fields["seeds"]:
        if type(seed) is not int:
            raise StudyError(f"seeds={fields['seeds']!r}: must be a tuple of whole numbers")
    baseline = fields["baseline"]
    names = (*baseline, *baseline.values()) if isinstance(baseline, Mapping) else (baseline,)
    if not all(isinstance(name, str) for name in names):
        raise StudyError(f"baseline={baseline!r}: must map names of variants to such names")
    _check_published(fields.get("published", {}), fields["variants"])


def _check_published(published: Mapping[str, Any], variants: Variants) -> None:
    if published and not isinstance(published.get("source"), str):
        raise StudyError("published: lacks its source, a string")
    if unknown := published.keys() - {"source", "cv", "test"}:
        raise StudyError(f"published: {', '.join(map(str, unknown))}: it has source, cv and test")
    for part in ("cv", "test"):
        figures = published.get(part, {})
        ok = isinstance(figures, Mapping) and all(map(field_checks.is_number, figures.values()))
        # Some of them suffice: an argument of the file may leave out the others.
        if not ok or (figures and figures.keys().isdisjoint(variants)):
            raise StudyError(f"published.{part}={figures!r}: must map variants to numbers")


def _check_variant(name: str, changes: Changes) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StudyError(
            f"variant {name!r}: its name is a folder's, so it must begin with a letter or digit "
            "and hold only these and _ . = + , -, at most 200 characters"
        )
    if name in OWN_NAMES:
        raise StudyError(f"variant {name!r}: so is called what a study writes beside its variants")
    if not isinstance(changes, Mapping) or not all(isinstance(field, str) for field in changes):
        raise StudyError(f"variant {name!r}: must map fields to values, not {changes!r}")
    if "seed" in changes:
        raise StudyError(f"variant {name!r}: changes the seed, which is the study's to vary")


def _check_process(configs: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Refuses variants that one process cannot train one after another."""
    for field in ("devices_per_run", "matmul_precision"):
        if len({config[field] for config in configs.values()}) > 1:
            raise StudyError(f"config.{field} must be the same in all variants")
    if len({config.dtype == "float64" for config in configs.values()}) > 1:
        raise StudyError("config.dtype: float64 is for all variants of a study or for none")


def _baselines(given: str | Mapping[str, str], variants: Variants) -> dict[str, str]:
    """Each variant's baseline."""
    baselines = dict.fromkeys(variants, given) if isinstance(given, str) else dict(given)
    baselines = {base: base for base in baselines.values()} | baselines
    if unknown := (baselines.keys() | set(baselines.values())) - variants.keys():
        names = ", ".join(variants)
        raise StudyError(f"baseline: {', '.join(sorted(unknown))} is no variant: known are {names}")
    if missing := variants.keys() - baselines.keys():
        raise StudyError(f"baseline: {', '.join(sorted(missing))} has none")
    return {name: baselines[name] for name in variants}
