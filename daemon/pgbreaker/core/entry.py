"""The history's words: what happened, to what, by whom, in one line each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from pgbreaker.core.states import Cause, Transition


class Kind(StrEnum):
    """What an entry is of."""

    TRANSITION = "transition"  # a breaker moved by itself
    OVERRIDE = "override"  # somebody took a breaker over, or it was handed back
    MAINTENANCE = "maintenance"  # a window was added, or ended
    NOTICE = "notice"  # a restart, a new role: what moves no breaker
    PAUSE = "pause"  # pgbouncer was told to hold clients back, or to go on
    RELOAD = "reload"  # a configuration was taken, or refused
    NOTE = "note"  # somebody wrote something to another entry
    DAEMON = "daemon"  # this daemon started, or is about to stop


BY_OPERATORS: Final = frozenset((Cause.OVERRIDDEN, Cause.RESUMED))
"""Causes of moves that are told as `Kind.OVERRIDE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the history.

    Attributes:
        id: Larger is later, over restarts, too: milliseconds since the epoch, or one
            more than the entry before where that would not be later.
        at: Wall time, in seconds since the epoch.
        kind: What it is of.
        text: One sentence for people, without secrets.
        target: Name of the target. None: not of one.
        breaker: Name of the breaker. None: not of one.
        author: Who did it. None: nobody, it came about by itself.
        details: What else programs want to know, fit for JSON.
    """

    id: int
    at: float
    kind: Kind
    text: str
    target: str | None = None
    breaker: str | None = None
    author: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def of_transition(move: Transition) -> dict[str, Any]:
    """The details of an entry that tells of *move*."""
    seen = move.evidence
    return {
        "from": move.before.value,
        "to": move.after.value,
        "cause": move.cause.value,
        "retry_after_seconds": move.retry_after,
        "seq": move.era,
        "override": None if move.override is None else move.override.value,
        "evidence": None
        if seen is None
        else {
            "code": seen.code,
            "sqlstate": seen.sqlstate,
            "probe": seen.probe,
            "text": seen.text,
        },
    }
