"""Faults of load, and of single processes: most of them are no business of a breaker.

What applications do to themselves (locks, timeouts, idle transactions) is shown and opens
nothing; what the server does to itself (a crash, a restart) is ridden through and told.
"""

import asyncio
import contextlib
from dataclasses import replace

import asyncpg
import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Cause, State
from pgbreaker.probes import PROBES
from pgbreaker.sinks.board import Condition
from support.servers import Crowd, psql, quiet, running_server
from support.watching import DEFAULT, QUICK, Watching

SLOTS = 60
NEARLY_ALL = 52  # of the 57 that are not reserved

BUSY = QUICK | {"blocking": replace(QUICK["blocking"], interval=0.5)}


BOTH = pytest.mark.parametrize("crowded", [15, 17], ids=["pg15", "pg17"], indirect=True)
"""What is told of a crash depends on the version; what load does, does not."""


@pytest.fixture(scope="module", params=[15], ids=["pg15"])
def crowded(request):
    """A server with room for a crowd."""
    with running_server(request.param, max_connections=str(SLOTS)) as server:
        psql(server, "CREATE TABLE orders (id int)", database="app")
        psql(server, "GRANT ALL ON orders TO app_user", database="app")
        psql(server, "ALTER TABLE orders OWNER TO app_user", database="app")
        psql(
            server, "CREATE TABLE pace (seconds float); GRANT SELECT ON pace TO public"
        )
        psql(server, "INSERT INTO pace VALUES (0)")
        yield server


@pytest.fixture
async def server(crowded):
    yield crowded
    await asyncio.to_thread(crowded.start)
    psql(crowded, "UPDATE pace SET seconds = 0")
    await quiet(crowded)


@pytest.fixture
async def watching(server):
    async with Watching(server.dsn(user="pgbreaker"), probes=BUSY) as watching:
        await watching.until_watched()
        await watching.until_closed()
        yield watching


def fact(watching, name):
    """A number that was last seen; 0 before it ever was."""
    return watching.board.facts.get(name) or 0


async def until_all_answer(watching, *, times=2):
    """Wait until each of the deciding probes has been answered some more times."""
    probes = ("ping", "login", "commit", "identity")
    before = {probe: watching.answers(probe) for probe in probes}
    await watching.until(
        lambda: all(watching.answers(p) >= n + times for p, n in before.items()),
        within=10.0,
    )


# What applications do to each other.


async def test_an_idle_transaction_is_a_fact_and_opens_nothing(server, watching):
    async with Crowd(server) as crowd:
        await crowd.join("BEGIN", "SELECT 1")
        await watching.until(
            lambda: fact(watching, "oldest_idle_in_transaction_seconds") > 1.0,
            within=6.0,
        )

        assert fact(watching, "idle_in_transaction") == 1
    assert watching.moves == []


async def test_a_pile_behind_a_ddl_opens_nothing_and_names_who_began_it(
    server, watching
):
    """Neither the DDL that all wait for nor one of them: the reader that it waits for."""
    async with Crowd(server) as crowd:
        root = await crowd.join("BEGIN", "SELECT * FROM orders")
        ddl = await crowd.join()
        await crowd.leave(ddl, "ALTER TABLE orders ADD COLUMN total int")
        for _ in range(30):
            waiter = await crowd.join()
            await crowd.leave(waiter, "SELECT * FROM orders")
        await watching.until(lambda: fact(watching, "lock_waiters") == 31, within=6.0)
        await until_all_answer(watching)

        assert watching.board.facts["blocker_pid"] == root.get_server_pid()
        assert watching.board.facts["lock_blockers"] == 1
        assert watching.board.facts["blocker_state"] == "idle in transaction"
        assert watching.board.condition is Condition.UP
    assert watching.moves == []


async def test_a_storm_of_statement_timeouts_opens_nothing(server, watching):
    cancelled = 0

    async def ask(session):
        nonlocal cancelled
        for _ in range(20):
            with contextlib.suppress(asyncpg.QueryCanceledError):
                await session.execute("SELECT pg_sleep(5)")
                raise AssertionError("no statement got through")
            cancelled += 1

    async with Crowd(server) as crowd:
        sessions = [await crowd.join("SET statement_timeout = 50") for _ in range(20)]
        await asyncio.gather(
            *(ask(session) for session in sessions), until_all_answer(watching)
        )

    assert cancelled == 400
    assert watching.moves == []


async def test_one_slow_query_opens_nothing(server, watching):
    async with Crowd(server) as crowd:
        session = await crowd.join()
        await crowd.leave(session, "SELECT pg_sleep(30)")
        await watching.until(
            lambda: fact(watching, "oldest_query_seconds") > 1.0, within=6.0
        )
        await until_all_answer(watching)

    assert watching.moves == []


