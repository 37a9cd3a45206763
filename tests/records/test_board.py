"""Tests of caecnn_jax.records.board: what TensorBoard itself reads of it."""

import io

import numpy as np
import pytest
from etils import epath
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.projector import projector_config_pb2

from caecnn_jax.records import board


def record(epoch: int) -> dict:
    losses = {"loss_cae": 1 / epoch, "loss_cnn": None}
    return {"epoch": epoch, "train": losses, "valid": losses, "images_per_second": 1.0}


def write(folder, first: int, last: int, table=None) -> None:
    """The events of one session, as of a run that was started again before epoch `first`."""
    events = board.Board(epath.Path(folder), first_epoch=first)
    for epoch in range(first, last + 1):
        events.epoch(record(epoch), table or {})
    events.close()


def read(folder) -> event_accumulator.EventAccumulator:
    return event_accumulator.EventAccumulator(str(folder), {"scalars": 0}).Reload()


@pytest.mark.parametrize("later", [500.0, 1000.0, 1000.4, 2000.0])
def test_steps_are_in_order_whatever_the_clock_says(tmp_path, monkeypatch, later):
    """At the second start the clock is set back, stands, or goes on."""
    monkeypatch.setattr(board.time, "time", lambda: 1000.0)
    write(tmp_path, 1, 4)
    monkeypatch.setattr(board.time, "time", lambda: later)
    write(tmp_path, 3, 5)  # epochs 3 and 4 were not saved
    steps = [event.step for event in read(tmp_path).Scalars("train/loss_cae")]
    assert steps == [1, 2, 3, 4, 5]


def test_a_file_of_an_earlier_versions_name_counts(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.1790000000.host.example.00001").write_bytes(b"")
    monkeypatch.setattr(board.time, "time", lambda: 1000.0)
    write(tmp_path, 2, 2)
    assert (tmp_path / "events.out.tfevents.1790000001.00002").exists()


def test_many_classes_have_curves_of_f1_alone(tmp_path):
    row = {"precision": 0.1, "recall": 0.2, "f1": 0.3}
    write(tmp_path / "few", 1, 1, {f"class {index}": row for index in range(30)})
    write(tmp_path / "many", 1, 1, {f"class {index}": row for index in range(31)})
    few, many = (set(read(tmp_path / name).Tags()["scalars"]) for name in ("few", "many"))
    assert {"valid/precision/class_0", "valid/recall/class_0", "valid/f1/class_0"} <= few
    assert "valid/f1/class_30" in many and "valid/recall/class_0" not in many


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (28, 1), (128, 3)])
def test_a_projector_is_small_and_whole(tmp_path, size, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, size, size, channels), dtype=np.uint8)
    codes = rng.normal(size=(300, 1536)).astype(np.float32)
    names = [f"class\t{index // 30}\n" for index in range(300)]
    board.Board(epath.Path(tmp_path), 1).codes(codes, images, names, 7)
    config = projector_config_pb2.ProjectorConfig()
    text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), config)
    (shown,) = config.embeddings
    assert np.loadtxt(tmp_path / shown.tensor_path).shape == (300, 50)
    labels = (tmp_path / shown.metadata_path).read_text().split("\n")
    assert labels == [f"class {index // 30}" for index in range(300)]
    assert list(shown.sprite.single_image_dim) == [32, 32]
    with Image.open(tmp_path / shown.sprite.image_path) as sheet:
        assert sheet.size == (18 * 32, 18 * 32)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert written < 600_000  # of noise, which no JPEG makes small


def test_few_coordinates_are_shown_as_they_are(tmp_path):
    codes = np.arange(8).reshape(4, 2) / 7
    images = np.zeros((4, 32, 32, 3), np.uint8)
    board.Board(epath.Path(tmp_path), 1).codes(codes, images, list("abcd"), 1)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "code" / "tensors.tsv"), codes, atol=5e-4)


def test_principal_components_keep_what_tells_points_apart():
    """Of points in a plane of 80 dimensions, two coordinates keep all distances."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(80, 2)))[0].T + 5
    found = board.principal_components(points, 2)

    def distances(of):
        return np.linalg.norm(of[:, None] - of[None], axis=-1)

    np.testing.assert_allclose(distances(found), distances(points), atol=1e-9)


def test_a_sprite_has_its_images_row_by_row():
    images = np.stack([np.full((8, 8, 1), value, np.uint8) for value in (10, 90, 170, 250, 40)])
    sheet = np.asarray(Image.open(io.BytesIO(board.sprite(images))).convert("L"))
    assert sheet.shape == (96, 96)
    centres = sheet[16::32, 16::32].ravel()[:5].astype(int)
    assert np.abs(centres - [10, 90, 170, 250, 40]).max() <= 3
