"""What one run leaves as it trains: its records, checkpoints, TensorBoard events and pictures.

A record is what is known of one epoch: a line of history.jsonl (README, "What a run leaves") and
the "confusion_matrix" of its validation. The records travel in the checkpoints, so a checkpoint
alone says all that happened before it. An epoch counts once its checkpoint is saved; what a kill
leaves of it before, its events and pictures, the epoch writes again.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from caecnn_jax.data import sampling
from caecnn_jax.records import board, checkpoints, workdir
from caecnn_jax.results import metrics

FINAL_PICTURES = ("learning_curves", "confusion_matrix")


class Journal:
    """The state of one run outside the device, and its files in `folder`."""

    def __init__(self, split: sampling.Split, folder: epath.Path, class_names: Sequence[str]):
        """`folder` is the workdir; nothing is written before `start`."""
        self.split = split
        self.records: list[dict[str, Any]] = []
        self.step = 0  # training steps done of the epoch after the last record
        self.losses: dict[str, list] = {}  # of those steps
        self.arrays: dict[str, Any] | None = None  # what `restore` found, to go on from
        self._class_names = class_names
        self._folder = folder
        self._epochs = checkpoints.Checkpoints(folder / split.name)
        # An epoch cut short by a signal; kept apart, since only whole epochs count elsewhere.
        self._interrupted = checkpoints.Checkpoints(folder / split.name / "interrupted")
        self._board: board.Board | None = None

    @property
    def pictures(self) -> epath.Path:
        """The folder of the run's PNG files."""
        return self._folder / "images" / self.split.name

    def restore(self, target: dict[str, Any]) -> None:
        """Goes back to where the run was left: sets records, step, losses and arrays.

        `target` holds arrays or shapes like those that were saved. Raises CheckpointError when
        there are checkpoints and none can be restored.
        """
        restored = self._epochs.restore_newest(target)
        if restored is not None:
            self.records, self.arrays = restored.progress["records"], restored.arrays
        try:
            partial = self._interrupted.restore_newest(target)
        except checkpoints.CheckpointError:  # each is warned of; the epoch is trained anew
            partial = None
        if partial is not None and partial.progress["epoch"] == len(self.records) + 1:
            self.step, self.losses = partial.progress["step"], partial.progress["losses"]
            self.arrays = partial.arrays

    def forget_partial_epoch(self, target: dict[str, Any]) -> None:
        """Goes back to the last whole epoch."""
        self._interrupted.keep_only(set())
        self.step, self.losses, self.arrays = 0, {}, None
        self.restore(target)

    def start(self) -> None:
        """Opens the board; call once the run is restored, in the process that writes."""
        first_epoch = len(self.records) + 1
        self._board = board.Board(self._folder / "tensorboard" / self.split.name, first_epoch)

    def add(self, record: dict[str, Any]) -> None:
        """Takes in an epoch, which `save` must follow, and writes its events."""
        self.records.append(record)
        self.step, self.losses, self.arrays = 0, {}, None
        if self._board is not None:
            confusion = record["confusion_matrix"]
            table = confusion and metrics.per_class(confusion, self._class_names)
            self._board.epoch(record, table)

    def save(self, arrays: dict[str, Any], keep: int) -> None:
        """Saves the checkpoint of the last epoch, and removes those not kept: `keep` and the best.

        Raises WorkdirError when the folder cannot be written.
        """
        workdir.check_present(self._folder)
        if self._board is not None:
            for name in FINAL_PICTURES:  # of a run that was to be shorter
                (self.pictures / f"{name}.png").unlink(missing_ok=True)
        epoch = self.records[-1]["epoch"]
        self._epochs.save(epoch, arrays, {"epoch": epoch, "records": self.records})
        self.clean_up(keep)

    def clean_up(self, keep: int) -> None:
        """Removes the checkpoints that are no longer of use; a kill may have come before it."""
        if self.records:
            epoch = self.records[-1]["epoch"]
            best = self.records[metrics.best_epoch(self.records)]["epoch"]
            self._epochs.keep_only({*range(epoch - keep + 1, epoch + 1), best})
        if not self.step:
            self._interrupted.keep_only(set())

    def add_partial(self, step: int, losses: dict[str, list], arrays: dict[str, Any]) -> None:
        """Saves an epoch that was cut short after `step` training steps, as `save` does."""
        workdir.check_present(self._folder)
        epoch = len(self.records) + 1
        number = (self._interrupted.steps() or [0])[-1] + 1
        progress = {"epoch": epoch, "step": step, "losses": losses}
        self._interrupted.save(number, arrays, progress)
        self._interrupted.keep_only({number})

    def picture(self, name: str, png: bytes, epoch: int | None = None) -> None:
        """Writes a PNG file; with an epoch, which its name then ends with, on the board too."""
        if self._board is None:
            return
        stem = name if epoch is None else f"{name}-epoch-{epoch:04d}"
        with workdir.writing(self.pictures):
            self.pictures.mkdir(parents=True, exist_ok=True)
        workdir.write_bytes(self.pictures / f"{stem}.png", png)
        if epoch is not None:
            self._board.picture(name, _pixels(png), epoch)

    def show_codes(self, codes: np.ndarray, images: np.ndarray, labels: np.ndarray) -> None:
        """Shows the CAE's codes float [N, ...] of images uint8 [N, H, W, 3] on the board."""
        if self._board is None:
            return
        names = [self._class_names[label] for label in labels]
        epoch = self.records[-1]["epoch"]
        self._board.codes(codes.reshape(len(codes), -1), images, names, epoch)

    def show_settings(self, config: dict[str, Any]) -> None:
        """Shows the ended run's settings, {dotted name: value}, and final figures on the board."""
        if self._board is None:
            return
        result = metrics.run_result(self.records, self._class_names)
        names = ("accuracy", "macro_f1", "loss_cae", "loss_cnn")
        figures = {name: result[name] for name in names if result[name] is not None}
        self._board.settings(config, figures, result["epochs"])
        if result["confusion_matrix"]:
            self._board.picture("confusion_matrix", _pixels(self._confusion()), result["epochs"])

    def finish(self) -> None:
        """Draws the learning curves and the last confusion matrix, where that is not done yet."""
        curves, confusion = (self.pictures / f"{name}.png" for name in FINAL_PICTURES)
        matrix = self.records[-1]["confusion_matrix"]
        if curves.exists() and (confusion.exists() or not matrix):
            return
        from caecnn_jax.records import figures  # matplotlib takes a second to import

        self.picture("learning_curves", figures.learning_curves(self.records, self._class_names))
        if matrix:
            self.picture("confusion_matrix", self._confusion())

    def _confusion(self) -> bytes:
        """PNG of the last epoch's confusion matrix."""
        from caecnn_jax.records import figures  # matplotlib takes a second to import

        matrix = np.asarray(self.records[-1]["confusion_matrix"])
        return figures.confusion_matrix(matrix, self._class_names)

    def close(self) -> None:
        """Closes the event file."""
        if self._board is not None:
            self._board.close()


def _pixels(png: bytes) -> np.ndarray:
    """A PNG file's pixels, uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
