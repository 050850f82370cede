"""What a probe saw, before anybody judges it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds

Value: TypeAlias = float | str | bool | None
"""One seen value. Sizes in bytes, durations in seconds, shares 0 to 1."""

Row: TypeAlias = Mapping[str, Value]
"""Values that belong together: those of one database, one slot, one standby."""

Seen: TypeAlias = Mapping[str, Value | tuple[Row, ...]]
"""What a probe saw, by name."""

NOTHING: Final[Seen] = MappingProxyType({})


class Finding(StrEnum):
    """How a probe ended; the label ``outcome`` of ``pgbreaker_probes_total``."""

    OK = "ok"
    SLOW = "slow"  # answered well, but took `slow_call` or longer
    TIMEOUT = "timeout"  # no answer within the deadline
    REFUSED = "refused"  # nobody listens, or the network says no
    LOST = "lost"  # the connection went away under the question
    UNRESOLVED = "unresolved"  # the host's name has no address
    AUTH = "auth"  # not let in: credentials, database, TLS (28xxx, 3D000)
    FULL = "full"  # no connection slot left (53300)
    STARTING = "starting"  # starting up, shutting down, recovering (57P0x)
    WRONG_ROLE = "wrong_role"  # read-only or in recovery (25006)
    QUERY = "query"  # the question itself failed, or waited for a lock
    SYSTEM = "system"  # the server says that it is ill (53100, 58030, XX000)
    SYNC_REP = "sync_rep"  # a commit waits for a synchronous standby
    LAGGING = "lagging"  # a replica is further behind than it may be
    WAITING = "waiting"  # clients wait at the pooler longer than they may
    DENIED = "denied"  # the role may not look at this (42501)
    SKIPPED = "skipped"  # a dear question, while a breaker refuses calls
    ABSENT = "absent"  # what is asked about is not there: extension, version


@dataclass(frozen=True, slots=True)
class Reading:
    """One run of one probe on one target.

    Attributes:
        target: Name of the target.
        probe: Name of the probe.
        at: Moment at which it began.
        took: Seconds from then to the answer, or to giving up.
        finding: How it ended.
        values: What was seen, by name; empty unless the server answered.
        evidence: What went wrong, None when nothing did.
        confirmed: A second signal agreed: the probe asked again at once, or
            the sentinel tried a fresh connection.
        late: Seconds by which it began after it was due.
        connecting: Seconds of `took` that connecting took; 0 where nobody connected.
        steps: What connecting and asking consisted of, with the seconds of each; the
            last may be the one that never ended. Empty where nobody looked.
        judged: Whether breakers are told of it, too; else it is only shown.
    """

    target: str
    probe: str
    at: Seconds
    took: Seconds
    finding: Finding
    values: Seen = field(default_factory=lambda: NOTHING)
    evidence: Evidence | None = None
    confirmed: bool = False
    late: Seconds = 0.0
    connecting: Seconds = 0.0
    steps: tuple[tuple[str, Seconds], ...] = ()
    judged: bool = False

    @property
    def answered(self) -> bool:
        """Whether the server answered the question that was asked."""
        return self.finding in (Finding.OK, Finding.SLOW)
