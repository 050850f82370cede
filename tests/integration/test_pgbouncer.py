"""What pgbouncer says for a server, and for itself: is each of it read rightly?

It has one SQLSTATE for all, 08P01, and words; and sits between two failures that a
breaker must not mix up: a server that is gone, and a session that shares its prepared
statements with strangers.
"""

import asyncio
import contextlib
import itertools
import time

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pgbreaker import CircuitOpenError, State
from pgbreaker.asyncpg import protect
from pgbreaker.postgres.classify import Phase, classify
from pgbreaker.postgres.sqlstates import Category, Retry, Scope, Work
from support.guarding import outcome, target, totals, until
from support.pooler import running_pooler
from support.servers import fill_connections, psql, running_server

__all__ = ["target"]

SLOW = (f"SELECT pg_sleep(9) -- {number}" for number in itertools.count())
"""Statements that take their time, each to be told from those of other tests."""

# What has to come out: category, trips, scope, retry, outcome.
UNSERVED = Category.TRANSIENT, True, Scope.TARGET, Retry.ALWAYS, Work.NOT_EXECUTED
LOST = Category.TRANSIENT, True, Scope.TARGET, Retry.IDEMPOTENT, Work.UNKNOWN
LATE = Category.TRANSIENT, True, Scope.OPERATION, Retry.IDEMPOTENT, Work.UNKNOWN
SHUT = Category.PERSISTENT, True, Scope.CONNECT, Retry.NEVER, Work.NOT_EXECUTED
FULL = Category.SYSTEM, True, Scope.CONNECT, Retry.ALWAYS, Work.NOT_EXECUTED
ANSWERED = Category.QUERY, False, Scope.NONE, Retry.NEVER, Work.NOT_EXECUTED


def verdict(error, phase=None):
    found = classify(error, phase=phase)
    return found.category, found.trips, found.scope, found.retry, found.outcome


@pytest.fixture(scope="module")
def backing():
    """One major is enough: it is the pooler that talks."""
    with running_server(15) as server:
        yield server


@pytest.fixture
def server(backing):
    """The server behind the pooler; what a test stops is started afterwards."""
    yield backing
    backing.start()


@pytest.fixture
def pooler(server):
    with running_pooler(server) as pooler:
        yield pooler


# -- Ways to ask ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connected(pooler, **more):
    """A session of asyncpg's that caches no statements, unless it is told to."""
    more = {"statement_cache_size": 0, "timeout": 10} | more
    connection = await asyncpg.connect(pooler.dsn(), **more)
    try:
        yield connection
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def holding_the_only_server(pooler):
    async with connected(pooler) as connection:
        await connection.execute("BEGIN")
        yield


async def through_asyncpg(dsn, sql="SELECT 1"):
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    try:
        return await connection.fetch(sql)
    finally:
        connection.terminate()


async def through_psycopg(dsn, sql="SELECT 1"):
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as session:
        return await (await session.execute(sql)).fetchall()


async def through_sqlalchemy(dsn, sql="SELECT 1"):
    engine = create_async_engine(
        dsn.replace("postgresql://", "postgresql+asyncpg://"),
        poolclass=NullPool,
        connect_args={"statement_cache_size": 0},
    )
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text(sql))).all()
    finally:
        await engine.dispose()


DRIVERS = [through_asyncpg, through_psycopg]
WAYS = [*DRIVERS, through_sqlalchemy]


@pytest.fixture(params=DRIVERS)
def ask(request):
    """A way to ask one question in a session of its own; gives rows or the error."""
    return lambda dsn, *sql: outcome(request.param(dsn, *sql))


@pytest.fixture(params=WAYS)
def ask_or_wrap(request):
    """The same, and through SQLAlchemy, which wraps the errors."""
    return lambda dsn, *sql: outcome(request.param(dsn, *sql))


