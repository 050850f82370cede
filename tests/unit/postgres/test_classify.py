"""What an error means: the table, the words, the chain, and whose it is."""

import asyncio
import contextlib
import errno
import http.client
import socket
import ssl
from pathlib import Path

import aiohttp
import asyncpg
import psycopg
import psycopg_pool
import pytest
import sqlalchemy.exc
from psycopg.pq import DiagnosticField
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from pgbreaker.core.states import State
from pgbreaker.errors import BulkheadFullError, CircuitOpenError
from pgbreaker.postgres import classify as module
from pgbreaker.postgres.classify import Classification, Phase, classify
from pgbreaker.postgres.sqlstates import (
    CLASSES,
    EXACT,
    NAMES,
    VERDICTS,
    Category,
    Retry,
    Scope,
    Work,
    verdict,
)

LISTED = dict(
    line.split()
    for line in (Path(__file__).parent / "sqlstates-18.txt").read_text().splitlines()
)

TRANSIENT, PERSISTENT = Category.TRANSIENT, Category.PERSISTENT
QUERY, SYSTEM, APPLICATION = Category.QUERY, Category.SYSTEM, Category.APPLICATION


@pytest.fixture(autouse=True)
def _no_net(monkeypatch):
    """What `classify` falls back on when it fails itself would hide a mistake."""
    total = module._classify

    def strict_one(*arguments):
        try:
            return total(*arguments)
        except Exception as error:
            if not isinstance(error, Evil):
                raise KeyboardInterrupt from error
            raise

    monkeypatch.setattr(module, "_classify", strict_one)


class Evil(Exception):
    """Raised by an error that is asked for its SQLSTATE or its text."""


def told(code, text="", severity=None, routine=None):
    """The error of asyncpg that the server's message makes."""
    fields = {"C": code, "M": text}
    if severity:
        fields |= {"S": "FEHLER", "V": severity}
    if routine:
        fields["R"] = routine
    return asyncpg.PostgresError.new(fields)


def told_psycopg(code, text="", severity=None):
    field = DiagnosticField.SEVERITY_NONLOCALIZED
    info = {int(field): severity.encode()} if severity else None
    return psycopg.errors.lookup(code)(text, info=info)


def lost(cause=None):
    error = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle")
    error.__cause__ = cause
    return error


def wrapped(error, *, invalidated=False):
    """As SQLAlchemy hands it out: in the dialect's error, in its own."""
    inner = AsyncAdapt_asyncpg_dbapi.Error(str(error), error)
    inner.__cause__ = error
    outer = sqlalchemy.exc.DBAPIError(
        "SELECT :secret",
        {"secret": "s3cret"},
        inner,
        connection_invalidated=invalidated,
    )
    outer.__cause__ = inner
    return outer


def made_from(cause):
    """An application's own error, raised from another."""
    error = LookupError("no such order")
    error.__cause__ = cause
    return error


# -- The table --------------------------------------------------------------------


def test_the_table_has_every_code_of_postgresql_18():
    assert NAMES == LISTED
    assert len(NAMES) == 262
    assert VERDICTS.keys() == NAMES.keys()
    assert EXACT.keys() <= NAMES.keys()
    assert CLASSES.keys() == {code[:2] for code in NAMES}


def test_the_table_has_every_code_that_drivers_know():
    """Those that PostgreSQL gave up are covered by their class."""
    ours = {
        value.sqlstate
        for value in vars(asyncpg.exceptions).values()
        if getattr(value, "sqlstate", None)
    }
    theirs = {code for code in psycopg.errors._sqlcodes if len(code) == 5}

    assert {code for code in ours | theirs if code[:2] not in CLASSES} <= {"72000"}


