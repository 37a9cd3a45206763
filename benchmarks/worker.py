"""Contenders in processes of their own, so that thread pools and allocators do not disturb others.

A contender has `measure(phase, images) -> (images, seconds)`, which runs about so many images of a
phase (0: a whole epoch) and waits until they are done, and `describe() -> dict`. A module of
contenders ends in `serve`; the benchmark talks to it through `Worker`, and since a worker only acts
on a request, one of them runs at a time.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys

import numpy as np

from caecnn_jax.data import cifar, dataset, sampling

PROJECT = pathlib.Path(__file__).resolve().parent.parent
PHASES = ("warmup", "joint", "evaluate")
NUM_TRAIN, NUM_TEST = 50_000, 10_000


def random_data() -> dataset.Dataset:
    """Noise of CIFAR-10's shape, every class with as many images as there."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_TRAIN + NUM_TEST, 32, 32, 3), np.uint8)
    labels = np.arange(len(images), dtype=np.int32) % len(cifar.CLASS_NAMES)
    return dataset.from_arrays(images, labels, NUM_TRAIN, cifar.CLASS_NAMES)


def fold_splits(config, data: dataset.Dataset) -> list[sampling.Split]:
    """The cross-validation's splits of `data`."""
    _, splits = sampling.splits(config, data.labels, data.num_train, data.class_names)
    return [split for split in splits if split.number]


def serve(make) -> None:
    """Answers requests, a JSON object a line, with the contender that `make(**options)` gives."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    contender = make(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        if request:
            images, seconds = contender.measure(**request)
            answer = {"images": images, "seconds": seconds}
        else:
            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = contender.describe() | {"peak_memory_mib": round(kilobytes / 1024)}
        print(json.dumps(answer), file=answers)


class Worker:
    """The benchmark's end of a contender's process; a context manager that ends it."""

    def __init__(self, module: str, **options):
        """Starts `module` of benchmarks/ with these options."""
        command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(options)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True)

    def _ask(self, **request) -> dict:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args[2]} ended early: its error is above")
        return json.loads(answer)

    def measure(self, phase: str, images: int) -> float:
        """Images per second of a phase."""
        answer = self._ask(phase=phase, images=images)
        return answer["images"] / answer["seconds"]

    def describe(self) -> dict:
        """Device, versions, and the peak memory up to now."""
        return self._ask()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()
