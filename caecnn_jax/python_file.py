"""Functions of a user's Python files: a study's, and the config that it starts from."""

import importlib.machinery
import os
import pathlib
import sys
import types
from typing import Any

from caecnn_jax import command_line, errors


def call(path: str, function: str, folder: str = "") -> Any:
    """What a function of a Python file returns, "FILE" or "FILE:argument", if need be in `folder`.

    Meanwhile the file is a module that Python knows, and may import those beside it.
    """
    given, colon, argument = command_line.own_file(path).partition(":")
    file = given if os.path.isfile(given) else os.path.join(folder, given)
    if not os.path.isfile(file):
        raise errors.UserError(f"{given}: there is no such file")
    name, python_path = f"<{pathlib.Path(file).stem}>", list(sys.path)
    sys.modules[name] = module = types.ModuleType(name)
    module.__file__ = file
    sys.path.append(os.path.dirname(os.path.abspath(file)))  # last: the program's packages win
    try:
        importlib.machinery.SourceFileLoader(name, file).exec_module(module)
        if (found := getattr(module, function, None)) is None:
            raise errors.UserError(f"{file}: has no function {function}")
        return found(argument) if colon else found()
    finally:
        sys.path[:] = python_path
        sys.modules.pop(name, None)
