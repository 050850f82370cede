"""The words of the circuit breaker: its states, its moves, and what is said of them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pgbreaker.core.units import Seconds


class State(StrEnum):
    """What a breaker does with calls. The first three it decides itself."""

    CLOSED = "closed"  # calls pass
    OPEN = "open"  # calls are refused
    HALF_OPEN = "half_open"  # a few trial calls pass
    FORCED_OPEN = "forced_open"  # an operator refuses every call
    DISABLED = "disabled"  # an operator lets every call pass, uncounted
    METRICS_ONLY = "metrics_only"  # calls pass; what it would do is only shown


class Cause(StrEnum):
    """Why a breaker moved."""

    FAILURE_RATE = "failure_rate"  # too large a share of the window failed
    SLOW_RATE = "slow_rate"  # too large a share of the window was slow
    FAILURE_RUN = "failure_run"  # too many failures in a row
    HANGING = "hanging"  # calls in flight do not come back
    POOL_EXHAUSTED = "pool_exhausted"  # no pooled connection is to be had
    CONFIRMED = "confirmed"  # a second signal agreed with the first
    COOLED = "cooled"  # the time to stay open ran out
    RECOVERED = "recovered"  # enough trials succeeded
    RELAPSED = "relapsed"  # a trial failed
    EXPIRED = "expired"  # a trial never came back
    BARREN = "barren"  # trials came back without telling anything
    OVERRIDDEN = "overridden"  # an operator took over
    RESUMED = "resumed"  # an operator, or an expiry, handed back
    ADVISED = "advised"  # a daemon says so, and own calls know no better
    WITHDRAWN = "withdrawn"  # it says so no longer, or own calls know better
    AGREED = "agreed"  # enough daemons see it open
    OUTVOTED = "outvoted"  # too few do, whatever this one sees


# The whole state machine. The diagram in the README is drawn from this table and a
# test walks it, so there is nothing to keep in sync by hand.
MOVES: Final = {
    (State.CLOSED, Cause.FAILURE_RATE): State.OPEN,
    (State.CLOSED, Cause.SLOW_RATE): State.OPEN,
    (State.CLOSED, Cause.FAILURE_RUN): State.OPEN,
    (State.CLOSED, Cause.HANGING): State.OPEN,
    (State.CLOSED, Cause.POOL_EXHAUSTED): State.OPEN,
    (State.CLOSED, Cause.CONFIRMED): State.OPEN,
    (State.OPEN, Cause.COOLED): State.HALF_OPEN,
    (State.HALF_OPEN, Cause.RECOVERED): State.CLOSED,
    (State.HALF_OPEN, Cause.RELAPSED): State.OPEN,
    (State.HALF_OPEN, Cause.EXPIRED): State.OPEN,
    (State.HALF_OPEN, Cause.BARREN): State.OPEN,
}

BY_CALLS: Final = frozenset((Cause.HANGING, Cause.POOL_EXHAUSTED))
"""Causes that only calls bring about; who observes a server never sees them."""

BY_DAEMONS: Final = frozenset((Cause.AGREED, Cause.OUTVOTED))
"""Causes of what several daemons rule, whatever the machine of this one does."""

OVERRIDES: Final = (
    State.CLOSED,
    State.FORCED_OPEN,
    State.DISABLED,
    State.METRICS_ONLY,
)
"""The states that an operator may ask for; the machine goes on behind them."""


SHUT: Final = (State.OPEN, State.HALF_OPEN, State.FORCED_OPEN)
"""The states in which calls do not pass as a matter of course."""


class Outcome(StrEnum):
    """What a call came to."""

    SUCCESS = "success"
    FAILURE = "failure"  # the server, or the way to it, failed
    CUT = "cut"  # given up on after it was slow: a failure
    IGNORED = "ignored"  # the caller's own fault: says nothing of the server
    UNREACHED = "unreached"  # never left the process: pool full, refused below
    RELEASED = "released"  # given up on early: nothing learnt


FAILURES: Final = frozenset((Outcome.FAILURE, Outcome.CUT))
"""Outcomes that count against the server."""

PASS: Final = 0
"""The permit of a call that passes uncounted: because an operator said so, or because
it is part of a call that is counted."""

UNWEIGHED: Final = -2
"""The permit of a call that passes though the machine would not have it: it is counted,
and decides nothing."""

POOL: Final = "pool"
"""The code of evidence that the caller's own pool has no connection to give."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen, in the words of whoever saw it.

    Attributes:
        code: A word from a closed list: a probe's finding, an error's category.
        text: One sentence for people, without secrets.
        sqlstate: The server's five characters, None when it never spoke.
        probe: Name of the probe that saw it, None for a call.
        hint: Seconds that the server itself asked to be left alone.
    """

    code: str
    text: str = ""
    sqlstate: str | None = None
    probe: str | None = None
    hint: Seconds = 0.0

    def __str__(self) -> str:
        return " ".join(
            part for part in (self.sqlstate, self.text or self.code) if part
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """One move of one breaker.

    Attributes:
        breaker: Name of the breaker.
        before: State until now.
        after: State from now on.
        cause: The rule that moved it.
        reason: One sentence with its numbers.
        at: Moment of the move.
        era: Number drawn for the new state; larger is later.
        retry_after: Seconds until the next trial call, 0 unless now open.
        evidence: The last failure seen, None when there was none.
        override: The operator's state that hides this move from callers, or
            None when callers feel it.
    """

    breaker: str
    before: State
    after: State
    cause: Cause
    reason: str
    at: Seconds
    era: int
    retry_after: Seconds = 0.0
    evidence: Evidence | None = None
    override: State | None = None

    @property
    def leaves_closed(self) -> bool:
        """Whether calls passed until now, and from now on, as they feel it, do not.

        A move that an operator's word hides is none that they feel. One who lets them
        all pass has closed it for them: when he hands back, it leaves closed.
        """
        is_felt = self.override is None
        return is_felt and self.after in SHUT and self.before not in SHUT


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call; `settle` wants its `token` back.

    Attributes:
        token: Era of the call, or the number of its trial, or `PASS`.
        trial: Whether the call decides about a half-open breaker.
        move: The move that asking brought about, if any.
    """

    token: int
    trial: bool = False
    move: Transition | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """No leave to call; the server is not to be asked.

    Attributes:
        state: Effective state that refuses.
        reason: One sentence with its numbers.
        retry_after: Seconds after which asking again makes sense.
        opened_at: Moment since which calls are refused.
        evidence: The last failure seen, None when there was none.
        move: The move that asking brought about, if any.
    """

    state: State
    reason: str
    retry_after: Seconds
    opened_at: Seconds
    evidence: Evidence | None = None
    move: Transition | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's word, which goes before the machine's.

    Attributes:
        state: One of `OVERRIDES`.
        reason: Why, in the operator's words.
        author: Who.
        until: Moment at which it ends by itself. None: only by hand.
        is_fleets: Whether it was given for a whole fleet; one given here goes before it.
    """

    state: State
    reason: str
    author: str
    until: Seconds | None = None
    is_fleets: bool = False
