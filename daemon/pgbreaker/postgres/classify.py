"""What an error means to the breaker that guards a call.

The class of an error is not the truth. asyncpg raises `ConnectionDoesNotExistError`
for most sessions that the server ended, with the server's own words in ``__cause__``
if at all; SQLAlchemy wraps the one half and lets the other through; psycopg has no
SQLSTATE for a connection that could not be made. So: the innermost SQLSTATE first,
then the class and the errno, then the words, and for a bare `TimeoutError` the place
where it was raised.

Nothing here imports a driver: they are known by the names of their modules.
"""

import builtins
import errno
import logging
import re
import socket
import ssl
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from pgbreaker.errors import BulkheadFullError, CallTimeoutError, CircuitOpenError
from pgbreaker.postgres import answers
from pgbreaker.postgres.answers import Classification, Phase
from pgbreaker.postgres.frames import PHASES, Place, is_client, phase_at, place_of
from pgbreaker.postgres.sqlstates import (
    VERDICTS,
    Category,
    Retry,
    Scope,
    Verdict,
    Work,
    verdict,
)

__all__ = ["Classification", "Phase", "classify"]

# Most answers depend on nothing but the code: they are made once.
_BY_CODE: Final = {code: answers.of_row(row, code) for code, row in VERDICTS.items()}


# -- The answers by SQLSTATE ------------------------------------------------------

_ENDS_THE_SESSION: Final = frozenset({"FATAL", "PANIC"})


def _severity(error: BaseException) -> str | None:
    """ERROR, FATAL or PANIC in English whatever the server speaks, None if untold."""
    told = getattr(error, "severity_en", None)  # asyncpg
    told = told or getattr(error, "severity", None)  # from poolers, in English anyway
    if told is None and (diag := getattr(error, "diag", None)) is not None:
        told = getattr(diag, "severity_nonlocalized", None)  # psycopg
        told = told or getattr(diag, "severity", None)  # psycopg2
    return told if isinstance(told, str) else None


def _routine(error: BaseException) -> str | None:
    """The C function that reported it, which no lc_messages translates."""
    told = getattr(error, "server_source_function", None)  # asyncpg
    if told is None and (diag := getattr(error, "diag", None)) is not None:
        told = getattr(diag, "source_function", None)
    return told if isinstance(told, str) else None


def _text(error: BaseException) -> str:
    """The message alone: str() of a wrapper shows the statement and its values."""
    first = error.args[0] if error.args else ""
    if isinstance(first, dict):  # pg8000
        first = first.get("M", "")
    return first if isinstance(first, str) else str(error)


def _of_cancel(error: BaseException) -> Verdict | None:
    if "due to user request" in _text(error):
        return replace(
            verdict("57014"),
            category=Category.APPLICATION,
            trips=False,
            scope=Scope.NONE,
            reason="somebody cancelled the statement on purpose",
        )
    return None


def _of_lock(error: BaseException) -> Verdict | None:
    # lock_timeout comes from an interrupt, NOWAIT from where the lock is taken.
    if (routine := _routine(error)) is not None:
        waited = routine == "ProcessInterrupts"
    else:
        waited = "could not obtain lock" not in _text(error)
    if waited:
        return None
    return replace(
        verdict("55P03"),
        category=Category.QUERY,
        trips=False,
        scope=Scope.NONE,
        retry=Retry.NEVER,
        reason="the lock is taken, and the statement would not wait (NOWAIT)",
    )


def _of_limit(error: BaseException) -> Verdict | None:
    # "database is not accepting commands ... to avoid wraparound data loss"
    routine = _routine(error) or ""
    if "not accepting commands" in _text(error) or routine.startswith("GetNew"):
        return replace(
            verdict("53100"),
            reason="the server stopped writes lest transaction ids wrap around",
        )
    return None


# Compiled when it is first needed, as the others here: importing us has to be cheap.
_DATA_FILE: Final = r"(?<![\w/.$])(base|global|pg_\w+)/"


def _of_missing_file(error: BaseException) -> Verdict | None:
    """A file of the data directory, or one that the statement named?"""
    text = _text(error)
    if not text or re.search(_DATA_FILE, text):
        return None
    return replace(verdict("22000"), reason="the file that was named does not exist")


