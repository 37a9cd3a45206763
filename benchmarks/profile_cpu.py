"""Where the time of a training step of mixed mode goes on CPU, from XLA's own trace.

Run:     python benchmarks/profile_cpu.py [--phase joint]        (half a minute)
Writes:  benchmarks/results/profile-PHASE-cpu.json, and prints Markdown.

XLA runs a step as a sequence of thunks, nearly each of which waits for the one before. A
convolution's thunk only hands its work to the thread pool, where the trace does not follow; what
remains of a step beside the other thunks is put down to convolutions and waiting. A matrix product
of the same precision, measured in the same process, tells how near they are to what the cores can.
"""

import argparse
import collections
import gzip
import json
import pathlib
import re
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from benchmarks import ours, worker

STEPS, BATCH_SIZE = 160, 64
ENVELOPES = re.compile(r"ThunkExecutor|Threadpool|while|call|conditional")  # they hold other events
CONVOLUTION = "convolution, and waiting"


def kinds(events: list[dict]) -> collections.Counter:
    """Microseconds of the thunks in a trace's events, by kind: names without their numbers."""
    threads = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event.get("name") == "thread_name"
    }
    found = collections.Counter()
    for event in events:
        thread = threads.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") != "X" or "XLAEigen" not in thread or ENVELOPES.match(event["name"]):
            continue
        name = re.sub(r"[.\d]+$", "", event["name"])
        found[CONVOLUTION if name.startswith("conv_general") else name] += event["dur"]
    return found


def trace(program: ours.Ours, phase: str) -> list[dict]:
    """The events of STEPS steps."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            program.measure(phase, STEPS * BATCH_SIZE)
        path = next(pathlib.Path(folder).rglob("*.trace.json.gz"))
        return json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]


def matmul_flops(size: int = 1024, repeats: int = 20) -> float:
    """Floating-point operations a second of a float32 matrix product, the median of repeats."""
    square = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.matmul)
    multiply(square, square).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(square, square).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds)


def convolution_flops(config) -> float:
    """Floating-point operations of the convolutions of a joint step of mixed mode, for one image.

    Each multiplies forward, for its kernel's gradient and, unless it reads the image, for its
    input's: two, or three, times two operations a product.
    """
    flops, size = 0, 32
    for index, (channels_in, channels_out, pool) in enumerate(config.cnn.block_sizes):
        flops += (4 if index == 0 else 6) * size**2 * 9 * channels_in * channels_out
        size //= 2 if pool else 1
    size = 32
    for index, (channels_in, channels_out) in enumerate(config.cae.enc_block_sizes):
        flops += (4 if index == 0 else 6) * size**2 * 9 * channels_in * channels_out
        size //= 2
    for channels_in, channels_out in config.cae.dec_block_sizes:
        flops += 6 * size**2 * 16 * channels_in * channels_out
        size *= 2
    return flops


def main() -> None:
    """Profiles, prints and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase", default="joint", choices=("joint", "warmup"))
    args = parser.parse_args()
    program = ours.Ours("mixed")
    program.measure(args.phase, STEPS * BATCH_SIZE)  # compiles
    images, seconds = program.measure(args.phase, STEPS * BATCH_SIZE)
    step = seconds / images * BATCH_SIZE * 1e3
    others = {
        name: microseconds / STEPS / 1e3
        for name, microseconds in kinds(trace(program, args.phase)).most_common()
        if name != CONVOLUTION
    }
    rows = {CONVOLUTION: step - sum(others.values())} | others
    summary = {
        "phase": args.phase,
        "jax": jax.__version__,
        "step_milliseconds": step,
        "milliseconds": rows,
        "matmul_gflops": matmul_flops() / 1e9,
    }
    if args.phase == "joint":
        flops = convolution_flops(program.config) * BATCH_SIZE
        summary["convolution_gflops"] = flops / rows[CONVOLUTION] / 1e6
    print(f"| {args.phase} step of {BATCH_SIZE} images: {step:.1f} ms | ms |")
    print("| --- | ---: |")
    for name, milliseconds in list(rows.items())[:12]:
        print(f"| {name} | {milliseconds:.2f} |")
    rest = list(rows.values())[12:]
    print(f"| {len(rest)} more kinds | {sum(rest):.2f} |")
    rates = [f"{name}: {summary[name]:.0f}" for name in summary if name.endswith("gflops")]
    print("\n" + ", ".join(rates))
    path = worker.PROJECT / "benchmarks" / "results" / f"profile-{args.phase}-cpu.json"
    path.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