@pytest.mark.parametrize("code", NAMES)
def test_a_row_agrees_with_itself(code):
    row = verdict(code)

    assert row is VERDICTS[code]
    assert row.reason
    assert len(row.reason) < 90
    assert row.trips is (row.scope is not Scope.NONE)
    if row.outcome is Work.UNKNOWN:
        assert row.retry in (Retry.IDEMPOTENT, Retry.NEVER)
    if row.retry is Retry.ALWAYS:
        assert row.outcome is Work.NOT_EXECUTED
    if row.category in (Category.QUERY, Category.APPLICATION):
        assert not row.trips
    if row.category is Category.PERSISTENT:
        assert row.retry is Retry.NEVER


MUST_NOT_TRIP = ("0A", "22", "23", "26", "40", "42", "44", "P0")


@pytest.mark.parametrize("code", [c for c in NAMES if c[:2] in MUST_NOT_TRIP])
def test_a_storm_of_these_never_opens(code):
    for error in (told(code), told(code, severity="ERROR"), told_psycopg(code)):
        assert not classify(error).trips
        assert not classify(wrapped(error)).trips


@pytest.mark.parametrize("code", ["40001", "40P01", "40000", "40002"])
def test_a_conflict_is_tried_again_as_a_whole(code):
    found = classify(told(code))

    assert (found.category, found.retry) == (TRANSIENT, Retry.TRANSACTION)
    assert (found.outcome, found.scope) == (Work.ROLLED_BACK, Scope.NONE)


HARD = [
    ("08000", TRANSIENT, Scope.TARGET, Retry.IDEMPOTENT, True, Work.UNKNOWN),
    ("08001", TRANSIENT, Scope.TARGET, Retry.ALWAYS, False, Work.NOT_EXECUTED),
    ("08003", TRANSIENT, Scope.TARGET, Retry.IDEMPOTENT, True, Work.UNKNOWN),
    ("08006", TRANSIENT, Scope.TARGET, Retry.IDEMPOTENT, True, Work.UNKNOWN),
    ("08007", TRANSIENT, Scope.TARGET, Retry.NEVER, True, Work.UNKNOWN),
    ("25006", PERSISTENT, Scope.OPERATION, Retry.NEVER, True, Work.ROLLED_BACK),
    ("25P02", QUERY, Scope.NONE, Retry.NEVER, False, Work.NOT_EXECUTED),
    ("25P03", APPLICATION, Scope.NONE, Retry.TRANSACTION, True, Work.ROLLED_BACK),
    ("28P01", PERSISTENT, Scope.CONNECT, Retry.NEVER, False, Work.NOT_EXECUTED),
    ("3D000", PERSISTENT, Scope.CONNECT, Retry.NEVER, False, Work.NOT_EXECUTED),
    ("40003", TRANSIENT, Scope.NONE, Retry.NEVER, False, Work.UNKNOWN),
    ("53100", SYSTEM, Scope.OPERATION, Retry.NEVER, False, Work.ROLLED_BACK),
    ("53300", SYSTEM, Scope.CONNECT, Retry.ALWAYS, False, Work.NOT_EXECUTED),
    ("53400", QUERY, Scope.NONE, Retry.NEVER, False, Work.ROLLED_BACK),
    ("55P03", TRANSIENT, Scope.OPERATION, Retry.TRANSACTION, False, Work.ROLLED_BACK),
    ("57014", TRANSIENT, Scope.OPERATION, Retry.NEVER, False, Work.ROLLED_BACK),
    ("57P01", TRANSIENT, Scope.TARGET, Retry.IDEMPOTENT, True, Work.UNKNOWN),
    ("57P02", TRANSIENT, Scope.TARGET, Retry.IDEMPOTENT, True, Work.UNKNOWN),
    ("57P03", TRANSIENT, Scope.TARGET, Retry.ALWAYS, False, Work.NOT_EXECUTED),
    ("58030", SYSTEM, Scope.OPERATION, Retry.NEVER, False, Work.ROLLED_BACK),
    ("XX000", SYSTEM, Scope.OPERATION, Retry.NEVER, False, Work.ROLLED_BACK),
    ("XX001", SYSTEM, Scope.OPERATION, Retry.NEVER, False, Work.ROLLED_BACK),
]


