"""What one run leaves as it trains: its records, checkpoints, TensorBoard events and pictures.

A record is what is known of one epoch, a `schema.Record`, of which history.jsonl has a line. The
records travel in the checkpoints, so a checkpoint alone says all that happened before it. An epoch
counts once its checkpoint is saved; only then is it shown, and what a kill prevents from being
shown is shown when the run goes on.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from PIL import Image

from caecnn_jax.data import dataset, sampling
from caecnn_jax.records import board, checkpoints, runs, workdir
from caecnn_jax.results import metrics, schema

NOT_DRAWN = "not_drawn.txt"  # says why, in place of a last picture that could not be drawn
FINAL_PICTURES = ("learning_curves", "confusion_matrix", "reliability")
# The most images of a picture of reconstructions, and of TensorBoard's projector.
MOST_TILES, MOST_CODES, CODES_PER_CLASS = 40, 300, 20

# From images uint8 [N, H, W, C] to codes float [N, h, w, c] and reconstructions like the images.
Autoencode = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Journal:
    """The state of one run outside the device, and its files."""

    def __init__(
        self,
        folder: epath.Path,
        split: sampling.Split,
        data: dataset.Dataset,
        *,
        selection_metric: str = "accuracy",
        keep: int = 2,
    ):
        """`folder` is the workdir; nothing is written before `start`.

        The best epoch is the one with the highest `selection_metric`; `keep` checkpoints of the
        latest epochs stay beside it.
        """
        self.split = split
        self._selection_metric, self._keep = selection_metric, keep
        self.records: list[schema.Record] = []
        self.step = 0  # training steps done of the epoch after the last record
        self.losses: dict[str, list] = {}  # of those steps
        self.seconds = 0.0  # that they took
        self.arrays: dict[str, Any] | None = None  # what `restore` found, to go on from
        self._data = data
        self._folder = folder
        self._epochs = checkpoints.Checkpoints(folder / split.name)
        # An epoch cut short by a signal; kept apart, since only whole epochs count elsewhere.
        self._interrupted = checkpoints.Checkpoints(folder / split.name / "interrupted")
        self._board: board.Board | None = None
        self._is_longer = False  # than when its last pictures may have been drawn

    @property
    def pictures(self) -> epath.Path:
        """The folder of the run's PNG files."""
        return self._folder / "images" / self.split.name

    @property
    def visited_counts(self) -> np.ndarray:
        """The images of each class that an epoch visits, int32 [K]."""
        return self._counts(self.split.expanded)

    @property
    def train_counts(self) -> np.ndarray:
        """The training images of each class, each counted once, int32 [K]."""
        return self._counts(self.split.train)

    @property
    def members_by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """The training images, each once, int32 [n], class after class, and how many each has."""
        train = self.split.train
        in_turn = np.argsort(self._data.labels[train], kind="stable")
        return train[in_turn].astype(np.int32), self.train_counts

    def _counts(self, indices: np.ndarray) -> np.ndarray:
        labels = self._data.labels[indices]
        return np.bincount(labels, minlength=len(self._data.class_names)).astype(np.int32)

    # --- What is saved ----------------------------------------------------------------------------

    def restore(self, target: Mapping[str, Any]) -> None:
        """Goes back to where the run was left: sets records, step, losses, seconds and arrays.

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
            self.seconds = partial.progress.get("seconds", 0.0)  # earlier versions saved none
            self.arrays = partial.arrays

    def look(self) -> None:
        """Takes in the records that another command, which trains the run, has saved since."""
        saved = checkpoints.Checkpoints(self._folder / self.split.name, read_only=True)
        with contextlib.suppress(checkpoints.CheckpointError):  # just removed, or theirs to mend
            if (restored := saved.restore_newest({})) is not None:
                self.records = restored.progress["records"]

    def start(self) -> None:
        """Opens the board and tidies up; for a restored run, in the process that writes."""
        # A kill may have cut the last epoch's showing short; a polite stop after it did not.
        first_epoch = max(len(self.records) + bool(self.step), 1)
        self._board = board.Board(self._folder / "tensorboard" / self.split.name, first_epoch)
        self._epochs.set_damaged_aside()
        self._interrupted.set_damaged_aside()
        self._clean_up()

    def save(self, record: schema.Record, arrays: Mapping[str, Any]) -> None:
        """Saves an epoch's checkpoint, and removes those not kept.

        Raises WorkdirError when the folder cannot be written. Where this process does not write,
        the record is only taken in.
        """
        self.records.append(record)
        self._forget_details()
        self.step, self.losses, self.seconds, self.arrays = 0, {}, 0.0, None
        if self._board is None:
            return
        workdir.check_present(self._folder)
        if not self._is_longer:  # in a bucket each is a request
            for name in (*(f"{name}.png" for name in FINAL_PICTURES), NOT_DRAWN):
                (self.pictures / name).unlink(missing_ok=True)
            self._is_longer = True
        epoch = record["epoch"]
        self._epochs.save(epoch, arrays, {"epoch": epoch, "records": self.records})
        self._clean_up()

    def _clean_up(self) -> None:
        """Removes the checkpoints that are no longer of use; a kill may have come before it."""
        if self.records:
            epoch, best = self.records[-1]["epoch"], self._best_record()["epoch"]
            kept = {*range(max(1, epoch - self._keep + 1), epoch + 1), best}
            self._epochs.keep_only(kept)
        if not self.step:
            self._interrupted.keep_only(set())

    def _best_record(self) -> schema.Record:
        best = metrics.best_epoch(self.records, self._selection_metric)
        assert best is not None  # there is a record
        return self.records[best]

    def _forget_details(self) -> None:
        """Keeps what grows with images or classes of the last and the best epoch alone.

        Every checkpoint holds the records of all epochs; F1 by class is what is drawn of them.
        """
        kept = self.records[-1], self._best_record()
        self.records = [
            record if any(record is one for one in kept) else _without_details(record)
            for record in self.records
        ]

    def save_partial(
        self, step: int, losses: dict[str, list], seconds: float, arrays: Mapping[str, Any]
    ) -> None:
        """Saves an epoch that was cut short after `step` training steps, as `save` does."""
        if self._board is None:
            return
        workdir.check_present(self._folder)
        epoch = len(self.records) + 1
        number = (self._interrupted.steps() or [0])[-1] + 1
        progress = {"epoch": epoch, "step": step, "losses": losses, "seconds": seconds}
        self._interrupted.save(number, arrays, progress)
        self._interrupted.keep_only({number})

    # --- What is shown ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """What fails while the context lasts is a warning: the epoch itself is saved."""
        try:
            yield
        except Exception as error:  # of matplotlib, Pillow, the disk: whatever a picture may meet
            logging.debug("where it came from:", exc_info=True)
            logging.warning("%s: cannot be shown in full: %s", self.split.name, error)

    def show_epoch(self) -> None:
        """Writes the last epoch's events."""
        if self._board is not None:
            record = self.records[-1]
            confusion = record["confusion_matrix"]
            table = metrics.per_class(confusion, self._data.class_names) if confusion else {}
            self._board.epoch(record, table)

    def show_reconstructions(self, autoencode: Autoencode) -> None:
        """Draws a validation image of each class, MOST_TILES at most, over its reconstruction."""
        from caecnn_jax.records import pictures  # matplotlib takes a second to import

        labels = self._data.labels[self.split.valid]
        firsts = _spread(np.unique(labels, return_index=True)[1], MOST_TILES)
        images = self._data.images[self.split.valid[firsts]]
        _, reconstructions = autoencode(images)
        captions = [self._data.class_names[label] for label in labels[firsts]]
        png = pictures.reconstructions(images, reconstructions, captions)
        self._picture("reconstruction", png, self.records[-1]["epoch"])

    def show_codes(self, autoencode: Autoencode) -> None:
        """Shows the codes of MOST_CODES validation images at most, spread over the classes."""
        labels = self._data.labels[self.split.valid]
        count = min(CODES_PER_CLASS, *np.unique(labels, return_counts=True)[1])
        by_class = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
        sample = _spread(np.concatenate(by_class), MOST_CODES)
        images = self._data.images[self.split.valid[sample]]
        codes, _ = autoencode(images)
        names = [self._data.class_names[label] for label in labels[sample]]
        if self._board is not None:
            epoch = self.records[-1]["epoch"]
            self._board.codes(codes.reshape(len(codes), -1), images, names, epoch)

    def show_settings(self, config: Mapping[str, Any]) -> None:
        """Shows the ended run's settings, {dotted name: value}, and final figures on the board."""
        if self._board is None:
            return
        result: Any = metrics.run_result(
            self.records, self._data.class_names, self._selection_metric
        )
        figures = {name: result[name] for name in runs.SCALARS if result[name] is not None}
        self._board.settings(config, figures, result["epochs"])
        for name, png in self._judged():
            self._board.picture(name, _pixels(png), result["epochs"])

    def is_complete(self) -> bool:
        """Whether an ended run's last files are there, or cannot be had."""
        last = (f"{FINAL_PICTURES[0]}.png", NOT_DRAWN)
        return any((self.pictures / name).exists() for name in last)

    def finish(self) -> None:
        """Draws what the last evaluation came to, then the learning curves, the run's last file.

        Raises what drawing raises, once a file says so to the commands that wait for the last one.
        """
        try:
            self._draw_last()
        except Exception as error:
            self._write_picture(NOT_DRAWN, f"{error}\n".encode())
            raise

    def _draw_last(self) -> None:
        from caecnn_jax.records import figures  # matplotlib takes a second to import

        for name, png in self._judged():
            self._picture(name, png)
        curves = figures.learning_curves(self.records, self._data.class_names)
        self._picture("learning_curves", curves)

    def _judged(self) -> Iterator[tuple[str, bytes]]:
        """PNG of the last epoch's confusion matrix and reliability diagram, where there are any."""
        from caecnn_jax.records import figures  # matplotlib takes a second to import

        last = self.records[-1]
        if last["confusion_matrix"]:
            matrix = np.asarray(last["confusion_matrix"])
            yield "confusion_matrix", figures.confusion_matrix(matrix, self._data.class_names)
        if last["reliability"]:
            yield "reliability", figures.reliability(last["reliability"])

    def _picture(self, name: str, png: bytes, epoch: int | None = None) -> None:
        """Writes a PNG file; with an epoch, which its name then ends with, on the board too."""
        stem = name if epoch is None else f"{name}-epoch-{epoch:04d}"
        self._write_picture(f"{stem}.png", png)
        if epoch is not None and self._board is not None:
            self._board.picture(name, _pixels(png), epoch)

    def _write_picture(self, name: str, content: bytes) -> None:
        if self._board is None:
            return
        with workdir.writing(self.pictures):
            workdir.make_folder(self.pictures)
        workdir.write_bytes(self.pictures / name, content)

    def close(self) -> None:
        """Closes the event file."""
        if self._board is not None:
            self._board.close()


def _without_details(record: schema.Record) -> schema.Record:
    """A new one, since other threads may be writing the old one to history.jsonl."""
    f1 = metrics.f1_of(record)
    return {**record, "f1": f1, "confusion_matrix": None, "reliability": None, "correct": None}


def _spread(items: np.ndarray, most: int) -> np.ndarray:
    """So many of the items [N] at most, evenly spread."""
    return items[np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)]


def _pixels(png: bytes) -> np.ndarray:
    """A PNG file's pixels, uint8 [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
