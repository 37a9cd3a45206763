"""Tests of caecnn_jax.training.launch through submitit's local executor: real processes."""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
import types

import numpy as np
import pytest
from builders import make_data, tiny_config

from caecnn_jax import study
from caecnn_jax.records import workdir
from caecnn_jax.training import launch, parts

submitit = pytest.importorskip("submitit", reason="needs the extra slurm")
PROJECT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def make_study(tmp_path, monkeypatch):
    """Builds a study of one variant on data in a file, for jobs load what they train on."""
    data, n = make_data(), 200
    parts = {"x_train": data.images[:n], "y_train": data.labels[:n]}
    np.savez(tmp_path / "tiny.npz", **parts, x_test=data.images[n:], y_test=data.labels[n:])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), *sys.path]))
    monkeypatch.setattr(launch, "SECONDS_BETWEEN_LOOKS", 0.2)

    def of(variants, **changes):
        base = tiny_config("cnn", save_img_per_epoch=0, do_test=False, **changes)
        base.dataset = str(tmp_path / "tiny.npz")
        base.train_data_regulation, base.train_data_expansion = {}, {}
        fields = {"base": base, "variants": variants, "seeds": (0,), "baseline": "plain"}
        return study.expand("tiny", fields | {"submit": {"timeout_min": 5}})

    return of


@pytest.mark.slow
def test_jobs_train_what_is_left_and_name_what_failed(make_study, tmp_path):
    made = make_study({"plain": {}, "wild": {"cnn.opt.lr": 1e30}})
    folder = workdir.resolve(tmp_path / "study")
    failed = launch.submit(made, folder, num_parts=5)
    assert list(failed) == ["wild/seed_0"] and "no longer finite" in failed["wild/seed_0"]
    assert (folder / "plain/seed_0/metrics.json").exists()
    assert len(list((folder / "jobs").glob("*_submitted.pkl"))) == 2
    assert list(launch.submit(made, folder, num_parts=1)) == ["wild/seed_0"]
    assert len(list((folder / "jobs").glob("*_submitted.pkl"))) == 3


@pytest.mark.slow
def test_a_preempted_job_saves_goes_back_into_the_queue_and_goes_on(make_study, tmp_path):
    made = make_study({"plain": {}}, num_epoch=60)
    folder = workdir.resolve(tmp_path / "study")
    executor = launch._executor(made, folder)
    job = executor.submit(launch.Job(made.runs, str(folder)))
    while not (folder / "plain/seed_0/fold_1/1").exists():
        assert job.state == "RUNNING", job.stderr()
        time.sleep(0.02)
    os.kill(int(child_of(job)), signal.SIGUSR2)
    assert job.result() == {}
    log = job.stdout() + job.stderr()
    assert "SIGUSR2: stopping after this step" in log and "Requeued job" in log
    metrics = json.loads((folder / "plain/seed_0/metrics.json").read_text())
    assert len(metrics["cv"]["folds"]) == 2


def raises():
    raise AssertionError("of a job that ended with an error")


def loses_both() -> dict[str, str]:
    """As where jobs of another command held the folders, and have finished one since."""
    return dict.fromkeys(("plain/seed_0", "other/seed_0"), "another process trains in it")


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ("local", "Submitted as 7.\n"),  # it ends with this command's terminal
        ("slurm", "Submitted as 7, 7; they go on where this command is stopped.\n"),
    ],
)
@pytest.mark.parametrize(
    ("error", "result", "reason"),
    [
        (RuntimeError("killed"), raises, "job 7: killed"),
        (None, loses_both, "another process trains in it"),
    ],
)
def test_of_a_job_that_ends_at_once_only_what_it_left_has_failed(
    make_study, tmp_path, monkeypatch, caplog, cluster, says, error, result, reason
):
    made = make_study({"plain": {}, "other": {"batch_size": 16}})
    folder = workdir.resolve(tmp_path / "study")
    done = []
    monkeypatch.setattr(
        parts, "finished", lambda runs, _: {run.name: run for run in runs if run.variant in done}
    )
    ended = types.SimpleNamespace(
        job_id="7", done=lambda: True, exception=lambda: error, result=result
    )

    def submitted(job):
        done.append("plain")
        return ended

    executor = types.SimpleNamespace(
        cluster=cluster, batch=contextlib.nullcontext, submit=submitted
    )
    monkeypatch.setattr(launch, "_executor", lambda *_: executor)
    with caplog.at_level("INFO", logger="absl"):
        failed = launch.submit(made, folder)
    assert failed == {"other/seed_0": reason}
    assert says in caplog.text
    assert len(done) == (2 if cluster == "slurm" else 1)  # jobs


def test_the_time_left_goes_by_what_the_jobs_have_finished():
    counts = "study: 5 done, 4 to come in 2 job(s)"
    assert launch.line(5, 4, 2, since=0, seconds=60.0) == counts
    assert launch.line(5, 4, 2, since=2, seconds=60.0) == (
        f"{counts}; about 0:02:00 left at the pace up to now"
    )
    assert launch.line(9, 0, 0, since=6, seconds=60.0) == "study: 9 done, 0 to come in 0 job(s)"


def child_of(job) -> str:
    """The process that trains, whose parent is the local executor's controller."""
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"\nPPid:\t{job.job_id}\n" in text:
            return status.parent.name
    raise AssertionError("the job has no process")


def test_parameters_that_submitit_does_not_take_are_refused(make_study, tmp_path):
    made = make_study({"plain": {}})._replace(submit={"timeout": 5})
    with pytest.raises(study.StudyError, match=r"submit=.*timeout"):
        launch.submit(made, workdir.resolve(tmp_path / "study"), num_parts=1)
