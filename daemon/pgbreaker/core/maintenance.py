"""Maintenance: times in which work is done on targets, and nobody is woken for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ALL: Final = "*"
"""Stands for every target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time in which work is done on targets: their alerts are not told.

    It is planned by the calendar, so it goes by wall time.

    Attributes:
        id: The entry that it began with, for `Desk.end`.
        targets: Names of targets, ``label=value`` for those that have this label, or
            ``*`` for all of them.
        reason: Why.
        author: Who.
        starts: Wall time, in seconds since the epoch.
        ends: Wall time, in seconds since the epoch.
    """

    id: int
    targets: tuple[str, ...]
    reason: str
    author: str
    starts: float
    ends: float

    def is_on(self, wall: float) -> bool:
        """Whether *wall* is within it."""
        return self.starts <= wall < self.ends

    def covers(self, target: str, labels: Mapping[str, str]) -> bool:
        """Whether it is of *target*, which has *labels*."""
        return any(is_meant(named, target, labels) for named in self.targets)


def is_meant(named: str, target: str, labels: Mapping[str, str]) -> bool:
    """Whether *named*, of a window, means *target*, which has *labels*."""
    if named in (ALL, target):
        return True
    label, equals, value = named.partition("=")
    return bool(equals) and labels.get(label) == value
