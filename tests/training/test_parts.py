"""Tests of caecnn_jax.training.parts: every run trains once, exactly as alone, whatever happens."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from builders import tiny_config
from study_folders import write
from study_job import make_study

from caecnn_jax import config as config_lib
from caecnn_jax import errors, saved_config
from caecnn_jax.records import checkpoints, journal, workdir
from caecnn_jax.training import parts, train, workload

JOB = pathlib.Path(__file__).parents[1] / "study_job.py"
NAMES = ["plain/seed_0", "expanded/seed_0", "plain/seed_1", "expanded/seed_1"]
TIMINGS = ("seconds", "images_per_second")


@pytest.fixture(autouse=True)
def draw_nothing(monkeypatch):
    monkeypatch.setattr(journal.Journal, "finish", lambda self: None)


def contents(folder, names=NAMES) -> dict:
    """Everything that the runs came to, but for the timings."""
    found = {}
    for name in names:
        lines = (folder / name / "history.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        found[name] = [{k: v for k, v in one.items() if k not in TIMINGS} for one in records]
        found[name, "metrics"] = json.loads((folder / name / "metrics.json").read_text())
        for fold in ("fold_1", "fold_2"):
            place = workdir.resolve(folder / name / fold)
            saved = checkpoints.Checkpoints(place, read_only=True)
            restored = saved.restore(saved.steps()[-1], saved_shapes(folder / name))
            found[name, fold] = checkpoints.digest(restored.arrays)
    return found


def saved_shapes(folder):
    from caecnn_jax.networks import models

    config = workdir.read_config(workdir.resolve(folder))
    return train.saved_shapes(config, models.from_config(config, num_classes=10, channels=3))


def train_all(folder, data, **changes):
    runs = make_study(**changes).runs
    return parts.train_all(runs, workdir.resolve(folder), load=lambda config: data)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_data):
    """The folder of the study, each of its runs trained alone."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "finish", lambda self: None)
        for run in make_study().runs:
            train.train_and_evaluate(run.config, folder / run.name, tiny_data)
    return folder


def test_a_study_trains_every_run_as_it_would_alone_and_then_nothing(
    straight, tmp_path, tiny_data, monkeypatch
):
    assert train_all(tmp_path, tiny_data) == {}
    assert contents(tmp_path) == contents(straight)
    began = []
    run = train.train_runs
    monkeypatch.setattr(
        train,
        "train_runs",
        lambda *args, **named: began.append(named["title"]) or run(*args, **named),
    )
    assert train_all(tmp_path, tiny_data) == {} and began == []
    assert train_all(tmp_path, tiny_data, seeds=(0, 1, 2)) == {}
    assert began == ["plain/seed_2", "expanded/seed_2"]


def test_a_run_that_fails_is_named_and_the_others_go_on(straight, tmp_path, tiny_data, caplog):
    variants = {"plain": {}, "wild": {"cnn.opt.lr": 1e30}}
    failed = train_all(tmp_path, tiny_data, variants=variants, seeds=(0,))
    assert list(failed) == ["wild/seed_0"]
    assert "no longer finite in fold_1" in failed["wild/seed_0"]
    assert contents(tmp_path, NAMES[:1]) == contents(straight, NAMES[:1])


def test_a_fault_of_one_run_leaves_the_others_alone(straight, tmp_path, tiny_data, monkeypatch):
    run = train.train_runs

    def faulty(*args, title, **named):
        if title == "plain/seed_1":
            raise MemoryError("too large")
        return run(*args, title=title, **named)

    monkeypatch.setattr(train, "train_runs", faulty)
    assert train_all(tmp_path, tiny_data) == {"plain/seed_1": "MemoryError: too large"}
    others = [name for name in NAMES if name != "plain/seed_1"]
    assert contents(tmp_path, others) == contents(straight, others)
    # The page of a part that another machine trains tells of it too, until the run goes on.
    folder = workdir.resolve(tmp_path)
    assert parts.reasons(NAMES, folder) == {"plain/seed_1": "MemoryError: too large"}
    monkeypatch.setattr(train, "train_runs", run)
    assert train_all(tmp_path, tiny_data) == {} == parts.reasons(NAMES, folder)