async def until_running(server, sql):
    """Until the server is at work on *sql*; gives the process that is."""
    # By what it waits for: it is active on the statement while it only parses it.
    pids = (
        "SELECT pid FROM pg_stat_activity"
        f" WHERE query = '{sql}' AND wait_event = 'PgSleep'"
    )
    await until(lambda: psql(server, pids) != "")
    return int(psql(server, pids))


async def until_answered(call):
    """Until *call* ends without an error, and the server is well again."""
    begun = time.monotonic()
    while isinstance(error := await outcome(call()), Exception):
        assert time.monotonic() - begun < 10, error
        await asyncio.sleep(0.01)


async def test_what_is_well_gets_through(pooler, ask_or_wrap):
    assert [tuple(row) for row in await ask_or_wrap(pooler.dsn())] == [(1,)]


# -- The pooler has no server to give ---------------------------------------------


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pool_that_is_taken_is_the_targets_failure(server, mode):
    with running_pooler(server, mode) as pooler:
        async with holding_the_only_server(pooler):
            errors = await asyncio.gather(
                *(outcome(through(pooler.dsn())) for through in WAYS)
            )

    for error in errors:
        assert "query_wait_timeout" in str(error)
        assert verdict(error) == UNSERVED


async def test_a_pause_is_the_targets_failure(pooler, ask):
    await ask(pooler.dsn())
    pooler.tell("PAUSE app")

    error = await ask(pooler.dsn())

    assert "query_wait_timeout" in str(error)
    assert verdict(error) == UNSERVED
    pooler.tell("RESUME app")
    assert len(await ask(pooler.dsn())) == 1


async def test_a_pause_before_the_first_session_is_the_targets_failure(pooler, ask):
    """The pooler has no greeting of the server's to show: the login itself waits."""
    pooler.tell("PAUSE app")

    error = await ask(pooler.dsn())

    assert verdict(error, Phase.CONNECT) == UNSERVED


async def test_a_server_that_is_gone_is_the_targets_failure(
    server, pooler, ask_or_wrap
):
    await ask_or_wrap(pooler.dsn())
    server.stop()

    errors = [await ask_or_wrap(pooler.dsn()) for _ in range(2)]

    assert "server login has been failing" in str(errors[1])
    assert [verdict(error) for error in errors] == [UNSERVED, UNSERVED]


async def test_a_server_that_is_gone_from_the_start_is_the_targets_failure(
    server, pooler, ask
):
    server.stop()

    error = await ask(pooler.dsn())

    assert verdict(error, Phase.CONNECT) == UNSERVED


async def test_sessions_that_outlive_their_server_tell_of_it(server, pooler):
    dsn = pooler.dsn()
    async with (
        connected(pooler) as one,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as two,
    ):
        await one.fetch("SELECT 1")
        server.stop()

        errors = [await outcome(each.execute("SELECT 1")) for each in (one, two)]

    assert [verdict(error) for error in errors] == [UNSERVED, UNSERVED]


# -- Sessions that end under their users ------------------------------------------


async def test_a_server_process_that_ends_takes_the_statement_along(
    server, pooler, ask
):
    sql = next(SLOW)
    running = asyncio.create_task(ask(pooler.dsn(), sql))
    pid = await until_running(server, sql)
    psql(server, f"SELECT pg_terminate_backend({pid})")

    assert verdict(await running) == LOST


async def test_a_server_process_that_crashes_takes_the_statement_along(
    server, pooler, ask_or_wrap
):
    sql = next(SLOW)
    running = asyncio.create_task(ask_or_wrap(pooler.dsn(), sql))
    server.kill_backend(await until_running(server, sql))

    error = await running

    assert "server conn crashed" in str(error)
    assert verdict(error) == LOST
    assert classify(error).poisoned
    await until_answered(lambda: through_asyncpg(server.dsn()))


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_pooler_that_ends_takes_the_statement_along(server, pooler, ask, end):
    sql = next(SLOW)
    running = asyncio.create_task(ask(pooler.dsn(), sql))
    await until_running(server, sql)
    getattr(pooler, end)()

    assert verdict(await running) == LOST
    assert verdict(await ask(pooler.dsn())) == UNSERVED  # nobody listens


