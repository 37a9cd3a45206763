"""Which images a run trains on and is validated on: index arrays in numpy, no image copies."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# The second entry of default_rng([seed, purpose]): one stream per use, whatever ran before.
REGULATE, FOLDS, EXPAND, SHUFFLE = range(4)


def per_class(counts: Mapping[str, int], class_names: Sequence[str]) -> dict[str, int]:
    """Writes out "all", which stands for every class that is not named itself.

    Raises ValueError for a name that is neither a class nor "all".
    """
    unknown = sorted(set(counts) - set(class_names) - {"all"})
    if unknown:
        raise ValueError(f"no such class: {', '.join(unknown)}; known are {', '.join(class_names)}")
    everyone = dict.fromkeys(class_names, counts["all"]) if "all" in counts else {}
    return everyone | {name: count for name, count in counts.items() if name != "all"}


def regulate(
    labels: np.ndarray, counts: Mapping[str, int], class_names: Sequence[str], seed: int
) -> np.ndarray:
    """Sorted indices into `labels` int[N] with `counts[name]` of each class named, drawn at random.

    Classes that are not named stay whole. Raises ValueError where a class has too few images.
    """
    rng = np.random.default_rng([seed, REGULATE])
    keep = np.ones(len(labels), bool)
    for name, count in sorted(per_class(counts, class_names).items()):
        members = np.flatnonzero(labels == class_names.index(name))
        if count > len(members):
            raise ValueError(f"cannot keep {count} images of {name}: there are {len(members)}")
        keep[rng.permutation(members)[count:]] = False
    return np.flatnonzero(keep)


def folds(labels: np.ndarray, num_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stratified shuffled folds: a (training, validation) pair of sorted indices int[...] a fold.

    Over the folds, the validation counts of a class differ by one at most, and so do the totals.
    Raises ValueError where a class has fewer images than there are folds.
    """
    rng = np.random.default_rng([seed, FOLDS])
    fold_of = np.empty(len(labels), int)
    dealt = 0  # each class is dealt out from where the last one ended, to level the totals
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < num_folds:
            raise ValueError(f"class {label} has {len(members)} images for {num_folds} folds")
        fold_of[members] = (dealt + np.arange(len(members))) % num_folds
        dealt += len(members)
    return [
        (np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(num_folds)
    ]


def expand(
    train_indices: np.ndarray,
    labels: np.ndarray,
    extra: Mapping[str, int],
    class_names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """`train_indices` followed by `extra[name]` more draws from those of each class named.

    The draws are without replacement; beyond the class's size come whole copies of it first.
    `labels` is indexed by `train_indices`. Raises ValueError where a class has no image to draw.
    """
    rng = np.random.default_rng([seed, EXPAND])
    parts = [train_indices]
    for name, count in sorted(per_class(extra, class_names).items()):
        members = train_indices[labels[train_indices] == class_names.index(name)]
        if count and not len(members):
            raise ValueError(f"cannot expand {name}: the training set has no image of it")
        copies, remainder = divmod(count, max(len(members), 1))
        parts += [np.tile(members, copies), rng.permutation(members)[:remainder]]
    return np.concatenate(parts)


def epoch_order(
    indices: np.ndarray, batch_size: int, key: Sequence[int], num_steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """One epoch's visiting order: indices int32[steps, batch] and a mask bool[steps, batch].

    Every image comes once; the mask is False on the padding (index 0) of the last batch and on the
    steps added up to `num_steps`. The order depends on `key`, e.g. (seed, fold, epoch), alone.
    """
    order = np.random.default_rng([SHUFFLE, *key]).permutation(indices)
    return in_batches(order, batch_size, num_steps)


def in_batches(
    indices: np.ndarray, batch_size: int, num_steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`indices` as they come, padded to int32[steps, batch], and the mask bool[steps, batch]."""
    steps = num_steps or -(-len(indices) // batch_size)
    batches = np.zeros(steps * batch_size, np.int32)
    batches[: len(indices)] = indices
    mask = np.arange(steps * batch_size) < len(indices)
    return batches.reshape(steps, batch_size), mask.reshape(steps, batch_size)


class Split(NamedTuple):
    """One run's images, as indices into all 60,000 (the test images follow the training ones)."""

    name: str  # "fold_1", ... or "test"
    number: int  # fold 1, 2, ...; 0 is the test run
    train: np.ndarray  # before expansion, no repeats
    expanded: np.ndarray  # what an epoch visits
    valid: np.ndarray  # the validation part, or the test set


def scaled(counts: Mapping[str, int], divisor: int) -> dict[str, int]:
    """Every count divided by `divisor`, rounded down."""
    return {name: count // divisor for name, count in counts.items()}


def splits(
    labels: np.ndarray,
    num_train: int,
    class_names: Sequence[str],
    *,
    regulation: Mapping[str, int],
    expansion: Mapping[str, int],
    num_folds: int,
    expand_for_test: bool,
    divisor: int,
    seed: int,
) -> tuple[np.ndarray, list[Split]]:
    """The regulated training images, and every run's split: the folds, then the test run.

    `labels` int[N] are those of all images, the first `num_train` for training. With a `divisor`
    above 1 every count, the test set's included, is that fraction of itself.
    """
    sizes = np.bincount(labels[:num_train], minlength=len(class_names))
    full = {name: int(size) for name, size in zip(class_names, sizes, strict=True)}
    counts = scaled(full | per_class(regulation, class_names), divisor)
    extra = scaled(expansion, divisor)
    kept = regulate(labels[:num_train], counts, class_names, seed)

    test_labels = labels[num_train:]
    sizes = np.bincount(test_labels, minlength=len(class_names)) // divisor
    test_counts = {name: int(size) for name, size in zip(class_names, sizes, strict=True)}
    test = num_train + regulate(test_labels, test_counts, class_names, seed)

    runs = []
    for number, (train, valid) in enumerate(folds(labels[kept], num_folds, seed), 1):
        train, valid = kept[train], kept[valid]
        expanded = expand(train, labels, extra, class_names, seed)
        runs.append(Split(f"fold_{number}", number, train, expanded, valid))
    expanded = expand(kept, labels, extra if expand_for_test else {}, class_names, seed)
    runs.append(Split("test", 0, kept, expanded, test))
    return kept, runs


def class_counts(
    indices: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, int]:
    """How many of the images at `indices`, repeats included, each class has."""
    sizes = np.bincount(labels[indices], minlength=len(class_names))
    return {name: int(size) for name, size in zip(class_names, sizes, strict=True)}


def digest(indices: np.ndarray) -> str:
    """A short fingerprint of a set of images, to tell whether two runs used the same."""
    return hashlib.sha256(np.asarray(indices, np.int64).tobytes()).hexdigest()[:16]
