"""The notebook in examples/, executed on few images and a tiny model, and as it is committed."""

import base64
import io
import json
import re

import nbclient
import nbformat
import pytest
from builders import PROJECT
from nbformat.v4 import new_code_cell
from PIL import Image

PATH = PROJECT / "examples" / "own_images.ipynb"
PICTURES = ("show-confusion", "show-reconstructions", "find-wrong", "show-comparison")
TINY = {
    "image_size": 8,
    "image_budget": 300,
    "test_share": 0.3,
    "train_data_regulation": {"all": 20, "8": 5},
    "cnn.block_sizes": ((0, 4, True), (10, 6, True)),
}


def text(notebook, name: str) -> str:
    """What a cell, named by its id, printed."""
    outputs = cell(notebook, name).outputs
    return "".join(output.text for output in outputs if output.output_type == "stream")


def picture(notebook, name: str) -> Image.Image:
    """The picture that a cell ends with."""
    data = cell(notebook, name).outputs[-1].data["image/png"]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def cell(notebook, name: str):
    (found,) = (cell for cell in notebook.cells if cell.id == name)
    return found


def rows(table: str) -> dict[str, int]:
    """{class: images} of the table of figures by class."""
    return {name: int(n) for name, n in re.findall(r"^(\d) .* (\d+)$", table, re.M)}


@pytest.mark.slow
def test_the_notebook_goes_from_a_folder_to_a_comparison(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # tiny models hardly run
    notebook = nbformat.read(PATH, as_version=4)
    values = {"PHOTOS": str(tmp_path / "images"), "RUNS": str(tmp_path), "SEEDS": (0, 1)}
    values["FIELDS"] = TINY
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    after = notebook.cells.index(cell(notebook, "parameters")) + 1
    notebook.cells.insert(after, new_code_cell("\n".join(lines)))
    place = {"metadata": {"path": PATH.parent}}  # where Jupyter would start it
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()

    assert "all        1,258        539" in text(notebook, "config")
    assert list(rows(text(notebook, "show-table"))) == [str(digit) for digit in range(10)]
    assert sum(rows(text(notebook, "show-table")).values()) == 539
    for name in PICTURES:
        picture(notebook, name).verify()
    wrong = text(notebook, "find-wrong").splitlines()
    assert len(wrong) == 10
    for line in wrong:
        file, label, *_ = line.split()
        assert file.startswith(f"{label}/") and (tmp_path / "images" / file).exists()
    assert re.search(
        r"^plain +accuracy 0\.\d+.*\nbalanced +accuracy", text(notebook, "show-comparison")
    )
    for name, drawn_again in (("plain", {}), ("balanced", {"all": "largest"})):
        for seed in (0, 1):
            config = json.loads((tmp_path / f"{name}-{seed}" / "config.json").read_text())
            assert (config["train_data_expansion"], config["seed"]) == (drawn_again, seed)
            assert (tmp_path / f"{name}-{seed}" / "metrics.json").exists()
    assert (tmp_path / "compared" / "comparison.html").exists()


def test_the_committed_notebook_shows_its_results_and_nothing_of_the_machine():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert all(output.get("name") != "stderr" for cell in code for output in cell.outputs)
    assert sum(rows(text(notebook, "show-table")).values()) == 539
    for name in PICTURES:
        assert 400 <= picture(notebook, name).width <= 1200
    assert PATH.stat().st_size < 400_000
    shown = [cell.source for cell in notebook.cells]
    shown += [output.get("text", "") for cell in code for output in cell.outputs]
    for words in shown:
        assert not re.search(r"(?<![\w.)}])/\w+/|\b[A-Z]:\\", words), words  # an absolute path
        for link in re.findall(r"\]\(([^)]*)\)", words):
            assert (PATH.parent / link).exists()