async def test_a_kill_at_the_console_is_a_lost_session_then_a_pause(
    server, pooler, ask
):
    sql = next(SLOW)
    running = asyncio.create_task(ask(pooler.dsn(), sql))
    await until_running(server, sql)
    pooler.tell("KILL app")

    assert verdict(await running) == LOST
    assert verdict(await ask(pooler.dsn()), Phase.CONNECT) == UNSERVED


async def test_a_statement_beyond_the_poolers_limit_is_this_operations(server, ask):
    with running_pooler(server, query_timeout="0.1") as pooler:
        error = await ask(pooler.dsn(), next(SLOW))

    assert "query timeout" in str(error)
    assert verdict(error) == LATE


@pytest.mark.parametrize(
    ("limit", "words", "autocommit"),
    [
        ("idle_transaction_timeout", "idle transaction timeout", False),
        pytest.param(
            *("client_idle_timeout", "client_idle_timeout", True),
        ),
    ],
)
async def test_a_session_that_idles_too_long_is_its_users_fault(
    server, limit, words, autocommit
):
    """psycopg finds the pooler's last words at the next use; asyncpg drops them."""
    with running_pooler(server, **{limit: "0.05"}) as pooler:
        async with await psycopg.AsyncConnection.connect(
            pooler.dsn(), autocommit=autocommit
        ) as session:
            await session.execute("SELECT 1")
            await until(lambda: f"closing because: {words}" in pooler.log())

            found = classify(await outcome(session.execute("SELECT 1")))

    assert (found.category, found.trips) == (Category.APPLICATION, False)
    assert found.poisoned


# -- Doors ------------------------------------------------------------------------

DOORS = {
    "no such database": ({"database": "nosuch"}, SHUT),
    "nor at the server": ({"database": "misnamed"}, SHUT),
    "disabled": ({}, SHUT),
    "wrong password": ({"password": "wrong"}, SHUT),
    "no such user": ({"user": "nobody"}, SHUT),
    "max_client_conn": ({}, FULL),
    "full server": ({}, FULL),
}


@contextlib.asynccontextmanager
async def shut(what, server):
    """A pooler that lets nobody in, for the reason *what*."""
    # Patient enough to try the server again, and say what that said.
    settings = {"query_wait_timeout": "5"}
    if what == "max_client_conn":
        settings["max_client_conn"] = "1"
    with running_pooler(server, **settings) as pooler:
        async with contextlib.AsyncExitStack() as stack:
            if what == "disabled":
                pooler.tell("DISABLE app")
            elif what == "max_client_conn":
                await stack.enter_async_context(connected(pooler))
            elif what == "full server":
                await stack.enter_async_context(fill_connections(server))
            yield pooler


@pytest.mark.parametrize("what", DOORS)
async def test_a_door_that_is_shut(server, ask_or_wrap, what):
    arguments, expected = DOORS[what]
    async with shut(what, server) as pooler:
        error = await ask_or_wrap(pooler.dsn(**arguments))

    assert isinstance(error, Exception)
    assert verdict(error, Phase.CONNECT) == expected


async def test_a_door_that_is_shut_is_known_without_the_phase(pooler):
    """
    pgbouncer 1.18 has its severity in the old field alone (S, no V), in English
    always.
    """
    for what in ("no such database", "wrong password"):
        arguments, expected = DOORS[what]
        for through in WAYS:
            error = await outcome(through(pooler.dsn(**arguments)))

            assert verdict(error) == expected, (what, error)


# -- Prepared statements of strangers ---------------------------------------------


@contextlib.asynccontextmanager
async def caching_in_asyncpg(pooler):
    async with connected(pooler, statement_cache_size=100) as connection:
        yield lambda: connection.fetch("SELECT 1")


