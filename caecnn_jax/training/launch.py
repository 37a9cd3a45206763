"""A study's parts as jobs, submitted through submitit: to SLURM, or processes here where it is not.

A job that SLURM preempts, or whose time is over, saves, puts itself back into the queue and goes on
from there. The study's "submit" may hold what submitit's `AutoExecutor.update_parameters` takes:
timeout_min, gpus_per_node, slurm_partition, slurm_array_parallelism, ...
"""

import pathlib
import signal
import time
from collections.abc import Mapping, Sequence

from absl import logging
from etils import epath

from caecnn_jax import errors, logs
from caecnn_jax import part as part_lib
from caecnn_jax import study as study_lib
from caecnn_jax.durations import as_time
from caecnn_jax.records import workdir as workdir_lib
from caecnn_jax.training import devices, parts

DAY = 24 * 60  # minutes, a job's time unless the study says another
MANY = 10_000  # times that a job's time may be over: it goes on each time, and submitit's 3 are few
SECONDS_BETWEEN_LOOKS = 5.0


class Job:
    """What a job does: trains some runs of a study. It is pickled, and again when requeued."""

    def __init__(
        self,
        runs: Sequence[study_lib.Run],
        workdir: str,
        beside: Sequence[study_lib.Run] = (),
    ):
        """`beside` are all runs of the study, as `parts.train_all` takes them."""
        self._runs, self._workdir, self._beside = runs, workdir, beside

    def __call__(self) -> dict[str, str]:
        """Trains; returns what failed."""
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's own handler
        logs.to_console("INFO")
        config = self._runs[0].config
        devices.start(config.dtype, config.matmul_precision)
        try:
            folder = workdir_lib.resolve(self._workdir)
            return parts.train_all(self._runs, folder, beside=self._beside)
        except errors.Interrupted as stop:
            # All is saved. Any other signal is somebody's wish that the job ends.
            if stop.signum == signal.SIGUSR2 and callable(requeue):
                requeue(stop.signum, None)
            raise

    def checkpoint(self):
        """What submitit puts into the queue in this job's place: the same once more."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def submit(
    study: study_lib.Study, workdir: epath.Path, *, num_parts: int | None = None
) -> dict[str, str]:
    """Submits what is not finished in parts, and waits for them; returns what failed, and why.

    `num_parts` None: a part a run on SLURM; one elsewhere, where all would train at once. Raises
    UserError where submitit is missing or takes no such parameters.
    """
    to_do = parts.unfinished(study.runs, workdir)
    if not to_do:
        return {}
    executor = _executor(study, workdir)
    is_slurm = executor.cluster == "slurm"
    num_parts = min(num_parts or (len(to_do) if is_slurm else 1), len(to_do))
    by_job = [part_lib.Part(index, num_parts).of(to_do) for index in range(num_parts)]
    with executor.batch():
        jobs = [executor.submit(Job(runs, str(workdir), study.runs)) for runs in by_job]
    names = ", ".join(job.job_id for job in jobs)
    # Processes here end with the terminal's Ctrl-C.
    goes_on = "; they go on where this command is stopped" if is_slurm else ""
    logging.info("Submitted as %s%s.", names, goes_on)
    _wait(jobs, study.runs, workdir, num_left=len(to_do))
    failed: dict[str, str] = {}
    for job, runs in zip(jobs, by_job, strict=True):
        if (error := job.exception()) is None:
            failed |= job.result()
        else:
            reason = str(error).strip().splitlines()[-1]
            failed |= {run.name: f"job {job.job_id}: {reason}" for run in runs}
    left = {run.name for run in parts.unfinished(study.runs, workdir)}
    # What another command's job has finished meanwhile has not failed.
    return {name: reason for name, reason in failed.items() if name in left}


def _executor(study: study_lib.Study, workdir: epath.Path):
    try:
        import submitit
    except ImportError as error:
        raise errors.UserError(
            "--launcher=submitit: submitit is not installed: pip install '.[slurm]'"
        ) from error
    # Its files must be local: a bucket holds only what the runs leave.
    place = pathlib.Path("jobs", study.name) if "://" in str(workdir) else workdir / "jobs"
    executor = submitit.AutoExecutor(folder=str(place), slurm_max_num_timeout=MANY)
    parameters: Mapping = {"name": study.name, "timeout_min": DAY} | dict(study.submit)
    try:
        executor.update_parameters(**parameters)
    except (NameError, TypeError, ValueError) as error:
        raise study_lib.StudyError(f"submit={dict(study.submit)!r}: {error}") from error
    return executor


def _wait(jobs, runs: Sequence[study_lib.Run], workdir: epath.Path, *, num_left: int) -> None:
    """Until all have ended, tells how many runs are finished whenever it changes.

    `num_left` were not when the jobs were submitted.
    """
    told, began, done_before = None, time.monotonic(), len(runs) - num_left
    while True:
        running = sum(not job.done() for job in jobs)
        done = len(parts.finished(runs, workdir))
        if told != (running, done):
            told, seconds = (running, done), time.monotonic() - began
            logging.info("%s", line(done, len(runs) - done, running, done - done_before, seconds))
        if not running:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def line(done: int, left: int, running: int, since: int, seconds: float) -> str:
    """How far the jobs are; `since` of the `done` runs were finished in these seconds."""
    counts = f"study: {done} done, {left} to come in {running} job(s)"
    if not (since and left and running):
        return counts
    return f"{counts}; about {as_time(seconds * left / since)} left at the pace up to now"
