"""`pgbreaker.asyncpg.protect` on real servers, and what it does when they die."""

import asyncio
import gc
import random
import time

import asyncpg
import pytest

from pgbreaker import CallTimeoutError, CircuitOpenError, State
from pgbreaker.asyncpg import protect
from pgbreaker.core.states import Cause
from pgbreaker.demo.proxy import Proxy
from support.guarding import QUICK, at_once, outcome, target, totals, until
from support.scraping import Pooled, pooled
from support.servers import psql

__all__ = ["target"]


@pytest.fixture
async def proxied(server):
    """A way to the server that can be broken; it is mended afterwards."""
    async with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy
        proxy.restore()


async def open_pool(server, *, port=None, size=4, **more):
    dsn = server.dsn(user="app_user", database="app", port=port)
    return await asyncpg.create_pool(dsn, min_size=1, max_size=size, **more)


@pytest.fixture
async def pool(server, proxied, target):
    """A protected pool of four, through the proxy, with a deadline of 400 ms."""
    raw = await open_pool(server, port=proxied.port)
    yield protect(raw, breaker=target, timeout=0.4, acquire_timeout=0.4)
    proxied.restore()
    raw.terminate()


async def test_it_does_what_the_pool_does(pool, target):
    assert await pool.fetchval("SELECT 1") == 1
    assert (await pool.fetchrow("SELECT 1 AS one"))["one"] == 1
    assert len(await pool.fetch("SELECT generate_series(1, 3)")) == 3
    async with pool.acquire() as connection:
        await connection.execute("CREATE TEMP TABLE t (n int UNIQUE)")
        await connection.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)])
        statement = await connection.prepare("SELECT n FROM t ORDER BY n")
        assert [row["n"] for row in await statement.fetch()] == [1, 2]
        async with connection.transaction():
            rows = [row["n"] async for row in connection.cursor("SELECT n FROM t")]
            cursor = await connection.cursor("SELECT n FROM t")
            assert len(await cursor.fetch(10)) == 2
        assert rows == [1, 2]
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (3), (1)")
        assert await connection.fetchval("SELECT count(*) FROM t") == 2

    assert totals(target.breaker()) == {"success": 4}


async def test_each_connection_is_one_call_of_its_operation(pool, target):
    async with pool.acquire(operation="write") as connection:
        for _ in range(5):
            await connection.execute("SELECT 1")
    await pool.fetchval("SELECT 1", operation="read")

    assert totals(target.breaker("write")) == {"success": 1}
    assert totals(target.breaker("read")) == {"success": 1}


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT 1/0",
        "SELECT * FROM missing",
        "DO $$ BEGIN RAISE 'no' USING ERRCODE = '40001'; END $$",
        "DO $$ BEGIN RAISE 'no' USING ERRCODE = '57P01'; END $$",
        "SELECT pg_cancel_backend(pg_backend_pid())",
    ],
)
async def test_storms_of_the_callers_own_errors_never_open(pool, target, sql):
    for _ in range(30):
        assert isinstance(await outcome(pool.execute(sql)), asyncpg.PostgresError)

    assert target.breaker().state is State.CLOSED
    assert target.breaker().core.totals["failure"] == 0


async def test_a_black_hole_is_cut_at_the_deadline_release_included(
    pool, proxied, target
):
    await pool.fetchval("SELECT 1")
    proxied.blackhole()

    begun = time.monotonic()
    error = await outcome(pool.fetchval("SELECT 1", timeout=0.4))
    took = time.monotonic() - begun

    assert isinstance(error, CallTimeoutError)
    assert took < 0.4 + 0.25


async def test_a_black_hole_opens_and_no_call_outlives_its_deadline(
    pool, proxied, target
):
    for _ in range(5):
        await pool.fetchval("SELECT 1")
    proxied.blackhole()

    async def timed():
        begun = time.monotonic()
        found = await outcome(pool.fetchval("SELECT 1", timeout=0.4))
        return found, time.monotonic() - begun

    found = await asyncio.gather(*(timed() for _ in range(20)))
    await until(lambda: not target.breaker().passes)
    refused = await outcome(pool.fetchval("SELECT 1"))

    assert max(took for _, took in found) < 0.4 + 0.25
    assert isinstance(refused, CircuitOpenError)


async def test_after_a_black_hole_the_pool_works_again(pool, proxied, target):
    proxied.blackhole()
    while target.breaker().passes:
        await outcome(pool.fetchval("SELECT 1", timeout=0.1))
    proxied.restore()

    async def answers():
        return await outcome(pool.fetchval("SELECT 1")) == 1

    begun = time.monotonic()
    while not await answers():
        assert time.monotonic() - begun < 10
        await asyncio.sleep(0.02)

    await until(lambda: target.breaker().state is State.CLOSED)


