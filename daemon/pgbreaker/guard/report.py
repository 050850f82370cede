"""Telling a daemon how this process's own breakers are: by a thread of its own, now and
then, and never more than one report at a time.

Nothing comes of it here, and nothing waits for it: what cannot be told is not told later,
for by then it is otherwise.
"""

import json
import logging
import math
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from http.client import HTTPException
from typing import Any, Final, TypeAlias

from pgbreaker.core.report import (
    APPLICATION,
    INSTANCE,
    MOST,
    NAME,
    OUTCOMES,
    REASON,
    By,
)
from pgbreaker.core.states import State
from pgbreaker.core.text import tidy, words_of
from pgbreaker.core.units import Seconds
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker, all_breakers
from pgbreaker.guard.ways import Address, Connection

log = logging.getLogger("pgbreaker")

REPORTS: Final = "/api/v1/reports"

_EVERY: Final[Seconds] = 5.0  # until the daemon says otherwise
_SELDOM: Final[Seconds] = 300.0  # nobody is asked to wait for longer, nor does
_WITHIN: Final[Seconds] = 5.0  # all of one
_JITTER: Final = 0.1  # of the time between two: a fleet that begins at once spreads
_MOST_BYTES: Final = 60 * 1024  # of the 64 kB that a daemon reads
_MOST_ANSWER: Final = 64 * 1024
_OLDER: Final = (404, 405)  # what a daemon answers that knows no reports
_CROWDED: Final = (429, 503)

Follows: TypeAlias = Callable[[PostgreSQLCircuitBreaker], str | None]
"""Which of the daemon's breakers one here listens to. None: none."""


