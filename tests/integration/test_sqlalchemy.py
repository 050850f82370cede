"""SQLAlchemy's engines and sessions behind a breaker, on real servers that break.

The traps are those that guards of engines fall into; each test names the one that it
stands at.
"""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from weakref import ref

import pytest
from sqlalchemy import NullPool, StaticPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from pgbreaker import (
    CallTimeoutError,
    CircuitBreakerIntegratedSessionManager,
    CircuitOpenError,
    State,
    Target,
    operation,
)
from pgbreaker.core.states import Cause
from pgbreaker.demo.proxy import Proxy
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.sqlalchemy import protect
from pgbreaker.sqlalchemy.engine import target_of
from support.guarding import QUICK, at_once, outcome, target, totals, until
from support.scraping import Pooled, pooled
from support.servers import psql

__all__ = ["target"]

ONE = text("SELECT 1")


def url_of(server, driver="asyncpg", port=None):
    dsn = server.dsn(user="app_user", database="app", port=port)
    return dsn.replace("postgresql://", f"postgresql+{driver}://")


@pytest.fixture
def items(server):
    psql(
        server,
        "CREATE TABLE IF NOT EXISTS item (id int PRIMARY KEY, n int,"
        " UNIQUE (n) DEFERRABLE INITIALLY DEFERRED);"
        " TRUNCATE item; GRANT ALL ON item TO app_user",
        database="app",
    )


@asynccontextmanager
async def protected(server, target, *, port=None, **options):
    engine = create_async_engine(url_of(server, port=port), **options)
    protect(engine, breaker=target)
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture
async def engine(server, target):
    async with protected(server, target, pool_size=3, max_overflow=0) as engine:
        yield engine


@pytest.fixture
async def manager(engine):
    return CircuitBreakerIntegratedSessionManager(
        session_manager=async_sessionmaker(engine)
    )


async def ask(manager, statement=ONE, **more):
    async with manager.get_session(**more) as session:
        return (await session.execute(statement)).scalar()


async def wreck(server, manager, times=10):
    """Stop the server and find out by asking."""
    server.kill()
    for _ in range(times):
        await outcome(ask(manager))


# What is guarded, and how often it counts.


async def test_a_unit_of_work_counts_once_whatever_it_does(manager, target):
    async with manager.get_session() as session:
        for _ in range(5):
            await session.execute(ONE)
        await session.commit()
        await session.execute(ONE)

    # Two checkouts: the commit gave the first connection back.
    assert totals(target.breaker("read")) == {"success": 2}


async def test_a_session_that_asks_nothing_counts_for_nothing(manager, target):
    async with manager.get_session():
        pass

    assert totals(target.breaker("read")) == {}


async def test_success_counts_only_when_the_connection_is_back(manager, target):
    async with manager.get_session() as session:
        await session.execute(ONE)
        before = totals(target.breaker("read"))

    assert before == {}
    assert totals(target.breaker("read")) == {"success": 1}


async def test_failing_savepoints_in_a_good_transaction_are_a_success(manager, target):
    async with manager.transaction() as session:
        for sql in ("SELECT 1/0", "SELECT * FROM missing"):
            with pytest.raises(DBAPIError):
                async with session.begin_nested():
                    await session.execute(text(sql))
        await session.execute(ONE)

    assert totals(target.breaker("write")) == {"success": 1}


async def test_errors_of_the_application_within_a_session_count_for_nothing(
    manager, target
):
    class NotFoundError(Exception):
        pass

    async def look_up():
        async with manager.get_session() as session:
            await session.execute(ONE)
            raise NotFoundError

    for _ in range(20):
        assert isinstance(await outcome(look_up()), NotFoundError)

    assert totals(target.breaker("read")) == {"success": 20}


async def test_a_timeout_of_the_applications_own_is_not_the_servers(manager, target):
    async def call_somebody_else():
        async with manager.get_session() as session:
            await session.execute(ONE)
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)

    for _ in range(10):
        assert isinstance(await outcome(call_somebody_else()), TimeoutError)

    assert totals(target.breaker("read")) == {"success": 10}


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "INSERT INTO item VALUES (1, 1), (1, 1)",
        "DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$",
        "DO $$ BEGIN RAISE 'no' USING ERRCODE = '40P01'; END $$",
        "SELECT pg_cancel_backend(pg_backend_pid())",
    ],
    ids=["syntax", "unique", "serialization", "deadlock", "cancel"],
)
@pytest.mark.usefixtures("items")
async def test_storms_of_the_callers_own_errors_never_open(manager, target, sql):
    for _ in range(30):
        assert isinstance(await outcome(ask(manager, text(sql))), DBAPIError)

    assert target.breaker("read").state is State.CLOSED
    assert "failure" not in totals(target.breaker("read"))


