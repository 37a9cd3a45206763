r"""Runs the reference's six published experiments and writes ours beside the published figures.

Run:     python benchmarks/reproduce.py --name cpu [--only mixed code] [--epochs 10 --warmup 2]
Writes:  benchmarks/results/reproduce-NAME.json and .md; run folders in runs/reproduce-NAME/.
Resume:  the same command goes on where it was stopped.

Every experiment uses the reference's settings, its quirks included: the test run's training set is
not expanded, and the test set stops it early. Published figures: benchmarks/published.json.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from caecnn_jax import logs  # noqa: E402
from caecnn_jax.records import about  # noqa: E402
from caecnn_jax.records import workdir as workdir_lib  # noqa: E402
from caecnn_jax.training import devices, train  # noqa: E402
from configs import cnn, cnn_oversampled, cnn_small_data, code, mixed  # noqa: E402

PUBLISHED = json.loads((ROOT / "benchmarks" / "published.json").read_text())
RESULTS = ROOT / "benchmarks" / "results"
# The published experiments: the config, and what is changed in it.
EXPERIMENTS = {
    "cnn_no_aug": (cnn, {"use_aug": False}),
    "cnn_small_data": (cnn_small_data, {"use_aug": False}),
    "cnn_aug": (cnn, {}),
    "cnn_oversampled": (cnn_oversampled, {}),
    "code": (code, {}),
    "mixed": (mixed, {}),
}


def experiment_config(name: str, args: argparse.Namespace):
    """The experiment's config with the reference's quirks, cut down as the arguments say."""
    module, changes = EXPERIMENTS[name]
    config = module.get_config()
    published_test = PUBLISHED["experiments"][name]["test_accuracy"] is not None
    config.update(changes)
    config.expand_for_test = False
    config.test_early_stopping = True
    config.do_cv = not args.test_only
    config.do_test = args.test_only or published_test
    config.num_epoch = args.epochs
    config.num_folds = args.folds
    config.seed = args.seed
    if args.warmup is not None and config.only_train_cae_until:
        config.only_train_cae_until = args.warmup
    return config


def row(name: str, metrics: dict, history: list[dict]) -> dict:
    """One experiment's figures: ours, and ours minus the published ones."""
    published = PUBLISHED["experiments"][name]
    figures = {
        "experiment": name,
        "published": published,
        "seconds": sum(record["seconds"] for record in history),
        "history": history,
    }
    if metrics["cv"]:
        mean, std = metrics["cv"]["mean"], metrics["cv"]["std"]
        f1 = [mean["per_class"][label]["f1"] for label in PUBLISHED["classes"]]
        figures |= {"accuracy": mean["accuracy"], "std": std["accuracy"], "f1": f1}
        figures["difference"] = mean["accuracy"] - published["accuracy"]
        if published["f1"]:
            pairs = zip(f1, published["f1"], strict=True)
            figures["f1_difference"] = [ours - theirs for ours, theirs in pairs]
    if metrics["test"]:
        figures["test_accuracy"] = metrics["test"]["accuracy"]
        figures["test_epochs"] = metrics["test"]["epochs"]
        table = metrics["test"]["per_class"]
        figures["test_f1"] = [table[label]["f1"] for label in PUBLISHED["classes"]]
    return figures


def table(rows: list[dict], environment: dict, args: argparse.Namespace) -> str:
    """The Markdown table of all experiments that were run, and per-class F1 differences."""

    def cell(value: float | None, sign: bool = False) -> str:
        return "" if value is None else f"{value:+.4f}" if sign else f"{value:.4f}"

    lines = [
        f"At most {args.epochs} epochs, {args.folds} folds, seed {args.seed}; "
        f"{environment['device_kind']}, {environment['cpu_count']} CPU cores, "
        f"jax {environment['jax']}.",
        "",
        "| experiment | ours, folds | published | difference | ours, test | published | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in rows:
        published = one["published"]
        cells = (
            one["experiment"],
            cell(one.get("accuracy")),
            cell(published["accuracy"]),
            cell(one.get("difference"), sign=True),
            cell(one.get("test_accuracy")),
            cell(published["test_accuracy"]),
            f"{one['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    compared = [one for one in rows if "f1_difference" in one]
    if compared:
        lines += ["", f"| F1, ours - published | {' | '.join(PUBLISHED['classes'])} |"]
        lines.append("| --- " * (len(PUBLISHED["classes"]) + 1) + "|")
        for one in compared:
            cells = [cell(value, sign=True) for value in one["f1_difference"]]
            lines.append(f"| {one['experiment']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the experiments asked for and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--epochs", type=int, default=400, help="at most; the reference's is 400")
    parser.add_argument("--warmup", type=int, help="CAE-only epochs; the reference's is 50")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test_only", action="store_true", help="the test runs, no folds")
    parser.add_argument("--name", required=True, help="of the results' files")
    args = parser.parse_args()

    logs.to_console("INFO")
    devices.start("float32")
    rows = []
    for name in args.only:
        folder = ROOT / "runs" / f"reproduce-{args.name}" / name
        metrics = train.train_and_evaluate(experiment_config(name, args), folder)
        lines = (workdir_lib.resolve(folder) / "history.jsonl").read_text().splitlines()
        rows.append(row(name, metrics, [json.loads(line) for line in lines]))
    environment = about.environment()
    result = {"arguments": vars(args), "environment": environment, "experiments": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"reproduce-{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    text = table(rows, environment, args)
    (RESULTS / f"reproduce-{args.name}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
