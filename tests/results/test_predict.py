"""Predictions of arrays and of image files, and image files as people have them."""

import csv
import json

import jax
import numpy as np
import pytest
from builders import KINDS, tiny_config
from PIL import Image

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.data import augment, image_files
from caecnn_jax.networks import models
from caecnn_jax.records import checkpoints
from caecnn_jax.results import predict
from caecnn_jax.training import steps

pytestmark = pytest.mark.usefixtures("quick_compilation")

RED, BLUE = (200, 30, 40), (20, 60, 210)


def untrained(kind, **changes):
    """A predictor with weights as they are before the first step."""
    config = tiny_config(kind, **changes)
    state = steps.create_state(models.from_config(config), config, jax.random.key(0))
    return predict.Predictor(config, [jax.device_get(state.variables)])


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def halves(size=(80, 60)):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return image


def read(image, tmp_path, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return image_files.read(tmp_path / name, 32)


def test_an_image_of_the_right_size_is_read_unchanged(tmp_path, images):
    picture = read(Image.fromarray(images[0]), tmp_path)
    np.testing.assert_array_equal(picture.pixels, images[0])
    assert (picture.width, picture.height) == (32, 32)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("P", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.jpg"), ("RGB", "a.webp"), ("RGB", "a.JPEG")],
)
def test_other_modes_and_formats_show_the_same_colours(tmp_path, mode, name):
    pixels = read(halves().convert(mode), tmp_path, name).pixels.astype(int)
    assert pixels.shape == (32, 32, 3)
    assert abs(pixels[:, :14].mean((0, 1)) - RED).max() < 6
    assert abs(pixels[:, 18:].mean((0, 1)) - BLUE).max() < 6


def test_grey_of_1_8_and_16_bits_keeps_its_level(tmp_path):
    levels = np.full((40, 40), 100, np.uint8)
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    for image in (Image.fromarray(levels), deep):
        assert (read(image, tmp_path).pixels == 100).all()
    assert (read(Image.new("1", (9, 9), 1), tmp_path).pixels == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_becomes_white(tmp_path, mode):
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    if mode == "PA":
        picture = read(clear.convert("P"), tmp_path, transparency=0)
    else:
        picture = read(clear.convert(mode), tmp_path)
    assert (picture.pixels == 255).all()


def test_exif_turns_the_image_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to see it upright
    picture = read(halves(), tmp_path, "turned.jpg", exif=exif)
    assert (picture.width, picture.height) == (60, 80)
    assert abs(picture.pixels[:14].mean((0, 1)) - RED).max() < 6  # what was left is now above


def test_resizing_is_antialiased(tmp_path):
    rows, columns = np.indices((256, 256))
    pixels = read(Image.fromarray((255 * ((rows + columns) % 2)).astype(np.uint8)), tmp_path).pixels
    assert abs(pixels.astype(int) - 127).max() <= 2


def damaged_files(folder):
    """Files that must not be read, by name, with a part of what is said of each."""
    halves().save(folder / "whole.jpg", quality=95)
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 100])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.webp").write_text("no image")
    Image.new("1", (9600, 9600)).save(folder / "bomb.png")
    return {
        "cut.jpg": "truncated",
        "empty.png": "not a PNG",
        "text.webp": "not a PNG",
        "bomb.png": "decompression bomb",
        "missing.png": "no such file",
    }


def test_damaged_and_huge_files_are_named(tmp_path):
    for name, reason in damaged_files(tmp_path).items():
        with pytest.raises(image_files.ImageError, match=f"{name}: .*{reason}"):
            image_files.read(tmp_path / name, 32)


def test_bytes_changed_at_random_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg", "a.webp"):
        halves((20, 20)).save(tmp_path / name, exif=exif)
        whole = np.frombuffer((tmp_path / name).read_bytes(), np.uint8)
        for _ in range(100):
            altered = whole[: rng.integers(1, len(whole) + 1)].copy()
            places = rng.integers(0, len(altered), 3)
            altered[places] = rng.integers(0, 256, 3)
            (tmp_path / "altered").write_bytes(altered.tobytes())
            try:
                image_files.read(tmp_path / "altered", 32)
            except image_files.ImageError:
                continue


def test_folders_globs_and_odd_names_are_found_once_each(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a[1].png", "sub/c.JPG", "notes.txt"):
        (tmp_path / name).touch()
    names = [str(tmp_path), str(tmp_path / "*.png"), str(tmp_path / "a[1].png")]
    found = image_files.find(names)
    assert [path.name for path in found] == ["a[1].png", "b.png", "c.JPG"]
    assert image_files.find([names[2], "missing.png"])[1].name == "missing.png"


@pytest.mark.parametrize("names", [[], ["missing.png"], ["nothing/*.png"]])
def test_nothing_to_read_is_an_error(names):
    with pytest.raises(image_files.ImageError, match="--images"):
        image_files.find(names)


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_gives_what_the_evaluation_step_gives(kind, images):
    predictor = untrained(kind)
    outputs = predictor.outputs(images)
    state = steps.create_state(predictor.model, predictor.config, None, predictor.variables[0])
    expected = steps.eval_step(state, {"image": augment.normalize(images)})
    if kind != "cae":
        probabilities = jax.nn.softmax(expected.logits)
        np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-4)
        np.testing.assert_allclose(predictor.classify(images).sum(1), 1, rtol=1e-5)
    if kind != "cnn":
        np.testing.assert_allclose(predictor.encode(images), expected.code, rtol=1e-4, atol=1e-5)
        assert predictor.reconstruct(images).dtype == np.uint8
        error = np.square(expected.reconstruction - augment.normalize(images)).mean((1, 2, 3))
        np.testing.assert_allclose(outputs["reconstruction_error"], error, rtol=1e-4)
    assert set(outputs) == {
        "cae": {"code", "reconstruction", "reconstruction_error"},
        "cnn": {"probabilities"},
    }.get(kind, {"code", "reconstruction", "reconstruction_error", "probabilities"})