def _of_full(error: BaseException) -> Verdict | None:
    text = _text(error)
    if 'for role "' in text or 'for database "' in text:
        return replace(verdict("53300"), reason=answers.LIMITED.reason)
    return None


def _of_plan(error: BaseException) -> Verdict | None:
    cached = "cached statement plan", "cached plan must not change"
    return answers.OUTDATED if _text(error).startswith(cached) else None


# Codes that mean several things, and what tells them apart.
_BY_WORDS: Final[dict[str, Callable[[BaseException], Verdict | None]]] = {
    "0A000": _of_plan,
    "53300": _of_full,
    "54000": _of_limit,
    "55P03": _of_lock,
    "57014": _of_cancel,
    "58P01": _of_missing_file,
}


def _of_code(
    error: BaseException, code: str, chain: list[BaseException], phase: Phase | None
) -> Classification:
    """Read the SQLSTATE *code* of *error*, the innermost of *chain* that has one."""
    found = _BY_CODE.get(code) or answers.of_row(verdict(code), code)
    if phase is Phase.CONNECT or phase is Phase.ACQUIRE:
        return _at_the_door(found, error, phase)
    severity = _severity(error)
    if severity in _ENDS_THE_SESSION or (error is not chain[0] and _is_lost(chain)):
        return _ended(found, error, chain, phase)
    if (words := _BY_WORDS.get(code)) is not None and (row := words(error)):
        found = answers.of_row(row, code)
    if severity is not None and (found.trips or found.poisoned):
        found = _at_error(found, error, code)
    if found.outcome is Work.UNKNOWN:
        return answers.in_phase(found, phase or phase_at(chain))
    return found


def _at_error(found: Classification, error: BaseException, code: str) -> Classification:
    """Read a code that comes at ERROR severity: the session lives."""
    if _routine(error) == "exec_stmt_raise":
        return replace(
            answers.of_row(verdict("P0001"), code),
            category=Category.APPLICATION,
            reason="a function of the application raised it (RAISE)",
        )
    if found.scope is Scope.OPERATION:
        return found
    if code == "08P01":
        return replace(
            answers.of_row(verdict("42000"), code),
            poisoned=True,
            reason="the driver broke the protocol",
        )
    if code.startswith("08"):  # dblink, postgres_fdw, a subscription
        return answers.of_row(verdict("HV00N"), code)
    return replace(
        answers.of_row(verdict("42000"), code),
        reason="the server refused the statement",
    )


def _ended(
    found: Classification,
    error: BaseException,
    chain: list[BaseException],
    phase: Phase | None,
) -> Classification:
    """Read a code that ended the session, or kept it from beginning."""
    code = found.sqlstate or ""
    if code == "08P01":
        said = answers.of_words(_text(error))
        found = replace(said, sqlstate=code) if said else found
    elif code == "53300":
        found = _at_the_door(found, error)
    elif code.startswith("40"):  # a standby chose between its query and the WAL
        found = replace(found, poisoned=True)
    elif not found.trips and not found.poisoned:
        # No ERROR can end a session: it never began.
        return _at_the_door(found, error)
    elif found.scope is Scope.OPERATION and code not in ("25006", "25P04"):
        found = replace(found, scope=Scope.TARGET, poisoned=True, outcome=Work.UNKNOWN)
    return answers.in_phase(found, phase or phase_at(chain))


def _at_the_door(
    found: Classification, error: BaseException, phase: Phase = Phase.CONNECT
) -> Classification:
    """Read a code that came while connecting: every one of them counts there."""
    code = found.sqlstate or ""
    if code == "08P01" and (said := answers.of_words(_text(error))):
        found = replace(said, sqlstate=code)
    elif code == "53300" and (row := _of_full(error)):
        found = answers.of_row(row, code)
    elif found.poisoned and not found.trips:
        return found  # a session of the pool that idled for too long
    elif code.startswith("40"):
        found = replace(found, trips=True)
    elif not found.trips:
        reason = _AT_THE_DOOR.get(code, answers.NO_WELCOME.reason)
        found = replace(answers.NO_WELCOME, sqlstate=code, reason=reason)
    return answers.in_phase(found, phase)


# The same codes are a wrong question later.
_AT_THE_DOOR: Final = {
    "22023": answers.NO_SETTING.reason,
    "42501": "the role may not connect to the database",
    "42704": answers.NO_SETTING.reason,
    "55000": "the database accepts no connections",
}


