"""Kills the real program at random times until it has ended, and compares with a run left alone.

python tests/stress/kill_resume.py --kills 100 [--devices 4]
Needs the prepared CIFAR-10 (TFDS_DATA_DIR), of which it uses 340 training images; on two
cores a kill takes about ten seconds. Each experiment (two folds and the test run, warm-up and
joint epochs) is started again after each kill until it ends; then follows one with another seed,
until the kills are made. SIGKILL falls mostly, SIGTERM sometimes. Half of the kills are spread
evenly over the processor time that the rest of the run needs, start-up included; the others wait
for something to be written - a checkpoint under way, or any file - and strike a moment later. At
the end all that a run leaves must be equal bit for bit to what it leaves alone on one device,
timings aside: arrays and records in all checkpoints, history.jsonl, metrics.json, pictures.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
TIMINGS = ("seconds", "images_per_second")
SETTINGS = (
    "num_folds=2",
    "num_epoch=6",
    "only_train_cae_until=2",
    "save_img_per_epoch=3",
    "batch_size=32",
    "steps_per_call=1",
    "train_data_regulation.all=800",
    *(f"train_data_regulation.{name}=400" for name in ("bird", "deer", "truck")),
    *(f"train_data_expansion.{name}=200" for name in ("bird", "deer", "truck")),
    "cnn.block_sizes=((3,4,True),(10,6,True))",
)
EXIT_OF = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (-signal.SIGTERM, 143)}


def command(workdir: pathlib.Path, seed: int) -> list[str]:
    """The program on a small real subset."""
    settings = [f"--config.{setting}" for setting in (*SETTINGS, f"seed={seed}")]
    config = ["--config", "configs/mixed.py:quick", *settings]
    return [sys.executable, "main.py", *config, "--workdir", str(workdir)]


def start(workdir: pathlib.Path, seed: int, log, *, num_devices: int) -> subprocess.Popen:
    """The program on simulated devices; XLA's threads, on which last bits depend, are as many."""
    simulated = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "PJRT_NPROC": str(max(os.cpu_count(), 8)),
    }
    return subprocess.Popen(
        command(workdir, seed), cwd=PROJECT, env=os.environ | simulated, stdout=log, stderr=log
    )


def where(workdir: pathlib.Path, text: str) -> str:
    """What a killed session was at, from what it logged (`text`) and what it left."""
    if list(workdir.glob("*/*.orbax-checkpoint-tmp")):
        return "saving a checkpoint"
    if "images of each class" not in text:
        return "start-up, data"
    if (workdir / "metrics.json").exists():
        return "last files"
    log = (workdir / "train.log").read_text() if (workdir / "train.log").exists() else text
    epochs = re.findall(r"(fold_\d|test) +(\d+)/(\d+) ", log)
    if not epochs:
        return "restoring, compiling, first epoch"
    run, epoch, last = epochs[-1]
    return f"training {run}" if epoch != last else f"between {run} and what follows"


def written(workdir: pathlib.Path) -> set:
    """What is there now, as names and times."""
    found = set()
    for folder, _, names in os.walk(workdir):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            try:
                found.add((path, os.stat(path).st_mtime_ns))
            except FileNotFoundError:  # renamed meanwhile
                continue
    return found


