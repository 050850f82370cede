"""What a call came to that did not end well."""

import asyncio
from dataclasses import dataclass
from socket import gaierror
from typing import Final

from pgbreaker.core.states import FAILURES, POOL, Evidence, Outcome
from pgbreaker.core.text import words_of
from pgbreaker.core.units import Seconds
from pgbreaker.errors import CallTimeoutError
from pgbreaker.postgres.classify import (
    Classification,
    Phase,
    classify,
)
from pgbreaker.postgres.frames import deepest
from pgbreaker.postgres.sqlstates import Category, Retry, Scope

CATEGORIES: Final = tuple(Category)

_UNREACHED: Final = frozenset((Scope.POOL, Scope.LOCAL))
_OF_CONNECTIONS: Final = frozenset((Scope.TARGET, Scope.CONNECT))

# What an outage is made of. Nothing matters of these but their class, their arguments and
# whose code raised them, so that the second of a thousand is judged like the first.
_PLAIN: Final = frozenset(
    (
        OSError,
        ConnectionError,
        ConnectionRefusedError,
        ConnectionResetError,
        ConnectionAbortedError,
        BrokenPipeError,
        TimeoutError,
        EOFError,
        gaierror,
    )
)
_JUDGED: Final[dict[tuple[object, ...], "Judgement"]] = {}
_MANY: Final = 512
_LONGEST_KEY: Final = 200


@dataclass(slots=True, eq=False)
class Judgement:
    """What is made of an error. Not changed afterwards: errors may share one.

    Attributes:
        outcome: What the call came to.
        above: What it came to for the breaker of the whole server: a failure only
            if connections failed.
        classification: What the error is. None for one that is no `Exception`.
        evidence: What was seen, None when there is nothing to remember.
        is_slow: Whether it took `slow_call` or longer.
        only_above: Whether it speaks of new connections alone, and not of the
            operation.
        kind: Place of its category in `CATEGORIES`.
        retry: When it may be repeated, None for one that is no `Exception`.
    """

    outcome: Outcome
    above: Outcome
    classification: Classification | None = None
    evidence: Evidence | None = None
    is_slow: bool = False
    only_above: bool = False
    kind: int = 0
    retry: Retry | None = None


def judge(
    error: BaseException,
    took: Seconds,
    slow_call: Seconds | None,
    phase: Phase | None = None,
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
    if type(error) in _PLAIN and error.__cause__ is None and error.__context__ is None:
        key = (
            type(error),
            error.args,
            deepest(error.__traceback__),
            is_slow,
            phase,
            strict,
        )
        try:
            known = _JUDGED.get(key)
            if known is None:
                known = _look_at(error, phase, is_slow=is_slow, strict=strict)
                _keep(key, known)
            return known
        except TypeError:  # an argument that makes no key
            pass
    return _look_at(error, phase, is_slow=is_slow, strict=strict)


def _keep(key: tuple[object, ...], judgement: Judgement) -> None:
    """Keep a judgement, unless what it would keep alive is not small."""
    args = key[1]
    if isinstance(args, tuple) and all(_is_small(one) for one in args):
        if len(_JUDGED) >= _MANY:
            _JUDGED.clear()
        _JUDGED[key] = judgement


def _is_small(argument: object) -> bool:
    return type(argument) is int or (
        type(argument) is str and len(argument) <= _LONGEST_KEY
    )


def _look_at(
    error: BaseException, phase: Phase | None, *, is_slow: bool, strict: bool
) -> Judgement:
    if not isinstance(error, Exception):
        return _given_up(error, is_slow=is_slow)
    return _judge(error, classify(error, phase=phase, strict=strict), is_slow=is_slow)


def _judge(error: Exception, found: Classification, *, is_slow: bool) -> Judgement:
    kind = CATEGORIES.index(found.category)
    if found.trips:
        outcome = (
            Outcome.CUT if isinstance(error, CallTimeoutError) else Outcome.FAILURE
        )
        return Judgement(
            outcome,
            _above(outcome, found),
            found,
            Evidence(found.category.value, _told(error, found), found.sqlstate),
            is_slow,
            found.scope is Scope.CONNECT,
            kind,
            found.retry,
        )
    if found.scope in _UNREACHED:
        code = POOL if found.scope is Scope.POOL else found.category.value
        evidence = Evidence(code, _told(error, found), found.sqlstate)
        return Judgement(
            Outcome.UNREACHED,
            Outcome.UNREACHED,
            found,
            evidence,
            is_slow,
            kind=kind,
            retry=found.retry,
        )
    return Judgement(
        Outcome.IGNORED,
        _above(Outcome.IGNORED, found),
        found,
        None,
        is_slow,
        kind=kind,
        retry=found.retry,
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


def _told(error: Exception, found: Classification) -> str:
    """The server's words, or the operating system's; for what a driver says of its own,
    as of an address that it could not read, only what it means."""
    if found.sqlstate is not None or isinstance(error, OSError):
        return words(error)
    return f"{type(error).__name__}: {found.reason}"


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


def is_outage(error: Exception, *, strict: bool = False) -> bool:
    """Whether it is the server, or the way to it, that gives no answer; and not the
    caller, who would get the same error from it again.

    Args:
        strict: As `judge` has it.
    """
    outcome = judge(error, 0.0, None, None, strict).outcome
    return outcome in FAILURES or outcome is Outcome.UNREACHED
