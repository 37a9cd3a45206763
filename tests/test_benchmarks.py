"""The benchmarks' arithmetic, and that the PyTorch peers do the same work; nothing is timed."""

import io

import numpy as np
import pytest
import tqdm

from benchmarks import (
    chart,
    ours,
    profile_cpu,
    startup,
    throughput,
    time_to_accuracy,
    worker,
)
from configs import mixed


def contender(warmup, joint, evaluate):
    by_phase = {"warmup": warmup, "joint": joint, "evaluate": evaluate}
    return {"images_per_second": by_phase, "peak_memory_mib": 1000}


MEASURED = {
    "ours": contender([40, 44, 48], [10, 20, 30], [90, 80, 100]),
    "reference_like": contender([9, 9, 9], [5, 5, 6], [30, 30, 30]),
    "tuned": contender([9, 9, 9], [10, 16, 15], [60, 60, 60]),
}


def summary():
    contenders = {
        name: one
        | {
            "images_per_second": {
                phase: throughput.summarize(figures)
                for phase, figures in one["images_per_second"].items()
            }
        }
        for name, one in MEASURED.items()
    }
    mixed = {
        "phases": worker.PHASES,
        "rounds": 3,
        "contenders": contenders,
        "startup": None,
        **throughput.ratios(MEASURED),
    }
    return {
        "device": "1 x cpu",
        "host": {"cpu_cores": 2},
        "options": {"batch_size": 64},
        "configs": {"mixed": mixed},
    }


def test_ratios_are_medians_over_medians():
    found = throughput.ratios(MEASURED)
    assert found["ratios"] == {
        "joint_vs_reference_like": 4.0,
        "joint_vs_tuned": 1.333,
        "evaluate_vs_reference_like": 3.0,
        "evaluate_vs_tuned": 1.5,
        "warmup_vs_joint": 2.2,
    }
    assert found["ratio_ranges"]["joint_vs_reference_like"] == [2.0, 5.0]


def test_ratios_leave_out_what_was_not_measured():
    found = throughput.ratios({"ours": MEASURED["ours"]})
    assert list(found["ratios"]) == ["warmup_vs_joint"]


