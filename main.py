"""Trains, evaluates and reports on a joint convolutional autoencoder and CNN on CIFAR-10.

train:     python main.py --config configs/mixed.py --workdir runs/mixed
evaluate:  python main.py --mode evaluate --workdir runs/mixed --fold 1 --checkpoint best
report:    python main.py --mode report --workdir runs/mixed
"""

from absl import flags
from ml_collections import config_flags

from caecnn_jax import command_line, errors, logs

MODES = ("train", "evaluate", "report")
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file; FILE:quick cuts it down.",
    lock_config=False,
    accept_new_attributes=True,  # a further class's count; config.validate knows all the fields
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder, a path or a bucket's address.")
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
LOG_LEVEL = flags.DEFINE_enum("log_level", "INFO", ("INFO", "DEBUG"), "How much to log.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "train: join a multi-host job.")
FOLD = flags.DEFINE_string("fold", None, "evaluate: a fold's number, or test.")
SPLIT = flags.DEFINE_enum("split", None, ("train", "valid", "test"), "evaluate: the images.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "evaluate: last, best or an epoch.")


def main(argv: list[str]) -> None:
    """Runs the mode that the flags name."""
    if len(argv) > 1:
        raise errors.UserError(f"{argv[1]!r} is no flag: see --help")
    logs.to_console(LOG_LEVEL.value)
    if not WORKDIR.value:
        raise errors.UserError("--workdir is missing: give the run's folder")
    # Each mode imports what it needs, so that --help and errors come at once.
    from caecnn_jax import workdir

    folder = workdir.resolve(WORKDIR.value)
    if MODE.value == "train":
        train(folder)
    elif MODE.value == "evaluate":
        from caecnn_jax import evaluate, metrics, parallel

        parallel.start(workdir.read_config(folder).dtype)
        stem, result = evaluate.evaluate(folder, FOLD.value, SPLIT.value, CHECKPOINT.value)
        print(f"{stem}\n{metrics.text_table(result)}\nwritten to {folder / 'evaluations'}")
    else:
        from caecnn_jax import report

        print(f"written to {report.write(folder)}")


def train(folder) -> None:
    """Checks the config, trains, and prints the results."""
    if CONFIG.value is None:
        raise errors.UserError("--config is missing: for example --config configs/mixed.py")
    from caecnn_jax import config

    config.validate(CONFIG.value)
    from caecnn_jax import metrics, parallel
    from caecnn_jax import train as train_lib

    parallel.start(CONFIG.value.dtype, DISTRIBUTED.value)
    results = train_lib.train_and_evaluate(CONFIG.value, folder)
    for name, result in (("mean over folds", results["cv"]), ("test", results["test"])):
        if result:
            print(f"\n{name}: {metrics.text_table(result.get('mean', result))}")
    print(f"\nReport, images and checkpoints: {folder}")


def run() -> None:
    """Parses the flags and runs; a known end becomes one sentence and an exit code."""
    command_line.run(main)


if __name__ == "__main__":
    run()
