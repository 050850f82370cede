"""What was remembered, or told, read: JSON that another process wrote, or that is damaged.

Nothing gets in that is of another type, out of range or not finite; true and false are
no numbers. What a reader finds wrong it raises as TypeError, KeyError or ValueError, which
says *what* was to be read; `reading` makes one error of them.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

_LARGEST: Final = sys.float_info.max
_MOST: Final = 2**63


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Say of all that is wrong within that it is no *what*; it decorates functions, too.

    Raises:
        ValueError: Something is missing, of another type, or out of range.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"no {what}: {error} is missing") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"no {what}: {error}") from None


def text(told: object, what: str) -> str:
    """Read a text."""
    if not isinstance(told, str):
        raise TypeError(f"{what} {told!r:.80} is no text")
    return told


def whole(told: object, what: str, least: int = 0, most: int = _MOST) -> int:
    """Read a whole number, a count unless *least* is another."""
    if isinstance(told, bool) or not isinstance(told, int):
        raise TypeError(f"{what} {told!r:.80} is no whole number")
    if not least <= told <= most:
        raise ValueError(f"{what} {told!r:.80} is out of range")
    return told


def number(
    told: object, what: str, least: float = -_LARGEST, most: float = _LARGEST
) -> float:
    """Read a number."""
    if isinstance(told, bool) or not isinstance(told, float | int):
        raise TypeError(f"{what} {told!r:.80} is no number")
    if not least <= told <= most:
        raise ValueError(f"{what} {told!r:.80} is out of range")
    return float(told)


def number_or_none(
    told: object, what: str, least: float = -_LARGEST, most: float = _LARGEST
) -> float | None:
    """Read a number that there may be none of."""
    return None if told is None else number(told, what, least, most)


def several(told: object, what: str, many: int | None = None) -> list[Any]:
    """Read a list, of *many* if that is given."""
    if not isinstance(told, list):
        raise TypeError(f"{what} {told!r:.80} is no list")
    if many is not None and len(told) != many:
        raise ValueError(f"{what} has {len(told)} parts, not {many}")
    return told


def wholes(
    told: object, what: str, many: int | None, least: int, most: int
) -> list[int]:
    """Read whole numbers."""
    return [whole(one, what, least, most) for one in several(told, what, many)]


def numbers(
    told: object,
    what: str,
    many: int | None = None,
    least: float = -_LARGEST,
    most: float = _LARGEST,
) -> list[float]:
    """Read numbers."""
    return [number(one, what, least, most) for one in several(told, what, many)]


def part(memory: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Read what of *memory* is a memory itself."""
    told = memory[name]
    if not isinstance(told, Mapping):
        raise TypeError(f"{name} {told!r:.80} has no parts")
    return told


def short(value: float, digits: int) -> float:
    """A number to be remembered, of so many digits."""
    return float(f"{value:.{digits}g}")