class Killer:
    """Decides when to strike and with what."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.pauses: list[float] = []  # of the polite stops: from the signal to the end

    def strike(self, process: subprocess.Popen, workdir: pathlib.Path, left: float) -> int | None:
        """Kills within about `left` seconds; returns the signal, or None when it ended before."""
        event = self.random.random() < 0.5
        await_work(process, self.random.uniform(0, left * (0.8 if event else 1)))
        if event:
            self._await_write(process, workdir)
            time.sleep(self.random.uniform(0, 0.06))
        if process.poll() is not None:
            return None
        signum = signal.SIGTERM if self.random.random() < 0.2 else signal.SIGKILL
        began = time.time()
        process.send_signal(signum)
        process.wait(120)
        if process.returncode not in EXIT_OF[signum]:
            return None  # it ended by itself just then; the caller looks at its exit code
        if process.returncode == 143:
            self.pauses.append(time.time() - began)
        return signum

    def _await_write(self, process: subprocess.Popen, workdir: pathlib.Path) -> None:
        """Waits until something is written: a new checkpoint, or any file."""
        only_checkpoints = self.random.random() < 0.5
        before = written(workdir)
        while process.poll() is None:
            new = written(workdir) - before
            if any("orbax-checkpoint-tmp" in path or not only_checkpoints for path, _ in new):
                return
            time.sleep(0.003)


def await_work(process: subprocess.Popen, seconds: float) -> None:
    """Waits until a process has worked so long; on a busy machine time alone says little."""
    while process.poll() is None and worked(process.pid) < seconds:
        time.sleep(0.01)


def worked(pid: int) -> float:
    """Processor seconds of a process that is not waited for yet, from Linux's /proc."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contents(workdir: pathlib.Path) -> dict[str, object]:
    """All that must not depend on kills: each item's name with its value or digest."""
    # What a session needs of the program is imported late: the kills shall find the cores free.
    sys.path.insert(0, str(PROJECT))
    from etils import epath

    from caecnn_jax.records import checkpoints
    from caecnn_jax.results import trained
    from caecnn_jax.training import train

    found: dict[str, object] = {}
    folder = trained.open_folder(workdir)
    shapes = train.saved_shapes(folder.config, folder.model)
    lines = (workdir / "history.jsonl").read_text().splitlines()
    found["history.jsonl"] = [without_timings(json.loads(line)) for line in lines]
    found["metrics.json"] = json.loads((workdir / "metrics.json").read_text())
    for name in ("fold_1", "fold_2", "test"):
        saved = checkpoints.Checkpoints(epath.Path(workdir / name), read_only=True)
        found[f"{name}: checkpoints"] = saved.steps()
        for step in saved.steps():
            restored = saved.restore(step, shapes)
            found[f"{name}/{step}: arrays"] = checkpoints.digest(restored.arrays)
            found[f"{name}/{step}: records"] = list(
                map(without_timings, restored.progress["records"])
            )
    for path in sorted(workdir.glob("images/*/*.png")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(workdir))] = digest
    return found


def without_timings(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in TIMINGS}


