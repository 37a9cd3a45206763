r"""What each setting of configs/best.py is worth, judged on images held out of the training set.

Run:     python benchmarks/ablation.py [--only best NAME ...] [--epochs 4] [--seeds 0 1]
Writes:  benchmarks/results/ablation.json and .md; run folders in runs/ablation/.
Resume:  the same command goes on where it was stopped; the results hold what was asked for.

500 training images of each class take the test set's place, so that no choice is made on the test
set; the rare classes are cut to 2,500 of the 4,500 images left. A variation changes one thing.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from caecnn_jax import logs  # noqa: E402
from caecnn_jax.data import cifar, dataset  # noqa: E402
from caecnn_jax.networks import models  # noqa: E402
from caecnn_jax.records import about  # noqa: E402
from caecnn_jax.training import devices, steps, train  # noqa: E402
from configs import best, default, mixed  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
HELD_OUT = 500  # images of each class
RARE = ("bird", "deer", "truck")
LEFT = {"all": cifar.CLASS_SIZE - HELD_OUT} | dict.fromkeys(RARE, 2500)  # to train on
REFERENCE = default.get_config()
NO_EXPANSION = {"train_data_expansion": {}}
# What a variation changes of best.py.
VARIATIONS = {
    "best": {},
    "the reference's widths": {"cnn": {"block_sizes": mixed.get_config().cnn.block_sizes}},
    "three blocks, as many parameters": {
        "cnn": {"block_sizes": ((3, 58, True), (64, 100, True), (100, 148, True))}
    },
    "the reference's augmentation": {"aug": REFERENCE.aug.to_dict()},
    "a constant learning rate": {"lr_schedule": "constant"},
    "the reference's rates and betas": {
        part: {"opt": REFERENCE[part].opt.to_dict()} for part in ("cae", "cnn")
    },
    "no expansion": NO_EXPANSION,
    "logit adjustment for expansion": NO_EXPANSION | {"cnn": {"logit_adjustment": 1.0}},
}


def held_out(data: dataset.Dataset) -> dataset.Dataset:
    """The training images alone, HELD_OUT of each class in the test set's place."""
    labels = data.labels[: data.num_train]
    rng = np.random.default_rng(0)
    by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    test = np.sort(np.concatenate([one[:HELD_OUT] for one in by_class]))
    rest = np.sort(np.concatenate([one[HELD_OUT:] for one in by_class]))
    order = np.concatenate([rest, test])
    return dataset.from_arrays(data.images[order], labels[order], len(rest), data.class_names)


def variation_config(name: str, epochs: int, seed: int):
    """The config of a variation: one run on all that is not held out."""
    config = best.get_config()
    config.num_epoch, config.seed, config.do_cv = epochs, seed, False
    config.train_data_regulation = LEFT
    changes = dict(VARIATIONS[name])
    if "train_data_expansion" in changes:  # a table is replaced as a whole
        config.train_data_expansion = changes.pop("train_data_expansion")
    config.update(changes)
    return config


def num_parameters(config) -> int:
    """Numbers that training changes."""
    model = models.from_config(config)
    state = jax.eval_shape(lambda key: steps.create_state(model, config, key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def row(name: str, parameters: int, results: list[dict]) -> dict:
    """A variation's figures: means over the seeds, and each seed's accuracy."""
    accuracies = [result["accuracy"] for result in results]
    rare = [result["per_class"][label]["recall"] for result in results for label in RARE]
    return {
        "variation": name,
        "parameters": parameters,
        "accuracy": statistics.mean(accuracies),
        "accuracies": accuracies,
        "rare_recall": statistics.mean(rare),
        "macro_f1": statistics.mean(result["macro_f1"] for result in results),
        "loss_cae": statistics.mean(result["loss_cae"] for result in results),
    }


def table(rows: list[dict], environment: dict, args: argparse.Namespace) -> str:
    """The Markdown table of the variations that were run."""
    seeds = "seeds" if len(args.seeds) > 1 else "seed"
    lines = [
        f"{args.epochs} epochs, {seeds} {', '.join(map(str, args.seeds))}; accuracy on 5,000 "
        f"held-out training images (standard error 0.005); {environment['device_kind']}, "
        f"{environment['cpu_count']} CPU cores, jax {environment['jax']}.",
        "",
        "| variation | parameters | accuracy | recall of the rare classes | reconstruction MSE |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in rows:
        lines.append(
            f"| {one['variation']} | {one['parameters']:,} | {one['accuracy']:.4f} | "
            f"{one['rare_recall']:.4f} | {one['loss_cae']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the variations asked for and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=VARIATIONS, default=list(VARIATIONS))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()

    logs.to_console("INFO")
    devices.start("float32")
    data = held_out(dataset.load(best.get_config()))
    rows = []
    for name in args.only:
        results = []
        for seed in args.seeds:
            config = variation_config(name, args.epochs, seed)
            stem = re.sub(r"\W+", "_", name)
            folder = ROOT / "runs" / "ablation" / f"{stem}-{args.epochs}-{seed}"
            results.append(train.train_and_evaluate(config, folder, data)["test"])
        rows.append(row(name, num_parameters(config), results))
    environment = about.environment()
    result = {"arguments": vars(args), "environment": environment, "variations": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ablation.json").write_text(json.dumps(result, indent=1) + "\n")
    text = table(rows, environment, args)
    (RESULTS / "ablation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