@pytest.mark.parametrize("row", HARD, ids=lambda row: row[0])
def test_a_hard_case(row):
    code, category, scope, retry, poisoned, outcome = row

    found = classify(told(code))

    assert found == Classification(
        category,
        outcome,
        scope is not Scope.NONE,
        retry,
        poisoned,
        code,
        scope,
        verdict(code).reason,
    )
    assert classify(told_psycopg(code)) == found
    assert classify(wrapped(told(code))) == found


@pytest.mark.parametrize(
    ("code", "category"),
    [("22XYZ", QUERY), ("57XYZ", TRANSIENT), ("72000", QUERY), ("QQ123", QUERY)],
)
def test_an_unknown_code_is_read_by_its_class(code, category):
    assert verdict(code).category is category
    assert classify(told(code)).sqlstate == code


def test_nothing_is_made_anew_for_the_commonest_errors():
    error = told("23505", severity="ERROR")

    assert classify(error) is classify(error)


# -- Severity ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [told, told_psycopg])
@pytest.mark.parametrize("code", ["57P01", "57P03", "53300", "28P01", "3D000"])
def test_a_fatal_code_at_error_severity_is_a_statements(make, code):
    assert classify(make(code, severity="FATAL")).trips
    assert not classify(make(code, severity="ERROR")).trips
    assert not classify(make(code, severity="ERROR")).poisoned


def test_raise_is_known_by_its_routine():
    found = classify(told("53100", "no", "ERROR", "exec_stmt_raise"))

    assert (found.category, found.trips, found.sqlstate) == (
        APPLICATION,
        False,
        "53100",
    )


@pytest.mark.parametrize("code", ["42501", "55000", "42704", "22023"])
def test_a_statements_code_at_fatal_severity_is_a_door_that_stays_shut(code):
    found = classify(told(code, severity="FATAL"))

    assert (found.category, found.scope) == (PERSISTENT, Scope.CONNECT)
    assert (found.trips, found.outcome) == (True, Work.NOT_EXECUTED)
    assert not classify(told(code, severity="ERROR")).trips
    assert classify(told(code), phase=Phase.CONNECT) == found


@pytest.mark.parametrize("code", ["53200", "58030", "XX000"])
def test_a_failure_that_ends_the_session_is_the_targets(code):
    found = classify(told(code, severity="FATAL"))

    assert (found.scope, found.poisoned) == (Scope.TARGET, True)
    assert found.outcome is Work.UNKNOWN


def test_a_standby_that_ends_a_session_for_a_conflict_is_no_failure():
    found = classify(told("40001", severity="FATAL"))

    assert (found.trips, found.poisoned) == (False, True)
    assert found.retry is Retry.TRANSACTION


# -- Words ------------------------------------------------------------------------

CANCEL = "canceling statement due to {}"


@pytest.mark.parametrize(
    ("code", "text", "trips"),
    [
        ("57014", CANCEL.format("statement timeout"), True),
        ("57014", CANCEL.format("user request"), False),
        ("57014", "breche Anweisung ab", True),  # its operation's, when in doubt
        ("55P03", CANCEL.format("lock timeout"), True),
        ("55P03", 'could not obtain lock on relation "t"', False),
        ("54000", "database is not accepting commands to avoid wraparound", True),
        ("54000", "invalid memory alloc request size 1100000004", False),
        ("58P01", 'could not open file "base/5/16384": No such file', True),
        ("58P01", 'could not open file "pg_xact/0001": No such file', True),
        ("58P01", 'could not open file "/tmp/x" for reading: No such file', False),
        ("58P01", 'could not access file "$libdir/nosuch": No such file', False),
        ("53300", 'too many connections for role "app"', True),
        ("0A000", "cached plan must not change result type", False),
    ],
)
@pytest.mark.parametrize("make", [told, told_psycopg])
def test_words_tell_apart_what_shares_a_code(make, code, text, trips):
    assert classify(make(code, text)).trips is trips


