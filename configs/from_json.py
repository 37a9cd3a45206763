r"""Reads a JSON file of the reference's schema; missing run options take their defaults.

Run:     python main.py --config configs/from_json.py:PATH --workdir runs/from_json
Quick:   python main.py --config configs/from_json.py:PATH:quick --workdir runs/from_json-quick
"""

import json
import pathlib

from configs import default


def get_config(arg=None):
    """Returns the config of the JSON file named by `arg`, with ":quick" after it if wanted.

    The file may be a config itself or, like the parity data in tests/, hold it under "config".
    Raises ValueError when no file is named, or it is not there or not a JSON object.
    """
    path, quick = (arg[: -len(":quick")], True) if (arg or "").endswith(":quick") else (arg, False)
    if not path:
        raise ValueError("from_json.py needs a file: --config configs/from_json.py:PATH")
    try:
        fields = json.loads(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read the JSON config {path!r}: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"the JSON config {path!r} holds no object of fields")
    fields = _as_tuples(fields.get("config", fields))
    config = default.get_config()
    for name in ("train_data_regulation", "train_data_expansion"):
        # A class table is taken as a whole: the default's classes must not remain in it.
        config[name] = fields.pop(name, {})
    # Unknown fields and wrong types are for config.validate to report.
    with config.unlocked(), config.ignore_type():
        config.update(fields)
    return default.quick(config) if quick else config


def _as_tuples(value):
    if isinstance(value, dict):
        return {key: _as_tuples(item) for key, item in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