async def test_a_caller_who_gives_up_costs_no_session_and_counts_for_nothing(
    pool, target
):
    pid = await pool.fetchval("SELECT pg_backend_pid()")
    for _ in range(3):
        task = asyncio.create_task(pool.fetchval("SELECT pg_sleep(5)"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await pool.fetchval("SELECT pg_backend_pid()") == pid
    assert target.breaker().core.totals["failure"] == 0
    assert target.breaker().core.totals["released"] == 3


async def test_a_caller_who_gives_up_on_a_dead_server_does_not_wait_for_it(
    pool, proxied
):
    async with pool.acquire() as connection:
        proxied.blackhole()
        task = asyncio.create_task(connection.fetchval("SELECT 1", timeout=10))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        begun = time.monotonic()

    assert time.monotonic() - begun < 0.45


async def test_callers_who_give_up_at_any_moment_leave_nothing_behind(server, target):
    """Also when the answer, or the session, is back already."""
    raw = await open_pool(server, size=4)
    pool = protect(raw, breaker=target)
    draw, kinds = random.Random(7), set()

    async def ask():
        return await pool.fetchval("SELECT 1")

    for _ in range(1000):
        task = asyncio.create_task(ask())
        for _ in range(draw.randrange(12)):
            await asyncio.sleep(0)
        if draw.random() < 0.3:
            await asyncio.sleep(draw.random() / 1000)
        task.cancel()
        try:
            kinds.add(type(await task))
        except asyncio.CancelledError:
            kinds.add(asyncio.CancelledError)

    counted = sum(target.breaker().core.totals.values())
    assert kinds <= {int, asyncio.CancelledError}
    assert target.breaker().core.flights.out == 0
    assert target.breaker().core.totals["failure"] == 0
    assert counted <= 1000
    assert await pool.fetchval("SELECT 1") == 1
    raw.terminate()


async def test_a_full_pool_is_nobodys_fault_but_its_own(server, target):
    raw = await open_pool(server, size=1)
    pool = protect(raw, breaker=target, acquire_timeout=0.05)

    async with pool.acquire():
        found = [await outcome(pool.fetchval("SELECT 1")) for _ in range(6)]

    breaker = target.breaker()
    assert [type(error) for error in found[:5]] == [TimeoutError] * 5
    assert isinstance(found[5], CircuitOpenError)
    assert breaker.core.cause is Cause.POOL_EXHAUSTED
    assert "own pool" in found[5].reason
    assert breaker.core.totals["failure"] == 0
    assert target.connect.state is State.CLOSED
    raw.terminate()


async def test_an_operation_that_hangs_leaves_connections_to_the_others(server, target):
    raw = await open_pool(server, size=4)
    pool = protect(raw, breaker=target, timeout=1.0, acquire_timeout=1.0)
    for kind in ("read", "write"):
        await pool.fetchval("SELECT 1", operation=kind)
    slow = "SELECT pg_sleep(0.6)"
    writing = [
        asyncio.create_task(outcome(pool.fetchval(slow, operation="write")))
        for _ in range(4)
    ]
    await until(lambda: raw.get_idle_size() == 1 or raw.get_size() < 4)

    begun = time.monotonic()
    assert await pool.fetchval("SELECT 1", operation="read") == 1
    took = time.monotonic() - begun

    await asyncio.gather(*writing)
    assert took < 0.4
    assert not any(place.taken for place in pool._places.values())
    raw.terminate()


async def test_a_burst_of_sessions_that_ended_together_counts_once(server, target):
    raw = await open_pool(server, size=10)
    pool = protect(raw, breaker=target)
    taken = [await pool.acquire() for _ in range(10)]
    pids = [connection.get_server_pid() for connection in taken]
    for connection in taken:
        await connection.execute("SELECT 1")
    psql(server, f"SELECT pg_terminate_backend(p) FROM unnest(ARRAY{pids}) p")

    async def ask(connection):
        return await connection.fetchval("SELECT 1")

    found = [await outcome(ask(connection)) for connection in taken]
    for connection in taken:
        await pool.release(connection)

    assert all(isinstance(error, Exception) for error in found)
    assert target.breaker().core.totals["failure"] == 1
    assert target.breaker().state is State.CLOSED
    assert await pool.fetchval("SELECT 1") == 1
    raw.terminate()


async def test_a_dead_server_opens_the_breaker_above_all_operations(
    fresh_server, target
):
    raw = await open_pool(fresh_server)
    pool = protect(raw, breaker=target, acquire_timeout=1)
    await pool.fetchval("SELECT 1", operation="read")
    fresh_server.kill()

    for _ in range(8):
        await outcome(pool.fetchval("SELECT 1", operation="read"))
        await outcome(pool.fetchval("SELECT 1", operation="write"))

    assert target.connect.state is State.OPEN
    refused = await outcome(pool.fetchval("SELECT 1", operation="report"))
    assert isinstance(refused, CircuitOpenError)
    assert refused.breaker == "shop/connect"
    raw.terminate()


async def test_a_server_that_hangs_opens_before_any_call_is_back(server, target):
    """Ten calls are with the server and none comes back: nobody waits for a timeout
    of 30 s to notice."""
    async with Proxy("127.0.0.1", server.port) as proxy:
        raw = await open_pool(server, port=proxy.port, size=10)
        pool = protect(raw, breaker=target)
        for _ in range(20):
            await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(10)))
        proxy.blackhole()
        hanging = []

        async def keep_calling():
            while target.breaker().passes:
                call = asyncio.create_task(outcome(pool.fetchval("SELECT 1")))
                hanging.append(call)
                await asyncio.sleep(0.02)

        begun = time.monotonic()
        await asyncio.wait_for(keep_calling(), 5)
        took = time.monotonic() - begun

        assert target.breaker().core.cause is Cause.HANGING
        assert took < 1.5
        proxy.restore()
        raw.terminate()
        for call in hanging:
            call.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_lost_commit_is_of_unknown_outcome(server, proxied, target):
    raw = await open_pool(server, port=proxied.port)
    pool = protect(raw, breaker=target, timeout=0.3)

    async def lose_the_answer():
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT 1")
            proxied.blackhole()

    error = await outcome(lose_the_answer())

    assert isinstance(error, CallTimeoutError)
    assert isinstance(error, TimeoutError)
    assert target.breaker().core.totals["cut"] == 1
    proxied.restore()
    raw.terminate()