def test_the_routine_tells_where_the_words_are_translated():
    nowait = told("55P03", "konnte Sperre nicht setzen", "ERROR", "LockAcquireExtended")
    waited = told("55P03", "breche Anweisung ab", "ERROR", "ProcessInterrupts")
    frozen = told("54000", "Datenbank nimmt nichts an", "ERROR", "GetNewTransactionId")

    assert not classify(nowait).trips
    assert classify(waited).trips
    assert classify(frozen).category is SYSTEM


def test_an_outdated_plan_may_be_tried_again():
    error = asyncpg.exceptions.InvalidCachedStatementError(
        "cached statement plan is invalid due to a database schema or configuration"
        " change"
    )

    found = classify(error)

    assert (found.category, found.trips) == (QUERY, False)
    assert found.retry is Retry.TRANSACTION
    stale = asyncpg.exceptions.OutdatedSchemaCacheError("x")
    assert classify(stale).retry is Retry.TRANSACTION


PGBOUNCER = [
    ("query_wait_timeout", TRANSIENT, Scope.TARGET, Work.NOT_EXECUTED),
    ("server conn crashed?", TRANSIENT, Scope.TARGET, Work.UNKNOWN),
    (
        "server login has been failing, cached error: x",
        *HARD[1][1:3],
        Work.NOT_EXECUTED,
    ),
    ("client_login_timeout (server down)", *HARD[1][1:3], Work.NOT_EXECUTED),
    ("no such database: x", PERSISTENT, Scope.CONNECT, Work.NOT_EXECUTED),
    ('database "x" is disabled', PERSISTENT, Scope.CONNECT, Work.NOT_EXECUTED),
    ("SASL authentication failed", PERSISTENT, Scope.CONNECT, Work.NOT_EXECUTED),
    (
        "no more connections allowed (max_client_conn)",
        *HARD[12][1:3],
        Work.NOT_EXECUTED,
    ),
    ("query timeout", TRANSIENT, Scope.OPERATION, Work.UNKNOWN),
    ("something new", TRANSIENT, Scope.TARGET, Work.UNKNOWN),
]


@pytest.mark.parametrize(("text", "category", "scope", "outcome"), PGBOUNCER)
def test_poolers_say_what_they_mean_in_words(text, category, scope, outcome):
    fatal = told("08P01", text, "FATAL")

    for error in (fatal, lost(fatal), wrapped(lost(fatal))):
        found = classify(error)
        assert (found.category, found.scope, found.outcome) == (
            category,
            scope,
            outcome,
        )
        assert found.trips
        assert found.sqlstate == "08P01"
    bug = classify(told("08P01", text, "ERROR"))
    assert (bug.trips, bug.poisoned) == (False, True)


def test_a_transaction_that_idles_at_a_pooler_is_the_applications():
    found = classify(told("08P01", "idle transaction timeout", "FATAL"))

    assert (found.category, found.trips, found.poisoned) == (APPLICATION, False, True)


# -- The chain --------------------------------------------------------------------


def test_the_innermost_code_decides_and_the_loss_stays():
    found = classify(wrapped(lost(told("57P01", "x", "FATAL")), invalidated=True))

    assert found.sqlstate == "57P01"
    assert (found.trips, found.scope, found.poisoned) == (True, Scope.TARGET, True)
    assert (found.outcome, found.retry) == (Work.UNKNOWN, Retry.IDEMPOTENT)


@pytest.mark.parametrize("cause", [None, ConnectionResetError(104, "reset")])
def test_a_loss_without_a_code_below_is_a_loss(cause):
    """asyncpg before 0.32 never tells the server's last words."""
    for error in (lost(cause), wrapped(lost(cause), invalidated=True)):
        found = classify(error)
        assert found.sqlstate == "08003"
        assert (found.trips, found.scope) == (True, Scope.TARGET)
        assert (found.outcome, found.poisoned) == (Work.UNKNOWN, True)


