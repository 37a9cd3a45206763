"""Tests of caecnn_jax.records.checkpoints: damage is found out, and what is good comes back."""

import errno
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest
from builders import PROJECT
from etils import epath

from caecnn_jax.records import checkpoints, workdir


def arrays(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "variables": {"params": {"kernel": rng.normal(size=(3, 40)).astype(np.float32)}},
        "opt_state": {"cnn": (np.int32(seed), {"mu": rng.normal(size=50).astype(np.float32)})},
    }


def progress(step: int) -> dict:
    return {"epoch": step, "records": [{"loss": 0.1 + step}]}


def save(directory: pathlib.Path, *steps: int) -> checkpoints.Checkpoints:
    saved = checkpoints.Checkpoints(epath.Path(directory))
    for step in steps:
        saved.save(step, arrays(step), progress(step))
    return saved


def is_whole(restored: checkpoints.Restored, step: int) -> bool:
    same = checkpoints.digest(restored.arrays) == checkpoints.digest(arrays(step))
    return same and restored.progress == progress(step) and restored.step == step


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A directory with checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("two") / "run"
    save(folder, 1, 2)
    return folder


@pytest.fixture
def copy(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    return tmp_path / "run"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, byte: int):
    content = bytearray(path.read_bytes())
    content[byte % len(content)] ^= 0x10
    path.write_bytes(content)


def files(folder) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_nothing_is_made_before_the_first_save(tmp_path):
    empty = checkpoints.Checkpoints(epath.Path(tmp_path / "run"))
    assert empty.steps() == []
    empty.keep_only(set())
    assert empty.restore_newest(arrays(0)) is None
    assert not (tmp_path / "run").exists()


def test_what_was_saved_is_restored_bit_for_bit(two):
    saved = checkpoints.Checkpoints(epath.Path(two), read_only=True)
    assert saved.steps() == [1, 2]
    assert is_whole(saved.restore(1, arrays(0)), 1)
    assert is_whole(saved.restore_newest(arrays(0)), 2)
    assert saved.restore(2, {}).progress == progress(2)  # the records alone


def test_only_the_wanted_are_kept(copy):
    saved = save(copy, 3)
    saved.keep_only({1, 3})
    assert saved.steps() == [1, 3]
    assert checkpoints.Checkpoints(epath.Path(copy)).steps() == [1, 3]


# Orbax closes its loop at the first failed read, and the others then find it closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["truncate", "first bit", "middle bit", "last bit", "remove"])
def test_damage_to_any_file_falls_back_or_does_no_harm(two, tmp_path, damage, caplog):
    """Each file of checkpoint 2 in turn: either 2 is whole all the same, or 1 is restored."""
    fallen_back = []
    for number, original in enumerate(files(two / "2")):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        path = folder / original.relative_to(two)
        if damage == "truncate":
            truncate(path)
        elif damage == "remove":
            path.unlink()
        elif path.stat().st_size:
            places = {"first bit": 0, "middle bit": path.stat().st_size // 2, "last bit": -1}
            flip(path, places[damage])
        saved = checkpoints.Checkpoints(epath.Path(folder))
        restored = saved.restore_newest(arrays(0))
        assert is_whole(restored, restored.step), path
        if restored.step == 1:
            fallen_back.append(path.name)
        saved.set_damaged_aside()
        saved.keep_only({restored.step})
        # Training goes on from there as if nothing had been.
        saved.save(restored.step + 1, arrays(9), progress(9))
        again = checkpoints.Checkpoints(epath.Path(folder)).restore_newest(arrays(0))
        assert again.step == restored.step + 1
        assert again.progress == progress(9)
    assert len(fallen_back) >= 3  # the arrays' and the records' files at least


def test_a_changed_record_is_found_out(copy):
    """Valid JSON with another number in it, which only the digest can tell."""
    path = copy / "2" / "progress" / "metadata"
    text = path.read_text()
    assert "2.1" in text
    path.write_text(text.replace("2.1", "2.9"))
    with pytest.raises(checkpoints.CheckpointError, match="progress differ from what was saved"):
        checkpoints.Checkpoints(epath.Path(copy)).restore(2, arrays(0))


def test_a_damaged_checkpoint_is_warned_of_and_renamed_when_told_to(copy, caplog):
    truncate(copy / "2" / "progress" / "metadata")
    saved = checkpoints.Checkpoints(epath.Path(copy))
    with caplog.at_level("WARNING"):
        assert is_whole(saved.restore_newest(arrays(0)), 1)
    assert f"{copy / '2'} is damaged" in caplog.text
    assert "falling back" in caplog.text
    assert saved.steps() == [1, 2]  # whoever only reads leaves it
    saved.set_damaged_aside()
    assert saved.steps() == [1]
    assert (copy / "damaged-2").is_dir()


def test_when_all_are_damaged_all_are_named_and_kept(copy):
    for step in (1, 2):
        truncate(copy / str(step) / "progress" / "metadata")
    with pytest.raises(checkpoints.CheckpointError) as error:
        checkpoints.Checkpoints(epath.Path(copy)).restore_newest(arrays(0))
    for expected in (str(copy / "1"), str(copy / "2"), f"remove {copy}"):
        assert expected in str(error.value)
    assert (copy / "1").is_dir()
    assert (copy / "2").is_dir()


def test_a_half_written_checkpoint_does_not_count(copy):
    """What a kill inside Orbax's save leaves."""
    shutil.copytree(copy / "2", copy / "3.orbax-checkpoint-tmp")
    saved = checkpoints.Checkpoints(epath.Path(copy))
    assert saved.steps() == [1, 2]
    assert is_whole(saved.restore_newest(arrays(0)), 2)
    saved.save(3, arrays(3), progress(3))
    assert is_whole(saved.restore_newest(arrays(0)), 3)
    assert not list(copy.glob("*tmp*"))


def test_a_save_that_fails_leaves_nothing_that_counts(copy, monkeypatch):
    saved = checkpoints.Checkpoints(epath.Path(copy))
    saved.steps()

    def fails(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", fails)
        patch.setattr(pathlib.Path, "rename", fails)
        with pytest.raises(workdir.WorkdirError, match="No space left on device; what was saved"):
            saved.save(3, arrays(3), progress(3))
    again = checkpoints.Checkpoints(epath.Path(copy))
    assert is_whole(again.restore_newest(arrays(0)), 2)
    again.save(3, arrays(3), progress(3))
    assert is_whole(again.restore_newest(arrays(0)), 3)


def fails_with(error):
    """Stands for Orbax's restore of arrays: the records are read, the arrays are not."""
    whole = ocp.CheckpointManager.restore

    def restore(self, step, args):
        if "progress" in args:
            return whole(self, step, args=args)
        raise error

    return restore


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error", "a file"),
        PermissionError(errno.EACCES, "Permission denied", "a file"),
        ValueError("UNKNOWN: Error reading local file [os_error_code='5']"),
        TimeoutError("a mount that is slow"),
    ],
)
def test_a_passing_fault_of_the_disk_renames_no_good_checkpoint(copy, monkeypatch, error):
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "restore", fails_with(error))
        with pytest.raises(OSError, match=r"Input/output|Permission|slow"):
            checkpoints.Checkpoints(epath.Path(copy)).restore_newest(arrays(0))
    assert not list(copy.glob("damaged*"))
    assert is_whole(checkpoints.Checkpoints(epath.Path(copy)).restore_newest(arrays(0)), 2)


