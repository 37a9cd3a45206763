"""The two ends of a command: its flags, and the one sentence and exit code that it ends with."""

import itertools
import pathlib
import signal
import sys
from collections.abc import Callable

from absl import app, flags, logging

from caecnn_jax import errors

USER_ERROR, DIVERGED = 2, 3  # exit codes; a signal's is 128 and its number
_FROM_CONFIG_FILE = "Error whilst parsing config file"


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs `main`; a known end becomes a sentence on stderr and a code."""
    try:
        app.run(main, flags_parser=parse)
    except errors.UserError as error:
        _end(USER_ERROR, f"error: {error}")
    except OSError as error:
        logging.debug("where it came from:", exc_info=True)
        remedy = "see to that path and its disk, then give the same command again"
        _end(USER_ERROR, f"error: {error}: {remedy}")
    except errors.Diverged as error:
        _end(DIVERGED, f"diverged: {error}")
    except (errors.Interrupted, KeyboardInterrupt) as error:
        signum = getattr(error, "signum", signal.SIGINT)
        name = signal.Signals(signum).name
        _end(128 + signum, f"stopped by {name}: give the same command again to continue")


def _end(code: int, sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(code)


def parse(argv: list[str]) -> list[str]:
    """Sets the flags and returns what is none; raises UserError for whatever is wrong with them.

    The program must have defined the flag --config, a config file's.
    """
    path = _config_path(argv)
    if path is not None:
        _check_file(path)
    try:
        rest = flags.FLAGS(argv)
        config = flags.FLAGS.config
        has_fields = hasattr(config, "to_dict")  # raises the OSError that a config file met
    except flags.Error as error:
        if _FROM_CONFIG_FILE not in str(error):
            raise errors.UserError(f"{_sentence(error)} (--help lists the flags)") from error
        # config_flags puts a traceback into its message; the config file's own error is behind it.
        raise errors.UserError(f"--config={path}: {_sentence(_raised(error))}") from error
    except Exception as error:  # a config file is a program: it may raise anything
        reason = f"{type(error).__name__}: {_sentence(error)}"
        raise errors.UserError(f"--config={path}: {reason}") from error
    if path is not None and not has_fields:
        raise errors.UserError(
            f"--config={path}: its get_config must return a ConfigDict, not {config!r}"
        )
    return rest


def _config_path(argv: list[str]) -> str | None:
    """What --config is given, with the argument behind the colon; None where it is not there."""
    path = None
    for flag, following in itertools.zip_longest(argv[1:], argv[2:]):
        name, equals, value = flag.partition("=")
        if name in ("--config", "-config"):
            path = value if equals else following
    return path


def _check_file(path: str) -> None:
    file = pathlib.Path(path.partition(":")[0])
    if file.suffix == ".json":
        remedy = f"give a JSON file as --config=configs/from_json.py:{file}"
    elif file.suffix != ".py":
        remedy = "give a Python file such as configs/mixed.py"
    elif not file.is_file():
        remedy = "there is no such file; configs/ holds those that come with the program"
    else:
        return
    raise errors.UserError(f"--config={path}: {remedy}")


def _raised(error: BaseException) -> BaseException:
    """What get_config raised: config_flags raised again what it caught, and absl once more."""
    return error.__context__.__context__


def _sentence(error: BaseException) -> str:
    """An error's text in one line."""
    text = error.args[0] if isinstance(error, LookupError) and error.args else error
    return " ".join(str(text).split())
