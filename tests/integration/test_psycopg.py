"""Pools of psycopg under a breaker, on a real server that is broken in many ways."""

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import psycopg_pool
import pytest

import pgbreaker
from pgbreaker.core.states import Cause
from pgbreaker.demo.proxy import Proxy
from pgbreaker.errors import CircuitOpenError
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.pools import _KNOWN
from pgbreaker.guard.target import Target
from pgbreaker.postgres.classify import Phase
from pgbreaker.psycopg import AsyncConnectionPool, ConnectionPool
from support.guarding import at_once
from support.scraping import Pooled, pooled
from support.servers import fill_connections, psql

State = pgbreaker.State
NAMES = (f"psycopg{number}" for number in itertools.count())

RULES = PostgreSQLCircuitBreakerConfig(
    failure_threshold=5,
    success_threshold=1,
    timeout=0.2,
    max_timeout=0.4,
    pool_timeout=0.2,
    slow_call=0.3,
)


@pytest.fixture
def target():
    return Target(next(NAMES), RULES)


@contextlib.asynccontextmanager
async def opened(server, target, *, port=None, size=2, **options):
    """A pool of *size* connections, all of them made."""
    options = {"timeout": 0.5, "reconnect_timeout": 0.3} | options
    pool = AsyncConnectionPool(
        server.dsn(port=port),
        breaker=target,
        min_size=size,
        max_size=size,
        open=False,
        **options,
    )
    await pool.open(wait=True, timeout=10.0)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool, sql="SELECT 1"):
    """One unit of one statement; gives its error, None when there was none."""
    try:
        async with pool.connection() as connection:
            await connection.execute(sql)
    except Exception as error:
        return error
    return None


async def until(holds, within=5.0):
    """Wait for *holds*, a function or a coroutine function, to say so."""
    deadline = time.monotonic() + within
    while True:
        said = holds()
        if await said if asyncio.iscoroutine(said) else said:
            return
        assert time.monotonic() < deadline, f"not within {within} s"
        await asyncio.sleep(0.01)


def look(breaker):
    """Come by, for it to look at its clock, and tell it nothing."""
    with contextlib.suppress(CircuitOpenError):
        breaker.record(breaker.acquire(), ValueError())


def totals(target, operation=None):
    counted = target.breaker(operation).snapshot()["totals"]
    return {name: number for name, number in counted.items() if number}


def moves(target):
    """Every cause for which a breaker of the target has moved."""
    return {
        cause
        for breaker in target.breakers
        for _, _, cause in breaker.transitions or {}
    }


# One unit, one outcome.


async def test_all_statements_of_a_connection_are_one_call(server, target):
    async with opened(server, target) as pool, pool.connection() as connection:
        for _ in range(3):
            await connection.execute("SELECT 1")
        async with connection.transaction():
            await connection.execute("SELECT 1")

    assert totals(target) == {"success": 1}


async def test_a_connection_that_is_not_used_is_no_news(server, target):
    """A pool gives it although the server is gone."""
    async with opened(server, target) as pool, pool.connection():
        pass

    assert totals(target) == {"released": 1}


async def test_the_pair_counts_as_the_block_does(server, target):
    async with opened(server, target) as pool:
        connection = await pool.getconn()
        await connection.execute("SELECT 1")
        await pool.putconn(connection)

        lost = await pool.getconn()
        with pytest.raises(psycopg.OperationalError):
            await lost.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        assert totals(target) == {"success": 1, "failure": 1}  # at once
        await pool.putconn(lost)

    assert totals(target) == {"success": 1, "failure": 1}


async def test_a_failure_that_the_block_hides_counts_all_the_same(server, target):
    async with opened(server, target) as pool, pool.connection() as connection:
        with contextlib.suppress(psycopg.OperationalError):
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert totals(target) == {"failure": 1}


async def test_the_pool_is_as_it_was(server, target):
    """Nothing of the guard stays on a connection that is back in the pool."""
    async with opened(server, target, size=1) as pool:
        async with pool.connection() as connection:
            assert "wait" in vars(connection)
            await connection.execute("SELECT 1")
        assert "wait" not in vars(connection)
        assert isinstance(pool, psycopg_pool.AsyncConnectionPool)
        assert pool.get_stats()["requests_num"] == 1


