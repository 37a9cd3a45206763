"""TensorBoard event files of one run, through tensorboardX."""

import contextlib
import functools
import io
import math
import re
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image
from tensorboardX import record_writer, summary
from tensorboardX.proto import event_pb2

from caecnn_jax.records import workdir
from caecnn_jax.results import metrics, schema

MOST_CLASSES = 30  # that have curves of precision and recall too, beside those of F1
# A projector's points, coordinates, and pixels of a point's picture: what can be told apart.
MOST_COORDINATES, THUMBNAIL = 50, 32


class _Events:
    """An event file in a bucket, where nothing can be appended: sent whole at each flush.

    tensorboardX's own ones need further packages, or ask for credentials on their own.
    """

    def __init__(self, path: str):
        self._path, self._content, self._sent = epath.Path(path), bytearray(), 0

    def write(self, data: bytes) -> None:
        self._content += data

    def flush(self) -> None:
        if self._sent < len(self._content):
            workdir.write_bytes(self._path, bytes(self._content))
            self._sent = len(self._content)

    close = flush


for _scheme in workdir.BUCKETS:
    record_writer.register_writer_factory(_scheme, types.SimpleNamespace(open=_Events))


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
    def _writer(self) -> record_writer.RecordWriter:
        workdir.make_folder(self._directory)
        # Readers take the files in the order of their names: one more than the last, whatever the
        # clock says now.
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:  # a bucket's folder is there once something lies in it
            names = []
        before = [int(found[1]) for name in names if (found := re.search(r"tfevents\.(\d+)", name))]
        number = max([int(time.time()), *(last + 1 for last in before)])
        path = self._directory / f"events.out.tfevents.{number:010d}.{self._first_epoch:05d}"
        writer = record_writer.RecordWriter(str(path))
        version = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
        writer.write(version.SerializeToString())
        if before:
            # Readers drop what older files hold from this epoch on: none shows twice.
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            event = event_pb2.Event(wall_time=time.time(), step=self._first_epoch)
            event.session_log.CopyFrom(start)
            writer.write(event.SerializeToString())
        return writer

    def _write(self, epoch: int, content) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=epoch, summary=content)
        self._writer.write(event.SerializeToString())

    def epoch(self, record: schema.Record, table: dict[str, dict[str, float]]) -> None:
        """Writes one record, and precision, recall and F1 of each class in the table.

        F1 alone where there are more classes than MOST_CLASSES.

        Raises WorkdirError when the disk does not take it.
        """
        parts: dict[str, Mapping[str, Any]] = {"train": record["train"], "valid": record["valid"]}
        scalars = {
            f"{part}/{name}": value
            for part, figures in parts.items()
            for name, value in metrics.plain(figures).items()
        }
        for group in metrics.GROUPS:
            for name, value in (parts["valid"].get(group) or {}).items():
                if value is not None:
                    scalars[f"valid/accuracy/{name}"] = value
        scalars["train/images_per_second"] = record["images_per_second"]
        measures = ("precision", "recall", "f1") if len(table) <= MOST_CLASSES else ("f1",)
        for class_name, row in table.items():
            for measure in measures:
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
        """Writes codes float [N, D] of images uint8 [N, H, W, 1 or 3] for the projector.

        Of more coordinates than are looked at, the first principal components: of 300 points some
        150 kB instead of megabytes. Raises WorkdirError as `epoch` does.
        """
        points = np.round(principal_components(codes, MOST_COORDINATES), 3)
        rows = ("\t".join(f"{value:g}" for value in point) for point in points)
        names = (" ".join(label.split()) for label in labels)
        files = {"tensors.tsv": "\n".join(rows).encode(), "metadata.tsv": "\n".join(names).encode()}
        files["sprite.jpg"] = sprite(images)
        config = f"""embeddings {{
  tensor_name: "code:{epoch:05d}"
  tensor_path: "code/tensors.tsv"
  metadata_path: "code/metadata.tsv"
  sprite {{
    image_path: "code/sprite.jpg"
    single_image_dim: {THUMBNAIL}
    single_image_dim: {THUMBNAIL}
  }}
}}
"""
        place = self._directory / "code"
        with workdir.writing(place):
            workdir.make_folder(place)
        for name, content in files.items():
            workdir.write_bytes(place / name, content)
        workdir.write_bytes(self._directory / "projector_config.pbtxt", config.encode())

    def close(self) -> None:
        """Closes the event file, if there is one."""
        if "_writer" in self.__dict__:
            # All is flushed; what a full disk refused is tried again here, and has been reported.
            with contextlib.suppress(OSError, workdir.WorkdirError):
                self._writer.close()


def principal_components(points: np.ndarray, most: int) -> np.ndarray:
    """Points float [N, D] in their first principal components, float64 [N, min(D, `most`)]."""
    points = np.asarray(points, np.float64)
    if points.shape[1] <= most:
        return points
    left, scale, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return left[:, :most] * scale[:most]


def sprite(images: np.ndarray) -> bytes:
    """JPEG of images uint8 [N, H, W, 1 or 3], THUMBNAIL pixels each, row by row in a square."""
    columns = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (columns * THUMBNAIL, columns * THUMBNAIL))
    for index, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        place = (index % columns * THUMBNAIL, index // columns * THUMBNAIL)
        sheet.paste(image.resize((THUMBNAIL, THUMBNAIL)), place)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
