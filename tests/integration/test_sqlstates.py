"""Real servers raise their SQLSTATEs: is each of them read rightly?

A table of statements, the codes that they raise and what a breaker has to make of
them. What the core raises only when it is hurt is done to a server of its own; what
it never raises comes through RAISE, which proves the other half: that a code alone,
at ERROR severity, ends no session and opens no breaker.
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pgbreaker.postgres.classify import Phase, classify
from pgbreaker.postgres.sqlstates import (
    NAMES,
    VERDICTS,
    Category,
    Retry,
    Scope,
    Work,
)
from support.servers import fill_connections, psql

SCHEMA = """
DROP SCHEMA IF EXISTS codes CASCADE;
CREATE SCHEMA codes;
GRANT USAGE ON SCHEMA codes TO PUBLIC;
SET search_path = codes;
CREATE TABLE t (i int PRIMARY KEY, s text, v varchar(3), b bit(2), c int CHECK (c > 0),
                n int NOT NULL DEFAULT 1, r int4range,
                EXCLUDE USING gist (r WITH &&));
INSERT INTO t (i, s, r) VALUES (1, 'one', '[1,10)'), (2, 'two', NULL);
CREATE TABLE child (i int REFERENCES t);
CREATE TABLE made (i int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE twice (i int, i2 int);
CREATE TABLE collated (a text COLLATE "C", b text COLLATE "POSIX");
INSERT INTO collated VALUES ('a', 'b');
CREATE VIEW positive AS SELECT i FROM t WHERE i > 0 WITH CHECK OPTION;
CREATE VIEW dependent AS SELECT s FROM t;
CREATE SEQUENCE short MAXVALUE 2 START 2;
SELECT nextval('short');
CREATE SEQUENCE fresh;
CREATE TYPE mood AS ENUM ('good');
CREATE FUNCTION f(int, float) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION f(float, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION endless(i int) RETURNS int LANGUAGE plpgsql AS
    'BEGIN RETURN endless(i + 1); END';
CREATE FUNCTION nothing() RETURNS int LANGUAGE plpgsql AS 'BEGIN END';
CREATE PROCEDURE committing() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
CREATE TABLE restless (i int);
INSERT INTO restless VALUES (1);
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE codes.restless SET i = i + 1; RETURN new; END';
CREATE TRIGGER again BEFORE UPDATE ON restless FOR EACH ROW
    WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION again();
"""


@dataclass(frozen=True)
class Case:
    """Statements, of which the last one raises *code*.

    Attributes:
        scope: Whose breaker counts it; None when nobody's does.
        since: The first major version that raises it so.
    """

    code: str
    statements: tuple[str, ...]
    scope: Scope | None = None
    since: int = 0

    def __str__(self):
        return f"{self.code}-{NAMES[self.code]}"


def case(code, *statements, scope=None, since=0):
    return Case(code, statements, scope, since)


def plpgsql(body):
    return f"DO $$ {body} $$"


def jsonpath(target, path):
    return f"SELECT jsonb_path_query('{target}', '{path}')"


CASES = [
    case("0A000", "SELECT i FROM t GROUP BY i FOR UPDATE"),
    case("0LP01", "GRANT INSERT ON SEQUENCE fresh TO PUBLIC"),
    case(
        "0Z002",
        plpgsql("DECLARE x text; BEGIN GET STACKED DIAGNOSTICS x = MESSAGE_TEXT; END"),
    ),
    case("20000", plpgsql("BEGIN CASE 1 WHEN 2 THEN NULL; END CASE; END")),
    case("21000", "SELECT (SELECT i FROM t)"),
    # Data.
    case("2202E", "SELECT ARRAY[[1, 2], [3]]"),
    case("22021", r"SELECT convert_from('\xff', 'UTF8')"),
    case("22008", "SELECT date '2020-13-40'"),
    case("22012", "SELECT 1/0"),
    case("22015", "SELECT interval '10000000000000 years'"),
    case("2201E", "SELECT ln(0)"),
    case("22014", "SELECT ntile(0) OVER () FROM t"),
    case("22016", "SELECT nth_value(i, 0) OVER () FROM t"),
    case("2201F", "SELECT power(0::numeric, -1)"),
    case("2201G", "SELECT width_bucket(1, 2, 2, 3)"),
    case("22007", "SELECT date 'soon'"),
    case("2200C", """SELECT substring('a' SIMILAR 'a#"b#"c#"d' ESCAPE '#')"""),
    case("22025", "SELECT 'a' LIKE 'a' ESCAPE 'xx'"),
    case(
        "22P06",
        "SET standard_conforming_strings = off",
        "SET backslash_quote = off",
        r"SELECT '\''",
    ),
    case("22023", "SET work_mem = 'much'"),
    case("22013", "SELECT sum(i) OVER (ROWS -1 PRECEDING) FROM t"),
    case("2201B", "SELECT 'a' ~ '('"),
    case("2201W", "SELECT 1 LIMIT -1"),
    case("2201X", "SELECT 1 OFFSET -1"),
    case("2202H", "SELECT * FROM t TABLESAMPLE bernoulli (200)"),
    case("2202G", "SELECT * FROM t TABLESAMPLE bernoulli (1) REPEATABLE (NULL)"),
    case("22009", "SELECT timestamptz '2020-01-01 00:00+99'"),
    case("22004", plpgsql("BEGIN EXECUTE NULL; END")),
    case("22003", "SELECT 2147483647 + 1"),
    case("2200H", "SELECT nextval('short')"),
    case("22026", "INSERT INTO t (i, b) VALUES (9, b'1')"),
    case("22001", "INSERT INTO t (i, v) VALUES (9, 'long')"),
    case("22011", "SELECT substring('abc', 1, -1)"),
    case("22P02", "SELECT 'one'::int"),
    case("22P05", "SELECT convert_to('中', 'LATIN1')"),
    case("2200M", "SELECT xmlparse(DOCUMENT '<a')"),
    case("2200N", "SELECT xml '<a'"),
    case("2200S", "SELECT xmlcomment('--')"),
    case("2200T", "SELECT xmlpi(NAME a, '?>')"),
    case("22030", "SELECT json_object('a': 1, 'a': 2 WITH UNIQUE KEYS)", since=16),
    case("22031", jsonpath('"soon"', "$.datetime()")),
    case("22033", jsonpath("[1]", "strict $[2]")),
    case("22034", "SELECT json_value(jsonb '[1,2]', '$[*]' ERROR ON ERROR)", since=17),
    case("22035", "SELECT json_value(jsonb '{}', '$.a' ERROR ON EMPTY)", since=17),
    case("22036", jsonpath('"a"', "$.double()")),
    case("22038", jsonpath('["a"]', "strict $ + 1")),
    case("22039", jsonpath("1", "strict $[*]")),
    case("2203A", jsonpath("{}", "strict $.a")),
    case("2203B", jsonpath('"a"', "-$")),
    case("2203C", jsonpath("1", "strict $.keyvalue()")),
    case(
        "2203F",
        """SELECT json_value(jsonb '{"a": {}}', '$.a' ERROR ON ERROR)""",
        since=17,
    ),
    # Constraints.
    case("23502", "INSERT INTO t (i, n) VALUES (9, NULL)"),
    case("23503", "INSERT INTO child VALUES (9)"),
    case("23505", "INSERT INTO t (i) VALUES (1)"),
    case("23514", "INSERT INTO t (i, c) VALUES (9, 0)"),
    case("23P01", "INSERT INTO t (i, r) VALUES (9, '[2,3)')"),
    # Transactions, cursors, prepared statements, savepoints.
    case(
        "24000",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT i FROM t",
        "UPDATE t SET n = 2 WHERE CURRENT OF c",
    ),
    case("25001", "BEGIN", "VACUUM t"),
    case(
        "25006",
        "SET default_transaction_read_only = on",
        "DELETE FROM t",
        scope=Scope.OPERATION,
    ),
    case("25P01", "SAVEPOINT s"),
    case("25P02", "BEGIN", "SELECT 1/0", "SELECT 1"),
    case("26000", "EXECUTE nosuch"),
    case("27000", "UPDATE restless SET i = 0"),
    case("2BP01", "DROP TABLE t"),
    case("2D000", "BEGIN", "CALL committing()"),
    case("2F005", "SELECT nothing()"),
    case("34000", "CLOSE nosuch"),
    case("39P01", 'SELECT "RI_FKey_check_ins"()'),
    case("39P03", "SELECT pg_event_trigger_dropped_objects()"),
    case("3B001", "BEGIN", "ROLLBACK TO nosuch"),
    # Doors, at ERROR severity: the session is well, a statement was wrong.
    case("3D000", "ALTER DATABASE nosuch SET work_mem = '4MB'"),
    case("3F000", "CREATE TABLE nosuch.x (i int)"),
    # The statement.
    case("42601", "SELEKT 1"),
    case("42501", "SET ROLE app_user", "SELECT rolpassword FROM pg_authid"),
    case("42846", "SELECT 1::int::point"),
    case("42803", "SELECT i, s, count(*) FROM t GROUP BY n"),
    case("42P20", "SELECT 1 FROM t WHERE row_number() OVER () = 1"),
    case("42P19", "WITH RECURSIVE r AS (SELECT 1 UNION SELECT 1 FROM r, r q) TABLE r"),
    case("42830", "CREATE TABLE x (i int REFERENCES t (n))"),
    case("42602", "SELECT pg_create_physical_replication_slot('A b')"),
    case("42939", "CREATE ROLE pg_x"),
    case("42804", "INSERT INTO t (i) VALUES (true)"),
    case("42P18", "SELECT ARRAY[]"),
    case("42P21", """SELECT 'a' COLLATE "C" < 'b' COLLATE "POSIX" """),
    case("42P22", "SELECT * FROM collated WHERE a < b"),
    case("42809", "DROP VIEW t"),
    case("428C9", "INSERT INTO made VALUES (1)"),
    case("42703", "SELECT nosuch FROM t"),
    case("42883", "SELECT nosuch()"),
    case("42P01", "SELECT * FROM nosuch"),
    case("42P02", "SELECT $1"),
    case("42704", "DROP TYPE nosuch"),
    case("42701", "CREATE TABLE x (i int, i int)"),
    case(
        "42P03",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT 1",
        "DECLARE c CURSOR FOR SELECT 1",
    ),
    case("42P04", "CREATE DATABASE postgres"),
    case(
        "42723",
        "CREATE FUNCTION nothing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ),
    case("42P05", "PREPARE p AS SELECT 1", "PREPARE p AS SELECT 1"),
    case("42P06", "CREATE SCHEMA codes"),
    case("42P07", "CREATE TABLE t (i int)"),
    case("42712", "SELECT 1 FROM t, t"),
    case("42710", "CREATE ROLE app_user"),
    case("42702", "SELECT i FROM t, child"),
    case("42725", "SELECT f(1, 1)"),
    case("42P08", "PREPARE p AS INSERT INTO t (i, s) VALUES ($1, $1)"),
    case("42P10", "SELECT i FROM t ORDER BY 5"),
    case("42P11", "BEGIN", "DECLARE c SCROLL NO SCROLL CURSOR FOR SELECT 1"),
    case(
        "42P13",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS $$ SELECT 'a'::text $$",
    ),
    case("42P15", "CREATE SCHEMA x CREATE TABLE y.z (i int)"),
    case("42P16", "CREATE TABLE x (i int PRIMARY KEY, PRIMARY KEY (i))"),
    case("42P17", "CREATE INDEX ON t ((now() > '2020-01-01'))"),
    case("44000", "INSERT INTO positive VALUES (-1)"),
    # Limits.
    case(
        "53400",
        "SET temp_file_limit = '64kB'",
        "SET work_mem = '64kB'",
        "SELECT count(*) FROM (SELECT g FROM generate_series(1, 30000) g ORDER BY -g) g",
    ),
    case("54000", "SELECT repeat('a', 1100000000)"),
    case("54001", "SET max_stack_depth = '100kB'", "SELECT endless(0)"),
    case(
        "54011",
        "CREATE TABLE x (" + ", ".join(f"c{i} int" for i in range(1601)) + ")",
    ),
    case("54023", f"SELECT nosuch({', '.join('1' for _ in range(101))})"),
    # States.
    case("55000", "SELECT currval('fresh')"),
    case("55006", "DROP DATABASE postgres"),
    case("55P02", "SET max_connections = 5"),
    case("55P04", "BEGIN", "ALTER TYPE mood ADD VALUE 'bad'", "SELECT 'bad'::mood"),
    case(
        "57014",
        "SET statement_timeout = 20",
        "SELECT pg_sleep(9)",
        scope=Scope.OPERATION,
    ),
    case("58P01", "COPY t FROM '/nosuch/file'"),
    case("P0001", plpgsql("BEGIN RAISE 'no'; END")),
    case(
        "P0002", plpgsql("DECLARE x int; BEGIN SELECT 1 INTO STRICT x WHERE false; END")
    ),
    case("P0003", plpgsql("DECLARE x int; BEGIN SELECT i INTO STRICT x FROM t; END")),
    case("P0004", plpgsql("BEGIN ASSERT false; END")),
    case("XX000", "SELECT array_in('{1}', 0, -1)", scope=Scope.OPERATION),
]


@pytest.fixture(scope="module")
def prepared(server):
    """The server with the tables that the cases need; without them afterwards."""
    psql(server, SCHEMA)
    yield server
    psql(server, "DROP SCHEMA codes CASCADE")


def major(server):
    return int(psql(server, "SHOW server_version_num")) // 10_000


@contextlib.asynccontextmanager
async def connected(server, **more):
    connection = await asyncpg.connect(
        host=server.socket_dir,
        port=server.port,
        user="postgres",
        database="postgres",
        timeout=10,
        server_settings={"search_path": "codes"},
        **more,
    )
    try:
        yield connection
    finally:
        connection.terminate()


async def caught(awaitable):
    """The error that it ends with."""
    try:
        await awaitable
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_code_that_sql_can_raise(prepared, case):
    if case.since > major(prepared):
        return  # older servers do not know the statement
    async with connected(prepared) as connection:
        *before, last = case.statements
        for statement in before:
            with contextlib.suppress(asyncpg.DivisionByZeroError):
                await connection.execute(statement)

        error = await caught(connection.execute(last))

        assert error.sqlstate == case.code, error
        found = classify(error)
        assert found.sqlstate == case.code
        assert found.trips is (case.scope is not None)
        assert found.scope is (case.scope or Scope.NONE)
        assert found.outcome in (Work.ROLLED_BACK, Work.NOT_EXECUTED)
        assert found.poisoned is (case.code == "25006")


async def test_a_code_that_is_only_raised_opens_nothing(prepared):
    """
    RAISE ... USING ERRCODE sends any code at ERROR severity, FATAL ones as well: a
    function must not be able to open a breaker by a word.
    """
    async with connected(prepared) as connection:
        for code in sorted(NAMES.keys() - {"00000"}):
            error = await caught(
                connection.execute(
                    plpgsql(f"BEGIN RAISE 'no' USING ERRCODE = '{code}'; END")
                )
            )

            found = classify(error)
            assert (error.sqlstate, found.sqlstate) == (code, code)
            assert not found.trips, code
            assert not found.poisoned, code
        assert await connection.fetchval("SELECT 1") == 1


async def test_an_operation_of_another_server_is_this_operations(prepared):
    """dblink and postgres_fdw say 08001 at ERROR severity: our session lives."""
    async with connected(prepared) as connection:
        await connection.execute("BEGIN")
        await connection.execute("CREATE EXTENSION dblink")

        error = await caught(
            connection.execute("SELECT dblink_connect('host=127.0.0.1 port=1')")
        )

        assert error.sqlstate == "08001"
        found = classify(error)
        assert (found.trips, found.scope) == (True, Scope.OPERATION)
        assert (found.outcome, found.poisoned) == (Work.ROLLED_BACK, False)


# -- Several sessions -------------------------------------------------------------


async def test_a_conflict_between_transactions_is_tried_again_and_never_counts(
    prepared,
):
    async with connected(prepared) as one, connected(prepared) as two:
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ"
        for connection in (one, two):
            await connection.execute(begin)
            await connection.execute("SELECT * FROM t")
        await one.execute("UPDATE t SET n = n")
        losing = asyncio.create_task(caught(two.execute("UPDATE t SET n = n")))
        await until_waiting(one, two, "transactionid")
        await one.execute("COMMIT")

        found = classify(await losing)

        assert found.sqlstate == "40001"
        assert (found.trips, found.retry) == (False, Retry.TRANSACTION)
        assert (found.category, found.outcome) == (
            Category.TRANSIENT,
            Work.ROLLED_BACK,
        )


async def test_a_deadlock_is_tried_again_and_never_counts(prepared):
    async with connected(prepared) as one, connected(prepared) as two:
        await one.execute("SET deadlock_timeout = '9s'")
        await two.execute("SET deadlock_timeout = '10ms'")  # the victim
        for connection, first in ((one, 1), (two, 2)):
            await connection.execute("BEGIN")
            await connection.execute(f"SELECT FROM t WHERE i = {first} FOR UPDATE")
        crossing = asyncio.create_task(
            one.execute("SELECT FROM t WHERE i = 2 FOR UPDATE")
        )
        async with connected(prepared) as onlooker:
            await until_waiting(onlooker, one, "transactionid")

        error = await caught(two.execute("SELECT FROM t WHERE i = 1 FOR UPDATE"))

        await two.execute("ROLLBACK")
        await crossing
        found = classify(error)
        assert found.sqlstate == "40P01"
        assert (found.trips, found.retry) == (False, Retry.TRANSACTION)


async def until_waiting(onlooker, connection, event="PgSleep"):
    """Until the statement of *connection* waits for *event*."""
    sql = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1"
    pid = connection.get_server_pid()
    await until(lambda: onlooker.fetchval(sql, pid), lambda seen: seen == event)


async def until(ask, is_so):
    async with asyncio.timeout(10):
        seen = await ask()
        while not is_so(seen):
            await asyncio.sleep(0.002)
            seen = await ask()


@pytest.mark.parametrize(
    ("statement", "trips"),
    [
        ("LOCK TABLE t NOWAIT", False),  # control flow
        ("SELECT FROM t FOR UPDATE NOWAIT", False),
        ("LOCK TABLE t", True),  # lock_timeout
    ],
)
async def test_a_lock_that_was_waited_for_counts(prepared, statement, trips):
    async with connected(prepared) as one, connected(prepared) as two:
        await one.execute("BEGIN")
        await one.execute("SELECT FROM t FOR UPDATE")
        await two.execute("SET lock_timeout = 20")
        await two.execute("BEGIN")

        found = classify(await caught(two.execute(statement)))

        assert found.sqlstate == "55P03"
        assert found.trips is trips
        assert found.scope is (Scope.OPERATION if trips else Scope.NONE)
        assert found.retry is (Retry.TRANSACTION if trips else Retry.NEVER)


async def test_a_statement_that_somebody_cancels_counts_for_nobody(prepared):
    async with connected(prepared) as one, connected(prepared) as two:
        slow = asyncio.create_task(caught(one.execute("SELECT pg_sleep(9)")))
        await until_waiting(two, one)
        await two.execute(f"SELECT pg_cancel_backend({one.get_server_pid()})")

        found = classify(await slow)

        assert found.sqlstate == "57014"
        assert (found.trips, found.scope, found.poisoned) == (False, Scope.NONE, False)
        assert await one.fetchval("SELECT 1") == 1


# -- Sessions that end ------------------------------------------------------------


async def test_a_session_that_an_operator_ends(prepared):
    async with connected(prepared) as one, connected(prepared) as two:
        slow = asyncio.create_task(caught(one.execute("SELECT pg_sleep(9)")))
        await until_waiting(two, one)
        await two.execute(f"SELECT pg_terminate_backend({one.get_server_pid()})")

        error = await slow

        assert error.sqlstate == "08003"
        found = classify(error)
        assert found.sqlstate == "57P01"
        assert (found.trips, found.scope, found.poisoned) == (True, Scope.TARGET, True)
        assert (found.outcome, found.retry) == (Work.UNKNOWN, Retry.IDEMPOTENT)
        later = classify(await caught(one.execute("SELECT 1")))
        assert (later.trips, later.scope, later.poisoned) == (True, Scope.TARGET, True)
        commit = classify(error, phase=Phase.COMMIT)
        assert (commit.outcome, commit.retry) == (Work.UNKNOWN, Retry.NEVER)


@pytest.mark.parametrize(
    ("code", "since", "setting", "scope"),
    [
        ("25P03", 0, "idle_in_transaction_session_timeout", None),
        ("57P05", 0, "idle_session_timeout", None),
        ("25P04", 17, "transaction_timeout", Scope.OPERATION),
    ],
)
async def test_a_session_that_outstays_a_timeout(prepared, code, since, setting, scope):
    """psycopg finds the server's last words at the next use."""
    if since > major(prepared):
        return
    async with await psycopg.AsyncConnection.connect(
        prepared.dsn(), autocommit=True
    ) as connection:
        await connection.execute(f"SET {setting} = 20")
        if code != "57P05":
            await connection.execute("BEGIN")
        await gone(prepared, connection.info.backend_pid)

        error = await caught(connection.execute("SELECT 1"))

        assert error.sqlstate == code
        found = classify(error)
        assert found.trips is (scope is not None)
        assert found.scope is (scope or Scope.NONE)
        assert found.poisoned
        assert found.outcome is VERDICTS[code].outcome


async def gone(server, pid):
    sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
    async with connected(server) as onlooker:
        await until(lambda: onlooker.fetchval(sql, pid), lambda count: count == 0)


async def test_a_process_that_is_killed_takes_every_session_along(fresh_server):
    async with connected(fresh_server) as one, connected(fresh_server) as two:
        slow = asyncio.create_task(caught(one.execute("SELECT pg_sleep(9)")))
        await until_waiting(two, one)
        fresh_server.kill_backend(two.get_server_pid())

        found = classify(await slow)

        assert (found.trips, found.scope, found.poisoned) == (True, Scope.TARGET, True)
        assert found.outcome is Work.UNKNOWN
    dsn = fresh_server.dsn()
    await until(lambda: knock(dsn), lambda refusal: refusal is None)


# -- Doors ------------------------------------------------------------------------

DOORS = [
    # what, connect arguments, code, category, scope, retry
    ("password", {"password": "wrong"}, "28P01", Category.PERSISTENT, Scope.CONNECT),
    ("no login", {"user": "sleeper"}, "28000", Category.PERSISTENT, Scope.CONNECT),
    ("nosuch", {"database": "nosuch"}, "3D000", Category.PERSISTENT, Scope.CONNECT),
    ("closed", {"database": "closed"}, "55000", Category.PERSISTENT, Scope.CONNECT),
    ("private", {"database": "private"}, "42501", Category.PERSISTENT, Scope.CONNECT),
    ("role limit", {"user": "single"}, "53300", Category.SYSTEM, Scope.CONNECT),
]
DOOR_SETUP = """
CREATE ROLE sleeper NOLOGIN PASSWORD '{password}';
CREATE ROLE single LOGIN CONNECTION LIMIT 0 PASSWORD '{password}';
"""


@pytest.fixture(scope="module")
def doors(server):
    psql(server, DOOR_SETUP.format(password=server.password))
    psql(server, "CREATE DATABASE closed ALLOW_CONNECTIONS false")
    psql(server, "CREATE DATABASE private")
    psql(server, "REVOKE CONNECT ON DATABASE private FROM PUBLIC")
    yield server
    for database in ("closed", "private"):
        psql(server, f"DROP DATABASE {database}")
    psql(server, "DROP ROLE sleeper, single")


@pytest.mark.parametrize(
    ("what", "arguments", "code", "category", "scope"), DOORS, ids=lambda p: str(p)[:12]
)
async def test_a_door_that_stays_shut(doors, what, arguments, code, category, scope):
    dsn = doors.dsn(**{"user": "app_user", **arguments})
    lost = await caught(asyncpg.connect(dsn, timeout=10))
    wrapped = await caught(through_sqlalchemy(dsn, "SELECT 1"))
    untold = await caught(psycopg.AsyncConnection.connect(dsn))

    assert lost.sqlstate == code
    assert (wrapped.sqlstate if hasattr(wrapped, "sqlstate") else None) is None
    assert untold.sqlstate is None  # libpq has words alone
    assert classify(lost).sqlstate == classify(wrapped).sqlstate == code
    for error in (lost, wrapped, untold):
        found = classify(error)
        assert (found.trips, found.category, found.scope) == (True, category, scope)
        assert found.outcome is Work.NOT_EXECUTED
        assert found.retry is (
            Retry.ALWAYS if category is Category.SYSTEM else Retry.NEVER
        )
        assert not found.poisoned


async def test_an_unknown_setting_shuts_the_door(doors):
    error = await caught(connect_with(doors, {"nosuch": "1"}))

    assert error.sqlstate == "42704"
    found = classify(error)
    assert (found.trips, found.category) == (True, Category.PERSISTENT)
    assert found.scope is Scope.CONNECT


async def connect_with(server, settings):
    return await asyncpg.connect(server.dsn(), timeout=10, server_settings=settings)


async def test_a_full_server_lets_open_sessions_go_on(fresh_server):
    async with fill_connections(fresh_server):
        dsn = fresh_server.dsn(user="app_user")
        for error in (
            await caught(asyncpg.connect(dsn, timeout=10)),
            await caught(through_sqlalchemy(dsn, "SELECT 1")),
            await caught(psycopg.AsyncConnection.connect(dsn)),
        ):
            found = classify(error)
            assert (found.category, found.scope) == (Category.SYSTEM, Scope.CONNECT)
            assert (found.trips, found.retry) == (True, Retry.ALWAYS)
            assert found.outcome is Work.NOT_EXECUTED


async def test_a_server_that_is_shutting_down_or_gone(fresh_server):
    dsn = fresh_server.dsn()
    async with connected(fresh_server):
        # A smart shutdown waits for the session.
        os.kill(fresh_server.pids()[0], signal.SIGTERM)
        await until(lambda: knock(dsn), lambda refusal: refusal is not None)
        error = await knock(dsn)
        untold = await caught(psycopg.AsyncConnection.connect(dsn))

        assert error.sqlstate == "57P03"
        for found in (classify(error), classify(untold)):
            assert (found.category, found.scope) == (Category.TRANSIENT, Scope.TARGET)
            assert (found.trips, found.retry) == (True, Retry.ALWAYS)
            assert found.outcome is Work.NOT_EXECUTED
    await asyncio.to_thread(fresh_server.stop, "immediate")

    for error in (
        await caught(asyncpg.connect(dsn, timeout=10)),
        await caught(through_sqlalchemy(dsn, "SELECT 1")),
        await caught(psycopg.AsyncConnection.connect(dsn)),
    ):
        found = classify(error, strict=True)
        assert (found.category, found.scope) == (Category.TRANSIENT, Scope.TARGET)
        assert (found.trips, found.retry) == (True, Retry.ALWAYS)
        assert found.outcome is Work.NOT_EXECUTED


async def knock(dsn):
    """Connect; the error, or None when one may come in."""
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except (asyncpg.PostgresError, OSError) as error:
        return error
    connection.terminate()
    return None


async def test_a_frozen_server_is_a_timeout_of_the_phase(fresh_server):
    pool = await asyncpg.create_pool(
        fresh_server.dsn(), min_size=1, max_size=1, timeout=10
    )
    async with pool.acquire() as connection:
        full = classify(await caught(pool.acquire(timeout=0.02)), strict=True)
        fresh_server.freeze()
        try:
            slow = classify(
                await caught(asyncio.wait_for(connection.fetch("SELECT 1"), 0.05)),
                strict=True,
            )
            silent = classify(
                await caught(asyncpg.connect(fresh_server.dsn(), timeout=0.05)),
                strict=True,
            )
        finally:
            fresh_server.thaw()
    pool.terminate()

    assert (full.trips, full.scope) == (False, Scope.POOL)
    assert (slow.trips, slow.scope) == (True, Scope.OPERATION)
    assert (slow.outcome, slow.poisoned) == (Work.UNKNOWN, True)
    assert (silent.trips, silent.scope) == (True, Scope.TARGET)
    assert (silent.outcome, silent.retry) == (Work.NOT_EXECUTED, Retry.ALWAYS)


# -- Damage -----------------------------------------------------------------------


async def test_damaged_files(fresh_server):
    """A file that is gone, a page of nonsense, an index of nothing."""
    psql(
        fresh_server,
        "CREATE TABLE lost (i int); CREATE TABLE torn (i int);"
        "CREATE TABLE good (i int PRIMARY KEY);"
        "INSERT INTO lost VALUES (1); INSERT INTO torn VALUES (1);"
        "INSERT INTO good VALUES (1)",
    )
    lost, torn, index = (
        fresh_server.data / psql(fresh_server, f"SELECT pg_relation_filepath('{name}')")
        for name in ("lost", "torn", "good_pkey")
    )
    await asyncio.to_thread(fresh_server.stop, "fast")
    lost.unlink()
    torn.write_bytes(b"nonsense" * 1024)
    index.write_bytes(bytes(index.stat().st_size))
    await asyncio.to_thread(fresh_server.start)
    async with connected(fresh_server) as connection:
        await connection.execute("SET search_path = public")
        await connection.execute("SET enable_seqscan = off")
        for code, statement in (
            ("58P01", "SELECT * FROM lost"),
            ("XX001", "SELECT * FROM torn"),
            ("XX002", "SELECT * FROM good WHERE i = 1"),
        ):
            error = await caught(connection.execute(statement))

            assert error.sqlstate == code, error
            found = classify(error)
            assert (found.category, found.trips) == (Category.SYSTEM, True)
            assert (found.scope, found.poisoned) == (Scope.OPERATION, False)
            assert found.retry is Retry.NEVER
        await connection.execute("DROP TABLE torn, good")


# -- The same through other clients -----------------------------------------------

HANDFUL = ("22012", "23505", "42P01", "42601", "57014", "P0001", "54001")


async def through_sqlalchemy(dsn, *statements):
    engine = create_async_engine(
        dsn.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool
    )
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.code in HANDFUL], ids=str
)
async def test_a_wrapper_changes_no_verdict(prepared, case):
    path = "SET search_path = codes"
    statements = case.statements
    async with connected(prepared) as connection:
        await connection.execute("BEGIN")
        for statement in statements[:-1]:
            await connection.execute(statement)
        plain = classify(await caught(connection.execute(statements[-1])))

    wrapped = await caught(through_sqlalchemy(prepared.dsn(), path, *statements))

    assert isinstance(wrapped, DBAPIError)
    assert classify(wrapped) == plain
    async with await psycopg.AsyncConnection.connect(prepared.dsn()) as connection:
        await connection.execute(path)
        for statement in statements[:-1]:
            await connection.execute(statement)
        error = await caught(connection.execute(statements[-1]))
    assert classify(error) == plain
