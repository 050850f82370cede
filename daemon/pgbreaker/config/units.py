"""Durations, shares and sizes as people write them: ``500ms``, ``1m30s``, ``70%``,
``256MB``; and back, so that the same is read again."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, WithJsonSchema

from pgbreaker.core.units import Seconds, Share, duration

_LONGEST_SHOWN: Final = 60
_LEAST_STORE: Final = 8 * 1024**2
_LEAST_RECORD: Final = 1024**2
_NUMBER: Final = r"\d+(\.\d+)?"
_ANY_VARIABLE: Final = r"|\$\{"


def quoted(value: object) -> str:
    """Show a value in a message, where it is one and not too long for it."""
    if not isinstance(value, str | int | float | bool):
        return "this"
    said = repr(value)
    return said if len(said) <= _LONGEST_SHOWN else f"{said[:_LONGEST_SHOWN]}...'"


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
        match = re.fullmatch(r"([0-9]{1,40}(?:\.[0-9]{1,40})?) ?%", value)
        if match is None:
            raise ValueError(f"{quoted(value)} is no share; write it like 70% or 0.7")
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
        raise ValueError(f"{quoted(value)} is not a whole number")
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
    match = re.fullmatch(r"([0-9]{1,40}(?:\.[0-9]{1,40})?)(kB|MB|GB|TB)", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{quoted(value)} is no size; write it like 200GB or 1.5TB")
    return float(match[1]) * _BYTES[match[2]]


def _room(least: int) -> BeforeValidator:
    """Read how large a file may become."""

    def check(value: object) -> int:
        found = size(value)
        if found < least:
            raise ValueError(
                f"{quoted(value)} is too little; it must be {written_size(least)} or more"
            )
        return int(found)

    return BeforeValidator(check)


# -- And back ----------------------------------------------------------------------


def written_duration(seconds: Seconds) -> str:
    """Write a duration so that exactly the same is read: ``500ms``, ``5s``."""
    short = f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"
    return short if _reads(duration, short, seconds) else f"{_digits(seconds)}s"


def written_share(part: Share) -> str | float:
    """Write a share so that exactly the same is read: ``70%``, else the number."""
    percent = f"{_digits(round(part * 100, 9))}%"
    return percent if _reads(share, percent, part) else part


def written_size(size_: float) -> str:
    """Write a size so that exactly the same is read: ``256MB``."""
    unit, factor = next(
        ((u, f) for u, f in reversed(_BYTES.items()) if size_ >= f), ("kB", 1024)
    )
    short = f"{size_ / factor:g}{unit}"
    if _reads(size, short, size_):
        return short
    return f"{_digits(size_ / factor)}{unit}"  # exact: a factor is a power of two


def _digits(number: float) -> str:
    """Every digit, without an exponent: ``0.00001``."""
    return f"{Decimal(repr(number)).normalize():f}"


def _reads(read: Callable[[object], float], text: str, number: float) -> bool:
    """Whether *read* makes exactly *number* of *text*."""
    try:
        return read(text) == number
    except ValueError:
        return False


_DURATION: Final = rf"^( *{_NUMBER} *(ms|s|m|h|d) *)+${_ANY_VARIABLE}"
_SIZE: Final = rf"^ *{_NUMBER} *(kB|MB|GB|TB) *${_ANY_VARIABLE}"
_SHARE: Final = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        {
            "type": "string",
            "pattern": rf"^(100(\.0+)?|\d?\d(\.\d+)?) ?%${_ANY_VARIABLE}",
        },
    ]
}
_OF_SIZE: Final = WithJsonSchema({"type": "string", "pattern": _SIZE})

Duration: TypeAlias = Annotated[
    Seconds,
    BeforeValidator(some_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION}),
]
Part: TypeAlias = Annotated[Share, BeforeValidator(share), WithJsonSchema(_SHARE)]
Size: TypeAlias = Annotated[float, BeforeValidator(size), _OF_SIZE]
StoreSize: TypeAlias = Annotated[int, _room(_LEAST_STORE), _OF_SIZE]
RecordSize: TypeAlias = Annotated[int, _room(_LEAST_RECORD), _OF_SIZE]
Count: TypeAlias = Annotated[
    int, BeforeValidator(count), WithJsonSchema({"type": "integer", "minimum": 1})
]
