"""Which images a run trains on and is validated on: index arrays in numpy, no image copies.

The training images are made long-tailed (config.imbalance), regulated, and dealt out to the folds;
the training part of each run is expanded last. K: classes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from caecnn_jax import run_names

LOCAL_FRACTION = 20  # config.is_local divides every count by this
LARGEST = "largest"  # as an expansion's count: up to the size of the largest class

# The second entry of default_rng([seed, purpose]): one stream per use, whatever ran before.
REGULATE, FOLDS, EXPAND, HOLD_OUT = range(4)


def fold_names(config: ml_collections.ConfigDict) -> list[str]:
    """The names of the folds that train; none without cross-validation."""
    count = (config.run_folds or config.num_folds) if config.do_cv else 0
    return [run_names.of_number(number) for number in range(1, count + 1)]


def hold_out(labels: np.ndarray, share: float) -> np.ndarray:
    """Sorted indices into `labels` int[N] of a test part: `share` of each class, one at least.

    It does not depend on config.seed: runs of several seeds are compared on the same test images,
    and none trains on what another is tested with. Raises ValueError for a class of one image.
    """
    rng = np.random.default_rng([0, HOLD_OUT])
    parts = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ValueError(f"class {label} has one image, and both parts need one")
        count = min(max(1, round(share * len(members))), len(members) - 1)
        parts.append(members[:count])
    return np.sort(np.concatenate(parts))


def imbalanced_sizes(sizes: Sequence[int], type: str, factor: float) -> list[int]:
    """How many of its images each class keeps, in the class's order, where it has as many.

    "exp" (Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin
    loss"): class c of K keeps int(n * (1/factor)**(c/(K-1))), n the size of the largest class;
    "step": the second half of the classes keeps int(n / factor); "none": all keep all.
    """
    full, classes = max(sizes), len(sizes)
    if type == "exp":
        wanted = [int(full * (1 / factor) ** (c / max(classes - 1, 1))) for c in range(classes)]
    elif type == "step":
        wanted = [full] * (classes // 2) + [int(full / factor)] * (classes - classes // 2)
    else:
        wanted = [full] * classes
    return [min(pair) for pair in zip(sizes, wanted, strict=True)]


def imbalance(labels: np.ndarray, type: str, factor: float) -> np.ndarray:
    """Sorted indices into `labels` int[N] (0..K-1, the official order) of a long-tailed part.

    The images are those of the field's published numbers: NumPy's legacy generator, seeded with 0,
    shuffles the indices of each class in turn, and the first ones are kept. So this does not depend
    on config.seed. `type` and `factor` as in `imbalanced_sizes`.
    """
    labels = np.asarray(labels)
    if type == "none":
        return np.arange(len(labels))
    rng = np.random.RandomState(0)
    sizes = imbalanced_sizes(np.bincount(labels).tolist(), type, factor)
    parts = []
    for label, size in enumerate(sizes):
        members = np.flatnonzero(labels == label)
        rng.shuffle(members)
        parts.append(members[:size])
    return np.sort(np.concatenate(parts))


def per_class(counts: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
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
    extra: Mapping[str, Any],
    class_names: Sequence[str],
    seed: int,
) -> np.ndarray:
    """`train_indices` followed by `extra[name]` more draws from those of each class named.

    "largest" as a count draws as many as the class has fewer than the largest class. The draws are
    without replacement; beyond the class's size come whole copies of it first. `labels` is indexed
    by `train_indices`. Raises ValueError where a class has no image to draw.
    """
    rng = np.random.default_rng([seed, EXPAND])
    largest = np.bincount(labels[train_indices]).max()
    parts = [train_indices]
    for name, count in sorted(per_class(extra, class_names).items()):
        members = train_indices[labels[train_indices] == class_names.index(name)]
        count = largest - len(members) if count == LARGEST else count
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
    """One run's images, as indices into all of the data (test images follow the training ones)."""

    name: str  # "fold_1", ... or "test", as `run_names` has it
    number: int  # fold 1, 2, ...; 0 is the test run
    train: np.ndarray  # before expansion, no repeats
    expanded: np.ndarray  # what an epoch visits
    valid: np.ndarray  # the validation part, or the test set

    @property
    def is_test(self) -> bool:
        """Whether this is the test run, and no fold."""
        return self.number == 0


def splits(
    config: ml_collections.ConfigDict,
    labels: np.ndarray,
    num_train: int,
    class_names: Sequence[str],
) -> tuple[np.ndarray, list[Split]]:
    """The training images that are kept, and the split of every run of `config`: folds, then test.

    `labels` int[N] are those of all images, the first `num_train` for training. The training images
    are made long-tailed first and regulated then. With `is_local` every count, the test set's
    included, is a twentieth. Raises ValueError where `requirements.check` tells what is wrong.
    """
    train_labels, test_labels = labels[:num_train], labels[num_train:]
    tail = imbalance(train_labels, config.imbalance.type, config.imbalance.factor)
    sizes = class_counts(tail, train_labels, class_names)
    counts = sizes | per_class(config.train_data_regulation, class_names)
    counts = _scaled(config, counts, least=least_images(config))
    kept = tail[regulate(train_labels[tail], counts, class_names, config.seed)]
    extra = _scaled(config, config.train_data_expansion, least=0)
    runs = []
    if config.do_cv:
        pairs = folds(labels[kept], config.num_folds, config.seed)
        for number, pair in enumerate(pairs[: config.run_folds or None], 1):
            train, valid = kept[pair[0]], kept[pair[1]]
            expanded = expand(train, labels, extra, class_names, config.seed)
            runs.append(Split(run_names.of_number(number), number, train, expanded, valid))
    if config.do_test:
        everything = class_counts(np.arange(len(test_labels)), test_labels, class_names)
        counts = _scaled(config, everything, least=1)
        test = regulate(test_labels, counts, class_names, config.seed)
        extra = extra if config.expand_for_test else {}
        expanded = expand(kept, labels, extra, class_names, config.seed)
        runs.append(Split(run_names.TEST, 0, kept, expanded, num_train + test))
    return kept, runs


def least_images(config: ml_collections.ConfigDict) -> int:
    """How many training images a class needs: one for each fold."""
    return config.num_folds if config.do_cv else 1


def _scaled(
    config: ml_collections.ConfigDict, counts: Mapping[str, Any], *, least: int
) -> dict[str, Any]:
    """The counts as is_local has them: a twentieth, but not below `least` where there are more."""
    if not config.is_local:
        return dict(counts)
    return {
        name: count if count == LARGEST else max(count // LOCAL_FRACTION, min(count, least))
        for name, count in counts.items()
    }


def class_counts(
    indices: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, int]:
    """How many of the images at `indices`, repeats included, each class has."""
    sizes = np.bincount(labels[indices], minlength=len(class_names))
    return {name: int(size) for name, size in zip(class_names, sizes, strict=True)}


def digest(indices: np.ndarray) -> str:
    """A short fingerprint of a set of images, to tell whether two runs used the same."""
    return hashlib.sha256(np.asarray(indices, np.int64).tobytes()).hexdigest()[:16]
