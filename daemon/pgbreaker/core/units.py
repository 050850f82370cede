"""Words for numbers, and numbers for people."""

from typing import TypeAlias

Seconds: TypeAlias = float
"""A duration, or a moment of a monotonic clock. Never wall time."""

Share: TypeAlias = float
"""A part of a whole, 0 to 1."""


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


def percent(share: Share) -> str:
    """Say a share as ``70 %``."""
    return f"{share * 100:.0f} %"


def counted(number: int, thing: str) -> str:
    """Say a number of things: ``1 target``, ``3 targets``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
