"""Durations and shares as people write them: ``500ms``, ``1m30s``, ``70%``."""

import re
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

from pgbreaker.core.units import Seconds, Share, duration


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


_BYTES: Final = {"kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}


def size(value: object) -> float:
    """Read a size as PostgreSQL writes them: ``500GB``, of units of 1024.

    Raises:
        ValueError: It is none.
    """
    text = value.replace(" ", "") if isinstance(value, str) else ""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(kB|MB|GB|TB)", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{_shown(value)} is no size; write it like 200GB or 1.5TB")
    return float(match[1]) * _BYTES[match[2]]


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float | bool) else "this"


Duration: TypeAlias = Annotated[Seconds, BeforeValidator(some_duration)]
Part: TypeAlias = Annotated[Share, BeforeValidator(share)]
Size: TypeAlias = Annotated[float, BeforeValidator(size)]
Count: TypeAlias = Annotated[int, BeforeValidator(count)]