async def test_the_kind_of_work_is_said_by_the_pool_or_around_the_call(server, target):
    async with (
        opened(server, target, size=1) as pool,
        opened(server, target, size=1, operation="report") as reports,
    ):
        with pgbreaker.operation("write"):
            assert await ask(pool) is None
        assert await ask(pool) is None
        assert await ask(reports) is None

    for operation in (None, "write", "report"):
        assert totals(target, operation) == {"success": 1}


def test_connect_is_no_kind_of_work(target):
    with pytest.raises(ValueError, match="breaker of the whole server"):
        AsyncConnectionPool("", breaker=target, operation="connect", open=False)


# What must not open.


@pytest.mark.parametrize(
    ("error", "sql"),
    [
        (psycopg.errors.UniqueViolation, "INSERT INTO once VALUES (1), (1)"),
        (psycopg.errors.SyntaxError, "SELEC 1"),
        (psycopg.errors.UndefinedTable, "SELECT * FROM nowhere"),
        (psycopg.errors.DivisionByZero, "SELECT 1 / 0"),
    ],
)
async def test_the_callers_own_mistakes_never_open(server, target, error, sql):
    psql(server, "CREATE TABLE IF NOT EXISTS once (id int PRIMARY KEY)")
    async with opened(server, target) as pool:
        for _ in range(30):
            assert isinstance(await ask(pool, sql), error)

    assert totals(target) == {"success": 30}  # the server answered
    assert moves(target) == set()


async def test_serialization_failures_never_open(server, target):
    psql(server, "CREATE TABLE IF NOT EXISTS seats (id int PRIMARY KEY, n int)")
    psql(server, "INSERT INTO seats VALUES (1, 0) ON CONFLICT DO NOTHING")

    async def book(pool, both_have_read):
        async with pool.connection() as connection:
            await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
            try:
                await connection.execute("SELECT n FROM seats")
                await both_have_read.wait()
                await connection.execute("UPDATE seats SET n = n + 1 WHERE id = 1")
                await connection.commit()
            finally:
                await connection.rollback()
                await connection.set_isolation_level(None)

    async with opened(server, target) as pool:
        for _ in range(12):
            barrier = asyncio.Barrier(2)
            ends = await asyncio.gather(
                book(pool, barrier), book(pool, barrier), return_exceptions=True
            )
            assert {type(end) for end in ends} == {
                type(None),
                psycopg.errors.SerializationFailure,
            }

    assert totals(target) == {"success": 24}
    assert moves(target) == set()


