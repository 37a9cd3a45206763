"""The real command with its folder in a bucket, killed and continued, against a local folder."""

import json
import os
import re
import signal
import subprocess
import sys

import image_folders
import pytest
from builders import PROJECT
from stress import kill_resume

WHY = "the bucket's emulator or gcsfs is missing: pip install '.[test]'"
pytest.importorskip("gcsfs", reason=WHY)
pytest.importorskip("gcp_storage_emulator", reason=WHY)

import bucket_server  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = (
    "cnn.block_sizes=((0,4,True),(10,6,True))",
    "image_size=16",
    "num_folds=2",
    "num_epoch=3",
    "image_budget=0",
    "batch_size=8",
    "save_img_per_epoch=3",
    "keep_checkpoints=1",
    "steps_per_call=1",
)
ADDRESS = f"gs://{bucket_server.BUCKET}/mixed"


def command(mode: str, workdir, *words) -> list[str]:
    return [sys.executable, "main.py", f"--mode={mode}", "--workdir", str(workdir), *words]


def training(photos, workdir) -> list[str]:
    settings = [f"--config.{setting}" for setting in SMALL]
    config = ["--config=configs/own_images.py", f"--config.dataset={photos}", *settings]
    return command("train", workdir, *config)


class Sessions:
    """Commands with the bucket, one after the other, and what they said."""

    def __init__(self, bucket: bucket_server.Bucket):
        self.bucket, self.said = bucket, ""
        self._environment = os.environ | bucket.environment | {"JAX_PLATFORMS": "cpu"}

    def run(self, words: list[str], code: int = 0, at: str = "", signum: int = 0) -> str:
        """Runs to the end, which must have this code; a signal strikes as an object is written.

        `at` is what the object's name ends with. Returns what was said.
        """
        process = subprocess.Popen(
            words,
            cwd=PROJECT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

        def strike(name: str) -> None:
            if name.endswith(at):
                self.bucket.on_write = None
                process.send_signal(signum)

        self.bucket.on_write = strike if at else None
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        self.said += said
        return said


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return image_folders.plain(tmp_path_factory.mktemp("photos") / "photos", each=16)


@pytest.fixture(scope="module")
def sessions():
    with bucket_server.serve() as bucket:
        yield Sessions(bucket)


@pytest.fixture(scope="module")
def alone(photos, sessions, tmp_path_factory):
    """A run's local folder, of a command that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("alone") / "mixed"
    sessions.run(training(photos, workdir))
    return workdir


@pytest.fixture(scope="module")
def killed(photos, sessions, tmp_path_factory):
    """A copy of what two interrupted commands and a third left in the bucket."""
    # A checkpoint is half written, then an epoch half trained.
    words = training(photos, ADDRESS)
    sessions.run(words, -signal.SIGKILL, "fold_1/2/variables/manifest.ocdbt", signal.SIGKILL)
    sessions.run(words, 128 + signal.SIGTERM, "fold_2/1/commit_success.txt", signal.SIGTERM)
    assert "mixed/fold_2/interrupted/1/commit_success.txt" in sessions.bucket.names()
    before = len(sessions.bucket.requests)
    assert f"report: {ADDRESS}/report.html" in sessions.run(words)
    asked = sessions.bucket.requests[before:]
    assert any(re.search(r"GET .*fold_2/interrupted/1/opt_state/d/", one) for one in asked)
    return sessions.bucket.copy("mixed", tmp_path_factory.mktemp("killed") / "mixed")


def test_a_killed_run_in_a_bucket_has_the_bits_of_a_local_one(alone, killed):
    assert kill_resume.differences(alone, killed) == []


def test_the_files_in_a_bucket_are_those_of_a_local_folder(alone, killed):
    def names(folder):
        paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        # Of arrays Orbax writes other files, and a restart begins another file of events.
        return {name for name in paths if not re.match(r"(fold_\d|test)/\d+/|.*tfevents", name)}

    assert names(alone) - names(killed) == {".lock", "train.log"}
    assert names(killed) <= names(alone)


def test_events_in_a_bucket_tell_of_each_epoch_once(killed):
    from tensorboard.backend.event_processing import event_accumulator

    for name in ("fold_1", "fold_2", "test"):
        folder = killed / "tensorboard" / name
        events = event_accumulator.EventAccumulator(str(folder), {"scalars": 0}).Reload()
        assert [event.step for event in events.Scalars("train/loss_cae")] == [1, 2, 3]


LOOK_TWICE = """
import os, sys, urllib.request
from caecnn_jax import logs
from caecnn_jax.records import workdir

logs.to_console("INFO")
folder = workdir.resolve("gs://{bucket}/others")
workdir.write_bytes(folder / "ours", b"1")
assert [path.name for path in folder.iterdir()] == ["ours"]
address = os.environ["STORAGE_EMULATOR_HOST"] + "/upload/storage/v1/b/{bucket}/o"
there = urllib.request.Request(address + "?uploadType=media&name=others/theirs", data=b"2")
urllib.request.urlopen(there).read()
assert (folder / "theirs").exists()
assert sorted(path.name for path in folder.iterdir()) == ["ours", "theirs"]
"""


def test_what_another_process_writes_to_a_bucket_is_seen(sessions):
    # Else a job's first process waits for ever for the runs of the others.
    sessions.run([sys.executable, "-c", LOOK_TWICE.format(bucket=bucket_server.BUCKET)])


def renames(bucket: bucket_server.Bucket) -> list[str]:
    return [one for one in bucket.requests if re.search("(move|copy|rewrite)To", one)]


def test_a_bucket_is_not_asked_to_rename(killed, sessions):
    assert renames(sessions.bucket) == []


def test_an_evaluation_is_read_from_a_bucket_and_written_to_it(killed, sessions, tmp_path):
    sessions.run(command("evaluate", ADDRESS))
    place = sessions.bucket.copy("mixed/evaluations", tmp_path)
    found = json.loads((place / "test-test-last.json").read_text())
    logged = json.loads((killed / "metrics.json").read_text())["test"]
    assert found["confusion_matrix"] == logged["confusion_matrix"]
    assert found["loss_cnn"] == pytest.approx(logged["loss_cnn"], rel=1e-6)


def test_a_report_of_a_bucket_is_written_to_it_anew(killed, sessions):
    sessions.bucket.delete_file(bucket_server.BUCKET, "mixed/report.html")
    assert f"written to {ADDRESS}/report.html" in sessions.run(command("report", ADDRESS))
    assert "mixed/report.html" in sessions.bucket.names()


def test_libraries_say_nothing_of_a_bucket(killed, sessions):
    """But tensorstore, which says in the emulator's presence that it found no credentials."""
    others = r"Traceback|Error|gcsfs|google|fsspec|aiohttp|asyncio|[Uu]nclosed"
    lines = [line for line in sessions.said.splitlines() if re.search(others, line)]
    assert [line for line in lines if "google_auth_provider.cc" not in line] == []


DAMAGED = """
import numpy as np
from etils import epath
from caecnn_jax.records import checkpoints

place = epath.Path("gs://runs/damaged")
arrays = {"variables": {"a": np.arange(3.0)}, "opt_state": {"b": np.arange(2)}}
for step in (1, 2):
    checkpoints.Checkpoints(place).save(step, arrays, {"epoch": step})
for path in (place / "2" / "variables" / "d").iterdir():
    path.write_bytes(b"no array")
saved = checkpoints.Checkpoints(place)
assert saved.restore_newest(arrays).step == 1
saved.set_damaged_aside()
assert saved.steps() == checkpoints.Checkpoints(place).steps() == [1]
"""


def test_a_damaged_checkpoint_in_a_bucket_is_set_aside():
    """The one thing that is renamed."""
    with bucket_server.serve() as bucket:
        Sessions(bucket).run([sys.executable, "-c", DAMAGED])
        assert "damaged/damaged-2/variables/manifest.ocdbt" in bucket.names()
        assert "damaged/2/commit_success.txt" not in bucket.names()
        assert len(renames(bucket)) > 9


def test_a_missing_bucket_is_a_sentence(photos, sessions):
    said = sessions.run(training(photos, "gs://nowhere/mixed"), code=2)
    assert "cannot write gs://nowhere/mixed/config.json" in said and "Traceback" not in said
