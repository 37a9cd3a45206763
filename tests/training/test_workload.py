"""Tests of caecnn_jax.training.workload; test_parts measures, and has the plan of a study."""

import types

import numpy as np
import pytest
from builders import tiny_config

from caecnn_jax.data import cifar
from caecnn_jax.training import workload

WORK = workload.Work({"fold_1": 60, "test": 90}, {"fold_1": 30, "test": 50}, 2, 3)


def test_work_is_the_images_of_all_runs_in_all_epochs():
    assert (WORK.epochs, WORK.images) == (5, 5 * 150)
    assert WORK.phases == {"warmup", "joint"}
    assert WORK.largest_share == 90 / 150


def test_each_phase_takes_its_own_time():
    assert WORK.seconds({"warmup": 300.0, "joint": 50.0}) == 2 * 150 / 300 + 3 * 150 / 50
    joint = WORK._replace(warmup=0)
    assert joint.phases == {"joint"} and joint.seconds({"joint": 50.0}) == 9.0
    warmup = WORK._replace(joint=0)
    assert warmup.phases == {"warmup"} and warmup.seconds({"warmup": 300.0}) == 1.0


def test_the_speed_so_far_is_the_median_of_the_epochs_of_runs_that_are_asked_for():
    def epochs(*seconds, phase="joint"):
        return [{"phase": phase, "seconds": one} for one in seconds]

    history = {
        "fold_1": epochs(0.5, phase="warmup") + epochs(4.0, 1.0),  # 120; 15 and 60 a second
        "test": epochs(3.0),  # 30
        "fold_2": epochs(1e-6, 1e-6, 1e-6),
    }
    assert workload.of_records(history, WORK) == {"warmup": 120.0, "joint": 30.0}
    assert workload.of_records({"fold_2": epochs(1.0)}, WORK) == {}
    assert workload.of_records({"test": epochs(0.0)}, WORK)["joint"] > 0  # of a coarse clock


@pytest.mark.parametrize(
    ("changes", "train", "valid", "epochs"),
    [
        # Of 20 images a class, three classes keep 12: 176 in all, 88 in a fold; 18 are drawn again.
        ({}, {"fold_1": 106, "fold_2": 106, "test": 194}, (88, 88, 50), (1, 3)),
        (
            {"expand_for_test": False},
            {"fold_1": 106, "fold_2": 106, "test": 176},
            (88, 88, 50),
            (1, 3),
        ),
        ({"run_folds": 1, "do_test": False}, {"fold_1": 106}, (88,), (1, 3)),
        ({"do_cv": False, "only_train_cae_until": 9}, {"test": 194}, (50,), (4, 0)),
        ({"do_cv": False, "use_cnn": False}, {"test": 194}, (50,), (0, 4)),  # no warm-up alone
        ({"do_cv": False, "image_budget": 400}, {"test": 194}, (50,), (1, 1)),  # 2 x 194
    ],
)
def test_the_work_of_a_config_is_reckoned_from_the_labels(changes, train, valid, epochs):
    labels = np.concatenate([np.tile(np.arange(10), 20), np.tile(np.arange(10), 5)])
    data = types.SimpleNamespace(labels=labels, num_train=200, class_names=cifar.CLASS_NAMES)
    work = workload.of(tiny_config("mixed", num_epoch=4, **changes), data)
    assert work.train == train
    assert work.valid == dict(zip(train, valid, strict=True))
    assert (work.warmup, work.joint) == epochs


def test_the_table_has_a_row_a_variant_and_the_time_of_all():
    large = workload.Work({"test": 12_000}, {"test": 50}, 0, 10)
    rows = [
        workload.Row("a long name", 1, 2, WORK, 90.0),
        workload.Row("b", 0, 1, large, 3600.0),
    ]
    heading, first, second, last = workload.table(rows, 1).splitlines()
    names = " ".join(heading.split())
    assert names == "variant done to train runs images/epoch epochs a seed left"
    # Columns of 14 letters after the longest name.
    cells = [[line[k : k + 14].strip() for k in range(11, 109, 14)] for line in (first, second)]
    assert first.startswith("a long name ") and second.startswith("b           ")
    assert cells[0] == ["1", "2", "2", "60-90", "5", "0:01:30", "0:03:00"]
    assert cells[1] == ["0", "1", "1", "12,000", "10", "1:00:00", "1:00:00"]
    assert last.startswith("4 trainings, 1 done; the other 3 take about 1:03:00 with 1 run(s) at")
    half = workload.table([rows[0]._replace(begun=0.5)], 1).splitlines()
    assert half[1].endswith("0:02:15") and "about 0:02:15 with" in half[2]
    done = workload.table([rows[0]._replace(done=3, left=0)], 4).splitlines()[-1]
    assert done.startswith("3 trainings, 3 done; the other 0 take about 0:00:00 with 4 run(s)")


def test_devices_that_have_nothing_to_train_save_no_time():
    work = workload.Work({"fold_1": 60, "test": 90}, {}, 0, 1)
    row = workload.Row("plain", 0, 1, work, 300.0)
    for at_once, minutes in ((1, "0:05:00"), (2, "0:03:00"), (8, "0:03:00")):
        assert f"take about {minutes} with" in workload.table([row], at_once)
    nearly_done = workload.table([row._replace(begun=0.9)], 8)
    assert "take about 0:00:30 with" in nearly_done