async def test_a_violation_that_comes_with_the_commit_is_raised_and_not_counted(
    server, target
):
    psql(
        server,
        "CREATE TABLE IF NOT EXISTS late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    )
    async with opened(server, target) as pool:
        for _ in range(10):
            error = await ask(pool, "INSERT INTO late VALUES (1), (1)")
            assert isinstance(error, psycopg.errors.UniqueViolation)

    assert totals(target) == {"success": 10}


async def test_errors_of_the_application_pass_through(server, target):
    async with opened(server, target) as pool:
        for kind in (ValueError, TimeoutError, ConnectionResetError) * 5:

            async def fail(kind=kind):
                async with pool.connection() as connection:
                    await connection.execute("SELECT 1")
                    raise kind

            with pytest.raises(kind):
                await fail()

    assert totals(target) == {"success": 15}


async def test_a_busy_pool_never_blames_the_server(server, target):
    """It opens for a moment, by a rule of its own, lest everybody wait."""
    async with opened(server, target, size=1, timeout=0.1) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
            errors = await asyncio.gather(*(ask(pool) for _ in range(8)))
            assert {type(error) for error in errors} == {psycopg_pool.PoolTimeout}
            assert isinstance(await ask(pool), CircuitOpenError)

        await until(lambda: target.breaker().retry_after() == 0)
        assert await ask(pool) is None

    counted = totals(target)
    assert "failure" not in counted
    assert "cut" not in counted
    assert moves(target) == {Cause.POOL_EXHAUSTED, Cause.COOLED, Cause.RECOVERED}
    assert target.connect.state is State.CLOSED
    assert not target.connect.transitions


async def test_too_many_waiting_never_blames_the_server(server, target):
    async with (
        opened(server, target, size=1, timeout=0.2, max_waiting=1) as pool,
        pool.connection(),
    ):
        errors = await asyncio.gather(*(ask(pool) for _ in range(3)))

    kinds = {type(error) for error in errors}
    assert kinds == {psycopg_pool.PoolTimeout, psycopg_pool.TooManyRequests}
    assert totals(target)["unreached"] == 3


async def test_a_pool_that_cannot_grow_is_a_busy_pool(server, target):
    """As long as it has any connection, somebody has it."""
    pool = AsyncConnectionPool(
        server.dsn(user="app_user"),
        breaker=target,
        min_size=1,
        max_size=3,
        timeout=0.2,
        open=False,
    )
    await pool.open(wait=True)
    try:
        async with fill_connections(server):
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
                errors = await asyncio.gather(*(ask(pool) for _ in range(3)))
            assert pool.get_stats()["connections_errors"] > 0
            assert await ask(pool) is None
    finally:
        await pool.close()

    assert {type(error) for error in errors} == {psycopg_pool.PoolTimeout}
    assert {error.__cause__ for error in errors} == {None}  # it is not blamed on 53300
    assert totals(target) == {"unreached": 3, "success": 2}
    assert target.connect.state is State.CLOSED


async def listen(pool):
    """Wait for a notification that never comes."""
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        await connection.execute("LISTEN nobody")
        async for _ in connection.notifies():
            raise AssertionError("nobody notifies")


async def test_listeners_who_wait_are_no_server_that_hangs(server, target):
    """Compare `test_calls_that_hang_open_before_the_pool_is_exhausted`."""
    async with opened(server, target, size=6) as pool:
        for _ in range(200):
            assert await ask(pool) is None
        listening = [asyncio.create_task(listen(pool)) for _ in range(6)]
        await until(lambda: pool.get_stats()["pool_available"] == 0)

        end = time.monotonic() + RULES.slow_call * 4
        while time.monotonic() < end:
            look(target.breaker())
            await asyncio.sleep(0.01)
        assert moves(target) == set()

        for one in listening:
            one.cancel()
        await asyncio.wait(listening)
    assert totals(target)["released"] == 6


async def test_a_session_that_ends_while_nothing_is_asked_is_lost(server, target):
    async with opened(server, target, size=1) as pool:
        listening = asyncio.create_task(listen(pool))
        ending = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query = 'LISTEN nobody' AND state = 'idle'"
        )
        await until(lambda: psql(server, ending) == "t")
        with pytest.raises(psycopg.OperationalError):
            await listening

    assert totals(target) == {"failure": 1}


# Outages.


async def test_an_outage_is_refused_at_once_and_ends(fresh_server, target):
    async with opened(fresh_server, target) as pool:
        assert await ask(pool) is None

        await asyncio.to_thread(fresh_server.stop, "fast")
        errors = await asyncio.gather(*(ask(pool) for _ in range(12)))
        assert None not in errors
        await until(lambda: moves(target) != set())

        before = pool.get_stats()["requests_num"]
        refusal = await until_refused(pool)
        began = time.monotonic()
        refusal = await ask(pool)
        assert isinstance(refusal, CircuitOpenError)
        assert time.monotonic() - began < 0.05
        assert refusal.last_error is not None
        assert pool.get_stats()["requests_num"] - before <= 3  # trials

        await asyncio.to_thread(fresh_server.start)

        async def is_well():
            return await ask(pool) is None

        await until(is_well, within=5.0)


async def until_refused(pool, within=5.0):
    found = []

    async def is_refused():
        found.append(await ask(pool))
        return isinstance(found[-1], CircuitOpenError)

    await until(is_refused, within)
    return found[-1]


async def test_a_pool_that_cannot_connect_blames_the_server(fresh_server, target):
    """Nobody has a connection, so nobody keeps one: it is not the pool that is full."""
    await asyncio.to_thread(fresh_server.stop, "fast")
    pool = AsyncConnectionPool(
        fresh_server.dsn(), breaker=target, min_size=1, timeout=0.2, open=False
    )
    await pool.open()
    try:
        errors = await asyncio.gather(*(ask(pool) for _ in range(5)))
    finally:
        await pool.close()

    assert {type(error) for error in errors} == {psycopg_pool.PoolTimeout}
    assert "connection failed" in str(errors[0].__cause__)
    assert totals(target) == {"failure": 5}
    assert target.breaker().state is State.OPEN
    assert target.breaker().core.cause is Cause.FAILURE_RUN


