"""What a daemon thinks of a server, to advise others by: from its breakers alone."""

from typing import Final, TypeAlias

from pgbreaker.core.advice import LONGEST_WORD, Advice, Opinion, Version, Word
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.states import Override, State
from pgbreaker.core.units import Seconds

# What the server itself says, and what no call before it can have known.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
DEFINITE: Final = frozenset(("25006", "57P01", "57P02", "57P03"))
"""Read only, as in recovery; and shutting down, crashed, starting up."""

Mind: TypeAlias = tuple[Opinion, bool, Override | None]
"""What a change of is news: that an operator's word has less time left is none, but that it
ends at another time is; nor is it another reason for what is so already."""


def opinion_of(breaker: Breaker, *, is_fresh: bool) -> Opinion:
    """What is thought of the work that a breaker stands for.

    By itself: what an operator has put before it is said besides, as his word.

    Args:
        is_fresh: Whether somebody has looked of late.
    """
    if not is_fresh:
        return Opinion.UNKNOWN
    # Half-open it has not found out yet, and whoever comes would be the trial.
    return Opinion.HEALTHY if breaker.computed_state is State.CLOSED else Opinion.OPEN


def mind_of(breaker: Breaker, *, is_fresh: bool) -> Mind:
    """What is thought, as far as a change of it is news."""
    opinion = opinion_of(breaker, is_fresh=is_fresh)
    return opinion, _sqlstate(breaker, opinion) in DEFINITE, breaker.override


def _sqlstate(breaker: Breaker, opinion: Opinion) -> str | None:
    """What the server itself said of it, where it is open."""
    evidence = breaker.evidence if opinion is Opinion.OPEN else None
    return None if evidence is None else evidence.sqlstate


def advice_of(
    breaker: Breaker, version: Version, now: Seconds, lease: Seconds, *, is_fresh: bool
) -> Advice:
    """What is said of it."""
    opinion = opinion_of(breaker, is_fresh=is_fresh)
    sqlstate = _sqlstate(breaker, opinion)
    return Advice(
        breaker=breaker.name,
        opinion=opinion,
        version=version,
        lease=lease,
        reason=breaker.reason if opinion is Opinion.OPEN else "",
        sqlstate=sqlstate,
        is_definite=sqlstate in DEFINITE,
        word=None if breaker.override is None else _word(breaker.override, now),
    )


def _word(override: Override, now: Seconds) -> Word:
    until = override.until
    left = LONGEST_WORD if until is None else max(0.0, until - now)
    return Word(override.state, override.reason, override.author, left)
