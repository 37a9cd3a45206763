"""Matplotlib with settings of our own: the same picture whatever a user's settings say.

All that draws imports Matplotlib's names from here. No pyplot and no backend: figures are drawn
straight to PNG or SVG, so nothing is shared between calls and nothing needs closing.
"""

import contextlib
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator

from caecnn_jax import errors


class DrawingError(errors.UserError):
    """Matplotlib cannot be loaded with this user's files."""


def _load():
    """Imports Matplotlib whatever MPLBACKEND names.

    Matplotlib refuses to be imported where that backend is not installed, as with the one that
    Jupyter hands to the processes it starts. A backend that is there stays the user's choice for
    plots of their own.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.ticker
    except (UnicodeDecodeError, PermissionError) as error:
        raise DrawingError(
            f"Matplotlib cannot read its settings ({error}): mend or remove the file matplotlibrc "
            "in this folder, in $MATPLOTLIBRC or in ~/.config/matplotlib"
        ) from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    # Class names in scripts that the font lacks are drawn as boxes; in SVG the reader's font helps.
    warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from font")
    return matplotlib


matplotlib = _load()
Figure = matplotlib.figure.Figure
MaxNLocator = matplotlib.ticker.MaxNLocator
PercentFormatter = matplotlib.ticker.PercentFormatter
FONT = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")

# Okabe and Ito's colours, which stay apart for colour-blind readers, and neutral greys. In SVG
# they become CSS variables of these names, so that a page can redefine them for a dark theme.
COLORS = {
    "ink": "#1c2430",
    "muted": "#5b6672",
    "grid": "#d5dbe1",
    "shade": "#eceff3",
    "paper": "#fefefe",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#b3589a",
    "series-5": "#3a9bd9",
    "series-6": "#c98a00",
}
SERIES = [color for name, color in COLORS.items() if name.startswith("series")]
STYLE = {
    "font.size": 8,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["ink"],
    "figure.facecolor": COLORS["paper"],
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "text.color": COLORS["ink"],
    "text.parse_math": False,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.labelcolor": COLORS["ink"],
    "svg.fonttype": "none",
}
# Matplotlib's settings are the process's, and runs on several devices draw at the same time.
_LOCK = threading.RLock()


@contextlib.contextmanager
def settings(**changes: object) -> Iterator[None]:
    """Matplotlib's own defaults with STYLE and `changes` over them; one thread at a time.

    Also a decorator. Names in `changes` have "_" for ".": svg_hashsalt.
    """
    over = {name.replace("_", ".", 1): value for name, value in changes.items()}
    with _LOCK, matplotlib.rc_context():
        matplotlib.rcdefaults()  # all but the backend
        matplotlib.rcParams.update(STYLE | over)
        yield
