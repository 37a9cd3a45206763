"""Names that others gave to classes and files, as text for people shows them."""

import unicodedata
from collections.abc import Iterable

_STEERING = ("Cc", "Cs", "Zl", "Zp")  # controls, halves of letters, separators of lines


def printable(text: str, kept: str = "\n") -> str:
    """The text with what would steer a terminal, as a control character in a name, escaped."""
    if text.isprintable():
        return text
    return "".join(
        ascii(c)[1:-1] if unicodedata.category(c) in _STEERING and c not in kept else c
        for c in text
    )


def span(numbers: Iterable[int], between: str = "-") -> str:
    """One number, or the smallest and the largest of several."""
    low, high = min(numbers := [*numbers]), max(numbers)
    return f"{low:,}" if low == high else f"{low:,}{between}{high:,}"


def short(name: str, most: int = 40) -> str:
    """A name in one line of at most `most` letters: of a long one, both its ends."""
    name = printable(" ".join(str(name).split()), kept="")
    tail = most // 2 - 1
    return name if len(name) <= most else f"{name[: most - tail - 1]}…{name[-tail:]}"
