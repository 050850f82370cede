"""Advice: what a daemon says of one kind of work on a server, and for how long.

It is a lease. Who gave it says so again while it holds; once nobody does, it is as if it
had never been said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pgbreaker.core.remembered import number, reading, text, whole
from pgbreaker.core.states import OVERRIDES, State
from pgbreaker.core.units import Seconds

LONGEST_LEASE: Final[Seconds] = 60.0
"""What is said for longer than this is not believed: nobody could take it back."""

LONGEST_WORD: Final[Seconds] = 31 * 86400.0
"""How long the word of an operator elsewhere holds at most."""

_LONGEST_TEXT: Final = 500


class Opinion(StrEnum):
    """What the daemon thinks of the server, for one kind of work."""

    OPEN = "open"  # it does not do this work
    HEALTHY = "healthy"  # it does
    UNKNOWN = "unknown"  # nobody has looked of late


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """When it was thought so first; larger is later, of one run of one daemon. That of
    another says nothing against it: see `Advice.term`.

    Attributes:
        epoch: When the daemon began, in milliseconds of the wall clock.
        seq: Number of the change of mind, of that run of the daemon.
    """

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Word:
    """The word of an operator of the whole fleet, as `Override` has it.

    Attributes:
        left: Seconds that it holds for yet.
    """

    state: State
    reason: str
    author: str
    left: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One opinion.

    Attributes:
        breaker: Name of the daemon's breaker, ``TARGET/OPERATION``.
        opinion: What is thought.
        reason: Why, in one sentence.
        sqlstate: What the server itself said of it. None: it did not speak.
        version: Since which change of mind.
        lease: Seconds for which it holds from when it was said.
        is_definite: Whether the server said so itself, so that calls which went well
            until a moment ago say nothing against it: it is in recovery, shutting down.
        word: What an operator has put before it. None: nothing.
        daemon: Who says it, as whoever listens calls it. Empty: nobody in particular.
        term: Number of the run of a daemon that was listened to when it was heard. What
            is of a later term goes before what is of an earlier one, whatever their
            versions.
    """

    breaker: str
    opinion: Opinion
    version: Version
    lease: Seconds
    reason: str = ""
    sqlstate: str | None = None
    is_definite: bool = False
    word: Word | None = None
    daemon: str = ""
    term: int = 0

    @property
    def place(self) -> tuple[int, Version]:
        """Its place among all that is heard; larger is later."""
        return self.term, self.version

    def says_as(self, other: "Advice") -> bool:
        """Whether *other* says the same, in whatever words."""
        mine = self.opinion, self.is_definite
        return mine == (other.opinion, other.is_definite)

    def written(self) -> dict[str, Any]:
        """Write it, fit for JSON."""
        word = self.word
        return {
            "breaker": self.breaker,
            "opinion": self.opinion.value,
            "reason": self.reason,
            "sqlstate": self.sqlstate,
            "authoritative": self.is_definite,
            "version": {"epoch": str(self.version.epoch), "seq": self.version.seq},
            "lease_seconds": self.lease,
            "override": None
            if word is None
            else {
                "state": word.state.value,
                "reason": word.reason,
                "author": word.author,
                "seconds_left": round(word.left, 3),
            },
        }


@reading("advice")
def read(written: object) -> Advice:
    """Read what `Advice.written` wrote, from wherever it came.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(written, Mapping):
        raise TypeError(f"it is a {type(written).__name__}")
    sqlstate, word = written["sqlstate"], written["override"]
    return Advice(
        breaker=_text(written, "breaker"),
        opinion=Opinion(written["opinion"]),
        reason=_text(written, "reason"),
        sqlstate=None if sqlstate is None else _text(written, "sqlstate"),
        is_definite=written["authoritative"] is True,
        version=version_of(written["version"]),
        lease=_seconds(written, "lease_seconds", LONGEST_LEASE),
        word=None if word is None else _word(word),
    )


def version_of(written: Mapping[str, Any]) -> Version:
    """Read a version.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    epoch = text(written["epoch"], "epoch")
    if not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 20):
        raise ValueError(f"epoch {epoch!r} is no number")
    return Version(int(epoch), whole(written["seq"], "seq", most=2**63 - 1))


def _word(written: Mapping[str, Any]) -> Word:
    state = State(written["state"])
    if state not in OVERRIDES:
        raise ValueError(f"nobody can ask for {state.value}")
    left = _seconds(written, "seconds_left", LONGEST_WORD)
    return Word(state, _text(written, "reason"), _text(written, "author"), left)


def _text(of: Mapping[str, Any], name: str) -> str:
    return text(of[name], name)[:_LONGEST_TEXT]


def _seconds(of: Mapping[str, Any], name: str, most: Seconds) -> Seconds:
    return min(number(of[name], name, 0.0), most)
