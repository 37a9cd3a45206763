"""TensorBoard event files of one run, through tensorboardX."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorboardX
from etils import epath


class Board:
    """Writes the scalars and pictures of one run; `first_epoch` hides what a killed run left."""

    def __init__(self, directory: epath.Path, first_epoch: int):
        # Readers drop events from purge_step on that older files hold: no epoch shows twice.
        purge_step = first_epoch if directory.exists() else None
        self._writer = tensorboardX.SummaryWriter(str(directory), purge_step=purge_step)

    def epoch(self, record: dict, table: dict[str, dict[str, float]] | None) -> None:
        """Writes one history record, and per class precision, recall and F1 where there are any."""
        for part in ("train", "valid"):
            for name, value in record[part].items():
                if value is not None:
                    self._writer.add_scalar(f"{part}/{name}", value, record["epoch"])
        rate = record["images_per_second"]
        self._writer.add_scalar("train/images_per_second", rate, record["epoch"])
        for class_name, row in (table or {}).items():
            for measure in ("precision", "recall", "f1"):
                self._writer.add_scalar(
                    f"valid/{measure}/{class_name}", row[measure], record["epoch"]
                )
        self._writer.flush()

    def picture(self, tag: str, pixels: np.ndarray, epoch: int) -> None:
        """Writes a picture, uint8 [H, W, 3]."""
        self._writer.add_image(tag, pixels, epoch, dataformats="HWC")

    def settings(
        self, config: Mapping[str, object], figures: Mapping[str, float], epoch: int
    ) -> None:
        """Writes, for the HParams page, a run's settings and the figures that it came to."""
        figures = {f"final/{name}": value for name, value in figures.items()}
        for tag, value in figures.items():
            self._writer.add_scalar(tag, value, epoch)
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in config.items()
        }
        # add_hparams would write these into a further folder, a run of its own on every page.
        for summary in tensorboardX.summary.hparams(plain, figures):
            self._writer.file_writer.add_summary(summary)

    def codes(
        self, codes: np.ndarray, images: np.ndarray, labels: Sequence[str], epoch: int
    ) -> None:
        """Writes codes float [N, D] of images uint8 [N, H, W, 3] for the projector."""
        thumbnails = images.transpose(0, 3, 1, 2) / 255
        digits = np.round(codes.astype(np.float64), 4)  # the file is text: shorter is smaller
        self._writer.add_embedding(digits, list(labels), thumbnails, epoch, "code")

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()