async def test_attempts_to_connect_open_before_anybody_has_waited(fresh_server, target):
    """The pool's own attempts tell of an outage, while callers wait for their turn."""
    async with opened(fresh_server, target, size=12, timeout=30.0) as pool:
        await asyncio.to_thread(fresh_server.stop, "fast")
        await asyncio.gather(*(ask(pool) for _ in range(12)))

        await until(lambda: target.connect.state is State.OPEN, within=5.0)
        began = time.monotonic()
        assert isinstance(await ask(pool), CircuitOpenError)
        assert time.monotonic() - began < 0.1


async def test_reconnect_failed_of_the_application_is_called(fresh_server, target):
    told = []
    async with opened(fresh_server, target, size=1, reconnect_failed=told.append) as it:
        await asyncio.to_thread(fresh_server.stop, "fast")
        assert await ask(it) is not None

        await until(lambda: told == [it])


async def test_wrong_settings_of_the_application_are_its_own(server, target):
    """A *configure* that fails lets nobody in, and says nothing of the server."""

    async def configure(connection):
        await connection.execute("SELEC 1")

    pool = AsyncConnectionPool(
        server.dsn(),
        breaker=target,
        min_size=1,
        timeout=0.2,
        open=False,
        configure=configure,
    )
    await pool.open()
    try:
        assert isinstance(await ask(pool), psycopg_pool.PoolTimeout)
    finally:
        await pool.close()

    assert totals(target) == {"unreached": 1}
    assert not target.connect.core.window.counts().failed


async def test_a_frozen_server_is_refused_within_the_pools_timeout(
    fresh_server, target
):
    """Those who wait for the server cannot be helped; nobody joins them."""
    async with opened(fresh_server, target, size=3, timeout=0.5) as pool:
        for _ in range(20):
            assert await ask(pool) is None
        fresh_server.freeze()
        waiting = [asyncio.create_task(ask(pool)) for _ in range(10)]

        began = time.monotonic()
        await until(lambda: target.breaker().state is State.OPEN, within=1.5)
        assert isinstance(await ask(pool), CircuitOpenError)
        assert time.monotonic() - began < 1.0
        assert target.connect.state is State.CLOSED  # it cannot know

        fresh_server.thaw()
        errors = await asyncio.gather(*waiting)
        assert errors.count(None) >= 3

        async def is_well():
            return await ask(pool) is None

        await until(is_well, within=3.0)


async def test_callers_who_lose_patience_with_a_server_that_lets_nobody_in_count(
    fresh_server, target
):
    """They give up long before the pool does; were they neutral, nothing would open."""
    fresh_server.freeze()
    pool = AsyncConnectionPool(
        fresh_server.dsn(), breaker=target, min_size=1, timeout=30.0, open=False
    )
    await pool.open()
    try:
        await until(lambda: pool._guard._attempts)
        asking = [asyncio.create_task(ask(pool)) for _ in range(6)]
        await until(lambda: pool.get_stats()["requests_waiting"] == 6)
        asking[0].cancel()  # at once
        await asyncio.wait(asking[:1])
        await asyncio.sleep(RULES.slow_call * 1.2)  # a call of that length is slow
        for one in asking[1:]:
            one.cancel()
        await asyncio.wait(asking)
    finally:
        fresh_server.thaw()
        await pool.close()

    assert all(one.cancelled() for one in asking)
    assert totals(target) == {"released": 1, "cut": 5, "slow": 5}
    assert target.breaker().state is State.OPEN


async def test_calls_that_hang_open_before_the_pool_is_exhausted(fresh_server, target):
    async with opened(fresh_server, target, size=8, timeout=30.0) as pool:
        for _ in range(200):
            assert await ask(pool) is None
        fresh_server.freeze()
        waiting = [asyncio.create_task(ask(pool)) for _ in range(6)]
        await until(lambda: pool.get_stats()["pool_available"] == 2)

        def is_open():
            look(target.breaker())
            return target.breaker().state is State.OPEN

        await until(is_open, within=3.0)
        assert target.breaker().core.cause is Cause.HANGING

        fresh_server.thaw()
        assert await asyncio.gather(*waiting) == [None] * 6


