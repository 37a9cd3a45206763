"""A command's flags, a config's fields among them: parsed, and what is wrong with them said."""

import itertools
import keyword
import os
import pathlib
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping

from absl import app, flags
from ml_collections import config_flags

from caecnn_jax import errors, exits

flags.disclaim_key_flags()  # --help lists main.py's flags, and --config is one of them
MOVED = ("config.dataset", "config.data_dir")  # flags of evaluate, for which there is no --config
HELP = {"help", "helpshort", "helpfull", "helpxml", "h", "?"}
STUDY = pathlib.Path(__file__).with_name("study.py")  # as a config file: a study's base
_PROGRAM = pathlib.Path(__file__).resolve().parents[1]  # main.py and configs/ are there
_FROM_CONFIG_FILE = "Error whilst parsing config file"


def define_config() -> flags.FlagHolder:
    """Defines the flag --config; ends the program where a --flagfile cannot be read.

    That is read already here, for the config's own fields become flags.
    """
    try:
        return config_flags.DEFINE_config_file(
            "config",
            None,
            "Config file; FILE:quick cuts it down.",
            lock_config=False,
            accept_new_attributes=True,  # a further class's count; config.validate knows all fields
        )
    except (flags.Error, UnicodeDecodeError) as error:
        exits.end(exits.USER_ERROR, f"error: --flagfile: {_sentence(error)}")


def run(main: Callable[[list[str]], int]) -> None:
    """Parses the flags and runs `main`; a known end becomes a sentence on stderr and a code."""

    def flushed(argv: list[str]) -> int:
        code = main(argv)
        sys.stdout.flush()  # here, where a closed pipe can be told from other faults
        return code

    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        # Python's own handler raises, which is lost where it comes within a callback of the garbage
        # collector, such as JAX's.
        signal.signal(signal.SIGINT, exits.stop)
    try:
        with exits.known_ends():
            app.run(flushed, flags_parser=parse)
    finally:
        signal.signal(signal.SIGINT, before)


def parse(argv: list[str]) -> list[str]:
    """Sets the flags and returns what is none; raises UserError for whatever is wrong with them.

    The program must have defined the flag --config, a config file's.
    """
    argv = _with_own_config(_expanded(argv))
    path = _value_of(argv, "config")
    if path is not None:
        _check_file(path)
        if _value_of(argv, "mode") == "study":
            argv = _with_base(argv, path)
    elif not any(name in flags.FLAGS for name in MOVED):
        for name in MOVED:
            flags.DEFINE_string(name, None, "evaluate: where the data lie now, or other data.")
    try:
        rest = _parse(argv)
        config = flags.FLAGS.config
        has_fields = hasattr(config, "to_dict")  # raises the OSError that a config file met
    except flags.Error as error:
        if _FROM_CONFIG_FILE not in str(error):
            remedy = _in_brackets(argv, path) or " (--help lists the flags)"
            raise errors.UserError(f"{_sentence(error)}{remedy}") from error
        # config_flags puts a traceback into its message; the config file's own error is behind it.
        reason = f"{_sentence(_raised(error))}{_line(_raised(error), path)}"
        raise errors.UserError(f"--config={path}: {reason}{_in_brackets(argv, path)}") from error
    except errors.UserError as error:
        raise errors.UserError(f"--config={path}: {_sentence(error)}") from error
    except Exception as error:  # a config file is a program: it may raise anything
        if path is None:  # such as a pipe that nobody reads, to which --help prints
            raise
        if isinstance(error, AttributeError) and "'get_config'" in str(error):
            raise errors.UserError(
                f"--config={path}: has no function get_config; a study needs --mode study"
            ) from error
        reason = f"{type(error).__name__}: {_sentence(error)}{_line(error, path)}"
        raise errors.UserError(f"--config={path}: {reason}{_in_brackets(argv, path)}") from error
    if path is not None and not has_fields:
        raise errors.UserError(
            f"--config={path}: its get_config must return a ConfigDict, not {config!r}"
        )
    _check_values(argv)
    return rest