def test_an_applications_own_wrapper_hides_nothing():
    for cause, trips in ((told("57P03"), True), (told("23505"), False)):
        found = classify(made_from(cause))
        assert found.sqlstate == cause.sqlstate
        assert found.trips is trips


def test_what_was_being_handled_is_no_cause():
    """A timeout in an except block is not of the error that the block is for."""
    error = TimeoutError()
    error.__context__ = told("23505", severity="ERROR")

    assert classify(error) == classify(TimeoutError())


def test_a_chain_that_bites_its_tail_has_an_end():
    error = ValueError("x")
    error.__cause__ = TypeError("y")
    error.__cause__.__cause__ = error

    assert classify(error).category is APPLICATION


def test_the_worst_of_a_group_decides():
    group = ExceptionGroup(
        "two tasks", [told("23505"), ExceptionGroup("", [told("57P01")]), ValueError()]
    )

    assert classify(group) == classify(told("57P01"))
    assert classify(ExceptionGroup("", [ValueError()])).category is APPLICATION
    answered = classify(ExceptionGroup("", [ValueError(), told("23505")]))
    assert answered.sqlstate == "23505"


@pytest.mark.parametrize("phase", [None, *Phase])
@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()], ids=repr
)
def test_a_caller_who_was_stopped_says_nothing(error, phase):
    found = classify(error, phase=phase)

    assert (found.category, found.scope) == (APPLICATION, Scope.NONE)
    assert not found.trips


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpenError("orders", State.OPEN, "too many failures", 1.0, 0.0),
        BulkheadFullError("orders", 10, 0.1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_refusal_of_an_inner_breaker_is_no_failure_of_the_outer(error):
    for shown in (error, made_from(error)):
        found = classify(shown)
        assert (found.scope, found.trips) == (Scope.LOCAL, False)
        assert (found.retry, found.outcome) == (Retry.NEVER, Work.NOT_EXECUTED)


def test_what_cannot_be_read_is_not_hidden_and_counts():
    class Cursed(Exception):
        @property
        def sqlstate(self):
            raise Evil

    class CursedText(asyncpg.InterfaceError):
        def __init__(self):
            self.args = (self,)

        def __str__(self):
            raise Evil

    assert classify(Cursed()).trips
    assert classify(CursedText()) is not None


@pytest.mark.parametrize(
    "error",
    [
        told("28P01", 'password authentication failed for user "s3cret"', "FATAL"),
        psycopg.OperationalError('connection failed: role "s3cret" does not exist'),
        wrapped(told("23505", "Key (mail)=(s3cret) already exists.", "ERROR")),
        ConnectionRefusedError(111, "Connect call failed ('s3cret', 5432)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_reason_tells_no_secret(error):
    assert "s3cret" not in classify(error).reason


# -- Phases -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [c for c in NAMES if c not in ("25P03", "57P05")])
def test_every_code_counts_while_connecting(code):
    found = classify(told(code), phase=Phase.CONNECT)

    assert found.trips
    assert found.scope in (Scope.TARGET, Scope.CONNECT)
    assert found.outcome is Work.NOT_EXECUTED
    assert found.retry in (Retry.ALWAYS, Retry.NEVER)
    assert not found.poisoned


@pytest.mark.parametrize(
    "error",
    [
        told("57P01", severity="FATAL"),
        lost(),
        wrapped(lost(), invalidated=True),
        TimeoutError(),
        ConnectionResetError(104, "reset"),
        asyncpg.InterfaceError("cannot perform operation: connection is closed"),
        psycopg.OperationalError(
            "consuming input failed: server closed the connection"
        ),
    ],
    ids=repr,
)
def test_a_commit_without_an_answer_is_never_repeated(error):
    found = classify(error, phase=Phase.COMMIT)

    assert (found.outcome, found.retry) == (Work.UNKNOWN, Retry.NEVER)
    assert found.trips
    assert found.reason.startswith("commit_unknown")
    assert classify(error).retry is Retry.IDEMPOTENT


def test_a_commit_that_the_server_refuses_is_no_unknown_one():
    deferred = classify(told("23505", severity="ERROR"), phase=Phase.COMMIT)
    conflict = classify(told("40001", severity="ERROR"), phase=Phase.COMMIT)

    assert deferred.outcome is conflict.outcome is Work.ROLLED_BACK
    assert conflict.retry is Retry.TRANSACTION


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached"),
        psycopg_pool.PoolTimeout("couldn't get a connection after 30.00 sec"),
        psycopg_pool.TooManyRequests("the pool 'x' has already 3 requests waiting"),
    ],
    ids=lambda error: type(error).__module__,
)
def test_a_full_pool_is_not_the_targets_failure(error):
    found = classify(error, strict=True)

    assert (found.scope, found.trips) == (Scope.POOL, False)
    assert (found.outcome, found.retry) == (Work.NOT_EXECUTED, Retry.ALWAYS)


def test_a_timeout_means_what_its_phase_means():
    scopes = {phase: classify(TimeoutError(), phase=phase).scope for phase in Phase}

    assert scopes == {
        Phase.ACQUIRE: Scope.POOL,
        Phase.CONNECT: Scope.TARGET,
        Phase.STATEMENT: Scope.OPERATION,
        Phase.COMMIT: Scope.OPERATION,
    }


# -- Drivers without a code -------------------------------------------------------

LIBPQ = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
FATAL = LIBPQ + "FATAL:  "


@pytest.mark.parametrize(
    ("text", "category", "scope"),
    [
        (FATAL + 'password authentication failed for user "a"', *HARD[8][1:3]),
        (FATAL + 'role "a" does not exist', *HARD[8][1:3]),
        (FATAL + 'no pg_hba.conf entry for host "10.0.0.2"', *HARD[8][1:3]),
        (FATAL + 'database "a" does not exist', *HARD[8][1:3]),
        (FATAL + 'database "a" is not currently accepting connections', *HARD[8][1:3]),
        (FATAL + 'permission denied for database "a"', *HARD[8][1:3]),
        (FATAL + 'unrecognized configuration parameter "x"', *HARD[8][1:3]),
        (FATAL + "sorry, too many clients already", *HARD[12][1:3]),
        (FATAL + "remaining connection slots are reserved", *HARD[12][1:3]),
        (FATAL + 'too many connections for role "a"', *HARD[12][1:3]),
        (FATAL + "the database system is starting up", *HARD[18][1:3]),
        (FATAL + "the database system is shutting down", *HARD[18][1:3]),
        (FATAL + "the database system is in recovery mode", *HARD[18][1:3]),
        (
            FATAL + "the database system is not yet accepting connections",
            *HARD[18][1:3],
        ),
        (LIBPQ + "Connection refused\n\tIs the server running?", *HARD[18][1:3]),
        (LIBPQ + "No such file or directory", *HARD[18][1:3]),
        (LIBPQ + "timeout expired", *HARD[18][1:3]),
        (LIBPQ + "server closed the connection unexpectedly", *HARD[18][1:3]),
        (LIBPQ + "SSL SYSCALL error: Connection reset by peer", *HARD[18][1:3]),
        (LIBPQ + "session is read-only", *HARD[18][1:3]),
        ("failed to resolve host 'x': [Errno -2] Name or service", *HARD[18][1:3]),
        ('could not translate host name "x" to address', *HARD[18][1:3]),
        (LIBPQ + "server does not support SSL, but SSL was required", *HARD[8][1:3]),
        (LIBPQ + "SSL error: certificate verify failed", *HARD[8][1:3]),
        (FATAL + "Passwort-Authentifizierung fehlgeschlagen", TRANSIENT, Scope.CONNECT),
    ],
)
def test_libpq_says_in_words_why_it_could_not_connect(text, category, scope):
    for error in (
        psycopg.OperationalError(text),
        sqlalchemy.exc.OperationalError("x", {}, psycopg.OperationalError(text)),
    ):
        found = classify(error)
        assert (found.category, found.scope) == (category, scope)
        assert (found.trips, found.outcome) == (True, Work.NOT_EXECUTED)
        assert found.sqlstate is None


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError(
            "consuming input failed: server closed the connection unexpectedly"
        ),
        psycopg.OperationalError("the connection is closed"),
        psycopg.OperationalError("the connection is lost"),
        psycopg.OperationalError("terminating connection due to administrator command"),
        psycopg.OperationalError("SSL SYSCALL error: EOF detected"),
        asyncpg.InterfaceError("cannot perform operation: connection is closed"),
        asyncpg.InterfaceError("cannot call X(): the underlying connection is closed"),
        asyncpg.InternalClientError(
            "cannot switch to state 12; another operation (2) is in progress"
        ),
        sqlalchemy.exc.DBAPIError("x", {}, Exception("?"), connection_invalidated=True),
        sqlalchemy.exc.DisconnectionError("x"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        ConnectionResetError(),
        BrokenPipeError(errno.EPIPE, "broken"),
        asyncio.IncompleteReadError(b"", 5),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        TimeoutError(errno.ETIMEDOUT, "keepalive"),
    ],
    ids=repr,
)
def test_a_connection_that_broke(error):
    found = classify(error)

    assert (found.category, found.scope, found.trips) == (TRANSIENT, Scope.TARGET, True)
    assert (found.outcome, found.retry) == (Work.UNKNOWN, Retry.IDEMPOTENT)
    assert found.poisoned
    early = classify(error, phase=Phase.CONNECT)
    assert (early.outcome, early.retry) == (Work.NOT_EXECUTED, Retry.ALWAYS)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError(
            "cannot perform operation: another operation is in progress"
        ),
        asyncpg.InterfaceError("pool is closed"),
        asyncpg.InterfaceError("the server expects 1 argument, 2 were passed"),
        asyncpg.exceptions.ClientConfigurationError("invalid DSN"),
        asyncpg.DataError("invalid input for query argument $1"),
        asyncpg.InternalClientError("missing codec information for OID 1"),
        psycopg.ProgrammingError("the query has 1 placeholder but 2 were passed"),
        psycopg.InterfaceError("the cursor is closed"),
        psycopg.errors.PipelineAborted("pipeline aborted"),
        psycopg.OperationalError(
            "sending query failed: another command is already in progress"
        ),
        psycopg_pool.PoolClosed("the pool 'x' is closed"),
        sqlalchemy.exc.PendingRollbackError("x"),
        sqlalchemy.exc.InvalidRequestError("x"),
        sqlalchemy.exc.NoResultFound("x"),
        ValueError("x"),
        KeyError("x"),
        FileNotFoundError(errno.ENOENT, "x"),
        PermissionError(errno.EACCES, "x"),
        OSError(errno.ENOSPC, "our disk"),
    ],
    ids=repr,
)
def test_a_mistake_of_the_application_never_counts(error):
    for phase in (None, Phase.STATEMENT):
        found = classify(error, phase=phase)
        assert not found.trips
        assert found.category in (APPLICATION, QUERY)
        assert found.retry is Retry.NEVER


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (ConnectionRefusedError(111, "Connect call failed"), TRANSIENT),
        (socket.gaierror(-2, "Name or service not known"), TRANSIENT),
        (OSError(errno.EHOSTUNREACH, "no route"), TRANSIENT),
        (OSError("Multiple exceptions: [Errno 111] ..., [Errno 111] ..."), TRANSIENT),
        (ConnectionError('server at "a" rejected SSL upgrade'), PERSISTENT),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), PERSISTENT),
        (
            asyncpg.exceptions.TargetServerAttributeNotMatched("none of the hosts"),
            TRANSIENT,
        ),
    ],
    ids=repr,
)
def test_a_connection_that_cannot_be_made(error, category):
    found = classify(error)

    assert (found.trips, found.outcome) == (True, Work.NOT_EXECUTED)
    assert found.category is category
    assert found.retry is (Retry.NEVER if category is PERSISTENT else Retry.ALWAYS)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_our_own_shortage_is_no_news_of_the_server(number):
    for phase in (None, Phase.CONNECT):
        found = classify(OSError(number, "x"), phase=phase)
        assert (found.scope, found.trips) == (Scope.LOCAL, False)


