"""Tests of caecnn_jax.records.drawing: a user's settings of Matplotlib change no picture."""

import concurrent.futures
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from builders import PROJECT

from caecnn_jax.records import drawing, figures

CHILD = """
import hashlib
import numpy as np
from caecnn_jax.records import figures
print(hashlib.sha256(figures.confusion_matrix(np.eye(3), ["a", "b", "c"])).hexdigest())
"""


def draw_elsewhere(folder, **environment):
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    command = [sys.executable, "-c", CHILD]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def digest(png: bytes) -> str:
    return hashlib.sha256(png).hexdigest()


@pytest.fixture(scope="module")
def wanted() -> str:
    """The digest of the picture as it is drawn here."""
    return digest(figures.confusion_matrix(np.eye(3), ["a", "b", "c"]))


@pytest.mark.parametrize(
    "backend", ["module://matplotlib_inline.backend_inline", "no such backend", "TkAgg", ""]
)
def test_no_backend_stops_a_picture(tmp_path, wanted, backend):
    done = draw_elsewhere(tmp_path, MPLBACKEND=backend)
    assert done.stdout.strip() == wanted, done.stderr


def test_a_users_settings_change_no_picture(tmp_path, wanted):
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\nfont.size: 30\nimage.cmap: jet\naxes.linewidth: 9\n"
        "savefig.bbox: tight\nbackend: module://none\nfigure.dpi: 10\nlines.linewidth: 9\n"
    )
    done = draw_elsewhere(tmp_path)
    assert done.stdout.strip() == wanted, done.stderr


def test_settings_that_cannot_be_read_are_one_sentence(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.size: \xff\n")
    done = draw_elsewhere(tmp_path)
    assert "DrawingError: Matplotlib cannot read its settings" in done.stderr.splitlines()[-1]


def test_a_broken_font_cache_changes_no_picture(tmp_path, wanted):
    draw_elsewhere(tmp_path, MPLCONFIGDIR=str(tmp_path))
    (cache,) = tmp_path.glob("fontlist-*.json")
    cache.write_text("{")
    done = draw_elsewhere(tmp_path, MPLCONFIGDIR=str(tmp_path))
    assert done.stdout.strip() == wanted, done.stderr


def test_a_users_own_plots_keep_their_settings():
    before = dict(drawing.matplotlib.rcParams)
    figures.learning_curves([])
    assert dict(drawing.matplotlib.rcParams) == before


def test_threads_draw_as_one_does():
    """Without a lock one thread's end takes another's settings away."""

    def draw(size: int) -> tuple[str, str]:
        matrix, names = np.eye(size), [f"class {index}" for index in range(size)]
        return (
            digest(figures.confusion_matrix(matrix, names)),
            figures.svg(figures.draw_per_class_bars(dict.fromkeys(names, 0.5)), f"F1 of {size}"),
        )

    sizes = [2, 3, 4, 5] * 3
    alone = [draw(size) for size in sizes]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(draw, sizes)) == alone