# -- The answers of drivers that have no SQLSTATE ---------------------------------

# How psycopg 3, psycopg 2 and libpq begin when there is no session yet.
_CONNECTING: Final = (
    "connection failed",
    "connection is bad",
    "connection to server",
    "could not connect",
    "could not translate",
    "failed to resolve",
)


_TIMEOUTS: Final = {
    "CancellationTimeout": answers.SLOW,
    "ConnectionTimeout": answers.SILENT,
}


def _of_libpq(error: BaseException, context: "_Context") -> Classification:
    """Read an error of psycopg, psycopg2 or aiopg that has no SQLSTATE."""
    text = _text(error)
    phase = context.phase
    if text.startswith(_CONNECTING):
        phase = Phase.CONNECT
    if (named := _TIMEOUTS.get(type(error).__name__)) is not None:
        return answers.in_phase(named, phase)
    found = answers.of_words(text)
    if type(error).__name__ not in ("OperationalError", "DatabaseError"):
        # Only psycopg2's InterfaceError "connection already closed" is no misuse.
        found = found if found is answers.CLOSED else answers.MISUSED
    elif found is None and "in progress" in text:
        found = answers.MISUSED
    elif found is None:
        found = answers.UNCLEAR if phase is Phase.CONNECT else answers.FAILED
    return answers.in_phase(found, phase)


def _of_pool(error: BaseException, context: "_Context") -> Classification:
    """Read an error of psycopg_pool."""
    is_closed = type(error).__name__ == "PoolClosed"
    return answers.POOL_CLOSED if is_closed else answers.POOL_FULL


_ASYNCPG_CLASSES: Final = {
    "TargetServerAttributeNotMatched": answers.NO_PRIMARY,
    "OutdatedSchemaCacheError": answers.CACHE_OUTDATED,
}


def _of_asyncpg(error: BaseException, context: "_Context") -> Classification:
    """Read an error of asyncpg that has no SQLSTATE."""
    text = _text(error)
    names = {kind.__name__ for kind in type(error).__mro__}
    for name, found in _ASYNCPG_CLASSES.items():
        if name in names:
            return found
    if "connection is closed" in text:
        return answers.in_phase(answers.CLOSED, context.where())
    is_internal = "InternalClientError" in names
    if is_internal and text.startswith(_OUT_OF_STEP):
        # The session died at the very moment at which it was taken.
        return answers.in_phase(answers.LOST, context.where())
    if is_internal or "DataError" in names:
        return answers.UNFIT_INPUT
    return answers.NO_LOGIN if re.search(_AUTHENTICATION, text) else answers.MISUSED


_OUT_OF_STEP: Final = (
    "cannot switch to",
    "not connected",
    "got result for unknown protocol state",
    "cannot process message",
)
_AUTHENTICATION: Final = "SASL Auth|server signature|authentication method"


def _of_sqlalchemy(error: BaseException, context: "_Context") -> Classification | None:
    """Read an error of SQLAlchemy itself, or a wrapper round an unknown one."""
    name = type(error).__name__
    if name == "TimeoutError":
        return answers.POOL_FULL
    lost = getattr(error, "connection_invalidated", False) is True
    if lost or name in ("DisconnectionError", "InvalidatePoolError"):
        return answers.in_phase(answers.LOST, context.where())
    return None


# -- The answers by class and errno -----------------------------------------------

_UNREACHABLE: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
    }
)
_BROKEN: Final = frozenset(
    {
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.ENETRESET,
        errno.ESHUTDOWN,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
    }
)
# Says nothing of the server, whoever wanted the file or the socket.
_OURS: Final = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.EADDRNOTAVAIL,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)
_BREAKS: Final = (ConnectionError, EOFError)
_SEVERAL: Final = "Multiple exceptions"  # asyncio's, for a host of several addresses


def _of_os(error: BaseException, context: "_Context") -> Classification | None:
    """Read an error of the operating system, of TLS or of asyncio's streams.

    It has no driver's name on it; where it was raised has to tell whose it is.
    """
    number = getattr(error, "errno", None)
    if number in _OURS:
        return answers.NO_DESCRIPTORS
    if not context.is_the_database(error):
        return None
    if number in _BROKEN:
        return answers.in_phase(answers.LOST, context.where())
    if isinstance(error, TimeoutError):
        return _of_deadline(context)
    if isinstance(error, ssl.SSLError):
        return _of_tls(error, context)
    return _of_errno(error, number, context)


