"""A run's folder: what lies where, written so that no file is ever seen half-written.

Paths are `epath`, so that a folder may be a bucket.
"""

import contextlib
import errno
import importlib.util
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath
from etils.epath import backend

from caecnn_jax import config as config_lib
from caecnn_jax import errors, saved_config
from caecnn_jax.results import schema

BUCKETS = {"gs": ("gcsfs", "'.[tpu]'"), "s3": ("s3fs", "s3fs")}  # the package and what brings it


class WorkdirError(errors.UserError):
    """A folder that cannot be written, is in use, or holds another run."""


def resolve(path: str | os.PathLike) -> epath.Path:
    """The path as an absolute one, which Orbax asks for, "~" being the home directory.

    Addresses of buckets stay as given. Raises WorkdirError where nothing here can reach them.
    """
    path = os.fspath(path)
    scheme, is_address, _ = path.partition("://")
    if is_address:
        if scheme not in BUCKETS:
            known = " and ".join(f"{name}://" for name in BUCKETS)
            raise WorkdirError(f"{path}: a folder, or the address of a bucket: {known} are known")
        package, brought_by = BUCKETS[scheme]
        if importlib.util.find_spec(package) is None:
            raise WorkdirError(f"{path}: {package} is missing: pip install {brought_by}")
        _list_afresh(scheme)
        return epath.Path(path)
    return epath.Path(os.path.abspath(os.path.expanduser(path)))


def _list_afresh(scheme: str) -> None:
    """Keeps no listing of a bucket, whose library would never see what other processes write."""
    import fsspec  # comes with the bucket's package

    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False


def in_bucket(path: str | os.PathLike) -> bool:
    """Whether the path is the address of something in a bucket."""
    return "://" in os.fspath(path)


def make_folder(path: epath.Path) -> None:
    """Makes a folder and those that it lies in, where they are missing; raises OSError.

    A bucket has none, only objects with slashes in their names: nothing is asked of it.
    """
    if not in_bucket(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing(path: epath.Path, remedy: str = "") -> Iterator[None]:
    """Turns a storage's failure while `path` is written into a WorkdirError with the remedy.

    By default that of a run's own files, which the same command would write again.
    """
    try:
        yield
    except errors.UserError:
        raise
    except Exception as error:
        reason = _reason(error, path)
        if reason is None:
            raise
        storage = "the bucket and your rights to it" if in_bucket(path) else "the disk"
        own = f"what was saved before is whole: see to {storage}, then give the same command again"
        raise WorkdirError(f"cannot write {path}: {reason}; {remedy or own}") from error


def _reason(error: Exception, path: epath.Path) -> str | None:
    """What storage says of a failure; None where the error is none of storage."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := os_error_code(error):
        return os.strerror(code)
    if in_bucket(path):  # whose libraries raise errors of their own
        return f"{type(error).__name__}: {str(error).strip()[:300]}".splitlines()[0]
    return str(error) if isinstance(error, OSError) else None


def os_error_code(error: Exception) -> int | None:
    """The system's number of an error of Orbax's storage, TensorStore, whose text alone has it."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


def write_bytes(path: epath.Path, content: bytes) -> None:
    """Writes aside and renames, so that `path` holds the old content or the new, whole.

    A bucket's objects appear whole, and renaming one is copying it: there it is written at once,
    in one request where epath's open, write and close are two. What a link leads to is written.
    Raises WorkdirError when the storage does not take it, or something there is no regular file.
    """
    with writing(path):
        _write(path, content)


def write_output(path: epath.Path, content: bytes) -> None:
    """As `write_bytes`, a file that --output places: makes its folder; the remedy is another."""
    with writing(path, "choose another --output"):
        make_folder(path.parent)
        _write(path, content)


def _write(path: epath.Path, content: bytes) -> None:
    if in_bucket(path):
        backend.fsspec_backend.fs(path).pipe_file(os.fspath(path), content)
        return
    path = epath.Path(os.path.realpath(path))  # what a link leads to is written, and it stays one
    if path.exists() and not os.path.isfile(path):  # as a device, whose place a file would take
        raise OSError(errno.EEXIST, "something is there that is no regular file")
    # Commands that train parts of the same runs may write the same file at the same time.
    aside = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    aside.write_bytes(content)
    aside.replace(path)


def write_json(path: epath.Path, value) -> None:
    """Writes `value` as `as_json` has it."""
    write_bytes(path, as_json(value))


def as_json(value) -> bytes:
    """JSON text as a run's files hold it; NaN is refused, since it is no JSON."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: epath.Path):
    """The value in a JSON file of a run; raises WorkdirError when it is missing or damaged."""
    return parse_json(read_text(path), path)


def read_text(path: epath.Path) -> str:
    """The text in a file of a run; raises WorkdirError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkdirError(
            f"cannot read {path} ({error}): restore it, or give the training command again, which "
            "writes it anew"
        ) from error


def parse_json(text: str, place: epath.Path | str):
    """The value that JSON text means; raises WorkdirError, which names its `place`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise damaged(place, f"it is no JSON ({error})") from error


def damaged(place: epath.Path | str, reason: str) -> WorkdirError:
    """The error of a file, or a line of it, that is not as it was written."""
    return WorkdirError(
        f"{place} is damaged, for {reason}: restore it, or give the training command again, which "
        "writes it anew"
    )


def fitting(content: Any, place: epath.Path | str, kind: Any, within: str = "") -> Any:
    """JSON's `content` where it is of its kind, as `schema.misfit` has it; else WorkdirError."""
    if problem := schema.misfit(content, kind, within):
        raise damaged(place, problem)
    return content


def check_is_run(workdir: epath.Path) -> None:
    """Raises WorkdirError for a folder that no run was started in."""
    if not (workdir / "config.json").exists():
        raise WorkdirError(f"{workdir} holds no run: there is no config.json; check --workdir")


def read_config(workdir: epath.Path) -> ml_collections.ConfigDict:
    """The run's own config; raises WorkdirError or ConfigError when there is no valid one."""
    check_is_run(workdir)
    path = workdir / "config.json"
    try:
        return saved_config.from_text(read_text(path))
    except config_lib.ConfigError as error:
        raise config_lib.ConfigError(f"{path}: {error}") from error


def read_format(workdir: epath.Path) -> int:
    """The format of the run's config.json, of which `read_config` makes today's."""
    return read_json(workdir / "config.json").get("format", 1)


def write_history(workdir: epath.Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes history.jsonl anew: a line a record, without what metrics.json has of the last."""
    left_out = {"confusion_matrix", "reliability", "correct", "f1"}
    lines = [
        json.dumps({name: item for name, item in record.items() if name not in left_out})
        for record in records
    ]
    write_bytes(workdir / "history.jsonl", "".join(line + "\n" for line in lines).encode())


def check_present(workdir: epath.Path) -> None:
    """Raises WorkdirError when the folder is gone, which Orbax would make anew without a word."""
    if not (workdir / "config.json").exists():
        raise WorkdirError(
            f"{workdir} has vanished while it was written to: bring it back, then give the same "
            "command again"
        )
