"""TensorBoard event files of one run, through tensorboardX."""

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from tensorboardX import embedding, event_file_writer, summary
from tensorboardX.proto import event_pb2

from caecnn_jax.records import workdir


class Board:
    """Writes the scalars and pictures of one run; `first_epoch` hides what a killed run left.

    Uses tensorboardX's plain writer, not its SummaryWriter: that one writes in a thread, which on a
    full disk dies and leaves the program waiting for it for ever.
    """

    def __init__(self, directory: epath.Path, first_epoch: int):
        """Nothing is written before the first event."""
        self._directory = directory
        self._first_epoch = first_epoch

    @functools.cached_property
    def _writer(self) -> event_file_writer.EventsWriter:
        started_before = self._directory.exists()
        self._directory.mkdir(parents=True, exist_ok=True)
        # The suffix keeps apart, and in order, what starts within one second.
        prefix, suffix = str(self._directory / "events"), f".{self._first_epoch:05d}"
        writer = event_file_writer.EventsWriter(prefix, suffix)
        if started_before:
            # Readers drop what older files hold from this epoch on: none shows twice.
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            event = event_pb2.Event(wall_time=time.time(), step=self._first_epoch)
            event.session_log.CopyFrom(start)
            writer.write_event(event)
        return writer

    def _write(self, epoch: int, content) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=epoch, summary=content)
        self._writer.write_event(event)

    def epoch(self, record: dict, table: dict[str, dict[str, float]] | None) -> None:
        """Writes one history record, and per class precision, recall and F1 where there are any.

        Raises WorkdirError when the disk does not take it.
        """
        scalars = {
            f"{part}/{name}": value
            for part in ("train", "valid")
            for name, value in record[part].items()
            if value is not None
        }
        scalars["train/images_per_second"] = record["images_per_second"]
        for class_name, row in (table or {}).items():
            for measure in ("precision", "recall", "f1"):
                scalars[f"valid/{measure}/{class_name}"] = row[measure]
        with workdir.writing(self._directory):
            for tag, value in scalars.items():
                self._write(record["epoch"], summary.scalar(tag, value))
            self._writer.flush()

    def picture(self, tag: str, pixels: np.ndarray, epoch: int) -> None:
        """Writes a picture, uint8 [H, W, 3]; raises WorkdirError as `epoch` does."""
        with workdir.writing(self._directory):
            self._write(epoch, summary.image(tag, pixels, dataformats="HWC"))
            self._writer.flush()

    def settings(
        self, config: Mapping[str, object], figures: Mapping[str, float], epoch: int
    ) -> None:
        """Writes, for the HParams page, a run's settings and the figures that it came to."""
        figures = {f"final/{name}": value for name, value in figures.items()}
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in config.items()
        }
        with workdir.writing(self._directory):
            for tag, value in figures.items():
                self._write(epoch, summary.scalar(tag, value))
            for content in summary.hparams(plain, figures):
                self._write(epoch, content)
            self._writer.flush()

    def codes(
        self, codes: np.ndarray, images: np.ndarray, labels: Sequence[str], epoch: int
    ) -> None:
        """Writes codes float [N, D] of images uint8 [N, H, W, 3] for the projector."""
        name = f"{epoch:05d}/code"  # of the projector's files
        place = self._directory / name
        thumbnails = images.transpose(0, 3, 1, 2) / 255
        digits = np.round(codes.astype(np.float64), 4)  # the file is text: shorter is smaller
        with workdir.writing(place):
            place.mkdir(parents=True, exist_ok=True)
            embedding.make_tsv(list(labels), str(place))
            with np.errstate(all="ignore"):  # it computes with memory that it never set
                embedding.make_sprite(thumbnails, str(place))
            embedding.make_mat(digits, str(place))
            # tensorboardX only appends, and a run may end twice: after a kill, or with more epochs.
            (self._directory / "projector_config.pbtxt").unlink(missing_ok=True)
            embedding.append_pbtxt(
                list(labels), thumbnails, str(self._directory), name, epoch, "code"
            )

    def close(self) -> None:
        """Closes the event file, if there is one."""
        if "_writer" in self.__dict__:
            # All is flushed; what a full disk refused is tried again here, and has been reported.
            with contextlib.suppress(OSError):
                self._writer.close()