def _of_deadline(context: "_Context") -> Classification:
    phase = context.where()
    if phase is Phase.ACQUIRE:
        return answers.POOL_FULL
    if phase is Phase.CONNECT:
        return answers.SILENT
    return answers.in_phase(answers.SLOW, phase)


def _of_tls(error: ssl.SSLError, context: "_Context") -> Classification:
    if isinstance(error, ssl.SSLCertVerificationError):
        return answers.NO_TRUST
    if isinstance(
        error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError
    ):
        return answers.in_phase(answers.LOST, context.where())
    return answers.NO_TLS


def _of_errno(
    error: BaseException, number: int | None, context: "_Context"
) -> Classification:
    if isinstance(error, socket.gaierror):
        return answers.UNRESOLVED
    if number in _UNREACHABLE or isinstance(error, ConnectionRefusedError):
        return answers.REFUSED
    text = str(error)
    if number is None and "SSL" in text:  # asyncpg: "... rejected SSL upgrade"
        return answers.NO_TLS
    if number is None and text.startswith(_SEVERAL):
        return answers.REFUSED
    if isinstance(error, _BREAKS):
        return answers.in_phase(answers.LOST, context.where())
    return _of_file(number, context.where())


def _of_file(number: int | None, phase: Phase | None) -> Classification:
    """Read what a Unix socket may say, being a file."""
    if phase is not Phase.CONNECT:
        return answers.FAILED
    return answers.REFUSED if number == errno.ENOENT else answers.UNCLEAR


# -- What is known round an error -------------------------------------------------


log = logging.getLogger("pgbreaker")


class _Context:
    """What is known round an error: looked up when asked for, since most never ask."""

    __slots__ = ("_looked", "_seen", "chain", "phase", "strict")

    def __init__(
        self, chain: list[BaseException], phase: Phase | None, strict: bool
    ) -> None:
        self.chain = chain
        self.phase = phase
        self.strict = strict
        self._looked = False
        self._seen: Place | None = None

    def place(self) -> Place | None:
        if not self._looked:
            self._looked = True
            self._seen = place_of(self.chain)
        return self._seen

    def where(self) -> Phase | None:
        """The phase, as told or as the traceback shows it."""
        place = self.place()
        if self.phase is Phase.ACQUIRE and place is Place.CONNECT:
            return Phase.CONNECT  # a pool that grows, or replaces what it lost
        return self.phase or (None if place is None else PHASES.get(place))

    def is_the_database(self, error: BaseException) -> bool:
        place = self.place()
        if place is not None:
            return place is not Place.ELSEWHERE
        if self.phase is not None and self.phase is not Phase.STATEMENT:
            return True
        # Nobody's frames: a guard that is there for database calls counts it, unless
        # it is one that only a file can have.
        return not self.strict and _is_of_a_network(error)


_OF_A_NETWORK: Final = (
    ConnectionError,
    TimeoutError,
    EOFError,
    socket.gaierror,
    ssl.SSLError,
)


def _is_of_a_network(error: BaseException) -> bool:
    if isinstance(error, _OF_A_NETWORK):
        return True
    number = getattr(error, "errno", None)
    if number is None:
        return str(error).startswith(_SEVERAL)
    return number in _UNREACHABLE or number in _BROKEN


# -- The walk ---------------------------------------------------------------------

_Reader = Callable[[BaseException, _Context], Classification | None]
_LONGEST_CHAIN: Final = 32


def _chain(error: BaseException) -> list[BaseException]:
    """List *error* and what it was made of, from the outside in."""
    chain = [error]
    while len(chain) < _LONGEST_CHAIN:
        inner = getattr(error, "orig", None)
        if not isinstance(inner, BaseException):
            inner = error.__cause__ or _cancelled_below(error)
        if inner is None or any(inner is known for known in chain):
            break
        chain.append(inner)
        error = inner
    return chain


