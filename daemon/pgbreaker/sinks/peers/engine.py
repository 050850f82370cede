"""The engine, as daemons use it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.plan import EnginePlan
from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError

MOST: Final = 1000
"""Messages that can be said at once."""


class EngineLostError(PgbreakerError):
    """The engine did not do what it was asked; whether it will yet is not known.

    Attributes:
        why: What happened, in one line without a secret.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class FencedError(PgbreakerError):
    """Our lease has ended, or another has begun since: nothing was written."""


class MissedError(PgbreakerError):
    """What was asked for is not kept any more: take what is standing instead."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A daemon whose lease holds."""

    name: str
    token: int
    left: Seconds
    targets: str


@dataclass(frozen=True, slots=True)
class Beat:
    """What the engine answered to a sign of life."""

    token: int
    now: float
    peers: Mapping[str, Peer]
    last: int
    born: str


@dataclass(frozen=True, slots=True)
class Message:
    """What a daemon says."""

    kind: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What a daemon has said."""

    number: int
    daemon: str
    token: int
    kind: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands."""

    last: int
    views: Mapping[str, Mapping[str, str]]
    words: Mapping[str, str]
    targets: Mapping[str, str]
    entries: Mapping[str, int]


class Engine:
    """What a daemon and its peers share."""

    def __init__(self, plan: EnginePlan, name: str) -> None:
        self._plan = plan
        self._name = name

    async def beat(self, token: int | None, targets: str = "") -> Beat:
        """Take or renew the lease."""
        raise NotImplementedError

    async def say(self, token: int, messages: Sequence[Message]) -> int:
        """Say *messages*, all or none; returns the number of the last message."""
        raise NotImplementedError

    async def heard(self, after: int, limit: int = 500) -> list[Heard]:
        """Messages after number *after*, in order."""
        raise NotImplementedError

    async def standing(self) -> Standing:
        """What stands."""
        raise NotImplementedError

    async def announce(self, token: int, targets: str) -> None:
        """Tell which targets this daemon can watch."""
        raise NotImplementedError

    def hints(self) -> AsyncIterator[int]:
        """Numbers as they are said."""
        raise NotImplementedError

    async def leave(self, token: int) -> None:
        """Give the lease back."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close what is open."""
        raise NotImplementedError
