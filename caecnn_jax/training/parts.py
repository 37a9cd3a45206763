"""Training of a study: every (variant, seed) in a folder of its own below the study's.

The runs share the devices: on one they train one after another, on several at the same time, the
folds and test runs of all their folders dealt out alike. One that fails leaves the others alone.
"""

import concurrent.futures
import contextlib
import contextvars
from collections.abc import Callable, Mapping, Sequence

import ml_collections
from absl import logging
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax import study as study_lib
from caecnn_jax.data import catalogue, dataset, requirements
from caecnn_jax.records import about, claims
from caecnn_jax.records import runs as runs_lib
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.training import devices, sharing, signals, train, workload
from caecnn_jax.training.overview import Overview

Load = Callable[..., dataset.Dataset]  # the data of a config
FAILED = "failed.txt"  # in a run's folder: why it ended last, if by no wish
# The fields that decide which images are read; `dataset.form_of` says what they are made into.
DATA_FIELDS = ("dataset", "test_share", "data_source", "data_dir")


def finished(runs: Sequence[study_lib.Run], workdir: epath.Path) -> dict[str, runs_lib.Run]:
    """What the folders of those of the runs hold that are finished, by the run's name.

    Raises WorkdirError where one holds a run that this one cannot go on from.
    """
    read = ((run.name, _finished(run, workdir / run.name)) for run in runs)
    return {name: trained for name, trained in read if trained is not None}


def _finished(run: study_lib.Run, folder: epath.Path) -> runs_lib.Run | None:
    if not (folder / "config.json").exists():
        return None
    saved = workdir_lib.read_config(folder)
    # A folder in which nothing was trained takes the new config.
    differing = config_lib.differences(saved, run.config)
    if differing and claims.is_trained(folder):
        raise workdir_lib.WorkdirError(
            f"{folder} holds a run of another config: {'; '.join(differing)}; give the study the "
            "same values, another name for the variant, or another --workdir"
        )
    return claims.finished(folder, saved, run.config)


def unfinished(runs: Sequence[study_lib.Run], workdir: epath.Path) -> list[study_lib.Run]:
    """Those of the runs that are not finished; raises WorkdirError as `finished` does."""
    done = finished(runs, workdir)
    return [run for run in runs if run.name not in done]


def reasons(names: Sequence[str], workdir: epath.Path) -> dict[str, str]:
    """{name: why} of those runs that have failed and not gone on since."""
    files = {name: workdir / name / FAILED for name in names}
    return {
        name: workdir_lib.read_text(file).strip() for name, file in files.items() if file.exists()
    }


def check_images(runs: Sequence[study_lib.Run], done: Mapping[str, runs_lib.Run]) -> None:
    """Raises WorkdirError where the `done` seeds of a variant were trained on other images."""
    known: dict[str, str] = {}
    for run in runs:
        if run.name in done:
            first = known.setdefault(run.variant, run.name)
            digest, of_first = (done[name].dataset_digest for name in (run.name, first))
            if digest != of_first:
                raise workdir_lib.WorkdirError(
                    f"{done[run.name].workdir} was trained on other images than {first} (digests "
                    f"{digest[:12]} and {of_first[:12]}): take away the folder of what was trained "
                    "on the wrong ones, and give the command again"
                )


def train_all(
    runs: Sequence[study_lib.Run],
    workdir: epath.Path,
    load: Load = dataset.load,
    *,
    beside: Sequence[study_lib.Run] = (),
) -> dict[str, str]:
    """Trains those of the runs that are not finished; returns what failed, {run's name: why}.

    `beside` are all runs of the study where these are a part. Raises WorkdirError where a folder
    holds another run, and DataError or ConfigError where a run does not fit its data, before
    anything trains; or, once all that train are saved, Interrupted.
    """
    done = finished(beside or runs, workdir)
    to_do = [run for run in runs if run.name not in done]
    if not to_do:
        logging.info(
            "All is finished, and no image was read: if they are others by now, train on them in "
            "another --workdir."
        )
        return {}
    loaded: dict[tuple, dataset.Dataset] = {}
    for run in to_do:
        key = data_key(run)
        loaded[key] = data = loaded.get(key) or load(run.config)
        _check(run, data.class_names, *dataset.counts(data))
    for run in beside or runs:  # the page compares what is finished with what will be
        if run.name in done and data_key(run) in loaded:
            about.check_same(workdir / run.name, loaded[data_key(run)])
    work = {run.name: workload.of(run.config, loaded[data_key(run)]) for run in to_do}
    before = {name: _visited(workdir / name, of_run) for name, of_run in work.items()}
    with (
        sharing.share_devices(to_do[0].config.devices_per_run) as shared,
        contextlib.closing(Overview(work, before, done=len(runs) - len(to_do))) as overview,
    ):

        def train_one(run: study_lib.Run) -> None:
            shared.request.check()
            own = shared._replace(request=OwnRequest(shared.request))
            with overview.running(run.name) as on_epoch:
                _train_folder(run, workdir / run.name, loaded[data_key(run)], own, on_epoch)

        with concurrent.futures.ThreadPoolExecutor(len(shared.lanes.meshes)) as pool:
            ended = {
                run.name: pool.submit(contextvars.copy_context().run, train_one, run)
                for run in to_do
            }
        # All have ended, each in its own way.
        return _failures({name: future.exception() for name, future in ended.items()})


def _visited(folder: epath.Path, work: workload.Work) -> int:
    """The images that a folder's runs have trained on so far."""
    if not (folder / "history.jsonl").exists():
        return 0
    history = runs_lib.read(folder).history
    return sum(work.train.get(name, 0) * len(records) for name, records in history.items())