def test_a_signal_stops_all_and_the_same_command_goes_on(
    straight, tmp_path, tiny_data, monkeypatch
):
    save, saves = journal.Journal.save, []

    def counted(self, *args):
        save(self, *args)
        saves.append(0)
        if len(saves) in (3, 8):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the thread that hears it

    monkeypatch.setattr(journal.Journal, "save", counted)
    for _ in range(2):
        with pytest.raises(errors.Interrupted):
            train_all(tmp_path, tiny_data)
    assert not (tmp_path / NAMES[-1]).exists()
    assert train_all(tmp_path, tiny_data) == {}
    assert contents(tmp_path) == contents(straight)


def test_a_folder_with_another_config_is_refused_before_anything_trains(tmp_path, tiny_data):
    train_all(tmp_path, tiny_data, seeds=(1,))
    variants = {"plain": {"batch_size": 16}, "new": {}}
    with pytest.raises(workdir.WorkdirError, match=r"seed_1 holds a run of .*batch_size was 32"):
        train_all(tmp_path, tiny_data, variants=variants)
    assert not (tmp_path / "new").exists()


def test_what_a_variant_asks_of_its_data_is_checked_before_anything_trains(tmp_path, tiny_data):
    variants = {"plain": {}, "typo": {"train_data_regulation": {"brid": 6}}}
    with pytest.raises(config_lib.ConfigError, match=r"'typo': config.*brid.*is no class"):
        train_all(tmp_path, tiny_data, variants=variants, seeds=(0,))
    assert not (tmp_path / "plain").exists()


def test_a_folder_in_which_nothing_was_trained_takes_a_new_config(tmp_path):
    """As a run leaves it that diverged in its first epoch, or was killed while it compiled."""
    folder = workdir.resolve(tmp_path)
    first, second = (
        make_study(variants={"plain": changes}, seeds=(0,)).runs[0]
        for changes in ({"cnn.opt.lr": 1e30}, {})
    )
    (folder / first.name).mkdir(parents=True)
    (folder / first.name / "config.json").write_text(saved_config.to_text(first.config))
    (folder / first.name / "history.jsonl").write_text("")
    assert not parts.finished([second], folder)
    (folder / first.name / "fold_1").mkdir()
    with pytest.raises(workdir.WorkdirError, match="another config"):
        parts.finished([second], folder)


def test_a_run_of_other_data_is_another_run(tmp_path):
    folder = workdir.resolve(tmp_path)
    (one,) = make_study(variants={"plain": {"dataset": "cifar100"}}, seeds=(0,)).runs
    write(folder, one, {"fold_1": 10})
    assert parts.finished([one], folder)
    (other,) = make_study(variants={"plain": {}}, seeds=(0,)).runs
    with pytest.raises(workdir.WorkdirError, match=r"config.dataset was 'cifar100' and is"):
        parts.finished([other], folder)


