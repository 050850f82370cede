"""What guards tell: transitions, trials, retries, and answers that are not the server's.

A listener is a callable that takes an event. It is called after every lock is released,
in the order of the events, and whatever it raises is logged and goes no further.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from pgbreaker.core.states import Outcome, State, Transition
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.guard.living import join

log = logging.getLogger("pgbreaker")


@dataclass(frozen=True, slots=True)
class Trial:
    """A call that decides about a half-open breaker has come back.

    Attributes:
        breaker: Name of the breaker.
        outcome: What it came to.
        took: Seconds from asking to that.
        at: Moment of it.
    """

    breaker: str
    outcome: Outcome
    took: Seconds
    at: Seconds


@dataclass(frozen=True, slots=True)
class Retry:
    """A call is about to be tried again.

    Attributes:
        breaker: Name of the breaker.
        number: Number of the retry, 1 after the first failure.
        wait: Seconds until it.
        reason: What went wrong, in a few words.
        at: Moment of it.
    """

    breaker: str
    number: int
    wait: Seconds
    reason: str
    at: Seconds


Event: TypeAlias = Transition | Trial | Retry
Listener: TypeAlias = Callable[[Event], None]

_KEPT: Final = 256

recent: Final[deque[Event]] = deque(maxlen=_KEPT)
"""The last events of every breaker of the process, oldest first."""

_listeners: tuple[Listener, ...] = ()
_noted: Final[deque[tuple[Event, bool]]] = deque()


class _Telling:
    """The right to tell, which one thread has at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        join(self)

    def disown(self) -> None:
        self.lock = threading.Lock()


_TELLING: Final = _Telling()


def subscribe(listener: Listener) -> Callable[[], None]:
    """Have *listener* called with every event of every breaker of the process.

    Returns:
        What ends it when called.
    """
    global _listeners
    _listeners = (*_listeners, listener)

    def unsubscribe() -> None:
        global _listeners
        _listeners = tuple(other for other in _listeners if other is not listener)

    return unsubscribe


def note(event: Event, *, detailed: bool) -> None:
    """Put an event behind those before it; whoever notes one calls `flush` once no
    lock is held.

    Args:
        detailed: Whether to log more than transitions.
    """
    _noted.append((event, detailed))


def flush() -> None:
    """Log what was noted, keep it, and hand it to every listener, in its order."""
    # One thread tells at a time. Another that notes something meanwhile, or a listener
    # that does, leaves it to the one that is telling, which looks again at the end.
    while _noted and (lock := _TELLING.lock).acquire(blocking=False):
        try:
            while _noted:
                _tell(*_noted.popleft())
        finally:
            lock.release()


def _tell(event: Event, detailed: bool) -> None:
    recent.append(event)
    try:
        if detailed or isinstance(event, Transition):
            _write(event)
    except Exception:  # noqa: BLE001 - a filter of the application's, and no way to say so
        pass
    for listener in _listeners:
        try:
            listener(event)
        except Exception:
            log.exception("listener %r failed to take %r", listener, event)


def _write(event: Event) -> None:
    match event:
        case Transition():
            level = logging.WARNING if event.after is State.OPEN else logging.INFO
            again = (
                f"; next trial in {lasting(event.retry_after)}"
                if event.retry_after
                else ""
            )
            before, after = event.before.value, event.after.value
            log.log(
                level,
                "breaker %r: %s -> %s: %s%s",
                event.breaker,
                before,
                after,
                event.reason,
                again,
                extra={"breaker": event.breaker, "cause": event.cause.value},
            )
        case Trial():
            log.info(
                "breaker %r: a trial call came to %s after %s",
                event.breaker,
                event.outcome.value,
                lasting(event.took),
            )
        case Retry():
            log.info(
                "breaker %r: retry %d in %s: %s",
                event.breaker,
                event.number,
                lasting(event.wait),
                event.reason,
            )
