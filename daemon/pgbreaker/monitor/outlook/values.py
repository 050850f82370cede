"""What a probe saw, as numbers and rows that can be reckoned with."""

from typing import Final

from pgbreaker.core.reading import Row, Seen

_HUGE: Final = 1e300  # from here on sums are none; what is no number is not below it


def number(seen: Seen | Row, name: str) -> float | None:
    """A value as a number. None: there is none of that name, or it is not finite."""
    value = seen.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_HUGE < value < _HUGE else None


def rows(seen: Seen, name: str) -> tuple[Row, ...]:
    """The rows of that name; none where there are none."""
    value = seen.get(name)
    return value if isinstance(value, tuple) else ()