async def test_statement_timeouts_open_their_operation_alone(manager, target):
    slow = text("SELECT pg_sleep(5)")
    async with manager.get_session(operation="report") as session:
        await session.execute(text("SELECT 1"))

    async def report():
        async with manager.get_session(operation="report") as session:
            await session.execute(text("SET statement_timeout = '20ms'"))
            await session.execute(slow)

    for _ in range(6):
        await outcome(report())

    assert target.breaker("report").state is State.OPEN
    assert target.connect.state is State.CLOSED
    assert await ask(manager) == 1


async def test_a_connection_that_rests_after_its_commit_is_not_expected_back(
    engine, target
):
    flights = target.breaker().core.flights
    async with engine.connect() as connection:
        await connection.execute(ONE)
        await connection.commit()
        committed = flights.out
        await connection.execute(ONE)
        await connection.rollback()
        rolled_back = flights.out

    assert (committed, rolled_back, flights.out) == (0, 0, 0)
    assert totals(target.breaker()) == {"success": 1}


async def test_a_connection_that_nothing_is_asked_on_closes_no_breaker(
    fresh_server, target
):
    async with protected(fresh_server, target) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        await asyncio.gather(*(ask(manager) for _ in range(3)))
        breaker = target.breaker()
        for _ in range(5):
            breaker.record(breaker.acquire(), ConnectionResetError())
        await until(lambda: breaker.core.is_due(breaker.clock.now()))

        for _ in range(2):
            async with engine.connect():
                pass

        assert breaker.state is State.HALF_OPEN
        assert breaker.core.totals["released"] == 2


# Failures that engine events are not told of.


async def test_a_refused_connection_counts_though_no_event_says_so(
    fresh_server, target
):
    async with protected(fresh_server, target) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        fresh_server.kill()

        found = [await outcome(ask(manager)) for _ in range(6)]

        assert [type(e) for e in found[:5]] == [ConnectionRefusedError] * 5
        assert isinstance(found[5], CircuitOpenError)


async def test_a_connection_that_hangs_counts(server, target):
    async with Proxy("127.0.0.1", server.port) as proxy:
        options = {"connect_args": {"timeout": 0.1}}
        async with protected(server, target, port=proxy.port, **options) as engine:
            manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
            proxy.blackhole()

            found = [await outcome(ask(manager)) for _ in range(6)]

            assert [type(e) for e in found[:5]] == [TimeoutError] * 5
            assert isinstance(found[5], CircuitOpenError)
            assert target.connect.core.totals["failure"] == 5
            proxy.restore()


async def test_a_pool_that_is_exhausted_never_blames_the_server(server, target):
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.02}
    async with protected(server, target, **options) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        async with manager.get_session() as session:
            await session.execute(ONE)
            found = [await outcome(ask(manager)) for _ in range(6)]

        breaker = target.breaker("read")
        assert [type(e) for e in found[:5]] == [PoolTimeoutError] * 5
        assert isinstance(found[5], CircuitOpenError)
        assert breaker.core.cause is Cause.POOL_EXHAUSTED
        assert "failure" not in totals(breaker)
        assert totals(target.connect) == {}


@pytest.mark.usefixtures("items")
async def test_a_constraint_that_fails_in_the_commit_is_the_callers(manager, target):
    async def insert_twice():
        async with manager.transaction() as session:
            await session.execute(text("INSERT INTO item VALUES (10, 7), (11, 7)"))

    for _ in range(6):
        assert isinstance(await outcome(insert_twice()), IntegrityError)

    assert totals(target.breaker("write")) == {"success": 6}


async def test_a_stream_that_fails_midway_is_judged_by_its_error(manager, target):
    rows = text("SELECT 1 / (900 - n) FROM generate_series(1, 1000) n")

    async def read_all():
        async with manager.get_session() as session:
            async for _ in await session.stream(rows):
                pass

    for _ in range(6):
        assert isinstance(await outcome(read_all()), Exception)

    assert "failure" not in totals(target.breaker("read"))


async def test_a_stream_that_is_cut_counts_once(server, target):
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        protected(server, target, port=proxy.port) as engine,
    ):
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))

        async def read_all():
            rows = text("SELECT n, repeat('x', 1000) FROM generate_series(1, 9999) n")
            async with manager.get_session() as session:
                seen = 0
                async for _ in await session.stream(rows):
                    seen += 1
                    if seen == 10:
                        proxy.reset()

        await outcome(read_all())

        assert totals(target.breaker("read")) == {"failure": 1}
        proxy.restore()


