"""What can be said of an error: the answers that no SQLSTATE has, and their words.

libpq, psycopg and pgbouncer tell much in plain English alone; the table of what they
say is here, next to what it means.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pgbreaker.postgres.sqlstates import (
    Category,
    Retry,
    Scope,
    Verdict,
    Work,
    verdict,
)


class Phase(StrEnum):
    """What was being done when the error came."""

    ACQUIRE = "acquire"  # waiting for a session of the pool
    CONNECT = "connect"
    STATEMENT = "statement"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Classification:
    """What an error means. The order of the fields is public.

    Attributes:
        category: What kind of error it is: transient, persistent, query, system or
            application.
        outcome: What became of the work that was asked for.
        trips: Whether it counts as a failure of the breaker that *scope* names.
        retry: When it may be tried again: always, if idempotent, the whole transaction,
            or never.
        poisoned: Whether the session must be thrown away.
        sqlstate: The innermost one, None when nobody told one.
        scope: Whose breaker counts it: that of the whole server, of new connections, of
            the operation, of the pool, or nobody's.
        reason: Why, in a few words. Holds nothing of the error's own text.
    """

    category: Category
    outcome: Work
    trips: bool
    retry: Retry
    poisoned: bool
    sqlstate: str | None
    scope: Scope
    reason: str


def of_row(row: Verdict, sqlstate: str | None) -> Classification:
    """Answer with a row of the table."""
    return Classification(
        row.category,
        row.outcome,
        row.trips,
        row.retry,
        row.poisoned,
        sqlstate,
        row.scope,
        row.reason,
    )


# -- Answers that have no SQLSTATE ------------------------------------------------


def _lost(reason: str) -> Classification:
    """Break the session: what was under way may have been done."""
    return of_row(replace(verdict("08006"), reason=reason), None)


def _no_way_in(scope: Scope, reason: str) -> Classification:
    """Fail to connect, for now."""
    return of_row(replace(verdict("08001"), scope=scope, reason=reason), None)


def _no_entry(reason: str) -> Classification:
    """Be refused for as long as nobody changes something."""
    return of_row(replace(verdict("28000"), reason=reason), None)


def _not_counted(
    category: Category, scope: Scope, retry: Retry, outcome: Work, reason: str
) -> Classification:
    return Classification(category, outcome, False, retry, False, None, scope, reason)


def _misuse(reason: str) -> Classification:
    return _not_counted(
        Category.APPLICATION, Scope.NONE, Retry.NEVER, Work.NOT_EXECUTED, reason
    )


FOREIGN: Final = _not_counted(
    Category.APPLICATION,
    Scope.NONE,
    Retry.NEVER,
    Work.UNKNOWN,
    "the error is not the database's",
)
STOPPED: Final = replace(FOREIGN, reason="the caller was stopped")
REFUSED_BY_US: Final = _not_counted(
    Category.TRANSIENT,
    Scope.LOCAL,
    Retry.NEVER,
    Work.NOT_EXECUTED,
    "pgbreaker refused the call; the server was not asked",
)
POOL_FULL: Final = _not_counted(
    Category.SYSTEM,
    Scope.POOL,
    Retry.ALWAYS,
    Work.NOT_EXECUTED,
    "no session of our own pool came free in time",
)
NO_DESCRIPTORS: Final = _not_counted(
    Category.SYSTEM,
    Scope.LOCAL,
    Retry.ALWAYS,
    Work.NOT_EXECUTED,
    "our own process or machine is out of something",
)
POOL_CLOSED: Final = _misuse("our own pool is closed")
MISUSED: Final = _misuse("the driver was used wrongly")
UNFIT_INPUT: Final = replace(
    MISUSED, category=Category.QUERY, reason="the driver could not send or read it"
)
OUTDATED: Final = replace(
    verdict("0A000"),
    retry=Retry.TRANSACTION,
    reason="a cached statement is older than the schema",
)
CACHE_OUTDATED: Final = of_row(OUTDATED, None)

LOST: Final = _lost("the connection broke")
CLOSED: Final = _lost("the session had been closed before")
REFUSED: Final = _no_way_in(Scope.TARGET, "nobody listens there, or no way leads there")
UNRESOLVED: Final = _no_way_in(Scope.TARGET, "the host's name has no address")
SILENT: Final = _no_way_in(Scope.TARGET, "no connection could be made in time")
STARTING: Final = of_row(verdict("57P03"), None)
FAILED_LOGIN: Final = _no_way_in(Scope.TARGET, "the pooler cannot log in")
POOLER_FULL: Final = _no_way_in(Scope.TARGET, "the pooler had no server in time")
NO_PRIMARY: Final = _no_way_in(Scope.TARGET, "no host has the role that is wanted")
UNCLEAR: Final = _no_way_in(Scope.CONNECT, "no connection could be made")
FULL: Final = of_row(verdict("53300"), None)
LIMITED: Final = replace(
    FULL, reason="the role or the database has used up its own CONNECTION LIMIT"
)
NO_LOGIN: Final = _no_entry("the login was refused")
NO_DATABASE: Final = _no_entry("there is no such database, or it is closed to us")
NO_SETTING: Final = _no_entry("the server refused the session's settings")
NO_WELCOME: Final = _no_entry("the server refused the connection")
NO_TLS: Final = _no_entry("the server and we do not agree about TLS")
NO_TRUST: Final = _no_entry("the server's certificate is not trusted")
SLOW: Final = Classification(
    Category.TRANSIENT,
    Work.UNKNOWN,
    True,
    Retry.IDEMPOTENT,
    True,  # the answer may come yet, to whoever asks next
    None,
    Scope.OPERATION,  # a silent server and a long lock look alike from here
    "no answer came in time",
)
FAILED: Final = replace(SLOW, reason="the driver failed, for a reason of its own")
IDLED: Final = of_row(verdict("25P03"), None)
IDLED_OUT: Final = of_row(verdict("57P05"), None)


def in_phase(found: Classification, phase: Phase | None) -> Classification:
    """Say what the phase changes about an answer."""
    if phase is Phase.COMMIT:
        if found.outcome is Work.UNKNOWN and found.trips:
            return replace(
                found,
                retry=Retry.NEVER,
                reason="commit_unknown: the answer to COMMIT is missing",
            )
    elif (phase is Phase.CONNECT or phase is Phase.ACQUIRE) and found.trips:
        wide = found.scope in (Scope.TARGET, Scope.CONNECT)
        lasting = found.category is Category.PERSISTENT
        return replace(
            found,
            outcome=Work.NOT_EXECUTED,
            retry=Retry.NEVER if lasting else Retry.ALWAYS,
            poisoned=found.poisoned and phase is not Phase.CONNECT,
            scope=found.scope if wide else Scope.CONNECT,
        )
    return found


# -- The answers by words: libpq's, psycopg's and pgbouncer's ---------------------

# In order: the first that is found decides. Lower case.
_WORDS: Final[tuple[tuple[str, Classification], ...]] = (
    # What may end a session in its middle comes first: libpq says "SSL SYSCALL error".
    ("server closed the connection", LOST),
    ("connection reset by peer", LOST),
    ("broken pipe", LOST),
    ("connection has been closed unexpectedly", LOST),
    ("syscall error", LOST),
    ("unexpected eof", LOST),
    ("connection is closed", CLOSED),
    ("connection already closed", CLOSED),
    ("connection is lost", LOST),
    ("connection socket closed", LOST),
    ("no connection to the server", CLOSED),
    ("lost synchronization with server", LOST),
    ("server conn crashed", LOST),
    ("terminating connection", LOST),
    ("connection refused", REFUSED),
    ("no such file or directory", REFUSED),
    ("no route to host", REFUSED),
    ("is unreachable", REFUSED),
    ("host is down", REFUSED),
    ("timeout expired", SILENT),
    ("connection timed out", SILENT),
    ("operation timed out", SILENT),
    ("could not translate host name", UNRESOLVED),
    ("failed to resolve host", UNRESOLVED),
    ("name or service not known", UNRESOLVED),
    ("name resolution", UNRESOLVED),
    ("no host found", UNRESOLVED),
    ("too many open files", NO_DESCRIPTORS),
    ("cannot assign requested address", NO_DESCRIPTORS),
    ("starting up", STARTING),
    ("shutting down", STARTING),
    ("in recovery mode", STARTING),
    ("not yet accepting connections", STARTING),
    ("too many connections for", LIMITED),
    ("too many clients", FULL),
    ("remaining connection slots", FULL),
    ("too many connections", FULL),
    ("no more connections allowed", FULL),
    ("could not fork new process", FULL),
    ("session is read-only", NO_PRIMARY),
    ("server is in hot standby", NO_PRIMARY),
    ("server is not in hot standby", NO_PRIMARY),
    ("session is not read-only", NO_PRIMARY),
    # pgbouncer caches the error of its last login and tells it to everybody.
    ("query_wait_timeout", POOLER_FULL),
    ("client_login_timeout", POOLER_FULL),
    ("server login", FAILED_LOGIN),
    ("idle transaction timeout", IDLED),
    ("idle_transaction_timeout", IDLED),
    ("client_idle_timeout", IDLED_OUT),
    ("query timeout", SLOW),
    ("query_timeout", SLOW),
    ("transaction timeout", SLOW),
    ("certificate verify failed", NO_TRUST),
    ("server certificate", NO_TRUST),
    ("root certificate", NO_TRUST),
    ("authentication failed", NO_LOGIN),
    ("no password supplied", NO_LOGIN),
    ("pg_hba.conf", NO_LOGIN),
    ("not permitted to log in", NO_LOGIN),
    ("no such user", NO_LOGIN),
    ("login rejected", NO_LOGIN),
    ("permission denied for database", NO_DATABASE),
    ("not currently accepting connections", NO_DATABASE),
    ("does not allow connections", NO_DATABASE),
    ("no such database", NO_DATABASE),
    ("is disabled", NO_DATABASE),
    ("unrecognized configuration parameter", NO_SETTING),
    ("invalid value for parameter", NO_SETTING),
    ("permission denied to set parameter", NO_SETTING),
    ("unsupported startup parameter", NO_SETTING),
    ("does not support ssl", NO_TLS),
    ("ssl error", NO_TLS),
    ("ssl is required", NO_TLS),
    ("ssl required", NO_TLS),
    ("tls required", NO_TLS),
)
_NO_SUCH_ROLE: Final = r'role ".*" does not exist'
_NO_SUCH_DATABASE: Final = r'database ".*" does not exist'


def of_words(text: str) -> Classification | None:
    """Answer by a message in English; None when it says nothing that we know."""
    words = text.lower()
    if re.search(_NO_SUCH_ROLE, words):
        return NO_LOGIN
    if re.search(_NO_SUCH_DATABASE, words):
        return NO_DATABASE
    return next((found for needle, found in _WORDS if needle in words), None)