async def test_a_canary_that_is_slow_opens_read_alone_after_three(server):
    canary = replace(
        PROBES["latency"].plan,
        interval=0.5,
        query="SELECT pg_sleep(seconds) FROM public.pace",
        limit=0.25,
    )
    dsn, probes = server.dsn(user="pgbreaker"), QUICK | {"latency": canary}
    async with Watching(dsn, probes=probes) as watching:
        await watching.until_watched()

        psql(server, "UPDATE pace SET seconds = 0.4")
        await watching.until_open("read", within=8.0)

        (opening,) = watching.openings
        assert opening.cause is Cause.FAILURE_RUN
        assert "the canary took" in opening.reason
        slow = [r for r in watching.readings("latency") if r.finding is Finding.SLOW]
        assert len(slow) == 3
        assert watching.findings("ping") == {Finding.OK}

        psql(server, "UPDATE pace SET seconds = 0")
        await watching.until_closed(within=8.0)
    assert watching.opened == {"read"}


async def test_slots_that_run_out_slowly_make_logins_hurry(server):
    """By the default intervals a login would come each 5 s; what comes then is 53300."""
    dsn = server.dsn(user="pgbreaker")
    probes = DEFAULT | {"saturation": QUICK["saturation"]}
    async with Watching(dsn, probes=probes) as watching, Crowd(server) as crowd:
        await watching.until_watched()
        await watching.until_closed()

        for _ in range(NEARLY_ALL):
            await crowd.join()
        await watching.until(lambda: fact(watching, "slots_ratio") >= 0.9, within=5.0)
        logins = watching.answers("login")
        begun = asyncio.get_running_loop().time()
        await watching.until(lambda: watching.answers("login") >= logins + 3, 10.0)
        took = asyncio.get_running_loop().time() - begun
        assert took < 6.0  # and not 10 to 15
        assert watching.moves == []

        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                await crowd.join()
        full = await watching.until_open("connect", within=6.1) - begun - took
        assert watching.openings[0].evidence.sqlstate == "53300"
        print(  # noqa: T201 - a figure that is asked for
            f"\n3 logins in {took:.1f} s; connect open {full:.1f} s after the last slot"
        )
    assert watching.opened == {"connect"}


# What the server does to itself.


@BOTH
async def test_a_backend_killed_is_a_crash_and_no_restart(server, watching):
    """As the kernel does for want of memory, to somebody else's backend."""
    async with Crowd(server) as crowd:
        victim = await crowd.join("SELECT 1")
        server.kill_backend(victim.get_server_pid())
        await watching.until(lambda: "crashed" in watching.noticed, within=8.0)
        await watching.until_closed(within=5.0)
        assert "restarted" not in watching.noticed
        assert len(watching.openings) <= len(watching.states)  # each once, or not


@BOTH
@pytest.mark.parametrize("how", ["immediate", "kill"])
async def test_a_restart_after_a_crash_is_told_as_that(server, watching, how):
    if how == "kill":
        server.kill()
    else:
        await asyncio.to_thread(server.stop, how)
    await watching.until_open(within=3.0)
    await asyncio.to_thread(server.start)

    await watching.until(lambda: "restarted" in watching.noticed, within=8.0)
    await watching.until_closed(within=8.0)
    assert "after a crash" in watching.noticed["restarted"]
    assert "crashed" not in watching.noticed


@BOTH
async def test_a_clean_restart_is_told_as_that(server, watching):
    await asyncio.to_thread(server.stop, "fast")
    await watching.until_open(within=3.0)
    await asyncio.to_thread(server.start)

    await watching.until(lambda: "restarted" in watching.noticed, within=8.0)
    await watching.until_closed(within=8.0)
    assert watching.noticed["restarted"] == "the server was restarted"
    assert "crashed" not in watching.noticed


@pytest.mark.slow
async def test_flapping_opens_ever_less_often(server, watching):
    """3 s down and 3 s up for 24 s: each opening lasts longer than the one before."""
    for _ in range(4):
        server.kill()
        await asyncio.sleep(3.0)  # it is the time that is the fault
        await asyncio.to_thread(server.start)
        await asyncio.sleep(3.0)
    await watching.until_closed(within=30.0)

    count = {name: len(watching.reasons(name)) for name in watching.states}
    print(  # noqa: T201 - a figure that is asked for
        f"\nopenings: {count}"
    )
    assert all(1 <= openings <= 6 for openings in count.values())
    assert set(watching.states.values()) == {State.CLOSED}