# -- Whose it is ------------------------------------------------------------------


async def raised(awaitable):
    try:
        await awaitable
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


@pytest.fixture
def silence():
    """A port that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield listening.getsockname()[1]


def nobody_there():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return closed.getsockname()[1]


async def test_the_frames_of_a_driver_show_whose_a_bare_error_is(silence):
    nobody = f"postgresql://a:a@127.0.0.1:{nobody_there()}/a"
    silent = f"postgresql://a:a@127.0.0.1:{silence}/a"
    for connecting in (
        asyncpg.connect(nobody),
        asyncpg.connect(host="/nosuch", user="a", password="a"),
        asyncpg.connect(silent, timeout=0.02),
        asyncio.wait_for(asyncpg.connect(silent), 0.02),
        asyncio.wait_for(psycopg.AsyncConnection.connect(silent), 0.02),
    ):
        error = await raised(connecting)

        assert type(error).__module__ == "builtins"
        found = classify(error, strict=True)
        assert (found.trips, found.scope) == (True, Scope.TARGET)
        assert found.outcome is Work.NOT_EXECUTED


def test_the_frames_of_another_client_show_that_it_is_not_ours(silence):
    for port in (nobody_there(), silence):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.02)
        with contextlib.closing(connection), pytest.raises(OSError) as caught:  # noqa: PT011
            ask(connection)

        for phase in (None, Phase.STATEMENT):
            found = classify(caught.value, phase=phase)
            assert (found.category, found.trips) == (APPLICATION, False)


def ask(connection):
    connection.request("GET", "/")
    connection.getresponse()


async def test_the_class_of_another_client_is_enough():
    port = nobody_there()
    async with aiohttp.ClientSession() as session:
        error = await raised(session.get(f"http://127.0.0.1:{port}/"))

    assert isinstance(error, OSError)
    assert not classify(error).trips
    assert not classify(made_from(error)).trips


async def test_a_timeout_that_nobody_owns_counts_unless_one_is_strict():
    async def late():
        async with asyncio.timeout(0.001):
            await asyncio.sleep(9)

    error = await raised(late())

    assert classify(error).trips
    assert classify(error, phase=Phase.STATEMENT).trips
    assert not classify(error, strict=True).trips
    assert classify(error, strict=True, phase=Phase.CONNECT).trips


async def test_a_pool_that_cannot_grow_is_no_full_pool(silence):
    pool = asyncpg.create_pool(
        f"postgresql://a:a@127.0.0.1:{silence}/a", min_size=0, max_size=1, timeout=9
    )
    async with pool:
        error = await raised(pool.acquire(timeout=0.02))
        waited = await raised(asyncio.wait_for(pool.fetch("SELECT 1"), 0.02))

    for shown in (error, waited):
        for phase in (None, Phase.ACQUIRE):
            found = classify(shown, phase=phase, strict=True)
            assert (found.trips, found.scope) == (True, Scope.TARGET)
            assert found.outcome is Work.NOT_EXECUTED


async def test_a_wait_for_a_psycopg_pool_is_told_by_its_frames(silence):
    pool = psycopg_pool.AsyncConnectionPool(
        f"postgresql://a:a@127.0.0.1:{silence}/a", open=False, min_size=1
    )
    await pool.open()
    try:
        error = await raised(asyncio.wait_for(pool.getconn(), 0.02))
    finally:
        await pool.close(timeout=0)

    found = classify(error, strict=True)
    assert (found.trips, found.scope) == (False, Scope.POOL)