def data_key(run: study_lib.Run) -> tuple:
    """Equal for runs of the same images, which share them."""
    return *(run.config[field] for field in DATA_FIELDS), dataset.form_of(run.config)


def _check(run: study_lib.Run, class_names: Sequence[str], *counts: Sequence[int]) -> None:
    """Raises ConfigError, with the variant's name, where the run asks what its data have not."""
    try:
        requirements.check(run.config, class_names, *counts)
    except config_lib.ConfigError as error:
        raise config_lib.ConfigError(f"variant {run.variant!r}: {error}") from error


class OwnRequest(signals.StopRequest):
    """The request to stop of one folder's runs: made for all by a signal, for it by a failure."""

    def __init__(self, of_all: signals.StopRequest):
        super().__init__()
        self._of_all = of_all

    def is_made(self) -> bool:
        if self._of_all.is_made():
            self.signum = self._of_all.signum
        return super().is_made()


def _train_folder(run, folder: epath.Path, data, shared: sharing.Shared, on_epoch) -> None:
    config = catalogue.absolute(run.config)
    with claims.claim(folder, config) as finished:
        if finished:  # as it is where another process was faster
            return
        (folder / FAILED).unlink(missing_ok=True)
        try:
            train.train_runs(config, folder, data, shared, title=run.name, on_epoch=on_epoch)
        except errors.Interrupted:
            raise
        except Exception as error:
            with contextlib.suppress(errors.UserError):  # a full disk may be what is wrong
                workdir_lib.write_bytes(folder / FAILED, f"{_reason(error)}\n".encode())
            raise


def _failures(ended: Mapping[str, BaseException | None]) -> dict[str, str]:
    """Logs and returns what failed and why; raises what is no failure of one run alone."""
    failed = {}
    for name, error in ended.items():
        if error is None:
            continue
        if not isinstance(error, Exception) or isinstance(error, errors.Interrupted):
            raise error
        failed[name] = _reason(error)
        logging.error(
            "%s failed: %s", name, failed[name], exc_info=None if _is_known(error) else error
        )
    return failed


def _is_known(error: BaseException) -> bool:
    """Whether its sentence says all, without a traceback."""
    return isinstance(error, errors.UserError | errors.Diverged)


def _reason(error: BaseException) -> str:
    return str(error) if _is_known(error) else f"{type(error).__name__}: {error}"


def check_data(runs: Sequence[study_lib.Run]) -> dict[tuple, dataset.Source]:
    """The runs' data by `data_key`, no image read yet; each variant is checked against its own.

    Raises DataError or ConfigError where a variant does not fit.
    """
    sources: dict[tuple, dataset.Source] = {}
    for run in {run.variant: run for run in runs}.values():
        key = data_key(run)
        sources[key] = source = sources.get(key) or dataset.open_source(run.config)
        _check(run, source.class_names, source.train_counts, source.test_counts)
    return sources


def plan(study: study_lib.Study, runs: Sequence[study_lib.Run], workdir: epath.Path) -> str:
    """What would train of `runs`, its images and time, as the lines that --dry_run prints.

    The speed is that of the variant's finished epochs, or measured here by a few steps of networks
    like its own. Raises WorkdirError, DataError or ConfigError as training would.
    """
    done = finished(runs, workdir)
    if len(done) == len(runs):
        return f"{len(runs)} trainings, all of them done"
    by_variant: dict[str, list[study_lib.Run]] = {}
    for run in runs:
        by_variant.setdefault(run.variant, []).append(run)
    sources = check_data(runs)
    measured: dict[tuple, workload.Speed] = {}
    rows = []
    for variant, of_variant in by_variant.items():
        first = of_variant[0].config
        key = data_key(of_variant[0])
        source = sources[key]
        to_do = [run for run in of_variant if run.name not in done]
        work = workload.of(first, source)
        visited = sum(_visited(workdir / run.name, work) for run in to_do)
        speed = _speed_so_far(study, variant, work, workdir)
        if not speed.keys() >= work.phases:
            like = _networks(first), frozenset(work.phases), key
            if like not in measured:
                measured[like] = workload.measure(first, work, classes=len(source.class_names))
            speed = measured[like]
        seconds = work.seconds(speed)
        counts = len(of_variant) - len(to_do), len(to_do)
        rows.append(workload.Row(variant, *counts, work, seconds, begun=visited / work.images))
    lanes = devices.lanes(study.runs[0].config.devices_per_run)
    return workload.table(rows, len(lanes.meshes))


def _speed_so_far(study, variant: str, work: workload.Work, workdir: epath.Path) -> workload.Speed:
    """The speed of the variant's epochs under any seed; {} where there are none."""
    for run in study.runs:
        folder = workdir / run.name
        if run.variant == variant and (folder / "history.jsonl").exists():
            speed = workload.of_records(runs_lib.read(folder).history, work)
            if speed:
                return speed
    return {}


def _networks(config: ml_collections.ConfigDict) -> tuple:
    """Equal for configs whose training steps take as long: losses and rates do not count."""
    fields = config_lib.flatten(config.to_dict())
    names = ("use_", "aug.", "batch_size", "dtype", "steps_per_call", "devices_per_run")
    shapes = ("block_sizes", "input_resolution", "use_mixed_input", "head")
    return tuple(
        (name, str(value))
        for name, value in sorted(fields.items())
        if name.startswith(names) or name.endswith(shapes)
    )
