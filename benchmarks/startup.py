"""Seconds from the command `python main.py ...` to its first training step, as its user sees it.

The progress bar shows on a terminal when a step is done: main.py is given one and stopped then.
"""

import io
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
import time

from benchmarks import worker

FIRST_STEP = re.compile(rb"\| [1-9]\d*/\d+ \[")  # of tqdm's "  0%|   | 1/639 [00:03<..."
TIME_LIMIT = 600  # seconds


def measure(config: str, **fields) -> dict | None:
    """Seconds with an empty and with a filled compilation cache, and main.py's peak memory.

    None, with a word about why, where main.py ends without a step: there is no prepared CIFAR-10.
    """
    with tempfile.TemporaryDirectory() as scratch:
        runs = [_run(config, fields, pathlib.Path(scratch), name) for name in ("cold", "warm")]
    if None in runs:
        return None
    (cold, _), (warm, peak) = runs
    return {"cold_seconds": cold, "warm_seconds": warm, "peak_memory_mib": peak}


def _run(config: str, fields: dict, scratch: pathlib.Path, name: str) -> tuple[float, int] | None:
    command = [sys.executable, "main.py", f"--config=configs/{config}.py"]
    command += [f"--workdir={scratch / name}", "--config.data_source=tfds"]
    command += [f"--config.{field}={value}" for field, value in fields.items()]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(scratch / "cache")}
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (24, 120))  # a terminal without columns gets no bar
    start = time.perf_counter()
    with open(terminal, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            command, cwd=worker.PROJECT, env=environment, stdout=its_end, stderr=its_end
        )
        os.close(its_end)
        try:
            shown = _read_until_a_step(screen, start + TIME_LIMIT)
            seconds = time.perf_counter() - start
        finally:
            process.kill()
            _, process.returncode, usage = os.wait4(process.pid, 0)
    if not FIRST_STEP.search(shown):
        print(f"main.py came to no step, so no start-up time:\n{shown.decode()}", file=sys.stderr)
        return None
    return round(seconds, 2), round(usage.ru_maxrss / 1024)


def _read_until_a_step(screen: io.RawIOBase, deadline: float) -> bytes:
    shown = b""
    while not FIRST_STEP.search(shown):
        if not select.select([screen], [], [], max(0, deadline - time.perf_counter()))[0]:
            break
        try:
            shown += screen.read(4096)
        except OSError:  # so Linux says that the other end was closed
            break
    return shown
