"""What each --mode does: imports what it needs, starts the devices, prints what came of it.

Each function returns the command's exit code. `chosen` {"weights", "correction"} says which of the
weights are used and what is done to the logits. The imports are inside, so that --help and errors
in the command line come at once.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from caecnn_jax import command_line, errors, exits, legible
from caecnn_jax import part as part_lib
from caecnn_jax.part import Part


def before_training(
    config: ml_collections.ConfigDict | None, distributed: bool, part: Part
) -> None:
    """Checks the config, which must be there, and starts the devices."""
    if config is None:
        raise errors.UserError("--config is missing: for example --config configs/mixed.py")
    if distributed and not part.is_whole:
        raise errors.UserError(
            "--index and --count deal the runs out to commands that are not joined, --distributed "
            "to processes that are: leave one out"
        )
    from caecnn_jax import config as config_lib

    config_lib.validate(config)
    from caecnn_jax.training import devices

    devices.start(config.dtype, config.matmul_precision, distributed=distributed)


def after_training(summary: Mapping[str, Any] | None, workdir: str) -> int:
    """Writes the report where it is missing, and prints what came of the training.

    Without a `summary` there are runs to come, of other parts.
    """
    if summary is None:
        return 0
    from caecnn_jax.records import workdir as workdir_lib
    from caecnn_jax.reports import report
    from caecnn_jax.results import tables
    from caecnn_jax.training import devices

    folder = workdir_lib.resolve(workdir)
    page = folder / "report.html"
    try:
        if devices.is_writer() and not page.exists():
            report.write(folder)
    finally:  # what fails to be drawn or written hides no figure
        print(f"\n{tables.summary_table(summary)}\n\nlearnt: {tables.summary_sentence(summary)}")
    print(f"report: {page}")
    print(f"next:   python main.py --mode predict --workdir {shlex.quote(workdir)} --images PHOTOS")
    return 0


def evaluate(
    workdir: str,
    *,
    fold: str | None,
    checkpoint: str,
    split: str | None,
    output: str | None,
    elsewhere: Mapping[str, str],
    chosen: Mapping[str, Any] | None = None,
) -> int:
    """Evaluates a checkpoint, prints the result, and writes it where that is possible."""
    from caecnn_jax.records import workdir as workdir_lib
    from caecnn_jax.results import evaluate as evaluate_lib
    from caecnn_jax.results import tables

    folder = _start(workdir)
    name, result = evaluate_lib.evaluate(
        folder,
        fold=fold,
        checkpoint=checkpoint,
        split=split,
        elsewhere=elsewhere,
        **(chosen or {}),
    )
    print(f"{legible.printable(name)}\n{tables.text_table(result)}", flush=True)
    if made := result["post_hoc"]:
        print(f"logits corrected: tau {made['tau']:g}, temperature {made['temperature']:.4f}")
    if "data" in result:
        other = legible.printable(result["data"]["name"])
        print(f"on {other}, other images than the run was trained on")
    place = workdir_lib.resolve(output) if output else folder / "evaluations"
    try:
        evaluate_lib.write(place, name, result)
    except workdir_lib.WorkdirError as error:
        if output:
            raise
        print(f"not written: {error}")
    else:
        print(f"written to {place}")
    return 0


def predict(
    workdir: str,
    *,
    fold: str | None,
    checkpoint: str,
    images: Sequence[str],
    output: str | None,
    save_reconstructions: bool,
    chosen: Mapping[str, Any] | None = None,
) -> int:
    """Predicts what image files show."""
    from caecnn_jax.results import predict_files

    folder = _start(workdir)
    text, num_skipped = predict_files.predict_files(
        folder,
        fold=fold,
        checkpoint=checkpoint,
        images=images,
        output=output,
        save_reconstructions=save_reconstructions,
        **(chosen or {}),
    )
    print(text)
    return exits.SOME_SKIPPED if num_skipped else 0


def export(
    workdir: str,
    *,
    fold: str | None,
    checkpoint: str,
    output: str | None,
    chosen: Mapping[str, Any] | None = None,
) -> int:
    """Writes the model into a file for use elsewhere."""
    if not output:
        raise errors.UserError("--output is missing: name the file; FILE.npz is for PyTorch")
    from caecnn_jax.results import export as export_lib

    folder = _start(workdir)
    path = export_lib.write(
        folder, fold=fold, checkpoint=checkpoint, output=output, **(chosen or {})
    )
    print(f"written to {path}")
    return 0


def report(workdir: str, runs: Sequence[str], output: str | None) -> int:
    """Writes the report of the run, or the comparison of `runs` if there are any.

    Into `output`, or else the workdir; a comparison without either ("") into comparison/.
    """
    from caecnn_jax.records import workdir as workdir_lib
    from caecnn_jax.reports import compare
    from caecnn_jax.reports import report as report_lib

    place = workdir_lib.resolve(output or workdir or "comparison")
    if runs:
        page = compare.write(runs, place)
    else:
        page = report_lib.write(workdir_lib.resolve(workdir), place)
    print(f"written to {page}")
    return 0


def study(
    base: ml_collections.ConfigDict | None,
    workdir: str,
    *,
    index: int | None,
    count: int | None,
    launcher: str | None,
    dry_run: bool,
) -> int:
    """Trains a study, or the part of it with this index and count, and writes its page.

    1 where a run failed. `base` is that of the file that --config names, its fields overridden.
    """
    if base is None:
        raise errors.UserError("--config is missing: for example --config studies/ablation.py")
    from caecnn_jax import study as study_lib

    study = study_lib.load(command_line.study_file(), base)
    from caecnn_jax.records import workdir as workdir_lib
    from caecnn_jax.reports import study as report
    from caecnn_jax.training import devices, launch
    from caecnn_jax.training import parts as training

    folder = workdir_lib.resolve(workdir)
    if launcher and index is not None:
        raise errors.UserError("--index is for one part, --launcher for all: leave one out")
    # The whole study, so that no part begins, or shows runs of another config, where one is wrong.
    done = training.finished(study.runs, folder)
    if len(done) < len(study.runs):
        training.check_data(study.runs)
    training.check_images(study.runs, done)
    if launcher and not dry_run:
        failed = launch.submit(study, folder, num_parts=count)
    else:
        part = None
        if not launcher:  # else a dry run, of all parts
            part = part_lib.given(index, count) or part_lib.of_array(os.environ)
        runs = (part or part_lib.WHOLE).of(study.runs)
        first = study.runs[0].config  # `base` may have what no variant does
        devices.start(first.dtype, first.matmul_precision)
        if dry_run:
            print(training.plan(study, runs, folder))
            return 0
        failed = training.train_all(runs, folder, beside=study.runs)
    page = report.write(study, folder)
    table = page.with_suffix(".md").read_text(encoding="utf-8")
    print(f"\n{table}\nstudy: {page}")
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    return exits.SOME_FAILED if failed else 0


def _start(workdir: str):
    """The run's folder, with the devices started for its dtype and precision."""
    from caecnn_jax.records import workdir as workdir_lib
    from caecnn_jax.training import devices

    folder = workdir_lib.resolve(workdir)
    config = workdir_lib.read_config(folder)
    devices.start(config.dtype, config.matmul_precision)
    return folder
