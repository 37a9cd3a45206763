"""Durations as people read them, the same on a terminal and on a page."""

import datetime


def as_time(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    return str(datetime.timedelta(seconds=round(seconds)))