async def test_the_burst_after_a_restart_does_not_open(fresh_server, target):
    """All of them ended at once, which is one event."""
    size = 15  # of 20 that the server takes
    async with opened(fresh_server, target, size=size, timeout=5.0) as pool:
        await asyncio.to_thread(fresh_server.stop, "fast")
        await asyncio.to_thread(fresh_server.start)

        errors = await asyncio.gather(*(ask(pool) for _ in range(size)))
        assert None not in errors
        assert await ask(pool) is None

    assert totals(target) == {"success": 1, "failure": 1, "released": size - 1}
    assert moves(target) == set()


async def test_every_session_has_its_age_from_when_it_was_made(server, target):
    """What the pool calls to connect is not public: it could go away."""
    began = time.monotonic()
    async with opened(server, target, size=2) as pool:
        ready = time.monotonic()
        async with pool.connection() as connection:
            assert began <= pool._guard._made[connection] <= ready
        assert len(pool._guard._made) == 2
        assert not pool._guard._attempts


async def test_a_commit_that_is_lost_is_told_from_a_statement(server, target):
    psql(
        server,
        "CREATE TABLE IF NOT EXISTS slow_commit (id int);"
        " CREATE OR REPLACE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_sleep(1); RETURN NULL; END$$;"
        " DROP TRIGGER IF EXISTS nap ON slow_commit;"
        " CREATE CONSTRAINT TRIGGER nap AFTER INSERT ON slow_commit"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION nap()",
    )
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        opened(server, target, port=proxy.port) as pool,
    ):
        units = []

        async def write():
            async with pool.connection() as connection:
                units.append(pool._guard._units[connection])
                await connection.execute("INSERT INTO slow_commit VALUES (1)")

        writing = asyncio.create_task(write())
        await until(lambda: units and units[0].phase is Phase.COMMIT)
        proxy.reset()
        with pytest.raises(psycopg.OperationalError):
            await writing
        proxy.restore()

    assert units[0].phase is Phase.COMMIT
    assert totals(target) == {"failure": 1}


# Those who walk away.


async def test_a_cancelled_statement_is_neutral_and_gives_its_connection_back(
    server, target
):
    async with opened(server, target, size=1) as pool:
        for number in range(8):
            asking = asyncio.create_task(ask(pool, "SELECT pg_sleep(30)"))
            await until(lambda: target.breaker().core.flights.out)
            if number < 2:  # overdue, but a server that is well lets go of it
                await asyncio.sleep(RULES.slow_call * 1.2)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

        assert await ask(pool) is None
    assert totals(target) == {"released": 8, "success": 1}
    assert target.breaker().core.flights.out == 0