async def test_a_session_ended_before_the_commit_counts_though_its_code_is_lost(
    server, manager, target
):
    async def lose():
        async with manager.transaction() as session:
            pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
            psql(server, f"SELECT pg_terminate_backend({pid})")

    assert isinstance(await outcome(lose()), Exception)
    assert totals(target.breaker("write")) == {"failure": 1}


# Giving up.


async def test_a_cancelled_call_counts_for_nothing(manager, target):
    for _ in range(6):
        task = asyncio.create_task(ask(manager, text("SELECT pg_sleep(10)")))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert totals(target.breaker("read")) == {"released": 6}


async def test_a_cancelled_trial_gives_its_place_back(fresh_server, target):
    async with protected(fresh_server, target) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        await wreck(fresh_server, manager)
        fresh_server.start()
        read = target.breaker("read")
        await until(lambda: read.core.is_due(read.clock.now()))
        trial = asyncio.create_task(ask(manager, text("SELECT pg_sleep(10)")))
        await until(lambda: read.core.computed_state is State.HALF_OPEN)
        await asyncio.sleep(0.02)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial

        assert await ask(manager) == 1
        assert read.state is State.CLOSED


async def test_a_session_that_is_never_given_back_does_not_hold_up_recovery(
    fresh_server,
):
    target = Target("leaky", QUICK.replace(trial_deadline=0.3))
    async with protected(fresh_server, target) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        await wreck(fresh_server, manager)
        fresh_server.start()
        read = target.breaker("read")
        await until(lambda: read.core.is_due(read.clock.now()))
        leaked = async_sessionmaker(engine)()
        with operation("read"):
            await leaked.execute(ONE)

        async def works():
            return await outcome(ask(manager)) == 1

        begun = time.monotonic()
        while not await works():
            assert time.monotonic() - begun < 10
            await asyncio.sleep(0.02)
        await leaked.close()


# Recovery, and what it costs.


async def test_a_refusal_touches_no_connection(manager, engine, target):
    await asyncio.gather(*(ask(manager) for _ in range(3)))
    made = []
    event.listen(engine.sync_engine, "connect", lambda *_: made.append(1))
    target.breaker("read").force(State.FORCED_OPEN, "a test")

    found = [await outcome(ask(manager)) for _ in range(200)]
    target.breaker("read").resume()
    await asyncio.gather(*(ask(manager) for _ in range(3)))

    assert {type(error) for error in found} == {CircuitOpenError}
    assert made == []


async def test_stale_connections_after_a_restart_do_not_open(fresh_server, target):
    async with protected(
        fresh_server, target, pool_size=15, max_overflow=0, pool_reset_on_return=None
    ) as engine:
        connections = [await engine.connect() for _ in range(15)]
        for connection in connections:
            await connection.execute(ONE)
        fresh_server.stop("fast")
        fresh_server.start()

        found = [await outcome(connection.execute(ONE)) for connection in connections]
        for connection in connections:
            await outcome(connection.close())

        assert all(isinstance(error, Exception) for error in found)
        assert target.breaker().core.totals["failure"] == 1
        assert target.breaker().state is State.CLOSED


async def test_pre_ping_over_dead_connections_is_no_failure(fresh_server, target):
    async with protected(fresh_server, target, pool_pre_ping=True) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        await asyncio.gather(*(ask(manager) for _ in range(5)))
        fresh_server.stop("fast")
        fresh_server.start()

        found = await asyncio.gather(*(ask(manager) for _ in range(5)))

        assert found == [1] * 5
        assert totals(target.breaker("read")) == {"success": 10}


async def test_it_opens_refuses_and_recovers_with_the_same_sessionmaker(
    fresh_server, target
):
    async with protected(fresh_server, target) as engine:
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        assert await ask(manager) == 1
        await wreck(fresh_server, manager, 12)
        refused = await outcome(ask(manager))
        status = await manager.monitor.get_comprehensive_status()
        fresh_server.start()

        async def works():
            return await outcome(ask(manager)) == 1

        begun = time.monotonic()
        while not await works():
            assert time.monotonic() - begun < 10
            await asyncio.sleep(0.02)

        assert isinstance(refused, CircuitOpenError)
        assert status["status"] == "warn"
        assert status["breakers"]["shop/read"]["state"] == "open"
        assert manager.monitor.health() == "pass"


# Transactions that are run again.


async def test_a_serialization_failure_runs_the_whole_transaction_again(
    manager, target
):
    tries = []

    async def work(session):
        tries.append(1)
        if len(tries) < 3:
            await session.execute(
                text("DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$")
            )
        return (await session.execute(ONE)).scalar()

    assert await manager.run(work) == 1
    assert len(tries) == 3
    assert target.breaker("write").state is State.CLOSED


