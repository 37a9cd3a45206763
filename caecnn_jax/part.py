"""Which part of several runs a command trains: --index and --count, or a SLURM array's task."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from caecnn_jax import errors

Item = TypeVar("Item")


class PartError(errors.UserError, ValueError):
    """A part that there is not; one sentence with what is wrong and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Part `index` of `count`, from 0; by default the whole."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """Every `count`th item; the parts differ by one item at most."""
        return tuple(items[self.index :: self.count])

    @property
    def is_whole(self) -> bool:
        """Whether there are no others."""
        return self.count == 1


WHOLE = Part()


def given(index: int | None, count: int | None) -> Part | None:
    """The part that --index and --count name; None without them. Raises PartError."""
    if (index is None) != (count is None):
        raise PartError("--index and --count go together: part I of N is --index I --count N")
    if index is None or count is None:
        return None
    if not 0 <= index < count:
        raise PartError(f"part {index} of {count}: --index counts from 0 to --count - 1")
    return Part(index, count)


def of_array(environment: Mapping[str, str]) -> Part | None:
    """The part that is a SLURM array's task; None outside one. Raises PartError.

    The array's ids need not begin at 0, nor follow each other, but must do so evenly.
    """
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    task, count, first, step = (
        _whole_number(f"SLURM_ARRAY_TASK_{name}", environment, default)
        for name, default in (("ID", ""), ("COUNT", ""), ("MIN", "0"), ("STEP", "1"))
    )
    index, rest = divmod(task - first, step or 1)
    if rest or not 0 <= index < count:
        raise PartError(
            f"SLURM_ARRAY_TASK_ID={task} is no part of {count} from {first} by {step}: give the "
            "array as --array=0-N, or --index and --count"
        )
    return Part(index, count)


def _whole_number(name: str, environment: Mapping[str, str], default: str) -> int:
    value = environment.get(name, default)
    try:
        return int(value)
    except ValueError:
        remedy = "unset SLURM_ARRAY_TASK_ID, or give --index and --count"
        raise PartError(f"{name}={value!r} is no whole number: {remedy}") from None