async def test_whoever_is_cancelled_between_statements_is_neutral(server, target):
    """However long the application has taken over its own affairs."""
    async with opened(server, target, size=1) as pool:

        async def take_long():
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
                async with asyncio.timeout(RULES.slow_call * 1.5):
                    await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await take_long()
        assert totals(target) == {"success": 1}  # an error of its own

        taking = asyncio.create_task(take_long())
        await until(lambda: pool.get_stats()["pool_available"] == 0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
    assert totals(target) == {"success": 1, "released": 1}


async def test_whoever_is_cancelled_while_waiting_for_his_turn_is_neutral(
    server, target
):
    async with (
        opened(server, target, size=1, timeout=30.0) as pool,
        pool.connection() as connection,
    ):
        await connection.execute("SELECT 1")
        asking = [asyncio.create_task(ask(pool)) for _ in range(8)]
        await until(lambda: pool.get_stats()["requests_waiting"] == 8)
        await asyncio.sleep(RULES.slow_call * 1.2)  # a call of that length is slow
        for one in asking:
            one.cancel()
        await asyncio.wait(asking)
        assert all(one.cancelled() for one in asking)
    assert totals(target) == {"released": 8, "success": 1}


async def test_a_generator_that_is_left_is_neutral(server, target):
    async with opened(server, target, size=1) as pool:

        async def rows():
            async with pool.connection() as connection, connection.cursor() as cursor:
                async for row in cursor.stream("SELECT generate_series(1, 100)"):
                    yield row

        async with contextlib.aclosing(rows()) as found:
            async for row in found:
                assert row == (1,)
                break

        assert await ask(pool) is None
    assert totals(target) == {"released": 1, "success": 1}


async def test_a_cancelled_trial_gives_its_place_back(server, target):
    async with opened(server, target, size=2) as pool:
        breaker = target.breaker()
        for _ in range(5):
            breaker.record(breaker.acquire(), ConnectionResetError())
        await until(lambda: breaker.retry_after() == 0)

        trial = asyncio.create_task(ask(pool, "SELECT pg_sleep(30)"))
        await until(lambda: breaker.state is State.HALF_OPEN)
        assert isinstance(await ask(pool), CircuitOpenError)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial

        await until_well(pool)
        assert breaker.state is State.CLOSED


async def until_well(pool, within=5.0):
    async def is_well():
        return await ask(pool) is None

    await until(is_well, within)


# Threads.


@contextlib.contextmanager
def opened_for_threads(server, target, *, size=2, **options):
    options = {"timeout": 0.5, "reconnect_timeout": 0.3} | options
    with ConnectionPool(
        server.dsn(),
        breaker=target,
        min_size=size,
        max_size=size,
        open=False,
        **options,
    ) as pool:
        pool.wait(10.0)
        yield pool


def ask_blocking(pool, sql="SELECT 1"):
    try:
        with pool.connection() as connection:
            connection.execute(sql)
    except Exception as error:
        return error
    return None


def until_blocking(holds, within=5.0):
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.01)


def ask_together(pool, number, sql="SELECT 1"):
    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(ask_blocking, [pool] * number, [sql] * number))


def test_threads_mistakes_never_open(server, target):
    with opened_for_threads(server, target) as pool:
        errors = ask_together(pool, 10, "SELEC 1")
        assert {type(error) for error in errors} == {psycopg.errors.SyntaxError}
        connection = pool.getconn()
        connection.execute("SELECT 1")
        pool.putconn(connection)
        with pool.connection():
            pass

    assert totals(target) == {"success": 11, "released": 1}
    assert moves(target) == set()


def test_threads_in_an_outage_are_refused_at_once_and_it_ends(fresh_server, target):
    with opened_for_threads(fresh_server, target) as pool:
        assert ask_blocking(pool) is None
        fresh_server.kill()

        assert None not in ask_together(pool, 12)
        until_blocking(lambda: isinstance(ask_blocking(pool), CircuitOpenError))
        assert "failure" in totals(target)

        fresh_server.start()
        until_blocking(lambda: ask_blocking(pool) is None)


def test_threads_in_a_busy_pool_never_blame_the_server(server, target):
    with opened_for_threads(server, target, size=1, timeout=0.1) as pool:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
            errors = ask_together(pool, 8)
        assert {type(error) for error in errors} == {psycopg_pool.PoolTimeout}

    assert "failure" not in totals(target)
    assert not target.connect.transitions


def test_threads_after_a_restart_do_not_open(fresh_server, target):
    with opened_for_threads(fresh_server, target, size=15, timeout=5.0) as pool:
        fresh_server.stop("fast")
        fresh_server.start()

        assert None not in ask_together(pool, 15)
        until_blocking(lambda: ask_blocking(pool) is None)

    assert totals(target)["failure"] == 1
    assert moves(target) == set()


def test_threads_with_a_frozen_server_are_refused(fresh_server, target):
    with (
        opened_for_threads(fresh_server, target, size=2, timeout=0.3) as pool,
        ThreadPoolExecutor(10) as threads,
    ):
        assert ask_blocking(pool) is None
        fresh_server.freeze()
        asking = [threads.submit(ask_blocking, pool) for _ in range(10)]

        until_blocking(
            lambda: target.breaker().state is State.OPEN,
            within=2.0,
        )
        assert isinstance(ask_blocking(pool), CircuitOpenError)
        fresh_server.thaw()
        assert [one.result() for one in asking].count(None) >= 2


