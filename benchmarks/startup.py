"""Seconds from the command `python main.py ...` to its first training step, as its user sees it.

The progress bar shows on a terminal when a step is done: main.py is given one and stopped then.
"""

import os
import pathlib
import pty
import re
import subprocess
import sys
import tempfile
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
    start = time.perf_counter()
    with open(terminal, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            command, cwd=worker.PROJECT, env=environment, stdout=its_end, stderr=its_end
        )
        os.close(its_end)
        shown, seconds = b"", None
        while seconds is None and time.perf_counter() - start < TIME_LIMIT:
            try:
                part = screen.read(4096)
            except OSError:  # so Linux says that the other end was closed
                break
            shown += part
            if FIRST_STEP.search(shown):
                seconds = time.perf_counter() - start
        process.kill()
        _, process.returncode, usage = os.wait4(process.pid, 0)
    if seconds is None:
        print(f"main.py came to no step, so no start-up time:\n{shown.decode()}", file=sys.stderr)
        return None
    return round(seconds, 2), round(usage.ru_maxrss / 1024)