def test_other_arrays_than_were_saved_are_no_damage(copy):
    saved = checkpoints.Checkpoints(epath.Path(copy))
    for name, leaf in [("bias", np.zeros(3, np.float32)), ("kernel", np.zeros(3, np.float32))]:
        target = arrays(0) | {"variables": {"params": {name: leaf}}}
        with pytest.raises(checkpoints.CheckpointError, match="holds other arrays") as error:
            saved.restore_newest(target)
        assert not isinstance(error.value, checkpoints.DamagedError)
    assert not list(copy.glob("damaged*"))


def test_a_checkpoint_without_structures_is_read(copy):
    """Those of earlier versions have none."""
    path = copy / "2" / "progress" / "metadata"
    content = json.loads(path.read_text())
    del content["structures"]
    path.write_text(json.dumps(content))
    assert is_whole(checkpoints.Checkpoints(epath.Path(copy)).restore_newest(arrays(0)), 2)


def test_json_of_another_shape_is_damage(copy):
    for name in ("progress/metadata", "variables/_METADATA"):
        shutil.copytree(copy, copy.parent / "other", dirs_exist_ok=True)
        (copy.parent / "other" / "2" / name).write_text("[1]")
        with pytest.raises(checkpoints.DamagedError):
            checkpoints.Checkpoints(epath.Path(copy.parent / "other")).restore(2, arrays(0))


def test_a_checkpoint_that_another_process_removes_is_gone(copy):
    reader = checkpoints.Checkpoints(epath.Path(copy), read_only=True)
    assert reader.steps() == [1, 2]
    shutil.rmtree(copy / "2")
    with pytest.raises(checkpoints.GoneError, match="not there"):
        reader.restore(2, arrays(0))


@pytest.mark.parametrize("error", [FileNotFoundError, NotADirectoryError])
def test_a_listing_is_tried_again_where_a_checkpoint_vanishes(copy, monkeypatch, error):
    whole, calls = ocp.CheckpointManager.all_steps, []

    def all_steps(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise error(str(copy / "1"))
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "all_steps", all_steps)
    assert checkpoints.Checkpoints(epath.Path(copy), read_only=True).steps() == [1, 2]


CHILD = """
import sys, time
sys.path[:0] = ["tests", "tests/records"]
import test_checkpoints as t
from etils import epath
from caecnn_jax import logs
from caecnn_jax.records import checkpoints
logs.to_console("INFO")
for _ in range(20):
    try:
        checkpoints.Checkpoints(epath.Path(sys.argv[1]), read_only=True).restore(2, t.arrays(0))
    except checkpoints.DamagedError:
        pass
time.sleep(0.5)
print("done")
"""


def test_no_traceback_of_an_event_loop_reaches_a_terminal(copy):
    for path in files(copy / "2" / "opt_state"):
        if path.parent.name == "d":
            truncate(path)
    command = [sys.executable, "-c", CHILD, str(copy)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr
    assert "Traceback" not in done.stderr and "Event loop" not in done.stderr
