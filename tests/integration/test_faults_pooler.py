"""Faults of a pooler: what opens ``pool``, and what a server watched through one is.

The pooler of Debian 12 (1.18). Most targets here are the server itself, with the
console asked beside it: then a fault of the pooler is news of ``pool`` alone. A target
whose address is the pooler's goes down with it.
"""

import asyncio
import contextlib
from dataclasses import replace

import asyncpg
import pytest

from pgbreaker.core.judge import OPERATIONS
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Cause, State
from pgbreaker.probes import PROBES
from pgbreaker.sinks.board import Condition
from support.pooler import ADMIN, running_pooler
from support.servers import count_connections, quiet, running_server
from support.watching import QUICK, Watching

SERVED = {"connect", "read", "write"}

PATIENT = {"default_pool_size": "2", "query_wait_timeout": "60"}
"""Clients wait for as long as a test takes: what their patience is, is theirs."""

IGNORED = (
    "statement_timeout,lock_timeout,idle_in_transaction_session_timeout,search_path,"
    "jit,client_min_messages,default_transaction_read_only"
)
"""What a session of ours begins with, and no transaction pooler knows what to do with."""

MAX_WAIT = 0.5


@pytest.fixture(scope="module")
def backing():
    """One major is enough: it is the pooler that fails."""
    with running_server(15) as server:
        yield server


@pytest.fixture
async def server(backing):
    """The server behind the pooler; what a test stops is started afterwards."""
    yield backing
    await asyncio.to_thread(backing.start)
    await quiet(backing)


@pytest.fixture
def pooler(server):
    with running_pooler(server, **PATIENT) as pooler:
        yield pooler


@contextlib.asynccontextmanager
async def watching(server, pooler):
    """The server, by its own address, and the console of the pooler before it."""
    console = Secret(pooler.dsn(user=ADMIN, database="pgbouncer"))
    plan = replace(
        PROBES["pgbouncer"].plan, interval=0.25, address=console, limit=MAX_WAIT
    )
    async with Watching(
        server.dsn(user="pgbreaker"),
        probes=QUICK | {"pgbouncer": plan},
        operations=OPERATIONS,
    ) as watching:
        await watching.until_watched()
        await watching.until_closed()
        yield watching


def let_in(pooler, user="pgbreaker", password=None):
    """Have the pooler know *user*; a wrong password is the server's to find out."""
    users = pooler.home / "users"
    secret = password or pooler.server.password
    users.write_text(users.read_text("utf-8") + f'"{user}" "{secret}"\n', "utf-8")
    pooler.tell("RELOAD")


async def client(pooler, sql="SELECT 1"):
    """One client that asks one question, and waits for as long as it takes."""
    connection = await asyncpg.connect(pooler.dsn(), timeout=60, statement_cache_size=0)
    try:
        return await connection.fetchval(sql)
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def clients(pooler, number=1, sql="SELECT 1"):
    """Clients, until the end of the block or of their wait."""
    waiting = [asyncio.create_task(client(pooler, sql)) for _ in range(number)]
    try:
        yield waiting
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


# What opens `pool` alone.


async def test_a_paused_database_opens_pool_alone(server, pooler):
    async with watching(server, pooler) as seen:
        await client(pooler)  # a pool that nobody ever used has nothing to pause

        await asyncio.to_thread(pooler.tell, "PAUSE app")
        await seen.until_open("pool", within=5.0)
        assert "pgbouncer has paused app" in seen.reasons("pool")[0]
        assert seen.board.condition is Condition.DEGRADED

        await asyncio.to_thread(pooler.tell, "RESUME app")
        await seen.until_closed(within=8.0)
    assert seen.opened == {"pool"}


async def test_a_pooler_paused_as_a_whole_shows_by_those_who_wait(server, pooler):
    """PAUSE without a name marks no database before 1.19."""
    async with watching(server, pooler) as seen:
        await client(pooler)
        await asyncio.to_thread(pooler.tell, "PAUSE")
        async with clients(pooler) as (waiter,):
            await seen.until_open("pool", within=5.0)
            assert "clients of app/app_user wait for" in seen.reasons("pool")[0]

            await asyncio.to_thread(pooler.tell, "RESUME")
            assert await waiter == 1
        await seen.until_closed(within=8.0)
    assert seen.opened == {"pool"}


async def test_a_full_pool_opens_pool_alone(server, pooler):
    async with watching(server, pooler) as seen:
        holders = [
            await asyncpg.connect(pooler.dsn(), timeout=10, statement_cache_size=0)
            for _ in range(2)
        ]
        for holder in holders:
            await holder.execute("BEGIN")
        async with clients(pooler, 3) as waiters:
            await seen.until_open("pool", within=6.0)

            reason = seen.reasons("pool")[0]
            assert "clients of app/app_user wait for" in reason
            assert "(limit 500 ms), 3 wait" in reason
            assert {m.cause for m in seen.openings} == {Cause.FAILURE_RUN}
            assert seen.board.facts["pooler_maxwait_seconds"] > MAX_WAIT

            for holder in holders:
                holder.terminate()
            assert await asyncio.gather(*waiters) == [1, 1, 1]
        await seen.until_closed(within=8.0)
    assert seen.opened == {"pool"}