def start(folder, *part: str, num_devices: int) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    return subprocess.Popen(
        [sys.executable, str(JOB), str(folder), *part],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.mark.slow
def test_a_killed_study_on_four_devices_ends_as_one_left_alone(straight, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    output = finish(start(alone, num_devices=4))
    assert "4 running" in output and "study: 4 done" in output
    for name in NAMES:  # each file tells of its own run
        text = (alone / name / "train.log").read_text()
        assert f"{name} fold_2 2/2" in text
        others = [other for other in NAMES if f"{other} fold_" in text]
        assert others == [name]
    killed = start(folder, num_devices=4)
    while not list(folder.glob("*/*/fold_*/1")):
        assert killed.poll() is None, killed.communicate()[0][-3000:]
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    finish(start(folder, num_devices=4))
    assert contents(folder) == contents(alone)
    # XLA rounds otherwise on as many simulated devices as on one.
    for name in NAMES:
        for one, other in zip(contents(folder)[name], contents(straight)[name], strict=True):
            assert one["valid"]["loss_cnn"] == pytest.approx(other["valid"]["loss_cnn"], rel=1e-4)


@pytest.mark.slow
def test_parts_by_index_are_the_whole(straight, tmp_path):
    outputs = [
        finish(process)
        for process in [start(tmp_path, str(part), "3", num_devices=1) for part in range(3)]
    ]
    assert [output.count(" begins; ") for output in outputs] == [2, 1, 1]
    assert contents(tmp_path) == contents(straight)


def test_the_plan_counts_what_is_left_and_times_it(tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr(parts.dataset, "open_source", lambda config: Source(tiny_data))
    made = make_study()
    folder = workdir.resolve(tmp_path)
    parts.train_all(made.runs[:1], folder, load=lambda config: tiny_data)
    lines = parts.plan(made, made.runs, folder).splitlines()
    rows = {line.split()[0]: line.split()[1:5] for line in lines[1:3]}
    # 7 classes of 10 and 3 of 6 images in a fold: 88, and 6 more.
    assert rows == {"plain": ["1", "1", "2", "88"], "expanded": ["0", "2", "2", "94"]}
    assert "4 trainings, 1 done; the other 3 take about 0:" in lines[-1]
    # Half of a seed that was stopped needs no time again.
    finished, stopped = tmp_path / "plain" / "seed_0", tmp_path / "plain" / "seed_1"
    stopped.mkdir()
    for file in ("dataset.json", "run.json"):
        shutil.copy(finished / file, stopped)
    (stopped / "config.json").write_text(saved_config.to_text(made.runs[2].config))
    told = (finished / "history.jsonl").read_text().splitlines(keepends=True)
    (stopped / "history.jsonl").write_text("".join(told[: len(told) // 2]))
    monkeypatch.setattr(workload, "table", lambda rows, at_once: rows)
    plain, expanded = parts.plan(made, made.runs, folder)
    assert (plain.left, plain.begun, expanded.begun) == (1, 0.5, 0)
    monkeypatch.undo()
    monkeypatch.setattr(parts.dataset, "open_source", lambda config: pytest.fail("not needed"))
    assert parts.plan(made, made.runs[:1], folder) == "1 trainings, all of them done"
    assert parts.plan(made, (), folder) == "0 trainings, all of them done"  # of an empty part


def test_the_plan_measures_each_phase_that_a_variant_has(tmp_path, tiny_data, monkeypatch):
    """Warm-up takes all epochs of the first, whose speed says nothing of the second's CNN."""
    monkeypatch.setattr(parts.dataset, "open_source", lambda config: Source(tiny_data))
    rates = {"warmup": 200.0, "joint": 100.0}

    def measure(config, work, classes):
        return {phase: rates[phase] for phase in work.phases}

    monkeypatch.setattr(parts.workload, "measure", measure)
    base, variants = tiny_config("mixed"), {"plain": {}, "joint": {"only_train_cae_until": 1}}
    base.num_epoch, base.only_train_cae_until = 2, 2
    made = make_study(base=base, variants=variants, seeds=(0,))
    lines = parts.plan(made, made.runs, workdir.resolve(tmp_path)).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["plain", "joint"]


def test_variants_share_images_where_their_networks_take_the_same():
    base = tiny_config("cnn", dataset="photos.npz")
    named, left_open = ({"cnn.block_sizes": ((n, 4, True),)} for n in (3, 0))
    variants = {"named": named, "open": left_open, "said": left_open | {"channels": 3}}
    runs = make_study(base=base, variants=variants, baseline="open").runs
    keys = {run.variant: parts.data_key(run) for run in runs}
    assert keys["named"] == keys["said"] != keys["open"]


def test_the_plan_measures_networks_that_name_one_channel():
    changes = {"dataset": "photos.npz", "cnn.block_sizes": ((1, 2, True),)}
    config = tiny_config("cnn", steps_per_call=1, batch_size=4)
    config.update_from_flattened_dict(changes)
    work = workload.Work({"test": 4}, {"test": 2}, 0, 1)
    assert workload.measure(config, work, classes=2)["joint"] > 0


def test_finished_seeds_of_other_images_are_refused(tmp_path, tiny_data):
    train_all(tmp_path, tiny_data, variants={"plain": {}}, seeds=(0,))
    others = dataclasses.replace(tiny_data, digest="other")
    with pytest.raises(workdir.WorkdirError, match=r"seed_0 holds a run on other images"):
        train_all(tmp_path, others, variants={"plain": {}}, seeds=(0, 1))
    assert not (tmp_path / "plain" / "seed_1").exists()


def test_finished_seeds_of_other_images_are_refused_in_a_part_too(tmp_path, tiny_data):
    train_all(tmp_path, tiny_data, variants={"plain": {}}, seeds=(0,))
    runs = make_study(variants={"plain": {}}, seeds=(0, 1)).runs
    others = dataclasses.replace(tiny_data, digest="other")
    with pytest.raises(workdir.WorkdirError, match=r"seed_0 holds a run on other images"):
        parts.train_all(runs[1:], workdir.resolve(tmp_path), lambda _: others, beside=runs)
    assert not (tmp_path / "plain" / "seed_1").exists()


class Source:
    """The tiny data as a source."""

    def __init__(self, data):
        self.labels, self.num_train, self.class_names = (
            data.labels,
            data.num_train,
            data.class_names,
        )
        self.train_counts, self.test_counts = parts.dataset.counts(data)
