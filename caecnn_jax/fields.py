"""What a field of a config may hold by itself: checks of a kind each, made from bounds or choices.

A check takes the field's dotted name and its value, and raises ConfigError unless that is allowed.
"""

import difflib
import sys
from collections.abc import Callable, Iterable

from caecnn_jax.errors import ConfigError

# Far above any use, and low enough to fail here, not in memory: of a block, and of an expansion.
MAX_CHANNELS, MAX_EXTRA = 4096, 100_000


def reading(channels: int, blocks: tuple) -> tuple:
    """The blocks, the first of which takes `channels` where it says 0."""
    (channels_in, *rest), *later = blocks
    return ((channels_in or channels, *rest), *later)


def giving(channels: int, blocks: tuple) -> tuple:
    """The blocks, the last of which gives `channels` where it says 0."""
    *earlier, (channels_in, channels_out) = blocks
    return (*earlier, (channels_in, channels_out or channels))


def require(ok: bool, field: str, value, allowed: str) -> None:
    """Raises ConfigError with what is allowed unless `ok`."""
    if not ok:
        raise ConfigError(f"config.{field}={value!r}: {allowed}")


def flag(field: str, value) -> None:
    """True or False."""
    require(isinstance(value, bool), field, value, "must be True or False")


def whole(low: int, high: int | None = None) -> Callable:
    """A whole number from `low` to `high`, where there is one."""
    allowed = f"must be a whole number, {low} or more"
    if high is not None:
        allowed = f"must be a whole number from {low} to {high}"

    def check(field: str, value) -> None:
        ok = isinstance(value, int) and not isinstance(value, bool)
        require(ok and low <= value and (high is None or value <= high), field, value, allowed)

    return check


def is_number(value) -> bool:
    """Whether it is a finite int or float, and no bool."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # false for nan


def rate(field: str, value) -> None:
    """A number above 0."""
    require(is_number(value) and value > 0, field, value, "must be a number above 0")


def number(low: float, high: float) -> Callable:
    """A number from `low` to `high`."""

    def check(field: str, value) -> None:
        ok = is_number(value) and low <= value <= high
        require(ok, field, value, f"must be a number from {low:g} to {high:g}")

    return check


def _are_numbers(value, count: int) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(map(is_number, value))


def betas(field: str, value) -> None:
    """Adam's two."""
    ok = _are_numbers(value, 2) and all(0 <= beta < 1 for beta in value)
    require(ok, field, value, "must be two numbers from 0 to below 1, such as (0.0, 0.999)")


def below_one(field: str, value) -> None:
    """A number from 0 to below 1."""
    require(is_number(value) and 0 <= value < 1, field, value, "must be a number from 0 to below 1")


def inner_share(field: str, value) -> None:
    """A number between 0 and 1."""
    require(is_number(value) and 0 < value < 1, field, value, "must be a number between 0 and 1")


def mixup(field: str, value) -> None:
    """Alpha of a Beta distribution, or 0; nearer to 0 float32 draws no number from it."""
    ok = is_number(value) and (value == 0 or 0.001 <= value <= 100)
    require(ok, field, value, "must be 0, or a number from 0.001 to 100")


def milestones(high: int) -> Callable:
    """Rising epochs, up to `high`."""

    def check(field: str, value) -> None:
        ok = isinstance(value, tuple) and all(type(item) is int for item in value)
        ok = ok and all(0 < item <= high for item in value) and list(value) == sorted(set(value))
        require(ok, field, value, f"must be rising epochs from 1 to {high}, such as (160, 180)")

    return check


def step_factors(field: str, value) -> None:
    """Numbers above 0."""
    ok = isinstance(value, tuple) and all(is_number(item) and item > 0 for item in value)
    require(ok, field, value, "must be numbers above 0, such as (0.01, 0.0001)")


def scales(field: str, value) -> None:
    """A range from low to high."""
    ok = _are_numbers(value, 2) and 0.1 <= value[0] <= value[1] <= 10
    require(ok, field, value, "must be low and high, from 0.1 to 10, such as (0.75, 1.25)")


def one_of(choices: Iterable[str | int]) -> Callable:
    """One of these, and of their type."""

    def check(field: str, value) -> None:
        ok = any(type(value) is type(choice) and value == choice for choice in choices)
        require(ok, field, value, f"must be one of {', '.join(map(str, choices))}")

    return check


def text(field: str, value) -> None:
    """A text."""
    require(isinstance(value, str), field, value, "must be a text")


def path(field: str, value) -> None:
    """What config.dataset may be."""
    ok = isinstance(value, str) and value != ""
    require(ok, field, value, "must be cifar10, cifar100, tfds:NAME or a path")


def blocks(*kinds: type, filled: Callable = reading) -> Callable:
    """A non-empty tuple of blocks: channel counts, and for the CNN whether the block pools.

    A count may be 0 where `filled` puts the image's channels in its place.
    """
    example = "((3, 32, True), (32, 64, True))" if bool in kinds else "((3, 6), (6, 12))"
    place = "last" if filled is giving else "first"

    def is_block(block) -> bool:
        return (
            isinstance(block, tuple)
            and len(block) == len(kinds)
            and all(type(item) is kind for item, kind in zip(block, kinds, strict=True))
        )

    def check(field: str, value) -> None:
        ok = isinstance(value, tuple) and value != () and all(map(is_block, value))
        counts = [n for block in filled(1, value) for n in block if type(n) is int] if ok else []
        require(
            ok and all(1 <= count <= MAX_CHANNELS for count in counts),
            field,
            value,
            f"must be a tuple of blocks such as {example}, 1 to {MAX_CHANNELS} channels, "
            f"{place} perhaps 0 for the image's",
        )

    return check


def by_class(check: Callable) -> Callable:
    """A table of class names, each with what `check` allows."""

    def check_all(field: str, value) -> None:
        require(isinstance(value, dict), field, value, "must map class names to counts")
        for name, count in value.items():
            check(f"{field}.{name}", count)

    return check_all


def extra_images(field: str, value) -> None:
    """How many images of a class are drawn again."""
    is_count = type(value) is int and 0 <= value <= MAX_EXTRA
    allowed = f"must be a whole number from 0 to {MAX_EXTRA}, or 'largest'"
    require(is_count or (isinstance(value, str) and value == "largest"), field, value, allowed)


def known(field: str, name: str, names: Iterable[str], complaint: str, remedy: str = "") -> None:
    """Raises ConfigError unless `name` is one of `names`: with the nearest, or all and a remedy."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}{remedy}"
        raise ConfigError(f"config.{field} {complaint}: {hint}")