# What is told of the pool.


def waiting(pool, callers, **more):
    """So many callers who ask for a connection, until the block ends."""
    return at_once(lambda: outcome(pool.fetchval("SELECT 1", **more)), callers)


async def test_a_scrape_tells_that_a_pool_is_exhausted_and_who_waits(server, target):
    raw = await open_pool(server, size=2)
    pool = protect(raw, breaker=target, acquire_timeout=5.0)
    assert pooled("shop") == Pooled(used=0, idle=1, max=2, waiters=0)

    async with pool.acquire(), pool.acquire():
        full = pooled("shop")
        async with waiting(pool, 3):
            await until(lambda: pooled("shop").waiters == 3)
            exhausted = pooled("shop")
    await until(lambda: pooled("shop").idle == 2)

    assert full == Pooled(used=2, idle=0, max=2, waiters=0)
    assert exhausted == Pooled(used=2, idle=0, max=2, waiters=3)
    assert pooled("shop") == Pooled(used=0, idle=2, max=2, waiters=0)
    await pool.close()


async def test_callers_who_wait_and_give_up_are_waiters_no_more(server, target):
    raw = await open_pool(server, size=1)
    pool = protect(raw, breaker=target, acquire_timeout=5.0)
    async with pool.acquire():
        late = await outcome(pool.fetchval("SELECT 1", timeout=0.05))
        async with waiting(pool, 2):  # and are cancelled
            await until(lambda: pooled("shop").waiters == 2)

        assert isinstance(late, TimeoutError)
        assert pooled("shop") == Pooled(used=1, idle=0, max=1, waiters=0)
    raw.terminate()


async def test_callers_in_the_queue_of_their_operation_are_waiters(server, target):
    raw = await open_pool(server, size=4)
    pool = protect(raw, breaker=target, acquire_timeout=5.0, share=0.5)
    for kind in ("read", "write"):
        await pool.fetchval("SELECT 1", operation=kind)

    async with (
        pool.acquire(operation="write"),
        pool.acquire(operation="write"),
        waiting(pool, 3, operation="write"),
    ):
        await until(lambda: pooled("shop").waiters == 3)
        found = pooled("shop")

    assert (found.used, found.max) == (2, 4)
    assert pooled("shop").waiters == 0
    raw.terminate()


async def test_a_connection_that_is_being_made_is_waited_for_and_not_used(
    server, proxied, target
):
    raw = await open_pool(server, port=proxied.port, size=2)
    pool = protect(raw, breaker=target, acquire_timeout=5.0)
    async with pool.acquire():
        proxied.blackhole()
        async with waiting(pool, 2):
            await until(lambda: pooled("shop").waiters == 2)
            found = pooled("shop")
        proxied.restore()

    assert found == Pooled(used=1, idle=0, max=2, waiters=2)
    raw.terminate()


async def test_two_pools_of_one_target_are_told_of_together(server, target):
    raws = [await open_pool(server, size=size) for size in (1, 3)]
    one, other = (protect(raw, breaker=target) for raw in raws)

    async with one.acquire(), other.acquire():
        assert pooled("shop") == Pooled(used=2, idle=0, max=4, waiters=0)
        status = other.monitor.status()
    await one.close()

    assert status["pool"] == {"used": 2, "idle": 0, "max": 4, "waiters": 0}
    assert pooled("shop").max == 3
    await other.close()
    assert pooled("shop") == Pooled()


async def test_a_pool_that_nobody_has_any_more_is_told_of_no_more(server, target):
    raw = await open_pool(server, size=1)
    pool = protect(raw, breaker=target)
    assert await pool.fetchval("SELECT 1") == 1
    assert pooled("shop").max == 1

    del pool
    gc.collect()

    assert pooled("shop") == Pooled()
    raw.terminate()


async def test_the_status_tells_of_the_pool(pool):
    status = await pool.monitor.get_comprehensive_status()

    assert status["status"] == "pass"
    assert status["pool"] == {"used": 0, "idle": 1, "max": 4, "waiters": 0}
    assert QUICK.timeout == 0.3