async def test_a_wait_within_bounds_opens_nothing(server, pooler):
    """A pool of two that three want, and each has for a moment: that is pooling."""
    async with watching(server, pooler) as seen:
        asked = seen.answers("pgbouncer")
        async with clients(pooler, 6, "SELECT pg_sleep(0.1)") as busy:
            await asyncio.gather(*busy)
        await seen.until(lambda: seen.answers("pgbouncer") > asked, within=5.0)

    assert seen.moves == []


async def test_a_disabled_database_opens_pool_alone(server, pooler):
    async with watching(server, pooler) as seen:
        await asyncio.to_thread(pooler.tell, "DISABLE app")
        await seen.until_open("pool", within=5.0)
        assert "pgbouncer has disabled app" in seen.reasons("pool")[0]

        await asyncio.to_thread(pooler.tell, "ENABLE app")
        await seen.until_closed(within=8.0)
    assert seen.opened == {"pool"}


async def test_a_pooler_that_is_killed_opens_pool_alone_and_at_once(server, pooler):
    async with watching(server, pooler) as seen:
        await asyncio.to_thread(pooler.kill)
        await seen.until_open("pool", within=4.0)

        (opening,) = seen.openings
        assert opening.cause is Cause.CONFIRMED
        assert opening.evidence.code == "refused"
        assert seen.board.condition is Condition.DEGRADED

        await asyncio.to_thread(pooler.start)
        await seen.until_closed(within=8.0)
    assert seen.opened == {"pool"}


# With the server behind it gone.


async def test_a_server_that_is_gone_opens_pool_where_clients_wait(server, pooler):
    """The pooler itself is well; ``pool`` goes by what its clients feel."""
    async with watching(server, pooler) as seen:
        await client(pooler)
        server.kill()
        await seen.until_open(*SERVED, within=3.0)
        asked = len(seen.readings("pgbouncer"))
        await seen.until(lambda: len(seen.readings("pgbouncer")) > asked, within=5.0)
        assert seen.states["pool"] is State.CLOSED  # nobody waits

        async with clients(pooler, 2):
            await seen.until_open("pool", within=6.0)
            assert "clients of app/app_user wait for" in seen.reasons("pool")[0]
            await asyncio.to_thread(server.start)
            await seen.until_closed(within=15.0)


async def test_clients_of_a_pooler_that_never_had_a_server_open_pool(server, pooler):
    """They wait at the door, and by pgbouncer's count for no time at all."""
    async with watching(server, pooler) as seen:
        server.kill()
        async with clients(pooler, 2):
            await seen.until_open("pool", within=6.0)
            assert seen.board.facts["pooler_maxwait_seconds"] == 0
            assert "no connection to the server" in seen.reasons("pool")[0]

            await asyncio.to_thread(server.start)
            await seen.until_closed(within=15.0)


# A target whose address is the pooler's.


@pytest.fixture
def through(server):
    """A pooler that lets our settings pass, in transaction mode."""
    settings = PATIENT | {"ignore_startup_parameters": IGNORED}
    with running_pooler(server, "transaction", **settings) as pooler:
        let_in(pooler)
        yield pooler


async def test_through_a_pooler_that_ignores_our_settings_all_is_well(server, through):
    async with Watching(through.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_watched()
        await seen.until_closed()
        await seen.until(lambda: seen.answers("commit") >= 2, within=5.0)

        assert seen.moves == []
        assert count_connections(server, "pgbreaker") <= 3


async def test_through_a_pooler_its_pause_takes_everything_down(server, through):
    async with Watching(through.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_watched()

        await asyncio.to_thread(through.tell, "PAUSE app")
        await seen.until_open(*SERVED, within=4.0)
        assert seen.board.condition is Condition.DOWN

        await asyncio.to_thread(through.tell, "RESUME app")
        await seen.until_closed(within=8.0)
        assert count_connections(server, "pgbreaker") <= 3


async def test_through_a_pooler_a_dead_server_is_noticed_and_its_return(
    server, through
):
    async with Watching(through.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_watched()

        server.kill()
        await seen.until_open(*SERVED, within=6.0)
        await asyncio.to_thread(server.start)

        await seen.until_closed(within=15.0)
        assert "restarted" in seen.noticed


async def test_through_a_pooler_that_refuses_our_settings_all_is_well(server, pooler):
    """Then we do without them: it is no line of anybody's configuration that is amiss."""
    let_in(pooler)
    async with Watching(pooler.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_watched()
        await seen.until_closed()
        await seen.until(lambda: seen.answers("commit") >= 2, within=5.0)

        assert seen.moves == []
        assert seen.notices == []


async def test_through_a_pooler_that_does_not_know_us_nothing_opens(pooler):
    """It has one SQLSTATE for that and for everything: the words are what counts."""
    async with Watching(pooler.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until(lambda: seen.notices, within=5.0)

        assert "08P01" in seen.noticed["locked_out"]
        assert seen.board.condition is Condition.UNKNOWN
        assert seen.findings("ping") == {Finding.AUTH}
        assert seen.moves == []
        assert len(seen.readings("ping")) == 1  # and no storm of logins
