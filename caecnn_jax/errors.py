"""What ends a run in a known way; `main.py` turns each into one sentence and an exit code."""


class UserError(Exception):
    """Something that the user can mend; the message says what, where and how. Exit code 2."""


class ConfigError(UserError, ValueError):
    """A config that cannot be run; one sentence with field, value and what is allowed."""


class DataError(UserError):
    """The data cannot be had; the message says what is wrong, where, and the remedy."""


class Diverged(Exception):
    """A loss became NaN or infinite. Exit code 3."""


class Interrupted(Exception):
    """A signal asked the run to stop, and it saved and stopped. Exit code 128 + the signal."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.signum = signum
