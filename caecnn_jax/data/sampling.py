"""Which images a run trains on and is validated on: index arrays in numpy, no image copies."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

LOCAL_FRACTION = 20  # config.is_local divides every count by this

# The second entry of default_rng([seed, purpose]): one stream per use, whatever ran before.
REGULATE, FOLDS, EXPAND = range(3)


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


def in_batches(
    indices: np.ndarray, batch_size: int, num_steps: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """`indices` in turn, as int32[num_steps, width], and a mask bool of that shape.

    A step holds `batch_size` of them; the mask is False on the padding that follows: the rest of
    the last batch, further steps, and the columns up to `width`.
    """
    order = np.zeros((num_steps, width), np.int32)
    mask = np.zeros((num_steps, width), bool)
    for step, start in enumerate(range(0, len(indices), batch_size)):
        batch = indices[start : start + batch_size]
        order[step, : len(batch)] = batch
        mask[step, : len(batch)] = True
    return order, mask


class Split(NamedTuple):
    """One run's images, as indices into all 60,000 (the test images follow the training ones)."""

    name: str  # "fold_1", ... or "test"
    number: int  # fold 1, 2, ...; 0 is the test run
    train: np.ndarray  # before expansion, no repeats
    expanded: np.ndarray  # what an epoch visits
    valid: np.ndarray  # the validation part, or the test set

    @property
    def is_test(self) -> bool:
        """Whether this is the test run's split."""
        return self.number == 0


def splits(
    config: ml_collections.ConfigDict,
    labels: np.ndarray,
    num_train: int,
    class_names: Sequence[str],
) -> tuple[np.ndarray, list[Split]]:
    """The regulated training images, and the split of every run of `config`: folds, then test.

    `labels` int[N] are those of all images, the first `num_train` for training. With `is_local`
    every count, the test set's included, is a twentieth.
    """
    divisor = LOCAL_FRACTION if config.is_local else 1

    def counts_of(part: np.ndarray) -> dict[str, int]:
        return class_counts(np.arange(len(part)), part, class_names)

    def scaled(counts: Mapping[str, int]) -> dict[str, int]:
        return {name: count // divisor for name, count in counts.items()}

    train_labels, test_labels = labels[:num_train], labels[num_train:]
    counts = counts_of(train_labels) | per_class(config.train_data_regulation, class_names)
    kept = regulate(train_labels, scaled(counts), class_names, config.seed)
    extra = scaled(config.train_data_expansion)
    runs = []
    if config.do_cv:
        for number, pair in enumerate(folds(labels[kept], config.num_folds, config.seed), 1):
            train, valid = kept[pair[0]], kept[pair[1]]
            expanded = expand(train, labels, extra, class_names, config.seed)
            runs.append(Split(f"fold_{number}", number, train, expanded, valid))
    if config.do_test:
        test = regulate(test_labels, scaled(counts_of(test_labels)), class_names, config.seed)
        extra = extra if config.expand_for_test else {}
        expanded = expand(kept, labels, extra, class_names, config.seed)
        runs.append(Split("test", 0, kept, expanded, num_train + test))
    return kept, runs


def class_counts(
    indices: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, int]:
    """How many of the images at `indices`, repeats included, each class has."""
    sizes = np.bincount(labels[indices], minlength=len(class_names))
    return {name: int(size) for name, size in zip(class_names, sizes, strict=True)}


def class_prior(
    config: ml_collections.ConfigDict, class_names: Sequence[str], class_size: int
) -> np.ndarray:
    """The share float [classes] of each class in a run's training images, expansion left out.

    `class_size`: training images of a class that is not regulated.
    """
    whole = dict.fromkeys(class_names, class_size)
    counts = whole | per_class(config.train_data_regulation, class_names)
    sizes = np.array([counts[name] for name in class_names])
    return sizes / sizes.sum()


def digest(indices: np.ndarray) -> str:
    """A short fingerprint of a set of images, to tell whether two runs used the same."""
    return hashlib.sha256(np.asarray(indices, np.int64).tobytes()).hexdigest()[:16]
