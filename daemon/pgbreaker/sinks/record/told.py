"""What a recording tells, once it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pgbreaker.core.policy import Policy
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds, counted
from pgbreaker.errors import PgbreakerError

SCHEMA: Final = 2
"""Of the lines; a recording of a later one is not read, earlier ones are."""

TICKS: Final = 100_000
"""In a second: moments and durations are whole numbers of these."""


class RecordingError(PgbreakerError):
    """A file is no recording, or of a later version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a probe asked. None: that was not recorded, or there was none.

    Attributes:
        interval: Seconds between two beginnings.
        timeout: Seconds for the answer.
        limit: Seconds beyond which what it measures counts as bad.
        capacity: Bytes that the disk below has.
    """

    interval: Seconds | None = None
    timeout: Seconds | None = None
    limit: Seconds | None = None
    capacity: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """By which rules a target was judged.

    Attributes:
        operations: What it had a breaker for.
        policy: The rules of those.
        probes: Name -> how it asked.
    """

    operations: tuple[str, ...]
    policy: Policy
    probes: Mapping[str, Asked] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begun:
    """From here on another run, or other rules.

    Attributes:
        at: Wall time, in seconds since the epoch, as all moments of a recording.
        goes_on: Whether breakers have seen more than what follows.
        targets: Name -> its rules.
    """

    at: float
    goes_on: bool
    targets: Mapping[str, Rules]


@dataclass(frozen=True, slots=True)
class Heard:
    """A reading, and when the breakers were told of it.

    Attributes:
        at: Wall time, in seconds since the epoch.
    """

    reading: Reading
    at: float


@dataclass(frozen=True, slots=True)
class Unread:
    """Lines that were damaged, or that cannot be understood without one that was.

    Attributes:
        at: Wall time of what was read before.
        where: File and number of the first.
        lines: How many. None: all that followed in this file.
    """

    at: float
    where: str
    lines: int | None

    @property
    def text(self) -> str:
        """One sentence."""
        lines = (
            "the rest" if self.lines is None else f"{counted(self.lines, 'line')} more"
        )
        return f"damaged from {self.where} on: {lines} could not be read"


Recorded: TypeAlias = Begun | Heard | Transition | Unread