def _expanded(argv: list[str]) -> list[str]:
    """The arguments, with those of each --flagfile in its place; --config may be there once."""
    try:
        argv = [*argv[:1], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
    except flags.Error as error:
        raise errors.UserError(f"--flagfile: {_sentence(error)}") from error
    if sum(arg.partition("=")[0] in ("--config", "-config") for arg in argv) > 1:
        raise errors.UserError("--config is there more than once: give one file")
    return argv


def elsewhere() -> dict[str, str]:
    """{"dataset" or "data_dir": value} where those are given without a --config."""
    given = {name: flags.FLAGS[name] for name in MOVED if name in flags.FLAGS}
    return {
        name.removeprefix("config."): str(flag.value)
        for name, flag in given.items()
        if flag.present
    }


def check_used(mode: str, used: Mapping[str, Iterable[str]]) -> None:
    """Raises UserError for a flag of other modes that was given: `used` has the flags by mode."""
    for name in sorted({name for of_mode in used.values() for name in of_mode} - set(used[mode])):
        if name in flags.FLAGS and flags.FLAGS[name].present:
            modes = ", ".join(other for other in used if name in used[other])
            reason = " (a finished run has a config of its own)" if name == "config" else ""
            raise errors.UserError(
                f"--{name} is for --mode {modes}, and not used by {mode}{reason}: leave it out"
            )


def _parse(argv: list[str]) -> list[str]:
    """What is no flag; ends the program with code 0 where help was asked for and given."""
    try:
        return flags.FLAGS(argv)
    except SystemExit:
        if HELP & {arg.lstrip("-") for arg in argv[1:]}:
            sys.stdout.flush()
            sys.exit(0)
        raise


def _check_values(argv: list[str]) -> None:
    """Raises UserError for `--flag false`: a flag that is on or off takes its value behind "="."""
    for flag, following in itertools.pairwise(argv[1:]):
        name = flag.lstrip("-")
        is_switch = flag != name and name in flags.FLAGS and flags.FLAGS[name].boolean
        if is_switch and following.lower() in ("true", "false", "yes", "no", "0", "1"):
            raise errors.UserError(f"{flag} {following}: write {flag}={following}")


def _remedy(argv: list[str], path: str | None) -> str | None:
    """What to do about an argument that the parser's own words do not explain."""
    for arg in argv[1:]:
        if arg.startswith("-") and os.path.exists(arg):  # such as -1.png, as *.png may give it
            return f"for the file {arg} write ./{arg}, for a pattern ./*"
        field = arg.partition("=")[0].lstrip("-")
        if path is None and field.startswith("config.") and field not in MOVED:
            return "fields need a --config, which only training and studies take"
        table = re.match(r"-+config\.(train_data_\w+)(?:\[([\"'])(.*)\2\]|\.(.*))=", arg)
        name = str(table[3] or table[4]) if table else ""
        is_plain = name.isidentifier() and not keyword.iskeyword(name)
        if not table or is_plain or (table[3] and re.fullmatch(r"[\w-]+", name)):
            continue
        if "." in name:
            return f"class {name} needs a config of your own: see docs/configuration.md"
        whole = f"'--config.{table[1]}={{\"{name}\": COUNT}}'"
        return f"for class {name} give the whole table: {whole}"
    return None


def _in_brackets(argv: list[str], path: str | None) -> str:
    """`_remedy` behind an error's own words; "" without one."""
    remedy = _remedy(argv, path)
    return f" ({remedy})" if remedy else ""


def _line(error: BaseException, path: str | None) -> str:
    """Which line of the config file raised an error, in words; "" where another file did."""
    frames = traceback.extract_tb(error.__traceback__)
    file = pathlib.Path((path or "").partition(":")[0])
    is_its_own = frames and pathlib.Path(frames[-1].filename).resolve() == file.resolve()
    return f" (line {frames[-1].lineno})" if is_its_own else ""


def study_file() -> str:
    """What --config named in mode study, with the argument behind the colon."""
    return config_flags.get_config_filename(flags.FLAGS["config"]).removeprefix(f"{STUDY}:")


def _with_base(argv: list[str], path: str) -> list[str]:
    """The arguments with the study's base as the config, so that its fields are flags."""
    for index, argument in enumerate(argv):
        if argument.lstrip("-") == f"config={path}":
            return [*argv[:index], f"--config={STUDY}:{path}", *argv[index + 1 :]]
        if argument in ("--config", "-config") and argv[index + 1 : index + 2] == [path]:
            return [*argv[:index], f"--config={STUDY}:{path}", *argv[index + 2 :]]
    return argv


def _with_own_config(argv: list[str]) -> list[str]:
    """The arguments, with a config that comes with the program under its whole path.

    So `configs/mixed.py` is found from any folder, unless there is a file of that name.
    """
    path = _value_of(argv, "config") or ""
    flags_of = ("", "-config=", "--config=")
    whole = {f"{flag}{path}": f"{flag}{own_file(path)}" for flag in flags_of}
    return [whole.get(arg, arg) for arg in argv]


def own_file(path: str) -> str:
    """A config's or study's file, "FILE" or "FILE:argument", found where the program is if need be.

    A file of that name in the current folder comes first.
    """
    file = path.partition(":")[0]
    is_own = not pathlib.Path(file).exists() and (_PROGRAM / file).is_file()
    return str(_PROGRAM / path) if is_own else path


def _value_of(argv: list[str], wanted: str) -> str | None:
    """What a flag is given, of --config with the argument behind the colon; None if nothing."""
    found = None
    for flag, following in itertools.zip_longest(argv[1:], argv[2:]):
        name, equals, value = flag.partition("=")
        if name in (f"--{wanted}", f"-{wanted}"):
            found = value if equals else following
    return found


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
    for _ in range(2):
        error = error.__context__ or error
    return error


def _sentence(error: BaseException) -> str:
    """An error's text in one line."""
    text = error.args[0] if isinstance(error, LookupError) and error.args else error
    text = re.sub(r"\('Non-boolean argument .*\)", "must be True or False", str(text))
    return " ".join(text.split())
