r"""Reads a JSON file of the reference's schema, or the config.json of a run.

Run:     python main.py --config configs/from_json.py:PATH --workdir runs/from_json
Quick:   python main.py --config configs/from_json.py:PATH:quick --workdir runs/from_json-quick
Again:   python main.py --config configs/from_json.py:runs/mixed/config.json --workdir runs/again
"""

import json
import pathlib

import ml_collections

from caecnn_jax import saved_config
from configs import default


def get_config(arg=None):
    """Returns the config of the JSON file named by `arg`, with ":quick" after it if wanted.

    The file may be a config itself or, like the parity data in tests/, hold it under "config";
    missing run options take their defaults. A run's config.json, which names its format, has all.
    Raises ValueError when no file is named, or it is not there or not a JSON object.
    """
    path, quick = (arg[: -len(":quick")], True) if (arg or "").endswith(":quick") else (arg, False)
    if not path:
        raise ValueError("from_json.py needs a file: --config configs/from_json.py:PATH")
    try:
        fields = json.loads(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"cannot read the JSON config {path!r}: {error}") from error
    fields = fields.get("config", fields) if isinstance(fields, dict) else fields
    if not isinstance(fields, dict):
        raise ValueError(f"the JSON config {path!r} holds no object of fields")
    if "format" in fields:
        config = saved_config.from_text(json.dumps(fields))
        return default.quick(config) if quick else config
    # A class table is taken as a whole: the default's classes must not remain in it.
    no_classes = {"train_data_regulation": {}, "train_data_expansion": {}}
    defaults = default.get_config().to_dict() | no_classes
    # Unknown fields and wrong types are for config.validate to report.
    config = ml_collections.ConfigDict(
        saved_config.merged(defaults, saved_config.as_tuples(fields)), allow_dotted_keys=True
    )
    return default.quick(config) if quick else config
