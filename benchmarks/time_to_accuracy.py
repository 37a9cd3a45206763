"""Seconds from the command to its end, and the test accuracy it came to, seed by seed.

Run:  python benchmarks/time_to_accuracy.py [--config fast] [--seeds 10] [--accuracy 0.7104]

Each is one `python main.py` in a new folder with the test run alone, so that start-up, evaluation
and all that is saved count; the compilation cache is filled by a run before them. Writes
benchmarks/results/time-to-accuracy.json.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import worker

RESULT = pathlib.Path(__file__).resolve().parent / "results" / "time-to-accuracy.json"


def run(config: str, seed: int, scratch: pathlib.Path) -> dict:
    """One command's {"seed", "seconds", "accuracy", "environment"}."""
    folder = scratch / str(time.time_ns())
    command = [sys.executable, "main.py", f"--config=configs/{config}.py", f"--workdir={folder}"]
    command += [f"--config.seed={seed}", "--config.do_cv=False"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(scratch / "cache")}
    start = time.perf_counter()
    subprocess.run(command, cwd=worker.PROJECT, env=environment, check=True, stdout=sys.stderr)
    seconds = time.perf_counter() - start
    found = json.loads((folder / "metrics.json").read_text())["test"]
    info = json.loads((folder / "run.json").read_text())
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "accuracy": found["accuracy"],
        "environment": info["environment"],
    }


def summary(runs: list[dict], accuracy: float) -> dict:
    """How many runs reach the accuracy, and the median, least and most of what each has."""
    found: dict = {"runs": len(runs), "reached": sum(r["accuracy"] >= accuracy for r in runs)}
    for key in ("seconds", "accuracy"):
        values = [one[key] for one in runs]
        found[key] = {
            "median": statistics.median(values),
            "least": min(values),
            "most": max(values),
        }
    return found


def main() -> None:
    """Runs the seeds one after another, prints and writes what they came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="fast", help="of configs/")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--accuracy", type=float, default=0.7104, help="that is to be reached")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = pathlib.Path(scratch)
        first = run(args.config, 0, place)
        runs = [run(args.config, seed, place) for seed in range(args.seeds)]
    result = {
        "command": " ".join(["python", "benchmarks/time_to_accuracy.py", *sys.argv[1:]]),
        "config": args.config,
        "environment": first["environment"],
        "accuracy": args.accuracy,
        "seconds_with_an_empty_compilation_cache": first["seconds"],
        "summary": summary(runs, args.accuracy),
        "runs": [{key: one[key] for key in ("seed", "seconds", "accuracy")} for one in runs],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