def test_threads_reconnect_failed_is_called(fresh_server, target):
    told = []
    with opened_for_threads(
        fresh_server, target, size=1, reconnect_failed=told.append
    ) as pool:
        fresh_server.stop("fast")
        assert ask_blocking(pool) is not None

        until_blocking(lambda: told == [pool])


# What is told of the pool.


def working(pool, callers):
    """So many callers who have a connection or wait for one, until the block ends."""

    async def work():
        async with pool.connection():
            await asyncio.Event().wait()

    return at_once(work, callers)


async def test_a_scrape_tells_that_a_pool_is_exhausted_and_who_waits(server, target):
    async with opened(server, target, size=2, timeout=5.0) as pool:
        before = pooled(target.name)
        async with working(pool, 2):
            await until(lambda: pooled(target.name).used == 2)
            full = pooled(target.name)
            async with working(pool, 3):
                await until(lambda: pooled(target.name).waiters == 3)
                exhausted = pooled(target.name)
            given_up = pooled(target.name)
        await until(lambda: pooled(target.name).idle == 2)
        after = pooled(target.name)

    assert before == after == Pooled(used=0, idle=2, max=2, waiters=0)
    assert full == given_up == Pooled(used=2, idle=0, max=2, waiters=0)
    assert exhausted == Pooled(used=2, idle=0, max=2, waiters=3)
    assert pooled(target.name) == Pooled()  # it is closed


async def test_callers_whose_time_is_up_are_waiters_no_more(server, target):
    """The pool's own figure holds them until a connection comes back."""
    async with opened(server, target, size=1) as pool, pool.connection():
        errors = [await pool_error(pool, timeout=0.02) for _ in range(3)]

        assert errors == [psycopg_pool.PoolTimeout] * 3
        assert pool.get_stats()["requests_waiting"] == 3
        assert pooled(target.name) == Pooled(used=1, idle=0, max=1, waiters=0)


async def pool_error(pool, **options):
    """The class of the error that asking for a connection raises."""
    try:
        async with pool.connection(**options):
            return None
    except psycopg_pool.PoolTimeout as error:
        return type(error)


def test_a_scrape_tells_it_of_threads_too(server, target):
    is_over = threading.Event()

    def work(pool):
        with pool.connection():
            assert is_over.wait(30)

    with (
        ConnectionPool(
            server.dsn(), breaker=target, min_size=2, max_size=2, timeout=30, open=True
        ) as pool,
        ThreadPoolExecutor(5) as threads,
    ):
        done = [threads.submit(work, pool) for _ in range(5)]
        try:
            asyncio.run(until(lambda: pooled(target.name).waiters == 3))
            asyncio.run(until(lambda: pooled(target.name).used == 2))
            exhausted = pooled(target.name)
        finally:
            is_over.set()
        for one in done:
            one.result()

    assert exhausted == Pooled(used=2, idle=0, max=2, waiters=3)
    assert pooled(target.name) == Pooled()


async def test_connections_that_cannot_be_made_are_not_used(server, target):
    """The pool counts them among its own all the same."""
    async with Proxy("127.0.0.1", server.port) as proxy:
        proxy.blackhole()
        pool = AsyncConnectionPool(
            server.dsn(port=proxy.port),
            breaker=target,
            min_size=2,
            max_size=2,
            timeout=5.0,
            open=False,
        )
        closed = pooled(target.name)
        await pool.open()
        async with working(pool, 1):
            await until(lambda: pooled(target.name).waiters == 1)
            making = pooled(target.name)
            stats = pool.get_stats()
        proxy.restore()  # first: closing waits for whoever connects
        await pool.close()

    assert closed == Pooled()
    assert making == Pooled(used=0, idle=0, max=2, waiters=1)
    assert (stats["pool_size"], stats["pool_available"]) == (2, 0)


async def test_a_pool_that_nobody_has_any_more_is_told_of_no_more(server, target):
    pool = AsyncConnectionPool(server.dsn(), breaker=target, min_size=1, open=False)
    await pool.open(wait=True)
    assert pooled(target.name).max == 1
    await pool.close()

    del pool
    gc.collect()

    assert target.name not in {entry.target for entry in _KNOWN.all if entry.pool()}