def test_any_number_of_images_is_predicted_alike(images):
    predictor = untrained("mixed")
    many = np.tile(images, (60, 1, 1, 1))  # more than a batch
    first = predictor.classify(images)
    np.testing.assert_allclose(predictor.classify(many), np.tile(first, (60, 1)), rtol=1e-5)
    assert predictor.classify(images[:0]).shape == (0, 10)


def test_what_the_run_has_not_got_is_said(images):
    with pytest.raises(predict.PredictError, match="no CNN"):
        untrained("cae").classify(images)
    with pytest.raises(predict.PredictError, match="no CAE"):
        untrained("cnn").reconstruct(images)


@pytest.mark.parametrize("wrong", [np.zeros((2, 32, 32, 3)), np.zeros((32, 32, 3), np.uint8)])
def test_other_arrays_are_refused_with_their_shape(wrong):
    with pytest.raises(ValueError, match=r"uint8 \[N, 32, 32, 3\], not"):
        untrained("cnn").classify(wrong)


def test_all_folds_are_averaged(trained_run, images):
    folds = [predict.load(trained_run, fold=fold, checkpoint="best") for fold in (1, "2")]
    together = predict.load(trained_run, fold="all", checkpoint="best")
    mean = np.mean([one.classify(images) for one in folds], axis=0)
    np.testing.assert_allclose(together.classify(images), mean, rtol=1e-5)
    with pytest.raises(predict.PredictError, match="choose one fold"):
        together.encode(images)


def test_a_float64_run_is_used_in_float32_without_x64(tmp_path, images):
    config = tiny_config("cae", dtype="float64", do_cv=False)
    with jax.enable_x64(True):
        state = steps.create_state(models.from_config(config), config, jax.random.key(0))
        variables = jax.device_get(state.variables)
    assert jax.tree.leaves(variables)[0].dtype == np.float64
    saved = checkpoints.Checkpoints(tmp_path / "test")
    saved.save(1, {"variables": variables}, {"records": []})
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    model = predict.load(tmp_path)
    assert jax.tree.leaves(model.variables)[0].dtype == np.float32
    assert model.reconstruct(images).shape == images.shape


def test_files_are_predicted_and_those_skipped_are_counted(trained_run, tiny_data, tmp_path):
    Image.fromarray(tiny_data.images[0]).save(tmp_path / "small.png")
    damaged = damaged_files(tmp_path)
    names = [str(tmp_path), str(tmp_path / "missing.png")]
    out = tmp_path / "out"
    text, num_skipped = predict.predict(
        trained_run, names, output=str(out), save_reconstructions=True
    )
    assert num_skipped == len(damaged)
    assert "1 of 2 images were resized, antialiased, to 32x32 pixels" in text
    content = json.loads((out / "predictions.json").read_text())
    assert {one["file"].rpartition("/")[2] for one in content["skipped"]} == set(damaged)
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(content["predictions"]) == 2
    for row, one in zip(rows, content["predictions"], strict=True):
        assert row["file"] == one["file"]
        assert float(row[row["top_class"]]) == pytest.approx(one["top_probability"])
        assert max(one["probabilities"].values()) == one["top_probability"]
        assert float(row["reconstruction_error"]) == pytest.approx(one["reconstruction_error"])
        with Image.open(one["reconstruction"]) as pair:
            assert pair.size == (65 * 8, 32 * 8)
    whole = next(one for one in content["predictions"] if one["file"].endswith("whole.jpg"))
    assert (whole["width"], whole["height"]) == (80, 60)


def test_an_autoencoder_alone_gives_its_error_only(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "load", lambda *_: untrained("cae"))
    halves().save(tmp_path / "a.png")
    predict.predict(tmp_path, [str(tmp_path / "a.png")], fold="test")
    header = (tmp_path / "predictions" / "predictions.csv").read_text().splitlines()[0]
    assert header == "file,width,height,reconstruction_error"


def test_a_place_that_cannot_be_written_is_named(trained_run, tmp_path):
    halves().save(tmp_path / "a.png")
    blocked = tmp_path / "a.png" / "out"
    with pytest.raises(errors.UserError, match=r"a\.png"):
        predict.predict(trained_run, [str(tmp_path / "a.png")], output=str(blocked))