def _cancelled_below(error: BaseException) -> BaseException | None:
    """The cancellation that a timeout was made of: its frames show what was awaited."""
    below = error.__context__
    is_deadline = isinstance(error, TimeoutError) and isinstance(below, CancelledError)
    return below if is_deadline else None


def _sqlstate(error: BaseException) -> str | None:
    code = getattr(error, "sqlstate", None)
    if code is None:
        code = getattr(error, "pgcode", None)  # psycopg2
        if code is None and error.args and isinstance(error.args[0], dict):
            code = error.args[0].get("C")  # pg8000
    return code if isinstance(code, str) and len(code) == 5 else None


def _is_lost(chain: list[BaseException]) -> bool:
    """Whether a driver says, outside of the server's own words, that it is over."""
    return any(_sqlstate(error) == "08003" for error in chain[:-1])


@lru_cache(maxsize=1024)
def _known(kind: type) -> Classification | None:
    """Answer for a class that means the same whenever it comes."""
    if issubclass(kind, CircuitOpenError | BulkheadFullError):
        return answers.REFUSED_BY_US
    if issubclass(kind, CallTimeoutError):
        return answers.SLOW
    return answers.FOREIGN if is_client(kind.__module__) else None


@lru_cache(maxsize=1024)
def _reader(kind: type) -> _Reader | None:
    """Find who can read the errors of a class that have no SQLSTATE."""
    if issubclass(kind, BaseExceptionGroup):
        return _of_group
    by_driver = _READERS.get(kind.__module__.partition(".")[0])
    if by_driver is None and issubclass(kind, OSError | EOFError):
        return _of_os
    return by_driver


_READERS: Final[dict[str, _Reader]] = {
    "aiopg": _of_libpq,
    "asyncpg": _of_asyncpg,
    "psycopg": _of_libpq,
    "psycopg2": _of_libpq,
    "psycopg_pool": _of_pool,
    "sqlalchemy": _of_sqlalchemy,
}


def _of_group(error: BaseException, context: _Context) -> Classification:
    """Read several errors at once: the worst decides."""
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    found = [_classify(one, context.phase, context.strict) for one in members]
    return max(found, key=_badness, default=answers.FOREIGN)


_WIDTH: Final = (
    Scope.NONE,
    Scope.LOCAL,
    Scope.POOL,
    Scope.OPERATION,
    Scope.CONNECT,
    Scope.TARGET,
)


def _badness(found: Classification) -> tuple[bool, int, bool, bool]:
    return (
        found.trips,
        _WIDTH.index(found.scope),
        found.poisoned,
        found.category is not Category.APPLICATION,
    )


# They have no SQLSTATE, and are nobody's.
_BUILTIN: Final = frozenset(
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, BaseException)
)


def _classify(
    error: BaseException, phase: Phase | None, strict: bool
) -> Classification:
    if not isinstance(error, Exception):
        return answers.STOPPED
    chain = _chain(error)
    told: tuple[BaseException, str] | None = None
    for link in chain:
        kind: type = type(link)
        if kind in _BUILTIN:
            continue
        if (code := _sqlstate(link)) is not None:
            told = link, code
        elif told is None and (plain := _known(kind)) is not None:
            return answers.in_phase(plain, phase) if plain.trips else plain
    if told is not None:
        return _of_code(*told, chain, phase)
    context = _Context(chain, phase, strict)
    for link in reversed(chain):
        of: type = type(link)
        read = _reader(of)
        if read is not None and (found := read(link, context)) is not None:
            return found
    return answers.FOREIGN


def classify(
    error: BaseException, *, phase: Phase | None = None, strict: bool = False
) -> Classification:
    """Say what *error* means to a breaker.

    Args:
        phase: What was being done. None finds it out where that is cheap and certain,
            and takes it for a statement otherwise.
        strict: Whether a timeout or a broken connection that no frame shows to be a
            driver's is the application's own. A guard round database calls alone
            leaves it False, a guard round whole requests sets it.
    """
    try:
        return _classify(error, phase, strict)
    except Exception:
        # Nothing that we fail at may hide the error; and a breaker that takes what it
        # cannot read for good would never open.
        kind: object = type(error)
        if kind not in _unread:
            _unread.add(kind)
            log.exception("cannot classify %r; it counts as a failure", kind)
        return answers.FAILED


_unread: Final[set[object]] = set()  # classes that have been complained of
