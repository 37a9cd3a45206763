"""The command `caecnn_jax` that an installation brings: main.py, run as a script.

As a script, since --help shows the flags and the docstring of the module `__main__`; by its path,
since a user's own main.py must not win.
"""

import pathlib
import runpy


def run() -> None:
    """Runs the main.py beside this package."""
    main = pathlib.Path(__file__).resolve().parent.parent / "main.py"
    runpy.run_path(str(main), run_name="__main__")
