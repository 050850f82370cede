"""What a daemon thinks of a server, to advise others by: from its breakers alone."""

from dataclasses import dataclass
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


def sqlstate_of(breaker: Breaker, opinion: Opinion) -> str | None:
    """What the server itself said of it, where it is open."""
    evidence = breaker.evidence if opinion is Opinion.OPEN else None
    return None if evidence is None else evidence.sqlstate


@dataclass(frozen=True, slots=True)
class Thought:
    """What is thought of the work that a breaker stands for.

    Attributes:
        opinion: In one word.
        reason: Why it is open, in one sentence. Empty: it is not.
        sqlstate: What the server itself said of it. None: it did not speak.
        is_definite: As `Advice.is_definite` has it.
    """

    opinion: Opinion
    reason: str = ""
    sqlstate: str | None = None
    is_definite: bool = False


def thought_of(breaker: Breaker, *, is_fresh: bool) -> Thought:
    """What is thought of it by its own machine.

    Args:
        is_fresh: Whether somebody has looked of late.
    """
    opinion = opinion_of(breaker, is_fresh=is_fresh)
    if opinion is not Opinion.OPEN:
        return Thought(opinion)
    sqlstate = sqlstate_of(breaker, opinion)
    return Thought(opinion, breaker.reason, sqlstate, sqlstate in DEFINITE)


def mind_of(thought: Thought, breaker: Breaker) -> Mind:
    """What is thought, as far as a change of it is news."""
    return thought.opinion, thought.is_definite, breaker.override


def advice_of(
    breaker: Breaker, thought: Thought, version: Version, now: Seconds, lease: Seconds
) -> Advice:
    """What is said of it."""
    return Advice(
        breaker=breaker.name,
        opinion=thought.opinion,
        version=version,
        lease=lease,
        reason=thought.reason,
        sqlstate=thought.sqlstate,
        is_definite=thought.is_definite,
        word=None if breaker.override is None else _word(breaker.override, now),
    )


def _word(override: Override, now: Seconds) -> Word:
    until = override.until
    left = LONGEST_WORD if until is None else max(0.0, until - now)
    return Word(override.state, override.reason, override.author, left)
