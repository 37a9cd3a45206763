"""TensorBoard event files of one run, through tensorboardX."""

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

    def close(self) -> None:
        """Flushes and closes the event file."""
        self._writer.close()