class UntoldError(Exception):
    """A report was not taken; the text says why.

    Attributes:
        wait: Seconds to leave the daemon alone for. None: as after any failure.
    """

    def __init__(self, why: str, wait: Seconds | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Reporter:
    """Reports to the daemon that is heard.

    Attributes:
        application: What people call the service. None: they did not say.
        every: Seconds between two reports, as the daemon asked.
        sent: Reports that were taken.
        why: Why the last was not, in one line; empty when it was, or there was none.
        left_out: Breakers that the last had no room for.
    """

    def __init__(
        self, follows: Follows, application: str | None, now: Callable[[], Seconds]
    ) -> None:
        """
        Raises:
            ValueError: The application has no name.
        """
        if application is not None and not (
            0 < len(application) <= APPLICATION and application.isprintable()
        ):
            raise ValueError(
                f"report is True, or the application's name: 1 to {APPLICATION}"
                f" printable characters, got {application!r}"
            )
        self.application = application
        self.every = _EVERY
        self.sent = self.left_out = 0
        self.why = ""
        self._follows = follows
        self._now = now
        self._told: str | None = None
        self._failures = 0
        self._due: Seconds = 0.0
        self._instance = ""
        self.disown()

    def __repr__(self) -> str:
        how = f"every {self.every:g} s" if not self.why else self.why
        return f"<Reporter {how}>"

    # Beginning and ending.

    def start(self) -> None:
        """Begin, once a daemon is heard."""
        self._instance = _instance(os.getpid())
        threading.Thread(
            target=self._run,
            args=(self._stopped,),
            name="pgbreaker-report",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Report no longer."""
        self._stopped.set()
        self._woken.set()
        connection = self._connection
        if connection is not None:
            connection.hang_up()

    def disown(self) -> None:
        """Begin anew in a forked process: the thread is the parent's."""
        connection = getattr(self, "_connection", None)
        if connection is not None:
            connection.drop()
        self._connection: Connection | None = None
        self._stopped, self._woken = threading.Event(), threading.Event()
        self._changing = threading.Lock()
        self._to: Address | None = None
        self._last: Address | None = None  # all the children of one parent spread

    def turn_to(self, address: Address | None) -> None:
        """Report to another daemon.

        Args:
            address: Of the one that is heard. None: none is, and nobody is told.
        """
        with self._changing:
            self._to = address
            if address is not None and address is not self._last:
                self._last, self._failures = address, 0
                self._due = self._now() + random.random() * self.every
        self._woken.set()

    # The thread.

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            with self._changing:
                address, left = self._to, self._due - self._now()
            if address is None or left > 0:
                self._woken.wait(None if address is None else left)
                self._woken.clear()
                continue
            try:
                wait = self._tell(address)
            except UntoldError as error:
                wait = self._fail(address, stopped, str(error), error.wait)
            except (OSError, HTTPException, ValueError, RecursionError) as error:
                wait = self._fail(address, stopped, words_of(error))
            except Exception:
                log.exception("a report to %s has failed", address.where)
                wait = self._fail(address, stopped, "an error of ours; see the log")
            with self._changing:
                if address is self._last:  # else the other's turn is noted already
                    self._due = self._now() + wait

    def _tell(self, address: Address) -> Seconds:
        """Send one report. Returns after how long comes the next."""
        body, self.left_out = written(
            self._instance, self.application, all_breakers(), self._follows
        )
        headers = {"Content-Type": "application/json", "Connection": "close"}
        with Connection(address, self._now, _WITHIN) as connection:
            self._connection = connection
            try:
                response = connection.ask("POST", REPORTS, headers, body)
                if response.status != 200:
                    raise _untold(response.status, response.getheader("Retry-After"))
                self.every = _every(response.read(_MOST_ANSWER))
            finally:
                self._connection = None
        self.sent += 1
        self.why, self._failures = "", 0
        if self._told is not None:
            log.warning("reports are taken again by %s", address.where)
            self._told = None
        return self.every * random.uniform(1 - _JITTER, 1 + _JITTER)

    def _fail(
        self,
        address: Address,
        stopped: threading.Event,
        why: str,
        wait: Seconds | None = None,
    ) -> Seconds:
        if stopped.is_set():
            return 0.0
        self.why = f"{address.where}: {why}"
        if self.why != self._told:  # once, not every few seconds for a whole night
            log.warning("reports are not taken by %s", self.why)
            self._told = self.why
        self._failures = min(self._failures + 1, 16)
        backed_off = min(_SELDOM, self.every * 2.0**self._failures)
        # Later, never sooner: whoever asked to be left alone has others who ask.
        return max(backed_off, wait or 0.0) * random.uniform(1.0, 1.25)


def _untold(status: int, retry_after: str | None) -> UntoldError:
    if status in _OLDER:
        return UntoldError("it knows no reports, as older ones do not", _SELDOM)
    if status in _CROWDED:
        text = retry_after or ""
        is_number = text.isascii() and text.isdecimal() and len(text) < 8
        wait = min(float(text), _SELDOM) if is_number else None
        return UntoldError(f"it answers {status}: there are too many", wait)
    return UntoldError(f"it answers {status}")


def _every(answer: bytes) -> Seconds:
    """When it wants the next."""
    try:
        every = float(json.loads(answer)["every_seconds"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        every = math.nan
    if not math.isfinite(every):
        raise UntoldError("what it answers is not of a daemon")
    return min(max(every, _EVERY), _SELDOM)


@cache
def _instance(pid: int) -> str:
    """The name of this process; another for each, also after a restart, and one for all
    who report from it."""
    end = f":{pid}:{os.urandom(4).hex()}"
    return tidy(socket.gethostname() or "localhost", INSTANCE - len(end)) + end


# What is told.


def written(
    instance: str,
    application: str | None,
    breakers: Iterable[PostgreSQLCircuitBreaker],
    follows: Follows,
) -> tuple[bytes, int]:
    """Write a report. Returns how many breakers it had no room for, too.

    Those that do not let calls pass go first, then those that follow.
    """
    # There may be thousands, and few of them are told.
    all_ = [(breaker.state, follows(breaker), breaker) for breaker in breakers]
    all_.sort(key=lambda one: (one[0] is State.CLOSED, one[1] is None))
    kept = list(_fitting(_told(breaker, theirs) for _, theirs, breaker in all_[:MOST]))
    heading = {"instance": instance, "application": application}
    text = _json(heading)[:-1] + ',"breakers":[' + ",".join(kept) + "]}"
    return text.encode("utf-8", "replace"), len(all_) - len(kept)


def _fitting(told: Iterable[dict[str, Any]]) -> Iterator[str]:
    left = _MOST_BYTES
    for one in told:
        text = _json(one)
        left -= len(text.encode("utf-8", "replace")) + 1
        if left < 0:
            return
        yield text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _told(breaker: PostgreSQLCircuitBreaker, follows: str | None) -> dict[str, Any]:
    core, state, totals = breaker.core, breaker.state, breaker.totals
    by = _by(breaker, state)
    reason = "" if by is None else core.refusing_because(breaker.clock.now())
    return {
        "name": tidy(breaker.name, NAME) or ascii(breaker.name)[:NAME],
        "follows": follows,
        "state": state.value,
        "computed_state": core.computed_state.value,
        "by": by,
        "reason": tidy(reason, REASON),
        "calls": {outcome: totals[outcome] for outcome in OUTCOMES},
    }


def _by(breaker: PostgreSQLCircuitBreaker, state: State) -> By | None:
    """Who has it other than closed."""
    if state is State.CLOSED:
        return None
    if breaker.core.override is not None:
        return By.OPERATOR
    return By.ADVICE if breaker.core.is_advised else By.CALLS