async def test_a_transaction_whose_commit_is_lost_is_never_run_again(server, manager):
    tries = []

    async def work(session):
        tries.append(1)
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
        psql(server, f"SELECT pg_terminate_backend({pid})")

    assert isinstance(await outcome(manager.run(work)), Exception)
    assert len(tries) == 1


async def test_a_transaction_that_breaks_before_its_commit_is_run_again(
    server, manager
):
    tries = []

    async def work(session):
        tries.append(1)
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
        if len(tries) == 1:
            psql(server, f"SELECT pg_terminate_backend({pid})")
        return (await session.execute(ONE)).scalar()

    assert await manager.run(work) == 1
    assert len(tries) == 2


async def test_an_attempt_has_its_time(server, target):
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        protected(server, target, port=proxy.port) as engine,
    ):
        manager = CircuitBreakerIntegratedSessionManager(async_sessionmaker(engine))
        await ask(manager)
        proxy.blackhole()

        async def work(session):
            await session.execute(ONE)

        begun = time.monotonic()
        error = await outcome(manager.run(work, timeout="300ms", deadline="300ms"))
        took = time.monotonic() - begun

        assert isinstance(error, CallTimeoutError)
        assert took < 0.3 + 0.25
        proxy.restore()


# Engines of every kind.


async def test_the_plugin_needs_nothing_but_the_url(server):
    engine = create_async_engine(url_of(server) + "?plugin=pgbreaker&breaker=plain")
    async with engine.connect() as connection:
        assert (await connection.execute(ONE)).scalar() == 1
    await engine.dispose()
    async with engine.connect() as connection:
        assert (await connection.execute(ONE)).scalar() == 1

    assert target_of(engine).name == "plain"
    assert totals(REGISTRY.breaker("plain")) == {"success": 2}
    await engine.dispose()
    REGISTRY.clear()


@pytest.mark.parametrize("driver", ["psycopg"])
@pytest.mark.parametrize("poolclass", [None, NullPool])
def test_a_synchronous_engine_is_guarded_with_any_pool(server, driver, poolclass):
    engine = create_engine(
        url_of(server, driver),
        plugins=["pgbreaker"],
        breaker="sync",
        poolclass=poolclass,
    )
    for _ in range(3):
        with engine.connect() as connection:
            assert connection.execute(ONE).scalar() == 1
    engine.dispose()
    with engine.connect() as connection:
        assert connection.execute(ONE).scalar() == 1

    assert totals(REGISTRY.breaker("sync")) == {"success": 4}
    REGISTRY.clear()
    engine.dispose()


async def test_psycopg_gives_no_code_while_connecting_and_counts_all_the_same(
    fresh_server, target
):
    engine = create_async_engine(url_of(fresh_server, "psycopg"))
    protect(engine, breaker=target)
    fresh_server.kill()

    async def connect():
        async with engine.connect():
            pass

    found = [await outcome(connect()) for _ in range(6)]

    assert isinstance(found[5], CircuitOpenError)
    assert target.connect.core.totals["failure"] == 5


async def test_a_manager_that_is_not_enabled_only_measures(fresh_server, target):
    async with protected(fresh_server, target) as engine:
        manager = CircuitBreakerIntegratedSessionManager(
            async_sessionmaker(engine), enable_circuit_breaker=False
        )
        fresh_server.kill()
        found = [await outcome(ask(manager)) for _ in range(8)]

        assert {type(error) for error in found} == {ConnectionRefusedError}
        assert target.breaker("read").core.computed_state is State.OPEN
        assert not manager.monitor.status()["enabled"]


async def test_a_sessionmaker_without_an_engine_is_told_so():
    with pytest.raises(TypeError, match="has no engine: async_sessionmaker"):
        CircuitBreakerIntegratedSessionManager(async_sessionmaker())


# What is told of the pool.


def working(engine, callers):
    """So many callers who have a connection or ask for one, until the block ends."""

    async def work():
        async with engine.connect():
            await asyncio.Event().wait()

    return at_once(work, callers)


@contextmanager
def working_threads(engine, callers):
    """The same, of threads."""
    is_over = threading.Event()

    def work():
        with engine.connect():
            assert is_over.wait(30)

    with ThreadPoolExecutor(callers) as threads:
        done = [threads.submit(work) for _ in range(callers)]
        try:
            yield
        finally:
            is_over.set()
    for one in done:
        one.result()


