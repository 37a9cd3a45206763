"""Tests of caecnn_jax.records.claims: who may train in a folder, and which config it keeps."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest
from builders import PROJECT, make_data, tiny_config
from etils import epath

from caecnn_jax.data import description
from caecnn_jax.part import Part
from caecnn_jax.records import about, claims, workdir

CHILD = """
import sys, time
from etils import epath
import builders
from caecnn_jax.records import claims
with claims.claim(epath.Path(sys.argv[1]), builders.tiny_config()):
    print("claimed", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "run")


def visit(folder, config=None):
    config = config or tiny_config()
    with claims.claim(folder, config) as finished:
        if not finished:
            claims.begin(folder, config)


def finish(folder):
    visit(folder)
    about.write_description(folder, description.of(make_data(), (0.5,) * 3, (0.25,) * 3))
    workdir.write_json(folder / "run.json", {"started": "2001-02-03T04:05:06"})
    workdir.write_json(folder / "metrics.json", {"cv": None, "test": None})


def test_a_new_folder_is_made_and_not_finished(folder):
    with claims.claim(folder, tiny_config()) as finished:
        assert not finished
        assert not (folder / "config.json").exists()  # the data may still be refused
        claims.begin(folder, tiny_config())
    assert workdir.read_config(folder).to_dict() == tiny_config().to_dict()


def test_a_second_process_is_refused_and_may_come_later(folder):
    with claims.claim(folder, tiny_config()):
        with pytest.raises(workdir.WorkdirError, match="another process trains"):
            visit(folder)
        # A process that writes nothing, of the same job, is let in.
        with claims.claim(folder, tiny_config(), writes=False) as finished:
            assert not finished
    visit(folder)


def test_parts_of_the_runs_share_a_folder_but_no_run(folder):
    with claims.claim(folder, tiny_config(), Part(0, 2)):
        with pytest.raises(workdir.WorkdirError, match="another process trains in"):
            visit(folder)
        with claims.claim(folder, tiny_config(), Part(1, 2)), claims.hold(folder, ["fold_2"]):
            with claims.hold(folder, ["fold_1", "test"]):
                pass
            with (
                pytest.raises(workdir.WorkdirError, match="another process trains fold_2 in"),
                claims.hold(folder, ["fold_1", "fold_2"]),
            ):
                pass
        # What one of them trains by now, another does not change.
        claims.begin(folder, tiny_config(), Part(0, 2))
        with pytest.raises(workdir.WorkdirError, match=r"config\.seed was 0 and is 1"):
            claims.claim(folder, tiny_config(seed=1), Part(1, 2)).__enter__()
        with pytest.raises(workdir.WorkdirError, match=r"config\.seed was 0 and is 1"):
            claims.begin(folder, tiny_config(seed=1), Part(1, 2))
    with claims.claim(folder, tiny_config()), pytest.raises(workdir.WorkdirError):
        claims.claim(folder, tiny_config(), Part(0, 2)).__enter__()


def test_a_killed_process_leaves_no_lock(folder):
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}"}
    command = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"claimed\n"
        with pytest.raises(workdir.WorkdirError, match="another process trains"):
            visit(folder)
        child.send_signal(signal.SIGKILL)
        child.wait()
    visit(folder)


def test_what_a_kill_left_half_written_goes(folder):
    visit(folder)
    left = folder / ".metrics.json.elsewhere-1.partial"
    left.write_text("{")
    with claims.claim(folder, tiny_config(), Part(0, 2)):
        assert left.exists()  # another part may be about to rename it
    visit(folder)
    assert not left.exists()


def test_a_process_that_does_not_write_makes_nothing(folder):
    with claims.claim(folder, tiny_config(), writes=False) as finished:
        assert not finished
    assert not folder.exists()
    finish(folder)
    with claims.claim(folder, tiny_config(), writes=False) as finished:
        assert finished


def test_a_finished_run_is_known_and_goes_on_with_more_epochs(folder):
    finish(folder)
    (folder / "report.html").write_text("")
    with claims.claim(folder, tiny_config()) as finished:
        assert finished
    with claims.claim(folder, tiny_config(num_epoch=9)) as finished:
        assert not finished
        assert (folder / "metrics.json").exists()
        claims.begin(folder, tiny_config(num_epoch=9))
        assert not (folder / "metrics.json").exists()  # they would tell of fewer epochs
        assert not (folder / "report.html").exists()
    assert workdir.read_config(folder).num_epoch == 9


