"""Trains, evaluates and reports on a joint convolutional autoencoder and CNN.

For any labelled images with rare classes: your own, or CIFAR-10 with some classes made rare.

train      python main.py --config configs/mixed.py --workdir runs/mixed
evaluate   python main.py --mode evaluate --workdir runs/mixed --fold 1 --checkpoint best
predict    python main.py --mode predict --workdir runs/mixed --images photos/ cat.jpg
export     python main.py --mode export --workdir runs/mixed --output mixed.jax
report     python main.py --mode report --workdir runs/mixed
           python main.py --mode report --runs runs/cnn runs/mixed --workdir runs/compared
study      python main.py --mode study --config studies/ablation.py --workdir runs/ablation
"""

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from the imports

from typing import Any

from absl import flags

from caecnn_jax import command_line, errors, logs, modes
from caecnn_jax import part as part_lib
from caecnn_jax.results.corrections import Correction

MODES = ("train", "evaluate", "predict", "export", "report", "study")
CONFIG = command_line.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder, a path or a bucket's address.")
MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
LOG_LEVEL = flags.DEFINE_enum("log_level", "INFO", ("INFO", "DEBUG"), "How much to log.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "train: join a multi-host job.")
FOLD = flags.DEFINE_string("fold", None, "A fold's number, or test; predict, export: or all.")
SPLIT = flags.DEFINE_enum("split", None, ("train", "valid", "test"), "evaluate: the images.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "Which one: last, best or an epoch.")
IMAGES = flags.DEFINE_multi_string(
    "images", [], "predict: files, folders, globs; several may follow."
)
OUTPUT = flags.DEFINE_string(
    "output", None, "evaluate, predict, report: the results' folder; export: the file."
)
SAVE = flags.DEFINE_bool(
    "save_reconstructions", False, "predict: a PNG of each image beside its reconstruction."
)
RUNS = flags.DEFINE_multi_string(
    "runs", [], "report: folders to compare, or NAME=PATTERN for several seeds; first the baseline."
)
INDEX = flags.DEFINE_integer(
    "index", None, "train, study: which part of the runs, from 0.", lower_bound=0
)
COUNT = flags.DEFINE_integer(
    "count", None, "train, study: how many parts there are.", lower_bound=1
)
LAUNCHER = flags.DEFINE_enum("launcher", None, ("submitit",), "study: what trains the parts.")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "study: say what would train, and how long.")
TAU = flags.DEFINE_float("tau", 0.0, "Take tau log(class prior) from the logits.")
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Divide the logits by this.")
CALIBRATE = flags.DEFINE_bool(
    "calibrate", False, "Fit the temperature, on the fold's validation part."
)
WEIGHTS = flags.DEFINE_enum("weights", None, ("raw", "ema"), "The last ones or their averages.")
LOGITS = ("tau", "temperature", "calibrate", "weights")
USED = {  # the flags of each mode, beside --workdir and --log_level
    "train": ("config", *command_line.MOVED, "distributed", "index", "count"),
    "evaluate": ("fold", "checkpoint", "split", *command_line.MOVED, "output", *LOGITS),
    "predict": ("fold", "checkpoint", "images", "output", "save_reconstructions", *LOGITS),
    "export": ("fold", "checkpoint", "output", *LOGITS),
    "report": ("runs", "output"),
    "study": ("config", *command_line.MOVED, "index", "count", "launcher", "dry_run"),
}


def main(argv: list[str]) -> int:
    """Runs the mode that the flags name; returns the exit code."""
    paths = {"predict": IMAGES.value, "report": RUNS.value}.get(MODE.value) or []
    if argv[1:] and not paths:
        raise errors.UserError(f"{argv[1]!r} is no flag: see --help")
    command_line.check_used(MODE.value, USED)
    for path in paths + argv[1:]:
        # The empty path would be the current folder: a variable of the shell that is not set.
        if not path or (MODE.value == "report" and path.endswith("=")):
            raise errors.UserError(f"{path!r} names nothing: give a path")
    logs.to_console(LOG_LEVEL.value)
    workdir: str = WORKDIR.value or ""
    if not workdir and not RUNS.value:
        raise errors.UserError("--workdir is missing: give the run's folder")
    model: dict[str, Any] = {"fold": FOLD.value, "checkpoint": CHECKPOINT.value}
    correction = Correction(TAU.value, TEMPERATURE.value, CALIBRATE.value)
    chosen = {"weights": WEIGHTS.value, "correction": correction}
    match MODE.value:
        case "train":
            part = part_lib.given(INDEX.value, COUNT.value) or part_lib.WHOLE
            modes.before_training(CONFIG.value, DISTRIBUTED.value, part)
            from caecnn_jax.training import train  # slow to import, so after the checks

            summary = train.train_and_evaluate(CONFIG.value, workdir, part=part)
            return modes.after_training(summary, workdir)
        case "evaluate":
            moved = command_line.elsewhere()
            split, output = SPLIT.value, OUTPUT.value
            return modes.evaluate(
                workdir, **model, split=split, output=output, elsewhere=moved, chosen=chosen
            )
        case "predict":
            return modes.predict(
                workdir,
                **model,
                images=paths + argv[1:],
                output=OUTPUT.value,
                save_reconstructions=SAVE.value,
                chosen=chosen,
            )
        case "export":
            return modes.export(workdir, **model, output=OUTPUT.value, chosen=chosen)
        case "report":
            return modes.report(workdir, paths + argv[1:], OUTPUT.value)
        case _:  # study
            return modes.study(
                CONFIG.value,
                workdir,
                index=INDEX.value,
                count=COUNT.value,
                launcher=LAUNCHER.value,
                dry_run=DRY_RUN.value,
            )


def run() -> None:
    """Parses the flags and runs; a known end becomes one sentence and an exit code."""
    command_line.run(main)


if __name__ == "__main__":
    run()
