"""Tests of caecnn_jax.data.sampling."""

import collections

import hypothesis
import numpy as np
import pytest
from builders import tiny_config
from hypothesis import strategies as st

from caecnn_jax.data import cifar, sampling

NAMES = ("ant", "bee", "cat")
seeds = st.integers(0, 2**32 - 1)
# Counts of images per class, and the images in any order.
label_arrays = st.lists(st.integers(0, 2), min_size=1, max_size=60).map(np.array)


def counts_of(labels):
    return np.bincount(labels, minlength=len(NAMES))


@st.composite
def regulations(draw):
    labels = draw(label_arrays)
    sizes = dict(zip(NAMES, counts_of(labels), strict=True))
    named = draw(st.sets(st.sampled_from(NAMES)))
    return labels, {name: draw(st.integers(0, int(sizes[name]))) for name in sorted(named)}


@hypothesis.given(regulations(), seeds)
def test_regulate_keeps_the_counts_and_leaves_the_other_classes_whole(case, seed):
    labels, counts = case
    kept = sampling.regulate(labels, counts, NAMES, seed)
    wanted = dict(zip(NAMES, counts_of(labels), strict=True)) | counts
    assert dict(zip(NAMES, counts_of(labels[kept]), strict=True)) == wanted
    assert np.array_equal(kept, np.unique(kept))  # sorted, none twice


@hypothesis.given(label_arrays, st.integers(0, 60), seeds)
def test_all_stands_for_every_class_that_is_not_named(labels, named, seed):
    labels = np.concatenate([labels, np.arange(3)])
    sizes = counts_of(labels)
    named, everyone = min(named, int(sizes[1])), int(sizes.min())
    kept = sampling.regulate(labels, {"all": everyone, "bee": named}, NAMES, seed)
    assert counts_of(labels[kept]).tolist() == [everyone, named, everyone]


@hypothesis.given(label_arrays, st.integers(2, 6), seeds)
def test_folds_are_stratified_and_lose_nothing(labels, num_folds, seed):
    labels = np.concatenate([labels, np.repeat(np.arange(3), num_folds)])
    folds = sampling.folds(labels, num_folds, seed)
    assert len(folds) == num_folds
    everything = np.arange(len(labels))
    for train, valid in folds:
        assert np.array_equal(np.sort(np.concatenate([train, valid])), everything)  # and disjoint
    assert np.array_equal(np.sort(np.concatenate([valid for _, valid in folds])), everything)
    by_class = np.array([counts_of(labels[valid]) for _, valid in folds])
    assert np.ptp(by_class, axis=0).max() <= 1
    assert np.ptp(by_class.sum(axis=1)) <= 1


@st.composite
def expansions(draw):
    labels = draw(label_arrays)
    chosen = draw(st.sets(st.integers(0, len(labels) - 1), min_size=1))
    train = np.array(sorted(chosen))
    there = [name for name, size in zip(NAMES, counts_of(labels[train]), strict=True) if size]
    extra = draw(st.dictionaries(st.sampled_from(there), st.integers(0, 90)))
    return labels, train, extra


@hypothesis.given(expansions(), seeds)
def test_expand_adds_the_counts_from_the_training_part_alone_and_evenly(case, seed):
    labels, train, extra = case
    expanded = sampling.expand(train, labels, extra, NAMES, seed)
    assert np.array_equal(expanded[: len(train)], train)  # nothing lost
    added = expanded[len(train) :]
    assert set(added) <= set(train)
    for label, name in enumerate(NAMES):
        members = train[labels[train] == label]
        times = collections.Counter(added[labels[added] == label].tolist())
        assert times.total() == extra.get(name, 0)
        if members.size:  # whole copies first: none is drawn twice more often than another
            often = [times[member] for member in members.tolist()]
            assert max(often) - min(often) <= 1