async def test_a_scrape_tells_that_a_pool_is_exhausted_and_who_waits(server):
    url = url_of(server) + "?plugin=pgbreaker&breaker=plugged"
    engine = create_async_engine(url, pool_size=1, max_overflow=1)
    before = pooled("plugged")

    async with working(engine, 2):
        await until(lambda: pooled("plugged").used == 2)
        full = pooled("plugged")
        async with working(engine, 3):
            await until(lambda: pooled("plugged").waiters == 3)
            exhausted = pooled("plugged")
        given_up = pooled("plugged")
    async with engine.connect():
        pass

    assert before == Pooled(used=0, idle=0, max=2, waiters=0)
    assert full == Pooled(used=2, idle=0, max=2, waiters=0)
    assert exhausted == Pooled(used=2, idle=0, max=2, waiters=3)
    assert given_up == full
    assert pooled("plugged") == Pooled(used=0, idle=1, max=2, waiters=0)
    await engine.dispose()
    REGISTRY.clear()


async def test_a_scrape_tells_it_of_threads_too(server, target):
    engine = create_engine(url_of(server, "psycopg"), pool_size=2, max_overflow=0)
    protect(engine, breaker=target)

    with working_threads(engine, 5):
        await until(lambda: pooled("shop").waiters == 3)
        exhausted = pooled("shop")

    assert exhausted == Pooled(used=2, idle=0, max=2, waiters=3)
    assert pooled("shop") == Pooled(used=0, idle=2, max=2, waiters=0)
    engine.dispose()


async def test_the_managers_status_tells_the_same(manager, engine):
    async with working(engine, 4):
        await until(lambda: pooled("shop").waiters == 1)
        status = await manager.monitor.get_comprehensive_status()

    assert status["pool"] == {"used": 3, "idle": 0, "max": 3, "waiters": 1}


async def test_a_connection_that_is_being_made_is_waited_for_and_not_used(
    server, target
):
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        protected(server, target, port=proxy.port, pool_size=1) as engine,
        engine.connect(),
    ):
        proxy.blackhole()
        async with working(engine, 2):
            await until(lambda: pooled("shop").waiters == 2)
            found = pooled("shop")
        proxy.restore()

    assert found == Pooled(used=1, idle=0, max=11, waiters=2)


async def test_a_pool_without_a_limit_tells_of_none(server, target):
    options = {"pool_size": 1, "max_overflow": -1}
    async with protected(server, target, **options) as engine, working(engine, 3):
        await until(lambda: pooled("shop").used == 3)

        assert pooled("shop") == Pooled(used=3, idle=0, waiters=0)


async def test_a_pool_that_keeps_nothing_tells_what_is_out(server, target):
    async with protected(server, target, poolclass=NullPool) as engine:
        async with working(engine, 3):
            await until(lambda: pooled("shop").used == 3)
            found = pooled("shop")
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            raw.detach()
            detached = pooled("shop")

        assert found == Pooled(used=3, idle=0, waiters=0)
        assert detached == Pooled(used=0, idle=0, waiters=0)


async def test_two_engines_of_one_target_are_told_of_together(server, target):
    options = {"pool_size": 2, "max_overflow": 0}
    async with (
        protected(server, target, **options) as one,
        protected(server, target, **options) as other,
        working(one, 1),
        working(other, 2),
    ):
        await until(lambda: pooled("shop").used == 3)

        assert pooled("shop") == Pooled(used=3, idle=0, max=4, waiters=0)


async def test_an_engine_that_was_disposed_of_is_told_of_when_it_is_used_again(
    server, target
):
    """`dispose` gives it a new pool, which is nothing yet: most engines end so."""
    async with protected(server, target, pool_size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            await engine.dispose()
            disposed = pooled("shop")
            await connection.invalidate()  # of the old pool, which nobody disposes of
        async with working(engine, 2):
            await until(lambda: pooled("shop").waiters == 1)
            again = pooled("shop")

    assert disposed == Pooled()
    assert again == Pooled(used=1, idle=0, max=1, waiters=1)


async def test_an_engine_that_nobody_has_any_more_is_told_of_no_more(server, target):
    engine = create_async_engine(url_of(server))
    protect(engine, breaker=target)
    pool = ref(engine.pool)
    assert pooled("shop").max == 15

    del engine
    gc.collect()

    assert pool() is None
    assert pooled("shop") == Pooled()


def test_a_pool_of_one_connection_for_all_tells_nothing(server, target):
    engine = create_engine(url_of(server, "psycopg"), poolclass=StaticPool)
    protect(engine, breaker=target)
    with engine.connect() as connection:
        assert connection.execute(ONE).scalar() == 1

        assert pooled("shop") == Pooled()
    engine.dispose()
