"""The command `caecnn_jax` that an installation brings: main.py, run as a script.

As a script, since --help shows the flags and the docstring of the module `__main__`; by its path,
and with its folder first on Python's, since a user's own main.py or configs/ must not win.
"""

import pathlib
import runpy
import sys


def run() -> None:
    """Runs the main.py beside this package."""
    main = pathlib.Path(__file__).resolve().parent.parent / "main.py"
    sys.path.insert(0, str(main.parent))
    runpy.run_path(str(main), run_name="__main__")
