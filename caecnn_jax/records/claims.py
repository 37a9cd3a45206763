"""Who may train in a folder: one process all of its runs, or several a part of them each.

The locks need a local folder: a bucket has none.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence

import ml_collections
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import logs, run_names, saved_config
from caecnn_jax.part import WHOLE, Part
from caecnn_jax.records import runs
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.records.workdir import WorkdirError

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # flock's errors there


@contextlib.contextmanager
def claim(
    workdir: epath.Path,
    config: ml_collections.ConfigDict,
    part: Part = WHOLE,
    *,
    writes: bool = True,
) -> Iterator[bool]:
    """Holds the folder for this process: makes it, locks it and checks its config.json.

    Yields whether the runs in it are finished; if not, `begin` saves the config, once nothing else
    refuses. Commands that train parts of them share the folder, and `hold` their own. With
    `writes=False`, for the processes of a job that only read, nothing is made or locked. Raises
    WorkdirError when the folder cannot be written, is that of the images, another process trains in
    it, or it holds a run of another config.
    """
    with contextlib.ExitStack() as stack:
        _check_place(workdir, config.dataset)
        if writes:
            _make(workdir)
            if not workdir_lib.in_bucket(workdir):  # a bucket can be neither locked nor appended to
                stack.enter_context(_lock(workdir, ".lock", shared=not part.is_whole))
                log = "train.log" if part.is_whole else f"train-{part.index}.log"
                stack.enter_context(logs.to_file(workdir / log))
        saved = _saved_config(workdir, config, part)
        yield saved is not None and finished(workdir, saved, config) is not None


def begin(workdir: epath.Path, config: ml_collections.ConfigDict, part: Part = WHOLE) -> None:
    """Saves the config of the runs that train now; raises WorkdirError as `claim` does."""
    saved = _saved_config(workdir, config, part)  # another part may have begun since
    if saved is not None and config_lib.differences(saved, config):
        logging.info("Nothing was trained in %s yet: it takes the new config.", workdir)
    if part.is_whole and not workdir_lib.in_bucket(workdir):
        _remove_partial(workdir)
    # These tell of fewer epochs than are asked for now. They go before the config changes.
    for name in ("metrics.json", "report.html"):
        (workdir / name).unlink(missing_ok=True)
    workdir_lib.write_bytes(workdir / "config.json", saved_config.to_text(config).encode())


def _saved_config(
    workdir: epath.Path, config: ml_collections.ConfigDict, part: Part
) -> ml_collections.ConfigDict | None:
    """The folder's config, None where there is none; raises WorkdirError where runs are others'."""
    if not (workdir / "config.json").exists():
        if is_trained(workdir):
            raise WorkdirError(
                f"{workdir} holds what was trained, but no config.json that says how: bring it "
                "back, or choose another --workdir"
            )
        return None
    saved = workdir_lib.read_config(workdir)
    if (made_by := workdir_lib.read_format(workdir)) != saved_config.FORMAT:
        raise WorkdirError(
            f"{workdir} holds a run of an earlier version (format {made_by}), whose random "
            "numbers this one does not draw: evaluate, predict, export and report read it, "
            "but to train choose another --workdir"
        )
    differing = config_lib.differences(saved, config)
    if differing and (not part.is_whole or is_trained(workdir)):
        raise WorkdirError(
            f"{workdir} holds a run of another config: {'; '.join(differing)}; give the "
            "same values to continue it, or another --workdir"
        )
    return saved


def finished(
    workdir: epath.Path, saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> runs.Run | None:
    """What the folder holds; None unless all of it, of as many epochs as `config` asks for.

    A file of them that is missing or damaged is written anew, from the checkpoints.
    """
    if not (workdir / "metrics.json").exists() or saved.num_epoch != config.num_epoch:
        return None
    try:
        run = runs.read(workdir)
        return run if run.dataset_digest and run.info else None
    except WorkdirError as error:
        logging.warning("%s: it is written anew", error)
        return None


def _remove_partial(workdir: epath.Path) -> None:
    """Removes what a kill left half-written."""
    for path in workdir.iterdir():
        if path.name.endswith(".partial"):
            path.unlink(missing_ok=True)


def is_trained(workdir: epath.Path) -> bool:
    """Whether any run left something: metrics, a record or a checkpoint's folder."""
    if not workdir.exists():
        return False
    history = workdir / "history.jsonl"
    return (
        (workdir / "metrics.json").exists()
        or (history.exists() and history.stat().length > 0)
        or any(
            path.name == run_names.TEST or run_names.is_fold(path.name)
            for path in workdir.iterdir()
        )
    )


def _check_place(workdir: epath.Path, images: str) -> None:
    """Raises WorkdirError where a run's files would be lost, or be taken for images."""
    path = os.fspath(workdir)
    if os.fsencode(path) != path.encode(errors="replace"):  # Orbax's storage writes in UTF-8 alone
        raise WorkdirError(
            f"{path!r}: its name is no UTF-8: choose another --workdir, or set PYTHONUTF8=1 where "
            "only the locale knows no UTF-8"
        )
    if "\\" in path:  # Orbax's storage writes to another folder, as if it were a slash
        raise WorkdirError(f"{path}: checkpoints cannot lie there: choose a --workdir without \\")
    if os.path.isabs(images) and os.path.realpath(path) == os.path.realpath(images):
        raise WorkdirError(f"{path} is the folder of the images: choose another --workdir")


def _make(workdir: epath.Path) -> None:
    try:
        with workdir_lib.writing(workdir):
            workdir_lib.make_folder(workdir)
    except WorkdirError as error:
        if isinstance(error.__cause__, FileExistsError | NotADirectoryError):
            raise WorkdirError(
                f"{workdir} cannot be a folder, for a file is in its place: choose another "
                "--workdir"
            ) from error
        raise


@contextlib.contextmanager
def hold(workdir: epath.Path, names: Sequence[str]) -> Iterator[None]:
    """Holds these runs of a folder for this process; raises WorkdirError where another has one."""
    with contextlib.ExitStack() as stack:
        for run in () if workdir_lib.in_bucket(workdir) else names:
            stack.enter_context(_lock(workdir, f".lock-{run}", whose=f"{run} in "))
        yield


@contextlib.contextmanager
def in_turn(workdir: epath.Path) -> Iterator[None]:
    """Waits until no other process is in this context for the same folder."""
    with contextlib.ExitStack() as stack:
        if not workdir_lib.in_bucket(workdir):
            stack.enter_context(_lock(workdir, ".lock-history", waits=True))
        yield


@contextlib.contextmanager
def _lock(
    workdir: epath.Path, name: str, *, shared: bool = False, waits: bool = False, whose: str = "in "
) -> Iterator[None]:
    """An advisory lock that the kernel lets go when the process ends, however it ends.

    Without it, and with a warning, where the file system has none.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB)
    with contextlib.ExitStack() as stack:
        with workdir_lib.writing(workdir):
            file = stack.enter_context(open(workdir / name, "a"))
            try:
                fcntl.flock(file, how)
            except BlockingIOError as error:
                raise WorkdirError(
                    f"another process trains {whose}{workdir}: wait for it or choose another "
                    "--workdir"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logging.log(
                    logging.DEBUG if waits else logging.WARNING,  # else again each epoch
                    "%s lies on a file system without locks (%s): see to it that no second "
                    "process trains in it",
                    workdir,
                    error.strerror,
                )
        yield