def test_table_and_chart_show_every_contender(tmp_path):
    text = throughput.table("mixed", summary()["configs"]["mixed"])
    assert "| ours | 44 (40-48) | 20 (10-30) | 90 (80-100) | 1,000 |" in text
    assert "joint_vs_tuned: 1.33 (1.00-2.00)" in text
    assert chart.draw(summary(), tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_only_joined_networks_have_a_warmup():
    assert throughput.phases_of("mixed") == ("warmup", "joint", "evaluate")
    assert throughput.phases_of("cnn") == ("joint", "evaluate")
    assert all(throughput.phases_of(config) for config in throughput.CONFIGS)  # of `all`


def test_peers_need_the_mixed_config():
    with pytest.raises(SystemExit):
        throughput.parse(["--config", "cae", "--peers"])


def test_first_step_is_read_off_the_progress_bar():
    screen = io.StringIO()
    bar = tqdm.tqdm(desc="fold_1 epoch 1/400 warmup", total=625, file=screen, mininterval=0)
    assert not startup.FIRST_STEP.search(screen.getvalue().encode())
    bar.update(1)
    assert startup.FIRST_STEP.search(screen.getvalue().encode())


def test_random_data_has_the_counts_of_cifar10():
    data = worker.random_data()
    assert data.images.shape == (60_000, 32, 32, 3)
    assert set(np.bincount(data.labels[: data.num_train])) == {5_000}
    assert set(np.bincount(data.labels[data.num_train :])) == {1_000}


def test_the_program_is_measured_over_whole_epochs_and_parts_of_them(tiny_data, monkeypatch):
    monkeypatch.setattr(worker, "random_data", lambda: tiny_data)
    few = {name: 12 for name in ("bird", "deer", "truck")}
    fields = {"use_aug": False, "batch_size": 16, "steps_per_call": 1}
    program = ours.Ours("cae", train_data_regulation=few, **fields)
    images = len(program.split.expanded)
    assert program.measure("joint", 0)[0] == images
    assert program.measure("joint", 20)[0] == 32  # whole steps
    assert program.measure("evaluate", 0)[0] == len(program.split.valid)
    assert program.describe()["versions"]["jax"]


def test_a_trace_is_summed_by_kind_of_thunk():
    def event(name, duration, thread=1, **rest):
        return {"ph": "X", "pid": 7, "tid": thread, "name": name, "dur": duration, **rest}

    names = [
        {"name": "thread_name", "pid": 7, "tid": thread, "args": {"name": name}}
        for thread, name in ((1, "tf_XLAEigen/1"), (2, "python"))
    ]
    thunks = [
        event("transpose_copy_fusion.3", 5),
        event("transpose_copy_fusion", 2),
        event("conv_general_dilated.62", 1),
        event("ThunkExecutor::Execute", 100),  # holds the others
        event("dot.1", 50, thread=2),
    ]
    expected = {"transpose_copy_fusion": 7, profile_cpu.CONVOLUTION: 1}
    assert profile_cpu.kinds([*names, *thunks]) == expected


def test_the_convolutions_of_a_step_are_counted():
    config = mixed.get_config()
    config.cnn.block_sizes = ((3, 1, True), (7, 2, True))
    pixels = (1024, 256)
    cnn = 4 * pixels[0] * 9 * 3 * 1 + 6 * pixels[1] * 9 * 7 * 2
    cae = 4 * pixels[0] * 9 * 3 * 6 + 6 * pixels[1] * 16 * 6 * 3
    assert profile_cpu.convolution_flops(config) == cnn + cae


@pytest.fixture
def peers():
    pytest.importorskip("torch")
    pytest.importorskip("albumentations")
    from benchmarks import peers

    return peers


def test_peers_train_as_the_reference_does(peers):
    import test_golden
    import torch

    golden = test_golden.load("mixed")
    model = peers.Model().double()
    weights = {name: torch.tensor(array) for name, array in golden.weights("init").items()}
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in left.missing_keys)
    optimizers = peers.make_optimizers(model, golden.config)
    for step in range(len(golden.arrays["images"]) - 1):
        batch = golden.batch(step, "float64")
        images = torch.tensor(batch["image"]).permute(0, 3, 1, 2)
        joint = step >= golden.warmup_steps
        labels = torch.tensor(batch["label"]).long()
        losses = peers.train_step(model, optimizers, images, labels, joint)
        for name, loss in zip(("loss_cae", "loss_cnn"), losses, strict=False):
            if joint or name == "loss_cae":
                np.testing.assert_allclose(loss, golden.arrays[name][step], rtol=1e-9)


def test_tuned_peer_augments_as_this_program(peers):
    import torch

    from caecnn_jax.data import augment

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    draws = augment.Draws(
        flip=np.array([False, True, False, True]),
        angle=np.array([0, 0, 30, -12], np.float32),
        scale=np.array([1, 1, 0.8, 1.2], np.float32),
        hole=np.array([False, True, False, True]),
        corner=np.array([[0, 0], [3, 5], [1, 1], [20, 0]]),
        shift=np.zeros((4, 2), np.int32),
    )
    corner = np.where(draws.hole[:, None], draws.corner, -peers.HOLE)
    flip = np.where(draws.flip, -1.0, 1.0).astype(np.float32)
    given = (flip, np.deg2rad(draws.angle), draws.scale, *corner.T)
    theirs = peers.augment(*map(torch.tensor, (images, *given))).permute(0, 2, 3, 1).numpy()
    ours = np.asarray(augment.augment(images, draws))
    # Theirs turns about the centre of the pixels, ours half a pixel off it, as the reference does.
    np.testing.assert_allclose(theirs[:2], ours[:2], atol=1e-4)
    assert ((theirs == 0) == (ours == 0)).all()


def test_time_to_accuracy_counts_the_seeds_that_reach_it():
    runs = [{"seconds": s, "accuracy": a} for s, a in ((40.0, 0.72), (44.0, 0.7104), (30.0, 0.71))]
    assert time_to_accuracy.summary(runs, 0.7104) == {
        "runs": 3,
        "reached": 2,
        "seconds": {"median": 40.0, "least": 30.0, "most": 44.0},
        "accuracy": {"median": 0.7104, "least": 0.71, "most": 0.72},
    }