@hypothesis.given(
    st.lists(st.integers(0, 999), min_size=1, max_size=50),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_batches_hold_every_index_once_and_in_turn(indices, batch_size, more_steps, more_columns):
    num_steps = -(-len(indices) // batch_size) + more_steps
    width = batch_size + more_columns
    order, mask = sampling.in_batches(np.array(indices), batch_size, num_steps, width)
    assert order.shape == mask.shape == (num_steps, width)
    assert order[mask].tolist() == indices
    sizes = mask.sum(axis=1)
    assert (sizes[: len(indices) // batch_size] == batch_size).all()
    assert (mask == (np.arange(width) < sizes[:, None])).all()  # padding comes last


def test_a_seed_decides_every_draw():
    labels = np.repeat(np.arange(3), 30)

    def draws(seed):
        kept = sampling.regulate(labels, {"ant": 10}, NAMES, seed)
        folds = sampling.folds(labels, 3, seed)
        expanded = sampling.expand(kept, labels, {"bee": 7}, NAMES, seed)
        return [kept, *(valid for _, valid in folds), expanded]

    for first, again, other in zip(draws(1), draws(1), draws(2), strict=True):
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda labels: sampling.regulate(labels, {"ant": 5}, NAMES, 0), "5 images of ant: .* 4"),
        (lambda labels: sampling.regulate(labels, {"dog": 1}, NAMES, 0), "no such class: dog"),
        (lambda labels: sampling.folds(labels, 5, 0), "class 0 has 4 images for 5 folds"),
        (
            lambda labels: sampling.expand(np.arange(4), labels, {"bee": 1}, NAMES, 0),
            "cannot expand bee: the training set has no image of it",
        ),
    ],
)
def test_what_cannot_be_drawn_is_a_value_error(call, message):
    labels = np.repeat(np.arange(3), 4)
    with pytest.raises(ValueError, match=message):
        call(labels)


@pytest.fixture(scope="module")
def cifar_labels():
    """Labels as many as CIFAR-10's: 5,000 of each class for training, 1,000 for testing."""
    rng = np.random.default_rng(0)
    parts = [rng.permutation(np.repeat(np.arange(10), n)) for n in (5000, 1000)]
    return np.concatenate(parts)


def names_and_splits(config, labels):
    names = cifar.CLASS_NAMES
    return names, *sampling.splits(config, labels, 50_000, names)


def test_the_first_folds_alone_are_those_of_all(cifar_labels):
    some, every = (
        names_and_splits(tiny_config(num_folds=5, run_folds=count), cifar_labels)[-1]
        for count in (2, 0)
    )
    assert [split.name for split in some] == ["fold_1", "fold_2", "test"]
    assert sampling.fold_names(tiny_config(num_folds=5, run_folds=2)) == ["fold_1", "fold_2"]
    assert sampling.fold_names(tiny_config(do_cv=False)) == []
    for one, other in zip(some[:2], every[:2], strict=True):
        np.testing.assert_array_equal(one.expanded, other.expanded)
        np.testing.assert_array_equal(one.valid, other.valid)


def test_the_splits_have_the_counts_of_the_published_experiment(cifar_labels):
    config = tiny_config(num_folds=5)
    config.train_data_regulation = {"bird": 2500, "deer": 2500, "truck": 2500}
    config.train_data_expansion = {"bird": 2000, "deer": 2000, "truck": 2000}
    names, kept, runs = names_and_splits(config, cifar_labels)
    assert len(kept) == 7 * 5000 + 3 * 2500
    assert [run.name for run in runs] == [*(f"fold_{k}" for k in range(1, 6)), "test"]
    for run in runs[:-1]:
        counts = sampling.class_counts(run.expanded, cifar_labels, names)
        assert (counts["bird"], counts["cat"]) == (2000 + 2000, 4000)
        valid = sampling.class_counts(run.valid, cifar_labels, names)
        assert (valid["bird"], valid["cat"]) == (500, 1000)
        assert set(run.valid).isdisjoint(run.expanded)  # expanded after the folds, not before
    test = runs[-1]
    assert np.array_equal(test.train, kept)
    assert np.array_equal(test.valid, np.arange(50_000, 60_000))
    assert sampling.class_counts(test.expanded, cifar_labels, names)["bird"] == 4500


def test_is_local_takes_a_twentieth_of_everything(cifar_labels):
    config = tiny_config(is_local=True, num_folds=5)
    config.train_data_regulation = {"bird": 2500}
    config.train_data_expansion = {"bird": 2000}
    names, kept, runs = names_and_splits(config, cifar_labels)
    counts = sampling.class_counts(kept, cifar_labels, names)
    assert (counts["bird"], counts["cat"]) == (125, 250)
    assert sampling.class_counts(runs[0].expanded, cifar_labels, names)["bird"] == 100 + 100
    assert set(sampling.class_counts(runs[-1].valid, cifar_labels, names).values()) == {50}
    assert (runs[-1].valid >= 50_000).all()


def test_expand_for_test_decides_about_the_test_run_alone(cifar_labels):
    config = tiny_config(expand_for_test=False)
    *_, runs = names_and_splits(config, cifar_labels)
    assert len(runs[0].expanded) == len(runs[0].train) + 3 * 6
    assert np.array_equal(runs[-1].expanded, runs[-1].train)


@pytest.mark.parametrize(
    ("parts", "names"),
    [({"do_cv": False}, ["test"]), ({"do_test": False}, ["fold_1", "fold_2"])],
)
def test_only_the_runs_asked_for_are_split(cifar_labels, parts, names):
    *_, runs = names_and_splits(tiny_config(**parts), cifar_labels)
    assert [run.name for run in runs] == names


def test_a_digest_tells_sets_of_images_apart():
    assert sampling.digest(np.arange(5)) == sampling.digest(np.arange(5, dtype=np.int32))
    assert sampling.digest(np.arange(5)) != sampling.digest(np.arange(6))


# --- Long tails, held-out parts, names ---


def long_tailed(labels, **imbalance):
    return np.bincount(labels[sampling.imbalance(labels, **imbalance)], minlength=10).tolist()


@pytest.mark.parametrize(("factor", "total"), [(100, 12_406), (50, 13_996), (10, 20_431)])
def test_long_tails_have_the_published_sizes(cifar_labels, factor, total):
    sizes = long_tailed(cifar_labels[:50_000], type="exp", factor=factor)
    assert sum(sizes) == total
    if factor == 100:
        assert sizes == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_steps_cut_the_second_half(cifar_labels):
    sizes = long_tailed(cifar_labels[:50_000], type="step", factor=20.0)
    assert sizes == [5000] * 5 + [250] * 5
    assert sampling.imbalanced_sizes([9, 9, 9], "step", 3) == [9, 3, 3]  # of three, the first stays


def test_long_tails_are_of_the_very_images_of_the_protocol(cifar_labels):
    """Written out as the protocol's authors do it, with the generator of the whole process."""
    labels = cifar_labels[:50_000]
    before = np.random.get_state()
    np.random.seed(0)
    wanted = []
    for label, size in enumerate([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]):
        members = np.where(labels == label)[0]
        np.random.shuffle(members)
        wanted.extend(members[:size])
    np.random.set_state(before)
    kept = sampling.imbalance(labels, "exp", 100.0)
    assert kept.tolist() == sorted(wanted)
    assert np.array_equal(sampling.imbalance(labels, "none", 100.0), np.arange(50_000))
    assert np.array_equal(sampling.imbalance(labels.tolist(), "exp", 100.0), kept)


def test_a_smaller_class_keeps_what_it_has():
    assert sampling.imbalanced_sizes([100, 4, 50], "exp", 4.0) == [100, 4, 25]


def test_a_long_tail_comes_before_regulation_and_does_not_follow_the_seed(cifar_labels):
    kept = []
    for seed in (0, 1):
        config = tiny_config(do_cv=False, seed=seed)
        config.train_data_regulation = {"airplane": 1000}
        config.train_data_expansion = {}
        config.imbalance.type = "exp"
        names, indices, _ = names_and_splits(config, cifar_labels)
        counts = sampling.class_counts(indices, cifar_labels, names)
        assert list(counts.values()) == [1000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
        kept.append(indices[cifar_labels[indices] > 0])
    assert np.array_equal(*kept)


def test_is_local_leaves_a_rare_class_an_image_for_each_fold(cifar_labels):
    config = tiny_config(is_local=True, num_folds=5)
    config.train_data_regulation = {"all": 2000, "cat": 60, "dog": 5}
    config.train_data_expansion = {"dog": "largest"}
    names, kept, runs = names_and_splits(config, cifar_labels)
    counts = sampling.class_counts(kept, cifar_labels, names)
    assert (counts["bird"], counts["cat"], counts["dog"]) == (100, 5, 5)
    assert all(len(np.unique(cifar_labels[run.valid])) == 10 for run in runs)
    assert sampling.class_counts(runs[0].expanded, cifar_labels, names)["dog"] == 80


def test_largest_makes_every_class_as_large_as_the_largest_of_the_run():
    labels = np.repeat([0, 1, 2], [2, 7, 5])
    everything = np.arange(len(labels))
    assert (
        counts_of(
            labels[sampling.expand(everything, labels, {"all": "largest"}, NAMES, 0)]
        ).tolist()
        == [7] * 3
    )
    one = sampling.expand(everything, labels, {"ant": "largest", "cat": 1}, NAMES, 0)
    assert counts_of(labels[one]).tolist() == [7, 7, 6]
    part = everything[:6]  # the training part of a run, in which 1 is still the largest
    rest = sampling.expand(part, labels, {"ant": "largest"}, NAMES, 0)
    assert counts_of(labels[rest]).tolist() == [4, 4, 0]


@hypothesis.given(label_arrays, st.floats(0.001, 0.9))
def test_a_share_of_each_class_is_held_out_and_some_left(labels, share):
    labels = np.concatenate([labels, np.repeat(np.arange(3), 2)])
    test = sampling.hold_out(labels, share)
    assert np.array_equal(test, np.unique(test))
    taken, all_ = counts_of(labels[test]), counts_of(labels)
    assert (taken >= 1).all() and (taken < all_).all()
    assert (abs(taken - share * all_) <= 1).all()


def test_what_is_held_out_is_drawn_at_random_and_always_the_same():
    labels = np.repeat([0, 1], 100)
    test = sampling.hold_out(labels, 0.2)
    assert counts_of(labels[test]).tolist() == [20, 20, 0]
    assert np.array_equal(test, sampling.hold_out(labels, 0.2))
    assert not np.array_equal(test[:20], np.arange(20))
    with pytest.raises(ValueError, match="class 2 has one image"):
        sampling.hold_out(np.array([0, 0, 2]), 0.2)


def test_a_split_knows_whether_it_is_the_test_run(cifar_labels):
    *_, runs = names_and_splits(tiny_config(), cifar_labels)
    assert [run.is_test for run in runs] == [False, False, True]
