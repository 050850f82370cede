"""Words for numbers, and numbers for people."""

import math
import re
from typing import Final, TypeAlias

Seconds: TypeAlias = float
"""A duration, or a moment of a monotonic clock. Never wall time."""

Share: TypeAlias = float
"""A part of a whole, 0 to 1."""


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"
_LONGEST: Final[Seconds] = 366 * 86400.0
_LONGEST_TEXT: Final = 60


def duration(value: object) -> Seconds:
    """Read a duration.

    Raises:
        ValueError: It is none; the message says how one is written.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} of what? write {value:g}s or {value:g}ms")
    if not isinstance(value, str):
        raise ValueError("not a duration; write it like 500ms, 5s or 1m30s")
    if len(value) > _LONGEST_TEXT:  # which takes its square to be looked through
        raise ValueError("no duration; write it like 500ms, 5s or 1m30s")
    text = value.replace(" ", "")
    parts = re.findall(_PART, text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"{value!r} is no duration; write it like 500ms, 5s or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"{value!r} is longer than a year")
    return seconds


def seconds_of(value: Seconds | str, name: str) -> Seconds:
    """Take a duration from a program: seconds, or a text like ``800ms``.

    Args:
        name: What it is, for the message.

    Raises:
        ValueError: It is not one, or not above 0.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        seconds = float(value) if is_number else duration(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name} is a time above 0 s, got {value!r}")
    return seconds


def lasting(seconds: Seconds) -> str:
    """Say a duration as a person would: ``0.4 ms``, ``240 ms``, ``3.2 s``, ``4 min 5 s``.

    Whole units past a minute: nobody at 3 a.m. needs the tenths of an hour.
    """
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def roughly(seconds: Seconds) -> str:
    """Say a duration that nobody knows exactly: ``40 s``, ``21 min``, ``3 h``, ``6 d``.

    In the largest unit of which there are three.
    """
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 3 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def shortly(seconds: Seconds) -> str:
    """Write a duration as configurations do: ``500ms``, ``5s``, ``300s``."""
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"


def percent(share: Share) -> str:
    """Say a share as ``70 %``."""
    return f"{share * 100:.0f} %"


def hundredths(share: Share) -> str:
    """Say a share that is near to all, and never more than it is: ``99.98 %``."""
    if share >= 1.0:
        return "100 %"
    return f"{math.floor(share * 10_000) / 100:.2f} %"


def counted(number: int, thing: str) -> str:
    """Say a number of things: ``1 target``, ``3 targets``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def server_version(number: int) -> str:
    """Write PostgreSQL's ``server_version_num`` as its releases are called: 170010 is
    17.10.

    https://www.postgresql.org/docs/current/runtime-config-preset.html
    """
    major, minor = divmod(number, 10_000)
    return f"{major}.{minor}"
