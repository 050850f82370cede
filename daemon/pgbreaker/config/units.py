"""Durations and shares as people write them: ``500ms``, ``1m30s``, ``70%``."""

import re
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

from pgbreaker.core.units import Seconds, Share

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST: Final[Seconds] = 366 * 86400.0


def duration(value: object) -> Seconds:
    """Read a duration.

    Raises:
        ValueError: It is none; the message says how one is written.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} of what? write {value:g}s or {value:g}ms")
    if not isinstance(value, str):
        raise ValueError("not a duration; write it like 500ms, 5s or 1m30s")
    text = value.replace(" ", "")
    parts = _PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"{value!r} is no duration; write it like 500ms, 5s or 1m30s")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError(f"{value!r} is longer than a year")
    return seconds


def some_duration(value: object) -> Seconds:
    """Read a duration that is more than nothing."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"{value!r} is no time at all; it must be more than 0s")
    return seconds


def share(value: object) -> Share:
    """Read a share, ``70%`` or ``0.7``.

    Raises:
        ValueError: It is none, or not between 0 and 1.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("not a share; write it like 70% or 0.7")
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value)
        if match is None:
            raise ValueError(f"{value!r} is no share; write it like 70% or 0.7")
        found = float(match[1]) / 100
    else:
        found = float(value)
    if found > 1 and not isinstance(value, str):
        raise ValueError(
            f"{value} is more than the whole; write {value:g}% or a share up to 1"
        )
    if not 0 <= found <= 1:
        raise ValueError(f"{value} is not between 0% and 100%")
    return found


def count(value: object) -> int:
    """Read a number of things, 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{_shown(value)} is not a whole number")
    if value < 1:
        raise ValueError(f"{value} is too few; it must be 1 or more")
    return value


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float | bool) else "this"


Duration: TypeAlias = Annotated[Seconds, BeforeValidator(some_duration)]
Part: TypeAlias = Annotated[Share, BeforeValidator(share)]
Count: TypeAlias = Annotated[int, BeforeValidator(count)]