@contextlib.asynccontextmanager
async def caching_in_psycopg(pooler):
    async with await psycopg.AsyncConnection.connect(
        pooler.dsn(), autocommit=True, prepare_threshold=0
    ) as session:
        yield lambda: session.execute("SELECT 1")


@contextlib.asynccontextmanager
async def caching_in_sqlalchemy(pooler):
    engine = create_async_engine(
        pooler.dsn().replace("postgresql://", "postgresql+asyncpg://")
    )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield lambda: connection.execute(text("SELECT 1"))
    await engine.dispose()


CACHES = [caching_in_asyncpg, caching_in_psycopg, caching_in_sqlalchemy]


async def discard(pooler):
    """What another client of the pooler does when it cleans up."""
    async with connected(pooler) as stranger:
        await stranger.execute("DISCARD ALL")


@pytest.mark.parametrize("caching", CACHES)
async def test_a_statement_that_a_stranger_discarded_never_trips(pooler, caching):
    async with caching(pooler) as fetch:
        await fetch()
        await discard(pooler)

        error = await outcome(fetch())

        assert classify(error).sqlstate == "26000"
        assert verdict(error) == ANSWERED
        assert not classify(error).poisoned


async def test_a_statement_that_a_stranger_named_first_never_trips(pooler):
    """Processes give the same names: psycopg's connections, asyncpg's processes."""
    async with (
        caching_in_psycopg(pooler) as fetch,
        caching_in_psycopg(pooler) as fetch_too,
        connected(pooler) as one,
        connected(pooler) as two,
    ):
        await fetch()
        taken = await outcome(fetch_too())
        await (await one.prepare("SELECT 1", name="mine")).fetch()
        taken_too = await outcome(two.prepare("SELECT 2", name="mine"))

    for error in (taken, taken_too):
        assert classify(error).sqlstate == "42P05"
        assert verdict(error) == ANSWERED
        assert not classify(error).poisoned


# -- A protected pool through the pooler ------------------------------------------


@contextlib.asynccontextmanager
async def protected(pooler, target, **more):
    raw = await asyncpg.create_pool(pooler.dsn(), min_size=1, max_size=4, **more)
    try:
        yield protect(raw, breaker=target, timeout=2, acquire_timeout=2)
    finally:
        raw.terminate()


async def until_open(pool):
    begun = time.monotonic()
    while pool.target.breaker().passes:
        assert time.monotonic() - begun < 10, "it did not open in time"
        await outcome(pool.fetchval("SELECT 1"))


async def test_a_dead_server_behind_the_pooler_opens_and_a_live_one_closes(
    server, pooler, target
):
    async with protected(pooler, target, statement_cache_size=0) as pool:
        assert await pool.fetchval("SELECT 1") == 1
        server.stop()

        await until_open(pool)

        assert isinstance(await outcome(pool.fetchval("SELECT 1")), CircuitOpenError)
        server.start()
        await until_answered(lambda: pool.fetchval("SELECT 1"))
        await until(lambda: target.breaker().state is State.CLOSED)


async def test_a_dead_pooler_opens_and_a_live_one_closes(pooler, target):
    async with protected(pooler, target, statement_cache_size=0) as pool:
        assert await pool.fetchval("SELECT 1") == 1
        pooler.kill()

        await until_open(pool)

        assert isinstance(await outcome(pool.fetchval("SELECT 1")), CircuitOpenError)
        pooler.start()
        await until_answered(lambda: pool.fetchval("SELECT 1"))
        await until(lambda: target.breaker().state is State.CLOSED)


async def test_a_storm_of_strangers_statements_never_opens(pooler, target):
    async with protected(pooler, target) as pool:
        await pool.fetchval("SELECT 1")
        for _ in range(30):
            await discard(pooler)

            error = await outcome(pool.fetchval("SELECT 1"))

            assert error.sqlstate == "26000"

        assert target.breaker().state is State.CLOSED
        assert "failure" not in totals(target.breaker())
        assert target.connect.state is State.CLOSED