def test_more_epochs_than_had_no_ramp_are_another_run(folder):
    """A budget's fewer than four epochs have none, whatever lr_ramp_epochs is."""
    few = {"image_budget": 10**6, "lr_ramp_epochs": 2}
    visit(folder, tiny_config(num_epoch=3, **few))
    workdir.write_history(folder, [{"epoch": 1}])
    with pytest.raises(workdir.WorkdirError, match="num_epoch was 3 and is 10"):
        visit(folder, tiny_config(num_epoch=10, **few))


def test_epochs_after_the_last_ones_that_refine_are_another_run(folder):
    visit(folder, tiny_config(num_epoch=3, refine_epochs=1))
    workdir.write_history(folder, [{"epoch": 1}])
    with pytest.raises(workdir.WorkdirError, match="num_epoch was 3 and is 4"):
        visit(folder, tiny_config(num_epoch=4, refine_epochs=1))


def test_fields_that_change_nothing_that_was_trained_may_differ(folder):
    finish(folder)
    free = {"save_img_per_epoch": 3, "keep_checkpoints": 5, "data_dir": "/elsewhere"}
    with claims.claim(folder, tiny_config(**free)) as finished:
        assert finished


def test_every_changed_field_is_listed_with_both_values(folder):
    finish(folder)
    other = tiny_config(seed=7, num_epoch=1)
    other.cnn.opt.lr = 0.5
    other.train_data_regulation.cat = 3
    with pytest.raises(workdir.WorkdirError) as error:
        visit(folder, other)
    for expected in (
        "config.seed was 0 and is 7",
        "config.num_epoch was 2 and is 1",
        "config.cnn.opt.lr was 0.01 and is 0.5",
        "config.train_data_regulation.cat was None and is 3",
    ):
        assert expected in str(error.value)
    assert workdir.read_config(folder).seed == 0


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(workdir.WorkdirError, match="a file is in its place"):
            visit(epath.Path(path))


def test_a_name_that_orbax_cannot_write_is_refused_at_once(tmp_path):
    folder = tmp_path / os.fsdecode(b"b\xe4r")  # as Windows' zip files have it
    with pytest.raises(workdir.WorkdirError, match="name is no UTF-8"):
        visit(epath.Path(folder))
    assert not folder.exists()
    visit(epath.Path(tmp_path / "bär"))
    with pytest.raises(workdir.WorkdirError, match=r"checkpoints cannot lie there"):
        visit(epath.Path(tmp_path / "a\\b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bär"]


def test_the_images_folder_is_no_runs_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for place in ("photos", "link"):
        with pytest.raises(workdir.WorkdirError, match="is the folder of the images"):
            visit(epath.Path(tmp_path / place), tiny_config(dataset=str(tmp_path / "photos")))
    assert not list((tmp_path / "photos").iterdir())


def test_what_was_trained_without_its_config_is_not_taken_for_ones_own(folder):
    finish(folder)
    (folder / "config.json").unlink()
    with pytest.raises(workdir.WorkdirError, match=r"no config\.json that says how"):
        visit(folder, tiny_config(seed=7))
    assert (folder / "metrics.json").exists()


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "dataset.json"])
@pytest.mark.parametrize("content", [None, "", "{", "null", "[]"])
def test_a_run_without_all_its_files_is_not_finished(folder, name, content):
    finish(folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with claims.claim(folder, tiny_config()) as finished:
        assert not finished


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(folder, monkeypatch, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    visit(folder)
    assert "file system without locks" in caplog.text
    assert (folder / "config.json").exists()


def test_a_lock_that_fails_otherwise_is_an_error(folder, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(workdir.WorkdirError, match="Input/output error"):
        visit(folder)


def test_a_folder_in_which_nothing_was_trained_takes_another_config(folder):
    """As after a first start that failed for lack of data."""
    visit(folder)
    workdir.write_history(folder, [])
    visit(folder, tiny_config(seed=7))
    assert workdir.read_config(folder).seed == 7


@pytest.mark.parametrize(
    "leave",
    [
        lambda folder: workdir.write_history(folder, [{"epoch": 1}]),
        lambda folder: (folder / "fold_2").mkdir(),
        lambda folder: (folder / "test").mkdir(),
    ],
)
def test_a_folder_in_which_something_was_trained_keeps_its_config(folder, leave):
    visit(folder)
    leave(folder)
    with pytest.raises(workdir.WorkdirError, match="seed was 0 and is 7"):
        visit(folder, tiny_config(seed=7))
