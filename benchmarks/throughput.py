"""Images per second of this program, and of PyTorch programs beside it, on what there is.

Run:  python benchmarks/throughput.py [--config mixed|...|all] [--peers] [--rounds 5] [--steps 200]
      pip install -e '.[bench]' first for --peers

Each contender lives in a process of its own and runs an untimed round first, to compile; then,
round by round, each runs the same number of images of each phase, one contender at a time. Written
are benchmarks/results/throughput-NAME.json and, with peers, the README's docs/throughput.png. The
time to the first step is that of main.py, and needs a prepared CIFAR-10 (TFDS_DATA_DIR).
"""

import argparse
import contextlib
import datetime
import importlib
import json
import os
import pathlib
import platform
import re
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks import chart, startup, worker

RESULTS = worker.PROJECT / "benchmarks" / "results"
CONFIGS = sorted(
    path.stem
    for path in (worker.PROJECT / "configs").glob("[a-z]*.py")
    if path.stem not in ("default", "from_json")
)
BATCH_SIZE = 64  # images; --steps counts in these, evaluation too
RATIOS = {  # name: (contender, phase) over (contender, phase)
    "joint_vs_reference_like": (("ours", "joint"), ("reference_like", "joint")),
    "joint_vs_tuned": (("ours", "joint"), ("tuned", "joint")),
    "evaluate_vs_reference_like": (("ours", "evaluate"), ("reference_like", "evaluate")),
    "evaluate_vs_tuned": (("ours", "evaluate"), ("tuned", "evaluate")),
    "warmup_vs_joint": (("ours", "warmup"), ("ours", "joint")),
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="mixed", choices=[*CONFIGS, "all"])
    parser.add_argument("--peers", action="store_true", help="PyTorch beside it (mixed only)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=200, help="of 64 images, a phase and round; 0: whole epochs"
    )
    parser.add_argument("--name", help="of the results; default: the device's kind")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps_per_call", type=int, default=0, help="0: the platform's")
    parser.add_argument("--no_startup", action="store_true", help="leave main.py's start out")
    args = parser.parse_args(argv)
    if args.peers and args.config not in ("mixed", "all"):
        parser.error("--peers are programs of the config mixed: give --config mixed or all")
    return args


def phases_of(config: str) -> tuple[str, ...]:
    """The phases that a config has: only one that joins both networks has a warm-up."""
    fields = importlib.import_module(f"configs.{config}").get_config()
    return worker.PHASES if fields.use_cae and fields.use_cnn else worker.PHASES[1:]


def contenders(args: argparse.Namespace, config: str) -> dict[str, tuple[str, dict]]:
    """Module and options of each contender."""
    found = {"ours": ("ours", {"config": config, **fields_of(args)})}
    if args.peers and config == "mixed":
        found["reference_like"] = ("peers", {"kind": "reference_like"})
        found["tuned"] = ("peers", {"kind": "tuned", "dtype": args.dtype})
    return found


def fields_of(args: argparse.Namespace) -> dict:
    """What the options change of a config."""
    names = ("dtype", "steps_per_call")
    return {name: getattr(args, name) for name in names}


def measure(args: argparse.Namespace, config: str) -> dict[str, dict]:
    """Of each contender its description and "images_per_second": {phase: a figure a round}."""
    images, phases = args.steps * BATCH_SIZE, phases_of(config)
    with contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker.Worker(module, **options))
            for name, (module, options) in contenders(args, config).items()
        }
        for name, one in workers.items():
            progress(f"{config}: {name} compiles and warms up")
            for phase in phases:
                one.measure(phase, images)
        rounds = {name: {phase: [] for phase in phases} for name in workers}
        for number in range(1, args.rounds + 1):
            progress(f"{config}: round {number} of {args.rounds}")
            for name, one in workers.items():
                for phase in phases:
                    rounds[name][phase].append(one.measure(phase, images))
        return {
            name: {"images_per_second": rounds[name], **one.describe()}
            for name, one in workers.items()
        }


def summarize(figures: list[float]) -> dict[str, float]:
    """Median and spread."""
    return {
        "median": round(statistics.median(figures), 1),
        "min": round(min(figures), 1),
        "max": round(max(figures), 1),
        "rounds": [round(figure, 1) for figure in figures],
    }


def ratios(measured: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Of the RATIOS that were measured: medians over medians, and the range over the rounds."""
    found = {"ratios": {}, "ratio_ranges": {}}
    for name, pair in RATIOS.items():
        try:
            over, under = (measured[who]["images_per_second"][phase] for who, phase in pair)
        except KeyError:
            continue
        by_round = [a / b for a, b in zip(over, under, strict=True)]
        ratio = statistics.median(over) / statistics.median(under)
        found["ratios"][name] = round(ratio, 3)
        found["ratio_ranges"][name] = [round(min(by_round), 3), round(max(by_round), 3)]
    return found


def table(config: str, result: dict) -> str:
    """A config's figures as a Markdown table."""
    lines = [
        f"\n{config}, images/s, median (min-max) of {result['rounds']} rounds\n",
        "| | " + " | ".join(result["phases"]) + " | peak MiB |",
        "| --- |" + " ---: |" * (len(result["phases"]) + 1),
    ]
    for name, one in result["contenders"].items():
        figures = [one["images_per_second"][phase] for phase in result["phases"]]
        cells = [f"{f['median']:,.0f} ({f['min']:,.0f}-{f['max']:,.0f})" for f in figures]
        lines.append(f"| {name} | {' | '.join(cells)} | {one['peak_memory_mib']:,} |")
    for name, ratio in result["ratios"].items():
        low, high = result["ratio_ranges"][name]
        lines.append(f"{name}: {ratio:.2f} ({low:.2f}-{high:.2f})")
    if result["startup"]:
        start = result["startup"]
        lines.append(
            f"main.py to the first step: {start['warm_seconds']:.1f} s with a warm compilation "
            f"cache, {start['cold_seconds']:.1f} s without; peak {start['peak_memory_mib']:,} MiB"
        )
    return "\n".join(lines)


def progress(text: str) -> None:
    """Says on stderr what is going on."""
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr)


def main() -> None:
    """Measures, prints, and writes the results and the chart."""
    args = parse()
    results = {}
    for config in CONFIGS if args.config == "all" else [args.config]:
        measured = measure(args, config)
        result = {"phases": phases_of(config), "rounds": args.rounds, **ratios(measured)}
        for one in measured.values():
            by_phase = one["images_per_second"]
            one["images_per_second"] = {name: summarize(by_phase[name]) for name in by_phase}
        result["contenders"] = measured
        result["startup"] = None if args.no_startup else startup.measure(config, **fields_of(args))
        results[config] = result
        print(table(config, result), flush=True)
    ours = next(iter(results.values()))["contenders"]["ours"]
    name = args.name or re.sub(r"[^a-z0-9]+", "-", ours["device"].lower())
    summary = {
        "command": "python benchmarks/throughput.py " + " ".join(sys.argv[1:]),
        "date": datetime.date.today().isoformat(),
        "device": f"{ours['num_devices']} x {ours['device']}",
        "host": {"cpu_cores": os.cpu_count(), "machine": platform.machine()},
        "python": platform.python_version(),
        "options": {"batch_size": BATCH_SIZE, "steps": args.steps, **fields_of(args)},
        "ratios": results.get("mixed", {}).get("ratios", {}),
        "configs": results,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput-{name}.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\nwritten to {path.relative_to(worker.PROJECT)}")
    if args.peers:
        print(f"and {chart.draw(summary).relative_to(worker.PROJECT)}")


if __name__ == "__main__":
    main()
