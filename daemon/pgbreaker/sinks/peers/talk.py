"""What daemons say to each other by the engine, and how it fails."""

from collections.abc import Mapping
from dataclasses import dataclass

from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError


class EngineLostError(PgbreakerError):
    """The engine did not do what it was asked, or did so and could not say it.

    Attributes:
        why: What happened, in one line without a secret.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class FencedError(PgbreakerError):
    """Our lease has ended, or another began since: nothing was written."""


class MissedError(PgbreakerError):
    """What was asked for is not kept any more: what is standing has to be read anew.

    What we said ourselves may be among what is lost.
    """


@dataclass(frozen=True, slots=True)
class Peer:
    """A daemon whose lease holds.

    Attributes:
        name: Its name.
        token: Number of its lease; a later lease of anybody has a larger one.
        left: Seconds until the lease ends, unless it is renewed.
        targets: Digest of the targets that it can watch. Empty: it has told none yet.
    """

    name: str
    token: int
    left: Seconds
    targets: str


@dataclass(frozen=True, slots=True)
class Beat:
    """What the engine answers to a sign of life.

    Attributes:
        token: Number of our lease.
        now: The engine's wall clock, in seconds.
        peers: Name -> daemon, of all whose lease holds; we are among them.
        last: Number of the last message. 0: none.
        born: Random text. Another one than before: the engine was empty, or is another
            process and may have lost what came last. What we said may be gone, and
            numbers begin anew, at one that none has been near.
    """

    token: int
    now: float
    peers: Mapping[str, Peer]
    last: int
    born: str


@dataclass(frozen=True, slots=True)
class Message:
    """What a daemon says.

    Attributes:
        kind: ``view``: it thinks *body* of *key*. ``gone``: it thinks nothing of *key*
            any more. ``word``: an operator says *body* of *key*; JSON, whose ``version``
            is a pair of milliseconds and a daemon's name, and only the latest stands.
            ``entry``: the entry *key* of its history, a number that grows, is *body*.
        key: What it is about.
        body: The text.
    """

    kind: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What a daemon has said.

    Attributes:
        number: The message's; those of the whole fleet are consecutive.
        daemon: Who said it; token: number of its lease then.
        kind, key, body: As in `Message`.
    """

    number: int
    daemon: str
    token: int
    kind: str
    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands, of all messages together. Our own is among it.

    Attributes:
        last: Number of the last message that is in it for certain; some of the later
            ones can be in it, too, and do no harm when they are heard again.
        views: Daemon -> key -> what it thinks, of those that are gone for less than a
            day, too.
        words: Key -> the word of an operator.
        entries: Daemon -> number of the last entry of its history that it said.
    """

    last: int
    views: Mapping[str, Mapping[str, str]]
    words: Mapping[str, str]
    entries: Mapping[str, int]
