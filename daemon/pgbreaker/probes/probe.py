"""What a probe is: one question to a server, and all that is known of it beforehand."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from pgbreaker.core.metric import Shown
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import NOTHING, Finding, Seen
from pgbreaker.core.units import Seconds

Rows: TypeAlias = Sequence[Mapping[str, Any]]
"""What a question came to: rows as JSON knows them, so no dates and no bytes."""


class Place(StrEnum):
    """Where a probe asks."""

    HELD = "held"  # on the connection that is held to the server
    FRESH = "fresh"  # on a new one, made for the time of the question
    APART = "apart"  # not of the server at all: of its pooler, of its manager


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of a server before it is asked.

    Attributes:
        version: As ``server_version_num``: 150018 is 15.18.
        in_recovery: Whether it was a replica when last seen.
    """

    version: int
    in_recovery: bool = False

    @property
    def major(self) -> int:
        """Its major version: 15."""
        return self.version // 10_000


def one_row(rows: Rows) -> Seen:
    """Read a question that comes to one row: its columns are the values."""
    return dict(rows[0]) if rows else NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to a server. It does not judge, time, log or retry.

    Attributes:
        name: What it is called, in configurations and labels.
        says: What it asks, in one line for the reference.
        needs: Privileges and extensions that it needs, for the reference.
        plan: How often it asks and how long it waits, unless the user says otherwise.
        asks: Gives the one SELECT for a server, None when it has no such thing to ask
            about. No parameters, no final semicolon; it is wrapped in a subselect and
            its rows are turned into JSON. Functions, not views of pg_database: these
            answer while that is locked.
        goes: Instead of *asks*, for a probe that asks elsewhere (`Place.APART`): goes
            there and comes back with what it saw, or raises, within so many seconds.
        reads: Turns the rows into values, each by a name that no other probe uses.
            Values are numbers, texts, booleans or None, or a tuple of rows of these.
        shows: The metrics that its values become.
        place: Where it asks.
        is_dear: Whether it costs the server more than a moment. Such a one is asked
            less often when it takes long, and not at all while a breaker of the target
            refuses calls.
        weighs: Says in one sentence what is bad about an answer that took so many
            seconds, given the plan's limit; None when nothing is. Called only where
            the plan has a limit.
        beyond: How a run ends that *weighs* found something bad about.
        is_usual: Whether every target has it; others where they are configured.
    """

    name: str
    says: str
    needs: str = "nothing"
    plan: ProbePlan
    asks: Callable[[Server], str | None] = lambda _server: None
    goes: Callable[[TargetPlan, Seconds], Awaitable[Seen]] | None = None
    reads: Callable[[Rows], Seen] = one_row
    shows: tuple[Shown, ...] = ()
    place: Place = Place.HELD
    is_dear: bool = False
    weighs: Callable[[Seen, Seconds, Seconds], str | None] | None = None
    beyond: Finding = Finding.SLOW
    is_usual: bool = True
