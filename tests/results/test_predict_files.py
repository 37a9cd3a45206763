"""Predictions for image files: what is written of them, and image files as people have them."""

import csv
import json

import image_cases
import pytest
from builders import ABOUT, untrained
from etils import epath
from PIL import Image

from caecnn_jax import errors, saved_config
from caecnn_jax.records import about
from caecnn_jax.results import predict
from caecnn_jax.results.predict_files import as_csv, predict_files, shortened

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def cae_run(tmp_path, monkeypatch):
    """The folder of a run of the CAE alone, whose model is as it was before the first step."""
    model, folder = untrained("cae"), epath.Path(tmp_path / "run")
    folder.mkdir()
    (folder / "config.json").write_text(saved_config.to_text(model.config))
    about.write_description(folder, ABOUT)
    monkeypatch.setattr(predict, "load", lambda *_, **__: model)
    return folder


@pytest.fixture
def photos(tmp_path):
    """An empty folder for images."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_where_no_file_can_be_read_earlier_predictions_stay(trained_run, photos, tmp_path):
    (photos / "corrupt.png").write_bytes(b"no image")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("earlier")
    given = {"images": [str(photos)], "output": str(tmp_path / "out")}
    text, num_skipped = predict_files(trained_run, **given)
    assert num_skipped == 1 and "nothing written: none of the 1 files could be read" in text
    assert (tmp_path / "out" / "predictions.csv").read_text() == "earlier"


def test_files_are_predicted_and_those_skipped_are_counted(trained_run, tiny_data, tmp_path):
    Image.fromarray(tiny_data.images[0]).save(tmp_path / "small.png")
    damaged = image_cases.damaged_files(tmp_path)
    names = [str(tmp_path), str(tmp_path / "missing.png")]
    out = tmp_path / "out"
    text, num_skipped = predict_files(
        trained_run, images=names, output=str(out), save_reconstructions=True
    )
    assert num_skipped == len(damaged)
    assert "1 of 2 images were resized, antialiased, to 32x32 pixels" in text
    content = json.loads((out / "predictions.json").read_text())
    assert (content["weights"], content["post_hoc"]) == ("raw", [None])
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


def test_an_autoencoder_alone_gives_its_error_only(cae_run, photos):
    image_cases.halves().save(photos / "a.png")
    predict_files(cae_run, images=[str(photos / "a.png")], fold="test")
    header = (cae_run / "predictions" / "predictions.csv").read_text().splitlines()[0]
    assert header == "file,width,height,reconstruction_error"


def test_reconstructions_do_not_outlive_their_predictions(cae_run, photos, tmp_path):
    image_cases.halves().save(photos / "a.png")
    given = {"images": [str(photos)], "fold": "test", "output": str(tmp_path / "out")}
    predict_files(cae_run, **given, save_reconstructions=True)
    assert [path.name for path in (tmp_path / "out" / "reconstructions").iterdir()] == [
        "0001-a.png"
    ]
    (tmp_path / "out" / "reconstructions" / "0002-mine.png").write_text("not of predict")
    predict_files(cae_run, **given)
    left = [path.name for path in (tmp_path / "out" / "reconstructions").iterdir()]
    assert left == ["0002-mine.png"]


def test_a_users_own_images_are_never_removed(cae_run, photos):
    """Whatever they are called, and wherever the predictions go."""
    mine = photos / "reconstructions" / "2019-castle.png"
    mine.parent.mkdir()
    for path in (mine, photos / "a.png"):
        image_cases.halves().save(path)
    given = {"images": [str(photos)], "fold": "test", "output": str(photos)}
    for damage in (None, "{", "[]", '{"predictions": [1]}'):
        predict_files(cae_run, **given)
        assert mine.exists()
        if damage:
            (photos / "predictions.json").write_text(damage)
    names = {"predictions": [{"reconstruction": str(mine)}]}
    (photos / "predictions.json").write_text(json.dumps(names))
    predict_files(cae_run, **(given | {"images": [str(mine)]}))
    assert mine.exists()


def test_a_file_in_the_place_of_reconstructions_stops_no_prediction(cae_run, photos, tmp_path):
    image_cases.halves().save(photos / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reconstructions").write_text("a file")
    predict_files(cae_run, images=[str(photos)], fold="test", output=str(tmp_path / "out"))
    assert (tmp_path / "out" / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("fold", "name"), [("01", "fold_1"), ("fold_1", "fold_1"), (None, "test"), ("all", "all")]
)
def test_predictions_name_their_run_in_one_way(trained_run, photos, tmp_path, fold, name):
    image_cases.halves().save(photos / "a.png")
    predict_files(trained_run, images=[str(photos)], fold=fold, output=str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["fold"] == name


def test_a_place_that_cannot_be_written_is_named_and_the_runs_own_only_told(cae_run, photos):
    image_cases.halves().save(photos / "a.png")
    given = {"images": [str(photos / "a.png")], "fold": "test"}
    blocked = photos / "a.png" / "out"
    with pytest.raises(errors.UserError, match=r"cannot write .*a\.png.* another --output"):
        predict_files(cae_run, **given, output=str(blocked))
    (cae_run / "predictions").write_text("a file, as good as a folder that is only read")
    text, _ = predict_files(cae_run, **given, save_reconstructions=True)
    assert "a.png  reconstruction error" in text
    assert "not written: cannot write" in text and "--output" in text


def test_a_name_of_245_letters_gets_a_shorter_one_for_its_reconstruction(cae_run, photos):
    for name in ("x" * 245, "é" * 120):  # 240 bytes
        image_cases.halves().save(photos / f"{name}.png")
    predict_files(cae_run, images=[str(photos)], fold="test", save_reconstructions=True)
    written = sorted((cae_run / "predictions" / "reconstructions").iterdir())
    assert [path.name for path in written] == [f"0001-{'x' * 150}.png", f"0002-{'é' * 75}.png"]
    assert shortened("short") == "short"


def test_no_earlier_reconstruction_stays_beside_the_new_ones(cae_run, photos):
    made = cae_run / "predictions" / "reconstructions"
    own = ("notes.txt", "12-own.png")
    for names in (("a", "b", "c"), ("c",)):
        for path in photos.iterdir():
            path.unlink()
        for name in names:
            image_cases.halves().save(photos / f"{name}.png")
        predict_files(cae_run, images=[str(photos)], fold="test", save_reconstructions=True)
        for name in own:
            (made / name).touch()
        numbered = {f"{number:04d}-{name}.png" for number, name in enumerate(names, 1)}
        assert {path.name for path in made.iterdir()} == {*numbered, *own}


def test_what_a_folder_holds_besides_is_told(cae_run, photos, caplog):
    image_cases.halves().save(photos / "a.png")
    (photos / "._a.png").write_bytes(b"\0\5\x16\7")
    caplog.set_level("INFO", logger="absl")
    _, skipped = predict_files(cae_run, images=[str(photos)], fold="test")
    assert skipped == 0
    assert "passed over: 1 hidden (the name begins with a dot)" in caplog.text


def test_a_class_with_the_name_of_a_column_takes_no_columns_place():
    row = {"file": "x.png", "top_class": "file", "probabilities": {"file": 0.6, "width": 0.4}}
    (read,) = csv.DictReader(as_csv([row]).decode().splitlines())
    assert read == {"file": "x.png", "top_class": "file", "probability file": "0.6", "width": "0.4"}
