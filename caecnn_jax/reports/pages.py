"""Pages: a template filled and written, and how they show figures to people."""

from collections.abc import Mapping
from typing import Any

import jinja2
from etils import epath

from caecnn_jax import config as config_lib
from caecnn_jax import errors
from caecnn_jax.durations import as_time
from caecnn_jax.records import workdir as workdir_lib


class ReportError(errors.UserError):
    """What cannot be reported on: the message names the path and the remedy."""


def write_page(path: epath.Path, template: str, values: Mapping[str, Any]) -> epath.Path:
    """Fills one of the templates/ and writes the page aside, then renames it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("caecnn_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = number, signed, as_time, duration, p_value
    functions = title, heading, model_name, config_lib.flatten, *numbers
    environment.filters |= {function.__name__: function for function in functions}
    return write_file(path, environment.get_template(template).render(values))


def write_file(path: epath.Path, text: str) -> epath.Path:
    """Writes text where --output or the folder's own place is; returns the path."""
    workdir_lib.write_output(path, text.encode(errors="backslashreplace"))
    return path


def model_name(config: Mapping[str, Any]) -> str:
    """What was trained, in words."""
    if not config["use_cnn"]:
        return "CAE alone"
    if not config["use_cae"]:
        return "CNN alone"
    return "CAE + CNN, " + ("mixed mode" if config["cnn"]["use_mixed_input"] else "code mode")


def title(name: str) -> str:
    """fold_1 as people read it: fold 1."""
    return name.replace("_", " ")


def heading(words: str) -> str:
    """A capital at the beginning, the rest as it is: Macro F1."""
    return words[:1].upper() + words[1:]


def number(value: float | None, digits: int = 4) -> str:
    """A metric for people: a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"  # noqa: RUF001


def signed(value: float, digits: int = 4) -> str:
    """A difference, with its sign, zero included."""
    rounded = round(value, digits) + 0.0  # no -0
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    """A time for people: a dash where it is not known."""
    return as_time(seconds) if seconds else number(None)


def p_value(p: float | None) -> str:
    """A p-value for people: a dash where there is none."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: RUF001