def differences(alone: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """The names of what is not the same."""
    one, other = contents(alone), contents(killed)
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def run_alone(workdir: pathlib.Path, seed: int) -> float:
    """Runs the experiment without a kill; returns the processor seconds that it took."""
    with open(f"{workdir}.log", "w") as log:
        process = start(workdir, seed, log, num_devices=1)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{workdir} failed:\n{pathlib.Path(log.name).read_text()}")
    return usage.ru_utime + usage.ru_stime


def run_killed(
    workdir: pathlib.Path, seed: int, *, seconds: float, kills: int, killer: Killer, devices: int
) -> list[tuple[str, str]]:
    """Runs the experiment, killing it at most `kills` times; returns where each kill fell."""
    fell = []
    log_path = pathlib.Path(f"{workdir}.log")
    startup, epochs_in_all = 0.35 * seconds, 18  # for a first guess of what is left
    while True:
        history = workdir / "history.jsonl"
        done = len(history.read_text().splitlines()) if history.exists() else 0
        left = startup + (seconds - startup) * (1 - done / epochs_in_all)
        with open(log_path, "w") as log:
            process = start(workdir, seed, log, num_devices=devices)
            signum = killer.strike(process, workdir, left) if len(fell) < kills else None
            code = process.wait()
        if signum is not None:
            place = where(workdir, log_path.read_text())
            fell.append((signal.Signals(signum).name, place))
            print(f"{workdir.name}, kill {len(fell)}: {fell[-1][0]}, {place}", flush=True)
        elif code == 0:
            return fell
        else:
            raise RuntimeError(f"{workdir} failed by itself ({code}):\n{log_path.read_text()}")


class Alone:
    """The runs that are left alone, by seed; all jobs compare with the same."""

    def __init__(self, folder: pathlib.Path):
        self._folder, self._lock = folder, threading.Lock()
        self._seconds: dict[int, float] = {}

    def path(self, seed: int) -> pathlib.Path:
        return self._folder / f"{seed}-alone"

    def seconds(self, seed: int) -> float:
        """The processor seconds that the run takes, which is made when first asked for."""
        with self._lock:
            if seed not in self._seconds:
                self._seconds[seed] = run_alone(self.path(seed), seed)
                print(f"seed {seed}: {self._seconds[seed]:.0f} s without kills", flush=True)
            return self._seconds[seed]


class Job(threading.Thread):
    """Kills a number of times, in one experiment after the other."""

    def __init__(
        self,
        folder: pathlib.Path,
        alone: Alone,
        *,
        seed: int,
        number: int,
        kills: int,
        devices: int,
    ):
        super().__init__()
        self.folder, self.alone, self.seed, self.number = folder, alone, seed, number
        self.kills, self.devices = kills, devices
        self.killer = Killer(1000 * seed + number)
        self.fell: list[tuple[str, str]] = []  # each kill's signal and place
        self.equal: list[tuple[pathlib.Path, pathlib.Path]] = []  # what is to be compared

    def run(self) -> None:
        seed = self.seed
        while len(self.fell) < self.kills:
            killed = self.folder / f"{seed}-killed-{self.number}"
            self.fell += run_killed(
                killed,
                seed,
                seconds=self.alone.seconds(seed),
                kills=self.kills - len(self.fell),
                killer=self.killer,
                devices=self.devices,
            )
            self.equal.append((self.alone.path(seed), killed))
            seed += 1


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the times, and of the experiments")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at a time")
    parser.add_argument("--devices", type=int, default=1, help="simulated; each trains a run")
    parser.add_argument("--workdir", type=pathlib.Path, help="default: a temporary folder")
    arguments = parser.parse_args(argv)
    folder = arguments.workdir or pathlib.Path(tempfile.mkdtemp(prefix="kill_resume_"))
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.time()
    shares = [len(range(job, arguments.kills, arguments.jobs)) for job in range(arguments.jobs)]
    alone = Alone(folder)
    jobs = [
        Job(
            folder,
            alone,
            seed=arguments.seed,
            number=number,
            kills=share,
            devices=arguments.devices,
        )
        for number, share in enumerate(shares)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    pairs = [pair for job in jobs for pair in job.equal]
    lost = [f"{killed}: {name}" for alone, killed in pairs for name in differences(alone, killed)]
    fell = [kill for job in jobs for kill in job.fell]
    if len(fell) < arguments.kills:
        lost.append("a run failed by itself; see above")
    print_table(fell, len(pairs), lost, [pause for job in jobs for pause in job.killer.pauses])
    print(f"{(time.time() - began) / 60:.1f} minutes, {arguments.jobs} at a time")
    return 1 if lost else 0


def print_table(fell, experiments: int, lost, pauses) -> None:
    """What was done and what came of it."""
    places = collections.Counter(place for _, place in fell)
    signals = sorted({name for name, _ in fell})
    print(f"\n{'where the kills fell':<36}" + "".join(f"{name:>9}" for name in signals))
    for place in sorted(places):
        counts = "".join(f"{fell.count((name, place)):>9}" for name in signals)
        print(f"{place:<36}{counts}")
    totals = collections.Counter(name for name, _ in fell)
    print(f"{'all':<36}" + "".join(f"{totals[name]:>9}" for name in signals))
    print(
        f"\nkills {len(fell)}, restarts {len(fell)}, experiments {experiments}, losses {len(lost)}"
    )
    if pauses:
        print(f"SIGTERM to exit: at most {max(pauses):.1f} s")
    for name in lost:
        print(f"lost: {name}")


if __name__ == "__main__":
    sys.exit(main())
