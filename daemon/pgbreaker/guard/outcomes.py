"""What a call came to that did not end well."""

import asyncio
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.states import POOL, Evidence, Outcome
from pgbreaker.core.text import words_of
from pgbreaker.core.units import Seconds
from pgbreaker.errors import CallTimeoutError
from pgbreaker.postgres.classify import (
    Classification,
    Phase,
    classify,
)
from pgbreaker.postgres.sqlstates import Scope

_UNREACHED: Final = frozenset((Scope.POOL, Scope.LOCAL))
_OF_CONNECTIONS: Final = frozenset((Scope.TARGET, Scope.CONNECT))


@dataclass(slots=True)
class Judgement:
    """What is made of an error.

    Attributes:
        outcome: What the call came to.
        above: What it came to for the breaker of the whole server: a failure only
            if connections failed.
        classification: What the error is. None for one that is no `Exception`.
        evidence: What was seen, None when there is nothing to remember.
        is_slow: Whether it took `slow_call` or longer.
        only_above: Whether it speaks of new connections alone, and not of the
            operation.
    """

    outcome: Outcome
    above: Outcome
    classification: Classification | None = None
    evidence: Evidence | None = None
    is_slow: bool = False
    only_above: bool = False


def judge(
    error: BaseException,
    took: Seconds,
    slow_call: Seconds | None,
    phase: Phase | None = None,
    *,
    strict: bool = False,
) -> Judgement:
    """Say what a call came to that raised *error* after *took* seconds.

    Args:
        slow_call: Seconds from which it was overdue. None: it never is.
        phase: What was being done, where the guard knows it.
        strict: Whether an error of the operating system counts only when a driver is
            seen to have raised it.
    """
    is_slow = slow_call is not None and took >= slow_call
    if not isinstance(error, Exception):
        return _given_up(error, is_slow=is_slow)
    found = classify(error, phase=phase, strict=strict)
    if found.trips:
        outcome = (
            Outcome.CUT if isinstance(error, CallTimeoutError) else Outcome.FAILURE
        )
        return Judgement(
            outcome,
            _above(outcome, found),
            found,
            Evidence(found.category.value, words(error), found.sqlstate),
            is_slow,
            only_above=found.scope is Scope.CONNECT,
        )
    if found.scope in _UNREACHED:
        code = POOL if found.scope is Scope.POOL else found.category.value
        evidence = Evidence(code, words(error), found.sqlstate)
        return Judgement(Outcome.UNREACHED, Outcome.UNREACHED, found, evidence, is_slow)
    return Judgement(
        Outcome.IGNORED, _above(Outcome.IGNORED, found), found, None, is_slow
    )


def _above(outcome: Outcome, found: Classification) -> Outcome:
    if found.scope in _OF_CONNECTIONS:
        return Outcome.FAILURE
    if found.sqlstate is not None:
        return Outcome.SUCCESS  # whatever it answered: connections work
    return Outcome.CUT if outcome is Outcome.CUT else Outcome.RELEASED


def _given_up(error: BaseException, *, is_slow: bool) -> Judgement:
    """A call that nobody waits for any more: that is news of the server only if it
    should have been back by then, and if it was the caller's patience that ended."""
    is_cut = is_slow and isinstance(error, asyncio.CancelledError)
    if not is_cut:
        return Judgement(Outcome.RELEASED, Outcome.RELEASED, is_slow=is_slow)
    evidence = Evidence("transient", "given up on when it was overdue")
    return Judgement(Outcome.CUT, Outcome.CUT, None, evidence, is_slow)


def words(error: BaseException) -> str:
    """What the driver said, on one line. Not what a wrapper says: SQLAlchemy's text
    shows the statement and its values, which are nobody's business here."""
    innermost = error
    for _ in range(8):
        inner = getattr(innermost, "orig", None) or innermost.__cause__
        if not isinstance(inner, Exception):
            break
        innermost = inner
    name, text = type(innermost).__name__, words_of(innermost)
    return name if text == name else f"{name}: {text}"
